"""The output of one container: from its two pipes into its log file, so that a kill -9 loses and doubles no line.

Reading a pipe consumes it: a launcher that is killed between the read and the write would lose lines. So:
    tee     copy what is in the pipe, which stays there
    intent  note (mapped file) the log's size, the length and checksum of what is about to be appended
    write   append the formatted lines to the log
    read    consume exactly that many bytes
    intent  clear
A successor that finds an intent looks at the pipe: if the noted bytes are still at its head they were not consumed,
so what was appended is cut off and done again; if not, the append was complete.

Nothing stays in a pipe, unfinished lines neither: a writer that sleeps because a pipe is full, and fills it again while
something is left in it, wakes nobody (Linux, fs/pipe.c), and would sleep for ever.

The pipes' ends, ours and the container's, are open for reading and writing: with no launcher the container gets no
EPIPE and blocks only when 64 KiB are full, and here a pipe that the container has closed is not forever ready.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from . import syscalls as sc
from .logformat import encode, timestamp

STREAMS: Final = ("out", "err")
_NAMES: Final = {"out": b"stdout", "err": b"stderr"}
_BATCH_BYTES: Final = 64 * 1024
#: Checksum, stream number, size of the log before the append, and last (it makes the rest valid) the length, 0: none.
_INTENT: Final = struct.Struct("=IIQI")


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """Where the log lies, when it is rotated, and how many files there are in all, at least two.

    `path` is the newest. An older one has in its name, behind `path.`, the length of all that was ever written up to
    its end, so that a reader knows where it is and what it has missed.
    """

    path: str
    max_bytes: int
    max_files: int


def rotated_ends(path: str) -> list[int]:
    """Return the ends that the names of a log's rotated files tell, the oldest first."""
    directory, name = os.path.split(path)
    suffixes = (entry.removeprefix(name + ".") for entry in os.listdir(directory) if entry.startswith(name + "."))
    return sorted(int(suffix) for suffix in suffixes if suffix.isdecimal())


class Scratch:
    """The launcher's own pipe that output is copied through; one for all containers."""

    __slots__ = ("_read", "_write")

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def peek(self, pipe: int) -> bytes:
        """Return what is in a pipe without consuming it, up to one batch."""
        try:
            count = sc.tee(pipe, self._write, _BATCH_BYTES)
        except BlockingIOError:
            return b""
        data = b""
        while len(data) < count:
            data += os.read(self._read, count - len(data))
        return data


