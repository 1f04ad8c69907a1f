"""The log line format, pure: `TIME STREAM F|P TEXT`, the one that container log tools read (Kubernetes' CRI format).

TIME is RFC 3339 with nanoseconds in UTC, STREAM stdout or stderr, P a part of a line longer than MAX_LINE_BYTES, F a
full line or the last part of one. So a P without an F behind it is what a program has not finished, or never did.
"""

from __future__ import annotations

import time
from typing import Final

#: A longer line is cut into parts of this size, so that a reader needs a bounded buffer.
MAX_LINE_BYTES: Final = 16 * 1024


def timestamp(now_ns: int) -> bytes:
    """Return an RFC 3339 time with nanoseconds, in UTC."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    parts = time.gmtime(seconds)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ" % (*parts[:6], nanoseconds)


def encode(data: bytes, stream: bytes, now_ns: int) -> bytes:
    """Return the log text for what a program has written."""
    head = timestamp(now_ns) + b" " + stream
    full, part = head + b" F ", head + b" P "
    lines = data.split(b"\n")
    rest = lines.pop()
    if max(map(len, lines), default=0) <= MAX_LINE_BYTES:
        text = full + (b"\n" + full).join(lines) + b"\n" if lines else b""
    else:
        text = b"".join(_long_line(line, full, part) for line in lines)
    return text + b"".join(part + piece + b"\n" for piece in _pieces(rest))


def _long_line(line: bytes, full: bytes, part: bytes) -> bytes:
    pieces = _pieces(line) or [b""]
    return b"".join(part + piece + b"\n" for piece in pieces[:-1]) + full + pieces[-1] + b"\n"


def _pieces(line: bytes) -> list[bytes]:
    return [line[start : start + MAX_LINE_BYTES] for start in range(0, len(line), MAX_LINE_BYTES)]
