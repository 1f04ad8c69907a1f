"""Gets one layer ready: read through once, verified to be a whole tar, measured, compressed when it is plain."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from argosy.cli.images.archive import BrokenArchiveError, no_room, root_cause
from argosy.cli.images.local import LocalLayer, Progress
from argosy.core.errors import RejectedError
from argosy.core.oci.compression import CHUNK, Compression, Decompressed, detect, foreign
from argosy.core.oci.media import OCI_LAYER
from argosy.core.oci.tar import TarReader

ZSTD_LEVEL: Final = 3


class LayerMaker:
    """Makes layers of one import. Temporary files go below `temporary`, which lives until the upload is done."""

    def __init__(self, source: str, temporary: Path, progress: Progress) -> None:
        self._source = source
        self._temporary = temporary
        self._progress = progress

    def make(self, what: str, open_blob: Callable[[], BinaryIO], size: int) -> LocalLayer:
        """Return the layer in a blob of `size` bytes; `what` names it in messages.

        BrokenArchiveError when it is not a whole tar, plain, gzip or zstd.
        """
        with open_blob() as blob:
            head = blob.read(16)
        compression = detect(head)
        with open_blob() as blob:
            raw = _Tap(blob, lambda done: self._progress(f"reading {what}", done, size))
            packed = _Packed(self._temporary) if compression is Compression.NONE else None
            content = _Tap(Decompressed(raw, compression), also=packed.write if packed else None)
            try:
                _read_whole(content)
            except RejectedError as error:
                known = foreign(head)
                problem = f"it is {known}" if known else str(root_cause(error, content))
                raise BrokenArchiveError(self._source, f"{what}: {problem}") from None
            while raw.read(CHUNK):
                pass
        if packed is None:
            return LocalLayer(raw.digest, content.digest, raw.size, f"{OCI_LAYER}+{compression}", open_blob)
        return packed.layer(content.digest)


def _read_whole(content: "_Tap") -> None:
    """Read a tar to the end of its stream. RejectedError for a broken one, and for what no layer may have."""
    for entry in TarReader(content):
        if ".." in entry.name.split("/"):
            raise RejectedError(f"its entry {entry.name[:100]!r} leads out of its directory with '..'")
    while content.read(CHUNK):
        pass
    if not content.size:
        raise RejectedError("it is empty")


class _Tap:
    """Passes a stream on in large pieces, counting and hashing what goes through."""

    def __init__(
        self,
        source: BinaryIO | Decompressed,
        report: Callable[[int], None] | None = None,
        also: Callable[[bytes], None] | None = None,
    ) -> None:
        self._source = source
        self._report = report
        self._also = also
        self._sha = hashlib.sha256()
        self._ahead = b""
        self._at = 0
        self.size = 0

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""
        if self._at >= len(self._ahead):
            self._ahead, self._at = self._source.read(CHUNK), 0
            self._take(self._ahead)
        data = self._ahead[self._at : self._at + size]
        self._at += len(data)
        return data

    @property
    def digest(self) -> str:
        """Of all that went through."""
        return f"sha256:{self._sha.hexdigest()}"

    def _take(self, data: bytes) -> None:
        self._sha.update(data)
        self.size += len(data)
        if self._also is not None:
            self._also(data)
        if self._report is not None:
            self._report(self.size)


class _Packed:
    """A plain layer on its way into a zstd file."""

    def __init__(self, temporary: Path) -> None:
        import zstandard

        self._temporary = temporary
        fd, path = tempfile.mkstemp(dir=temporary)
        self._path = Path(path)
        self._file = os.fdopen(fd, "wb")
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
        self._sha = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Add a piece of the plain layer."""
        self._put(self._compressor.compress(data))

    def layer(self, diff_id: str) -> LocalLayer:
        """Finish the file and return the layer."""
        self._put(self._compressor.flush())
        try:
            self._file.close()
        except OSError as error:
            raise no_room(self._temporary, error) from None
        digest = f"sha256:{self._sha.hexdigest()}"
        return LocalLayer(digest, diff_id, self._size, f"{OCI_LAYER}+zstd", lambda: open(self._path, "rb"))

    def _put(self, data: bytes) -> None:
        self._sha.update(data)
        self._size += len(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise no_room(self._temporary, error) from None
