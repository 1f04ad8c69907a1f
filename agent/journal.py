"""A file that is only ever appended to, for what must survive a kill -9 of the agent at any instant.

Not "write a new file and rename it over the old one": ext4 then writes the new one out to the disk first (mount
option auto_da_alloc, ext4(5)), which costs milliseconds for each of thousands of small changes. An append costs
microseconds, and a record that was cut short by a crash is recognised by its length and dropped.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

_LENGTH = struct.Struct("<I")


class Journal:
    """Records of bytes, oldest first. One writer at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.records = 0
        """How many records there are: what decides when to compact."""

    def read(self) -> Iterator[bytes]:
        """Yield all whole records; what follows is cut off, so that appending goes on behind a whole one."""
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        at = self.records = 0
        while at + _LENGTH.size <= len(data):
            (length,) = _LENGTH.unpack_from(data, at)
            end = at + _LENGTH.size + length
            if end > len(data):
                break
            self.records += 1
            yield data[at + _LENGTH.size : end]
            at = end
        os.ftruncate(self._fd, at)

    def append(self, record: bytes) -> None:
        """Add a record; it survives the process from here on."""
        _append(self._fd, record)
        self.records += 1

    def rewrite(self, records: Iterable[bytes]) -> None:
        """Replace everything, so that a crash or a full disk leaves either the old or the new contents."""
        fresh = self._path.with_name(self._path.name + ".new")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        count = 0
        try:
            for record in records:
                _append(fd, record)
                count += 1
            os.replace(fresh, self._path)
        except OSError:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd, self.records = fd, count


def _append(fd: int, record: bytes) -> None:
    """Write a whole record or none: half of one would swallow the beginning of the next."""
    data, written = _LENGTH.pack(len(record)) + record, 0
    try:
        while written < len(data):
            written += os.write(fd, data[written:])
    except OSError:
        os.ftruncate(fd, os.fstat(fd).st_size - written)
        raise
