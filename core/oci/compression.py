"""Streams of tar files that may be compressed: detected by their first bytes, never by name or media type.

`Decompressed` has bounded memory whatever it is fed: a bomb comes out in pieces, which the reader counts.
"""

import sys
import zlib
from enum import StrEnum
from typing import Final, Protocol

from argosy.core.errors import RejectedError

CHUNK: Final = 256 * 1024


class Compression(StrEnum):
    """How a stream is packed; the value is the suffix of OCI's layer media type."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"


class Readable(Protocol):
    """Anything to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none only at the end."""


class CorruptError(RejectedError):
    """The packed data are broken or end early."""


_MAGIC: Final = ((b"\x1f\x8b", Compression.GZIP), (b"\x28\xb5\x2f\xfd", Compression.ZSTD))
_ZSTD_SKIPPABLE: Final = tuple(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16))
_FOREIGN: Final = (
    (b"\xfd7zXZ\x00", "an xz file: unpack it with `xz -d` first"),
    (b"BZh", "a bzip2 file: unpack it with `bunzip2` first"),
    (b"PK\x03\x04", "a zip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip file"),
    (b"\x7fELF", "an ELF program"),
    (b"hsqs", "a squashfs image: `unsquashfs` it and make a tar of the directory"),
    (b"\xe2\xe1\xf5\xe0", "an erofs image"),
    (b"QFI\xfb", "a qcow2 disk image"),
    (b"!<arch>", "a Debian package or ar archive"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
)


def detect(head: bytes) -> Compression:
    """Return how a stream that begins with `head` (6 bytes or more) is compressed, as far as that is known here."""
    if head[:4] in _ZSTD_SKIPPABLE:
        return Compression.ZSTD
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), Compression.NONE)


def foreign(head: bytes) -> str | None:
    """Return what a stream that is none of ours is, for an error message, or None when it is not recognised."""
    return next((what for magic, what in _FOREIGN if head.startswith(magic)), None)


class Decompressed:
    """What is inside a compressed stream, read piece by piece. CorruptError when it is broken or ends early."""

    def __init__(self, source: Readable, compression: Compression) -> None:
        self._source = source
        self._reader: Readable
        if compression is Compression.GZIP:
            self._reader = _Gzip(source)
        elif compression is Compression.ZSTD:
            self._reader = _zstd_reader(source)
        else:
            self._reader = source

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes of the unpacked stream, none only at its end."""
        try:
            return self._reader.read(size)
        except _damage() as error:
            raise CorruptError(f"the compressed data are damaged ({error})") from error


class _Gzip:
    """One or more gzip members (RFC 1952) after each other; zero bytes after the last are padding."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._member: zlib._Decompress | None = zlib.decompressobj(wbits=31)
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        while self._member is not None:
            self._pending = self._pending or self._source.read(CHUNK)
            # zlib may hold output of input that it has taken already: an empty input only then means a cut file.
            data = self._member.decompress(self._pending, size)
            if not (data or self._pending or self._member.eof):
                raise CorruptError("the gzip data end early: the file is truncated")
            self._pending = self._member.unconsumed_tail
            if self._member.eof:
                self._next_member(self._member.unused_data)
            if data:
                return data
        return b""

    def _next_member(self, rest: bytes) -> None:
        rest = rest.lstrip(b"\0")
        while not rest and (piece := self._source.read(CHUNK)):
            rest = piece.lstrip(b"\0")
        self._pending = rest
        self._member = zlib.decompressobj(wbits=31) if rest else None


def _zstd_reader(source: Readable) -> Readable:
    # Imported when needed: the CLI's and agent's start must not pay for it.
    import zstandard

    # 128 MiB of window is what the zstd tool takes without being asked; more is a way to eat memory.
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**27)
    reader: Readable = decompressor.stream_reader(source, read_size=CHUNK, read_across_frames=True)  # type: ignore[arg-type]
    return reader


def _damage() -> tuple[type[Exception], ...]:
    """What decompressors raise; zstandard's own error only once that module is in use."""
    module = sys.modules.get("zstandard")
    return (zlib.error,) if module is None else (zlib.error, module.ZstdError)
