"""What a log's records say, and which of it are the last lines. Pure.

A record is `TIME STREAM F|P TEXT`, as the launcher writes them (agent/launcher/logformat.py). It writes all that it
found in a pipe with one time, so that records with the same head, one behind the other, are taken together.
"""

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

_RUN: Final = re.compile(
    rb"^((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([FP]) )[^\n]*+\n(?:\1[^\n]*+\n)*+", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Output:
    """What was written at one time (seconds since the epoch) to one stream: lines with their newlines.

    The last is not finished where it has none; what comes next of that stream goes on there.
    """

    at: float
    stderr: bool
    data: bytes


def parse(records: bytes) -> list[Output]:
    """Return what whole records say; what is none is passed over."""
    return [_output(*found.group(0, 1, 2, 3, 4)) for found in _RUN.finditer(records)]


def _output(run: bytes, head: bytes, time: bytes, stream: bytes, flag: bytes) -> Output:
    end = b"\n" if flag == b"F" else b""
    data = run[len(head) : -1].replace(b"\n" + head, end) + end
    return Output(datetime.fromisoformat(time.decode()).timestamp(), stream == b"stderr", data)


def last_lines(outputs: Iterable[Output], count: int) -> list[Output]:
    """Return what belongs to the `count` lines that began last, of both streams together."""
    begun = 0
    unfinished: dict[bool, int] = {}
    placed: list[tuple[int, int, Output]] = []
    for output in outputs:
        first = unfinished.pop(output.stderr, 0) or (begun := begun + 1)
        placed.append((first, begun, output))
        begun += output.data.count(b"\n") - output.data.endswith(b"\n")
        if not output.data.endswith(b"\n"):
            unfinished[output.stderr] = begun if b"\n" in output.data else first
    return [kept for first, base, output in placed if (kept := _from_line(output, first, base, begun - count + 1))]


def _from_line(output: Output, first: int, base: int, least: int) -> Output | None:
    """Return what of an output belongs to line `least` or later. Its first is `first`, the one after that base + 1."""
    if first >= least:
        return output
    lines = output.data.split(b"\n", max(1, least - base))
    return replace(output, data=lines[-1]) if len(lines) > max(1, least - base) and lines[-1] else None


class Tail:
    """The last lines of what is added; of all before them it keeps little."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: deque[Output] = deque()
        self._ends = 0

    def extend(self, outputs: Iterable[Output]) -> None:
        """Add what came next. A line that was begun more than `count` lines before its end may lose its begin."""
        for output in outputs:
            self._kept.append(output)
            self._ends += output.data.count(b"\n")
            # Each stream's first line may be cut.
            while self._ends - (oldest := self._kept[0].data.count(b"\n")) >= self._count + 2:
                self._ends -= oldest
                self._kept.popleft()

    def lines(self) -> list[Output]:
        """Return the last lines."""
        return last_lines(self._kept, self._count)
