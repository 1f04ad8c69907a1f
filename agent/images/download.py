"""Fetches one blob to a file, going on where an earlier attempt stopped."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeAlias

from argosy.core.errors import ExhaustedError, RejectedError, TransientError

Fetch: TypeAlias = Callable[[str, int], AsyncIterator[bytes]]
"""(digest, offset) -> the blob's bytes from there on. Raises TransientError or RejectedError."""


async def download(fetch: Fetch, digest: str, size: int, path: Path) -> None:
    """Complete the file `path` to `size` bytes of the blob.

    What it holds already is taken to be the blob's beginning: whoever unpacks it checks the digest and deletes it when
    it is wrong. TransientError when the stream ends early, RejectedError when it is longer than the image says,
    ExhaustedError when the disk is full. A file that is complete is left alone.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = await asyncio.to_thread(os.open, path, flags, 0o600)
    try:
        have = os.fstat(fd).st_size
        if have > size:
            os.ftruncate(fd, 0)
            have = 0
        if have < size:
            async for chunk in fetch(digest, have):
                if have + len(chunk) > size:
                    os.ftruncate(fd, 0)
                    raise RejectedError(f"layer {digest} is longer than the {size} bytes its image says")
                # A thread, since a full page cache makes writers wait for the disk.
                await asyncio.to_thread(_write, fd, chunk)
                have += len(chunk)
        if have < size:
            raise TransientError(f"layer {digest}: the transfer ended after {have} of {size} bytes")
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExhaustedError(f"the disk is full ({error.strerror}): free some space under {_place(fd)}") from error
        raise


def _place(fd: int) -> str:
    return os.path.dirname(os.readlink(f"/proc/self/fd/{fd}"))