class ContainerLog:
    """Log file and pipes of one container; `pump` while a pipe is readable, `finish` after its exit."""

    def __init__(self, directory: str, policy: LogPolicy, scratch: Scratch, clock_ns: Callable[[], int] = time.time_ns):
        self._directory = directory
        self._policy = policy
        self._scratch = scratch
        self._clock_ns = clock_ns
        self._intent: mmap.mmap | None = None
        self._file = -1
        self._size = 0
        self.lost_bytes = 0
        self.pipes: dict[int, str] = {}

    @staticmethod
    def make_pipes(directory: str, uid: int, gid: int) -> tuple[int, int]:
        """Create the named pipes, owned by the container's root; return the container's ends."""
        ends = []
        for name in STREAMS:
            path = f"{directory}/{name}"
            os.mkfifo(path, 0o622)
            os.chown(path, uid, gid)
            ends.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        return ends[0], ends[1]

    def open(self) -> None:
        """Open our ends (needs the pipes, not a writer) and repair what a killed predecessor left."""
        for name in STREAMS:
            path = f"{self._directory}/{name}"
            if os.path.exists(path):
                self.pipes[os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)] = name
        if os.path.exists(self._intent_path):
            self._repair()

    @property
    def _intent_path(self) -> str:
        return self._directory + "/log.intent"

    def pump(self, pipe: int) -> bool:
        """Move one batch from a pipe to the log; return whether there was something."""
        data = self._scratch.peek(pipe)
        if not data:
            return False
        text, used = self._encode(data, self.pipes[pipe])
        if not self._open_file(len(text)):
            self.lost_bytes += used
            self._consume(pipe, used)
            return True
        intent = self._map_intent()
        _INTENT.pack_into(intent, 0, zlib.crc32(data[:used]), STREAMS.index(self.pipes[pipe]), self._size, used)
        self._append(text, used)
        self._consume(pipe, used)
        _INTENT.pack_into(intent, 0, 0, 0, 0, 0)
        return True

    def _encode(self, data: bytes, name: str) -> tuple[bytes, int]:
        """Return log text that fits one file if that is possible, and how many bytes of the data are in it."""
        stream, now, used = _NAMES[name], self._clock_ns(), len(data)
        while len(text := encode(data[:used], stream, now)) > self._policy.max_bytes and used > 1:
            used = data.rfind(b"\n", 0, used // 2) + 1 or used // 2
        return text, used

    def finish(self) -> None:
        """Write all that is left and close the pipes. The container has exited."""
        for pipe in list(self.pipes):
            while self.pump(pipe):
                pass
        self.close()

    def close(self) -> None:
        """Close every descriptor; what is in the pipes stays there while somebody holds them."""
        for pipe in self.pipes:
            os.close(pipe)
        self.pipes = {}
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._intent is not None:
            self._intent.close()
            self._intent = None

    def _append(self, text: bytes, used: int) -> None:
        """Append to the log. A full disk loses output and counts it: it must not stop the containers."""
        if self.lost_bytes:
            notice = b"argosy: %d bytes of output were lost: the log could not be written" % self.lost_bytes
            text = timestamp(self._clock_ns()) + b" stderr F " + notice + b"\n" + text
        written = 0
        try:
            while written < len(text):
                written += os.write(self._file, text[written:])
        except OSError:
            os.ftruncate(self._file, self._size)
            self.lost_bytes += used
            return
        self._size += written
        self.lost_bytes = 0

    @staticmethod
    def _consume(pipe: int, count: int) -> None:
        while count:
            count -= len(os.read(pipe, count))

    def _open_file(self, incoming: int) -> bool:
        """Have the log file open with room for `incoming` bytes, rotated when it is full; return whether it is."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._map_intent()
            if self._file < 0:
                os.makedirs(os.path.dirname(self._policy.path), exist_ok=True)
                self._file = os.open(self._policy.path, flags, 0o640)
                self._size = os.fstat(self._file).st_size
            if self._size and self._size + incoming > self._policy.max_bytes:
                os.close(self._file)
                self._file = -1
                self._rotate()
                self._file = os.open(self._policy.path, flags, 0o640)
                self._size = 0
        except OSError:
            return False
        return True

    def _rotate(self) -> None:
        path = self._policy.path
        ends = rotated_ends(path)
        os.rename(path, f"{path}.{max(ends, default=0) + self._size}")
        for end in ends[: max(0, len(ends) + 2 - self._policy.max_files)]:
            os.unlink(f"{path}.{end}")

    def _map_intent(self) -> mmap.mmap:
        if self._intent is None:
            fd = os.open(self._intent_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Allocated, not just extended: a store to a page that a full disk cannot back would be a SIGBUS.
                os.posix_fallocate(fd, 0, mmap.PAGESIZE)
                self._intent = mmap.mmap(fd, mmap.PAGESIZE)
            finally:
                os.close(fd)
        return self._intent

    def _repair(self) -> None:
        intent = self._map_intent()
        checksum, stream, size, length = _INTENT.unpack_from(intent, 0)
        if not length:
            return
        for pipe, name in self.pipes.items():
            if name == STREAMS[stream]:
                head = self._scratch.peek(pipe)[:length]
                if len(head) == length and zlib.crc32(head) == checksum and os.path.exists(self._policy.path):
                    os.truncate(self._policy.path, size)
        _INTENT.pack_into(intent, 0, 0, 0, 0, 0)
