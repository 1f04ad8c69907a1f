"""Reads a task's log files: the last lines, and what is written from then on.

The format is the one the runtime writes (docs/runtime.md): `TIME STREAM P|F TEXT`, where P marks a piece of a long
line that goes on in the next record. Rotated files are `log.1` (newest) upwards.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

POLL_PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of output, without its newline; `at` in seconds since the epoch."""

    at: float
    stderr: bool
    text: bytes


def parse_record(record: bytes) -> tuple[LogLine, bool] | None:
    """Return a record's line and whether it is whole; None for one that is not of the format."""
    parts = record.rstrip(b"\n").split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    try:
        at = datetime.fromisoformat(_to_micro(parts[0].decode())).timestamp()
    except ValueError:
        return None
    return LogLine(at, parts[1] == b"stderr", parts[3]), parts[2] != b"P"


def _to_micro(stamp: str) -> str:
    # datetime reads at most six digits of a second; the runtime writes nine.
    head, dot, tail = stamp.partition(".")
    if not dot:
        return stamp
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[:digits][:6]:0<6}{tail[digits:]}"


class _Joiner:
    """Puts the pieces of long lines together, for each stream on its own."""

    def __init__(self) -> None:
        self._open: dict[bool, LogLine] = {}

    def add(self, record: bytes) -> LogLine | None:
        """Return the line that `record` completes, if it does."""
        parsed = parse_record(record)
        if parsed is None:
            return None
        line, whole = parsed
        begun = self._open.pop(line.stderr, None)
        if begun:
            line = LogLine(begun.at, line.stderr, begun.text + line.text)
        if whole:
            return line
        self._open[line.stderr] = line
        return None


async def read_lines(
    path: Path, *, tail: int | None, since: float, follow: bool, ended: asyncio.Event
) -> AsyncIterator[LogLine]:
    """Yield what was written, oldest first, at most the last `tail` lines of it; then, with `follow`, what comes.

    Following ends when `ended` is set and everything has been read. A file that is not there counts as empty.
    """
    log = _LogFiles(path)
    kept: deque[LogLine] = deque(maxlen=tail)
    for count, line in enumerate(log.written()):
        if line.at >= since:
            kept.append(line)
        if count % 1000 == 999:
            await asyncio.sleep(0)
    for line in kept:
        yield line
    while follow:
        was_ended = ended.is_set()
        for line in log.new_lines():
            yield line
        if was_ended:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_PERIOD_S):
                await ended.wait()


class _LogFiles:
    """A log and its rotated parts, read by position: the file that is open is read to its end before the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._joiner = _Joiner()
        self._rest = b""
        # The current file is opened first: if it is rotated a moment later, it is still this one, told by its inode.
        self._stream = self._open()
        held = os.fstat(self._stream.fileno()).st_ino if self._stream else None
        rotated = [p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdigit() and _inode(p) != held]
        self._older = sorted(rotated, key=lambda p: -int(p.suffix[1:]))

    def written(self) -> Iterator[LogLine]:
        """Yield what is there, from the oldest rotated file on."""
        for file in self._older:
            with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
                yield from self._drain(stream)
        yield from self.new_lines()

    def new_lines(self) -> Iterator[LogLine]:
        """Yield the whole lines that were written since the last call."""
        while True:
            self._stream = self._stream or self._open()
            if self._stream is None:
                return
            yield from self._drain(self._stream)
            if _inode(self._path) in (None, os.fstat(self._stream.fileno()).st_ino):
                return
            yield from self._drain(self._stream)  # the last lines before it was rotated
            self._stream.close()
            self._stream = None

    def _open(self) -> BinaryIO | None:
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            return None

    def _drain(self, stream: BinaryIO) -> Iterator[LogLine]:
        while chunk := stream.read(256 * 1024):
            *records, self._rest = (self._rest + chunk).split(b"\n")
            for record in records:
                if line := self._joiner.add(record):
                    yield line


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
