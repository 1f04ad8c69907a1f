"""The blobs of a controller: files named by the digest of their content.

    <root>/sha256/<2 digits>/<64 digits>    a blob: complete, verified, flushed, never changed
    <root>/new/<random>                     being written; removed by `open`

A blob appears by one rename after its bytes were hashed, counted and flushed, so what has a name is right, and what a
crash leaves has none. Used by the Content servicer and the collector of unneeded content; safe to call concurrently.
"""

import asyncio
import errno
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec

from argosy.core.errors import ExhaustedError, InvalidError, NotFoundError
from argosy.core.oci.digests import check_digest, hex_of
from argosy.core.units import human_bytes

READ_BYTES: Final = 256 * 1024
GRACE_S: Final = 3600.0
"""A blob without an image that is younger may belong to an import that is under way."""
MIN_FREE_BYTES: Final = 256 * 2**20
"""Kept free, since etcd's data may be on the same disk: an upload must not stop the cluster."""

P = ParamSpec("P")


class BlobStore:
    """Owns the directory `root`. Call `open` before all else."""

    def __init__(self, root: Path, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self._blobs = root / "sha256"
        self._new = root / "new"
        self._min_free_bytes = min_free_bytes

    async def open(self) -> None:
        """Make the directories and remove what a crash left half written. Idempotent."""

        def run() -> None:
            for directory in (self._blobs, self._new):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in self._new.iterdir():
                leftover.unlink()

        await asyncio.to_thread(run)

    async def put(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> int:
        """Keep a blob of `size` bytes; return the size. A blob that is here already is not read again.

        InvalidError when the bytes are not what digest and size say, ExhaustedError when the disk is full.
        """
        path = self._path(digest)
        if await self.touch(digest):
            return await self.size(digest)
        if size < 0:
            raise InvalidError(f"blob {digest}: its size is missing")
        await self._check_room(size)
        fresh = _Fresh(self._new / secrets.token_hex(16))
        try:
            await _in_thread(fresh.create)
            async for chunk in chunks:
                if fresh.size + len(chunk) > size:
                    raise InvalidError(f"blob {digest} is longer than the {size} bytes that were announced")
                await _in_thread(fresh.append, chunk)
            if fresh.size != size:
                raise InvalidError(f"blob {digest} ended after {fresh.size} of {size} bytes: the upload was cut off")
            if fresh.digest != digest:
                raise InvalidError(
                    f"blob {digest} has the digest {fresh.digest}: it was damaged on its way, or misnamed"
                )
            await _in_thread(fresh.settle, path)
        finally:
            fresh.discard()
        return size

    async def get(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Yield a blob's bytes from `offset` on. NotFoundError, InvalidError for an offset beyond its end."""
        path = self._path(digest)
        try:
            fd = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _missing(digest) from None
        try:
            if not 0 <= offset <= os.fstat(fd).st_size:
                raise InvalidError(f"blob {digest} has no byte {offset}")
            while data := await asyncio.to_thread(os.pread, fd, READ_BYTES, offset):
                offset += len(data)
                yield data
        finally:
            os.close(fd)

    async def read(self, digest: str, limit: int) -> bytes:
        """Return a small blob whole. InvalidError when it has more than `limit` bytes."""
        if await self.size(digest) > limit:
            raise InvalidError(f"blob {digest} is no manifest or configuration: it has more than {limit} bytes")
        return b"".join([chunk async for chunk in self.get(digest)])

    async def has(self, digest: str) -> bool:
        """Whether a blob is here."""
        return await asyncio.to_thread(self._path(digest).is_file)

    async def touch(self, digest: str) -> bool:
        """Whether a blob is here; if so it counts as new for `gc`, since somebody is about to rely on it."""

        def run() -> bool:
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
            return True

        path = self._path(digest)
        return await asyncio.to_thread(run)

    async def size(self, digest: str) -> int:
        """Return a blob's size in bytes; NotFoundError."""
        try:
            return (await asyncio.to_thread(self._path(digest).stat)).st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    async def gc(self, keep: Collection[str], min_age_s: float = GRACE_S) -> tuple[str, ...]:
        """Delete all blobs but `keep` that are older than `min_age_s`; return their digests.

        `keep` must come from a view of the images that is known to be current.
        """

        def run() -> tuple[str, ...]:
            before = time.time() - min_age_s
            gone = []
            for path in self._blobs.glob("*/*"):
                digest = f"sha256:{path.name}"
                if digest not in keep and path.stat().st_mtime < before:
                    path.unlink()
                    gone.append(digest)
            return tuple(gone)

        return await asyncio.to_thread(run)

    async def du(self) -> int:
        """Return the bytes of all blobs."""
        return await asyncio.to_thread(lambda: sum(path.stat().st_size for path in self._blobs.glob("*/*")))

    def _path(self, digest: str) -> Path:
        digits = hex_of(check_digest(digest))
        return self._blobs / digits[:2] / digits

    async def _check_room(self, size: int) -> None:
        room = await asyncio.to_thread(os.statvfs, self._new)
        free = room.f_bavail * room.f_frsize
        if free - size < self._min_free_bytes:
            raise ExhaustedError(
                f"the controller's disk is full: a blob of {human_bytes(size)}, {human_bytes(free)} free, of which "
                f"{human_bytes(self._min_free_bytes)} are kept. Remove images (`argosy image rm`) or make room under "
                f"{self._blobs.parent} on the controller"
            )


class _Fresh:
    """A blob that is being written. Its methods block; `discard` leaves nothing of one that was not settled."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._sha = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """Of what was appended so far."""
        return f"sha256:{self._sha.hexdigest()}"

    def create(self) -> None:
        """Make the file."""
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def append(self, chunk: bytes) -> None:
        """Write a piece."""
        self._sha.update(chunk)
        self.size += len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]

    def settle(self, path: Path) -> None:
        """Flush the file, give it its name, flush that."""
        os.fsync(self._fd)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        os.rename(self._path, path)
        for directory in (path.parent, path.parent.parent):
            place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(place)
            finally:
                os.close(place)

    def discard(self) -> None:
        """Close the file, and delete it unless it has its name."""
        if self._fd >= 0:
            os.close(self._fd)
            with suppress(FileNotFoundError):
                self._path.unlink()


async def _in_thread(function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run a blocking step of `put`; a full disk becomes ExhaustedError. When cancelled, waits for the step's end: the
    caller is about to close what it works on."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExhaustedError(
                f"the controller's disk is full ({error.strerror}): remove images (`argosy image rm`) or make room"
            ) from error
        raise


def _missing(digest: str) -> NotFoundError:
    return NotFoundError(f"no blob {digest} on this controller")
