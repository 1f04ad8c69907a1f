"""Reads a tar archive as a stream: one entry after the other, each with its data, nothing kept.

Strict on purpose, since layers come from strangers: extension records and names have bounded lengths, a truncated
archive is an error, and so is an entry of a type that no format has. What entries may *do* (leave the root, carry
devices) is for the reader of the entries to judge: agent/images/unpack.py.
"""

from collections.abc import Callable, Iterator
from typing import Final

from argosy.core.oci.compression import CHUNK, Readable
from argosy.core.oci.tar_format import (
    BLOCK,
    MAX_EXTENSION_BYTES,
    MAX_NAME_BYTES,
    ZERO_BLOCK,
    ChecksumError,
    Entry,
    EntryKind,
    Header,
    Pax,
    TarError,
    check_segments,
    decimal,
    number,
    old_gnu_segments,
    pairs,
    parse_header,
    text,
)

_KINDS: Final = {
    b"0": EntryKind.FILE,
    b"\0": EntryKind.FILE,
    b"7": EntryKind.FILE,
    b"S": EntryKind.FILE,
    b"1": EntryKind.HARDLINK,
    b"2": EntryKind.SYMLINK,
    b"3": EntryKind.CHAR,
    b"4": EntryKind.BLOCK,
    b"5": EntryKind.DIRECTORY,
    b"6": EntryKind.FIFO,
}
_NO_TAR: Final = "it is not a tar archive"
_IGNORED: Final = b"VDN"
"""GNU volume labels, directory listings of incremental dumps, names of an old GNU format: metadata of backups."""


