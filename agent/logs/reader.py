"""Reads a task's log files: what is there, or the last lines of it, and what is written from then on.

A log is one run of bytes, of which the oldest go when it is rotated: a position counts from the first byte that was
ever written. The name of a rotated file tells where it ends (agent/launcher/logs.py), and so what was missed.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from argosy.agent.launcher.logs import rotated_ends
from argosy.agent.logs.records import Output, Tail, parse

_LONGEST_PAUSE_S: Final = 0.1
_SHORTEST_PAUSE_S: Final = 0.01
"""How often is looked for more: soon after something came, as in a dialogue, and then less and less often."""
_READ_BYTES: Final = 256 * 1024
"""How much goes in one part."""
_OUTPUT_BYTES: Final = 32
"""What an output takes besides its data, about."""


@dataclass(frozen=True, slots=True)
class Part:
    """What was read at once: how many bytes of the log are missing before it, what it says, and the position behind.

    A part without a position is one of several of the last lines, which have it behind them all.
    """

    missing: int
    outputs: list[Output]
    position: int | None


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a log is wanted: all from a position on, or of what is there the last lines, written since a time."""

    position: int | None = None
    tail: int | None = None
    since: float = 0.0


async def read_output(path: Path, extent: Extent, *, follow: bool, ended: asyncio.Event) -> AsyncGenerator[Part, None]:
    """Yield what was written; then, with `follow`, what comes, until `ended` is set and everything has been read.

    The position behind what was there is told even if that was nothing. A file that is not there counts as empty.
    """
    log = LogFiles(path, extent.position)
    if extent.position is None:
        tail = Tail(extent.tail) if extent.tail is not None else None
        for part in log.parts():
            wanted = [output for output in part.outputs if output.at >= extent.since]
            if tail is None:
                yield Part(part.missing, wanted, part.position)
            else:
                tail.extend(wanted)
            await asyncio.sleep(0)
        for part in _in_parts(tail.lines() if tail else [], log.position):
            yield part
    pause_s = _SHORTEST_PAUSE_S
    while True:
        was_ended = ended.is_set()
        for part in log.parts():
            pause_s = _SHORTEST_PAUSE_S
            yield part
        if was_ended or not follow:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await ended.wait()
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)


def _in_parts(outputs: list[Output], position: int) -> Iterator[Part]:
    part: list[Output] = []
    room = _READ_BYTES
    for output in outputs:
        room -= len(output.data) + _OUTPUT_BYTES
        if room < 0 and part:
            yield Part(0, part, None)
            part, room = [], _READ_BYTES - len(output.data) - _OUTPUT_BYTES
        part.append(output)
    yield Part(0, part, position)


class LogFiles:
    """A log's files, read from a position on; without one from the oldest that is there."""

    def __init__(self, path: Path, position: int | None) -> None:
        self._path = path
        self.position = position or 0
        """Where the next part begins."""
        self._has_begun = position is not None
        self._missing = 0
        self._stream: BinaryIO | None = None
        self._rest = b""

    def parts(self) -> Iterator[Part]:
        """Yield whole records, up to what is there now."""
        while self._stream or self._open_next():
            assert self._stream is not None
            is_newest = _inode(self._path) in (None, os.fstat(self._stream.fileno()).st_ino)
            if read := self._stream.read(_READ_BYTES):  # after that look: what was rotated does not grow any more
                records, newline, self._rest = (self._rest + read).rpartition(b"\n")
                self.position += len(records + newline)
                yield Part(self._missing, parse(records + newline), self.position)
                self._missing = 0
            elif is_newest:
                return
            else:
                self.position += len(self._rest)
                self._rest = b""
                self._stream.close()
                self._stream = None

    def _open_next(self) -> bool:
        """Open the file in which the position is, or else the oldest behind it; return whether there is one."""
        newest = _open(self._path)
        ends = rotated_ends(str(self._path)) if newest or self._path.parent.exists() else []
        if newest and _inode(self._path) != os.fstat(newest.fileno()).st_ino:
            newest.close()
            return self._open_next()  # it was rotated just now: it does not begin where those before it end
        for end in ends:
            if end > self.position and (stream := _open(Path(f"{self._path}.{end}"))):
                self._begin(stream, end - os.fstat(stream.fileno()).st_size)
                if newest:
                    newest.close()
                return True
        if newest:
            self._begin(newest, max(ends, default=0))
        return newest is not None

    def _begin(self, stream: BinaryIO, start: int) -> None:
        if self._has_begun:
            self._missing += max(0, start - self.position)
        self._has_begun = True
        # Not behind the end of a file, which its host may have lost with its power.
        self.position = max(start, min(self.position, start + os.fstat(stream.fileno()).st_size))
        stream.seek(self.position - start)
        self._stream = stream


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
