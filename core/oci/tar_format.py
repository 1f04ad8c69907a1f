"""The records of a tar archive as data: headers, pax extensions, sparse maps. Pure; `tar.py` reads streams with it.

Formats: POSIX.1-1988 ustar, POSIX.1-2001 pax, GNU (long names, base-256 numbers, old sparse files) and v7. Python's own
tarfile is not used: it reads extension records of any size into memory, takes 60 to 100 µs an entry, and leaves out
what layers need (binary xattrs). Sources: pax(1) "EXTENDED DESCRIPTION", the GNU tar manual's appendix "Tar Internals".
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from argosy.core.errors import RejectedError

BLOCK: Final = 512
MAX_EXTENSION_BYTES: Final = 2**20
"""Of one pax record set or GNU long name: an xattr value has at most 64 KiB, a path 4 KiB."""
MAX_NAME_BYTES: Final = 4096
XATTR_PREFIX: Final = "SCHILY.xattr."

ZERO_BLOCK: Final = bytes(BLOCK)
_HEADER: Final = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_BLANKS: Final = b" " * 8


class TarError(RejectedError):
    """The archive is broken, or uses what no tar format has."""


class ChecksumError(TarError):
    """What should be a header is none."""


class EntryKind(Enum):
    """What an entry becomes on disk."""

    FILE = auto()
    HARDLINK = auto()
    SYMLINK = auto()
    CHAR = auto()
    BLOCK = auto()
    DIRECTORY = auto()
    FIFO = auto()


@dataclass(frozen=True, slots=True)
class Entry:
    """One member. `size` is the file's size on disk in bytes, `stored` the bytes of it in the archive; they differ for
    sparse files, whose `segments` (offset, length) say where the stored bytes belong."""

    name: str
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    stored: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    segments: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """One header block, as written."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    target: bytes
    device: tuple[int, int]
    block: bytes


def parse_header(block: bytes) -> Header:
    """Return a header block's fields; TarError when its checksum is wrong."""
    (name, mode, uid, gid, size, mtime, checksum, kind, target, magic, _, _, major, minor, prefix) = _HEADER.unpack(
        block
    )
    try:
        stated = number(checksum)
    except TarError as error:
        raise ChecksumError("a header has no checksum") from error
    if stated != sum(block) - sum(checksum) + sum(_BLANKS):
        # Some ancient tars summed signed bytes.
        signed = sum(struct.unpack("512b", block)) - sum(struct.unpack("8b", checksum)) + sum(_BLANKS)
        if stated != signed:
            raise ChecksumError("a header's checksum is wrong")
    name = _cut(name)
    # GNU's own format ("ustar  ") has other things (times, sparse maps) where POSIX's has the prefix.
    if magic.startswith(b"ustar\0") and (head := _cut(prefix)):
        name = head + b"/" + name
    is_device = kind in b"34"
    return Header(
        name=name,
        mode=number(mode) & 0o7777,
        uid=number(uid),
        gid=number(gid),
        size=number(size),
        mtime=number(mtime),
        type=kind,
        target=_cut(target),
        device=(number(major), number(minor)) if is_device else (0, 0),
        block=block,
    )


def number(field_: bytes) -> int:
    """Return a numeric field: octal digits, or GNU's base 256 when the first bit is set."""
    if field_[0] & 0x80:
        value = int.from_bytes(field_, "big", signed=False) & ((1 << (8 * len(field_) - 1)) - 1)
        if field_[0] == 0xFF:
            value -= 1 << (8 * len(field_) - 1)
        return value
    try:
        return int(field_.strip(b" \0") or b"0", 8)
    except ValueError:
        raise TarError(f"a header has {field_[:12]!r} where a number belongs") from None


def text(data: bytes) -> str:
    """Return a name: UTF-8, with other bytes kept as surrogates so that they come out on disk as they were."""
    return data.decode("utf-8", "surrogateescape")


def _cut(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


@dataclass(slots=True)
class Pax:
    """Pax keywords in force. Sparse 0.0 repeats two of them, which are gathered in order in `pairs`."""

    values: dict[str, bytes] = field(default_factory=dict)
    pairs: list[int] = field(default_factory=list)

    def read(self, data: bytes) -> None:
        """Add the records "LENGTH KEY=VALUE\\n" of one extension block; an empty value takes the keyword back."""
        at = 0
        while at < len(data):
            blank = data.find(b" ", at, at + 20)
            try:
                length = int(data[at:blank])
            except ValueError:
                raise TarError("a pax record does not begin with its length") from None
            record = data[blank + 1 : at + length - 1]
            if blank < 0 or length <= blank - at + 1 or at + length > len(data) or data[at + length - 1] != 0x0A:
                raise TarError("a pax record's length is wrong")
            key, equals, value = record.partition(b"=")
            if not equals:
                raise TarError("a pax record has no value")
            self._add(text(key), value)
            at += length

    def _add(self, key: str, value: bytes) -> None:
        if key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            self.pairs.append(decimal(value))
        elif value or key.startswith(XATTR_PREFIX):
            self.values[key] = value
        else:
            self.values.pop(key, None)

    def whole(self, key: str, otherwise: int) -> int:
        """Return a whole number, or `otherwise` when the keyword is not there."""
        value = self.values.get(key)
        return otherwise if value is None else decimal(value)

    def time_ns(self, key: str, otherwise_s: int) -> int:
        """Return a time in nanoseconds."""
        value = self.values.get(key)
        if value is None:
            return otherwise_s * 10**9
        whole, _, fraction = value.partition(b".")
        try:
            nanoseconds = int(whole) * 10**9
            part = int(fraction[:9].ljust(9, b"0")) if fraction else 0
        except ValueError:
            raise TarError(f"{value[:40]!r} is no time") from None
        return nanoseconds - part if whole.startswith(b"-") else nanoseconds + part

    def xattrs(self) -> dict[str, bytes]:
        """Return the extended attributes."""
        return {k.removeprefix(XATTR_PREFIX): v for k, v in self.values.items() if k.startswith(XATTR_PREFIX)}


def decimal(value: bytes) -> int:
    """Return a number of a pax record or sparse map."""
    if not value.isdigit() or len(value) > 20:
        raise TarError(f"{value[:40]!r} is no number")
    return int(value)


def pairs(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Return offset, length, offset, length … as pairs."""
    if len(numbers) % 2:
        raise TarError("a sparse file's map has a length missing")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def old_gnu_segments(block: bytes, first: int, count: int) -> list[tuple[int, int]]:
    """Return the used map entries of a sparse header block: `count` of them from byte `first`, 12 + 12 bytes each."""
    found = []
    for at in range(first, first + 24 * count, 24):
        if block[at] == 0:
            break
        found.append((number(block[at : at + 12]), number(block[at + 12 : at + 24])))
    return found


def check_segments(segments: tuple[tuple[int, int], ...], size: int, stored: int) -> None:
    """TarError unless the segments ascend without overlap, lie within the file and are as long as what is stored."""
    end = total = 0
    for offset, length in segments:
        if offset < end or offset + length > size or length < 0:
            raise TarError("a sparse file's map does not fit the file")
        end = offset + length
        total += length
    if total != stored:
        raise TarError("a sparse file's map does not fit its data")