class TarReader:
    """Iterate over it for the entries; between two, `chunks()` gives the data of the latest.

    `skip(n)` passes over n bytes of the source where that can be done faster than by reading.
    """

    def __init__(self, source: Readable, skip: Callable[[int], None] | None = None) -> None:
        self._source = source
        self._skip_fast = skip
        self._unread = 0
        self._padding = 0
        self._globals = Pax()
        self.position = 0
        """Bytes taken from the source so far: after an entry was returned, where its data begin."""

    def __iter__(self) -> Iterator[Entry]:
        entries = 0
        while (block := self._next_header()) is not None:
            try:
                entry = self._entry(block)
            except TarError as error:
                if self.position == BLOCK and isinstance(error, ChecksumError):
                    raise TarError(_NO_TAR) from error
                raise TarError(f"{error} (at byte {self.position - BLOCK}, after {entries} entries)") from None
            if entry is not None:
                entries += 1
                yield entry

    def chunks(self) -> Iterator[bytes]:
        """Return the stored data of the entry that was returned last."""
        while self._unread:
            data = self._source.read(min(CHUNK, self._unread))
            if not data:
                raise TarError("the archive ends in the middle of a file: it is truncated")
            self._unread -= len(data)
            self.position += len(data)
            yield data

    def _next_header(self) -> bytes | None:
        self._pass_over(self._unread + self._padding)
        self._unread = self._padding = 0
        block = self._take(BLOCK, or_end=True)
        return None if block in (b"", ZERO_BLOCK) else block

    def _entry(self, block: bytes) -> Entry | None:
        """Read one entry with the extension records before it; None for records that are no entry."""
        pax = Pax(dict(self._globals.values))
        long_name = long_target = None
        header = parse_header(block)
        while header.type in b"xXgLK":
            data = self._extension(header)
            match header.type:
                case b"g":
                    self._globals.read(data)
                    pax.values.update(self._globals.values)
                case b"L":
                    long_name = data.split(b"\0", 1)[0]
                case b"K":
                    long_target = data.split(b"\0", 1)[0]
                case _:
                    pax.read(data)
            following = self._take(BLOCK, or_end=header.type == b"g")
            if following in (b"", ZERO_BLOCK):
                if header.type == b"g":
                    return None
                raise TarError("the archive ends after an extension record: it is truncated")
            header = parse_header(following)
        return self._build(header, pax, long_name or header.name, long_target or header.target)

    def _build(self, header: Header, pax: Pax, plain_name: bytes, target: bytes) -> Entry | None:
        values = pax.values
        name = values.get("GNU.sparse.name") or values.get("path") or plain_name
        target = values.get("linkpath") or target
        if len(name) > MAX_NAME_BYTES or len(target) > MAX_NAME_BYTES:
            raise TarError(f"a name is longer than {MAX_NAME_BYTES} bytes: {text(name[:60])!r}…")
        if b"\0" in name or b"\0" in target:
            raise TarError("a name contains a zero byte")
        kind = _KINDS.get(header.type)
        stored = pax.whole("size", header.size)
        if stored < 0:
            raise TarError("an entry has a negative size")
        if kind is EntryKind.FILE or kind is None:
            self._unread, self._padding = stored, -stored % BLOCK
        if kind is None:
            if header.type in _IGNORED:
                return None
            raise TarError(f"{text(name)!r} is of a type ({header.type!r}) that cannot be unpacked")
        if kind is EntryKind.FILE and header.type != b"S" and name.endswith(b"/"):
            kind = EntryKind.DIRECTORY  # v7 archives have no type for directories
        size, segments = stored, None
        if kind is EntryKind.FILE:
            size, segments = self._sparse(header, pax, stored)
        return Entry(
            name=text(name),
            kind=kind,
            mode=header.mode,
            uid=pax.whole("uid", header.uid),
            gid=pax.whole("gid", header.gid),
            mtime_ns=pax.time_ns("mtime", header.mtime),
            size=size if kind is EntryKind.FILE else 0,
            stored=self._unread if kind is EntryKind.FILE else 0,
            target=text(target),
            device=header.device,
            xattrs=pax.xattrs(),
            segments=segments,
        )

    def _sparse(self, header: Header, pax: Pax, stored: int) -> tuple[int, tuple[tuple[int, int], ...] | None]:
        """Return a file's size on disk and, when it is sparse in one of four ways to say so, its segments."""
        values = pax.values
        if header.type == b"S":
            size, segments = self._old_gnu_map(header.block)
        elif values.get("GNU.sparse.major") == b"1":
            size = pax.whole("GNU.sparse.realsize", stored)
            segments = self._map_before_data()
        elif "GNU.sparse.map" in values:
            size = pax.whole("GNU.sparse.size", stored)
            segments = pairs([decimal(n) for n in values["GNU.sparse.map"].split(b",")])
        elif pax.pairs:
            size = pax.whole("GNU.sparse.size", stored)
            segments = pairs(pax.pairs)
        else:
            return stored, None
        check_segments(segments, size, self._unread)
        return size, segments

    def _old_gnu_map(self, block: bytes) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Read GNU's first sparse format: four segments and the size in the header, more in blocks after it."""
        segments = old_gnu_segments(block, 386, 4)
        more = block[482]
        while more:
            extension = self._take(BLOCK)
            segments += old_gnu_segments(extension, 0, 21)
            more = extension[504]
            if len(segments) > MAX_EXTENSION_BYTES // 24:
                raise TarError("a sparse file's map is too long")
        return number(block[483:495]), tuple(segments)

    def _map_before_data(self) -> tuple[tuple[int, int], ...]:
        """Read pax sparse format 1.0: the count, then offsets and lengths, a number a line, before the data."""
        numbers: list[int] = []
        rest, wanted, taken = b"", 1, 0
        while len(numbers) < wanted:
            block = self._take(BLOCK)
            taken += BLOCK
            if taken > min(self._unread, MAX_EXTENSION_BYTES):
                raise TarError("a sparse file's map is too long")
            *lines, rest = (rest + block).split(b"\n")
            for line in lines[: wanted - len(numbers) if numbers else len(lines)]:
                numbers.append(decimal(line))
                if len(numbers) == 1:
                    wanted = 1 + 2 * numbers[0]
                if len(numbers) == wanted:
                    break
        self._unread -= taken
        return pairs(numbers[1:])

    def _extension(self, header: Header) -> bytes:
        if not 0 <= header.size <= MAX_EXTENSION_BYTES:
            raise TarError(f"an extension record has {header.size} bytes; at most {MAX_EXTENSION_BYTES} are taken")
        return self._take(header.size + -header.size % BLOCK)[: header.size]

    def _take(self, size: int, or_end: bool = False) -> bytes:
        """Return exactly `size` bytes, or with `or_end` none at the end of the source."""
        data = self._source.read(size)
        while len(data) < size:
            more = self._source.read(size - len(data))
            if not more:
                if or_end and not data:
                    return b""
                if not self.position:
                    raise TarError(_NO_TAR)
                raise TarError("the archive ends in the middle of a header: it is truncated")
            data += more
        self.position += size
        return data

    def _pass_over(self, size: int) -> None:
        if self._skip_fast is not None and size:
            self._skip_fast(size)
            self.position += size
            return
        while size:
            data = self._source.read(min(CHUNK, size))
            if not data:
                raise TarError("the archive ends in the middle of a file: it is truncated")
            size -= len(data)
            self.position += len(data)
