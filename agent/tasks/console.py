"""The other ends of interactive programs' standard inputs: what whoever is attached writes to and reads from.

A descriptor is here and nowhere else, so it is the session's life: a terminal hangs up and a pipe ends when this agent
does, whatever it dies of. Nobody but the person who asked for such a program has a use for it, so it is ended when
nobody attaches soon, or the one who did has gone (`on_lost`).
"""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable
from typing import Any, Final

UNATTACHED_S: Final = 60.0
"""How long a program may be there without anybody having attached to it."""
_READ_BYTES: Final = 65536
_WINDOW_SIZE: Final = struct.Struct("HHHH")


class Console:
    """One descriptor: a pipe, to be written only, or a terminal's master. Used by one event loop."""

    def __init__(self, fd: int, *, terminal: bool) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self.terminal = terminal

    async def read(self) -> bytes:
        """Return the next bytes of a terminal's output; none once the program has ended."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready(self._fd, loop.add_reader, loop.remove_reader)
            except OSError:
                break  # EIO: nobody has the other end open any more
        return b""

    async def write(self, data: bytes) -> None:
        """Write all; nothing when the program does not read any more."""
        while data and self._fd >= 0:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready(self._fd, loop.add_writer, loop.remove_writer)
            except OSError:
                return

    def resize(self, rows: int, columns: int) -> None:
        """Give a terminal its size; the program gets SIGWINCH when that is another one."""
        if self.terminal and self._fd >= 0:
            size = _WINDOW_SIZE.pack(min(rows, 0xFFFF), min(columns, 0xFFFF), 0, 0)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)

    def end_input(self) -> None:
        """Take that nothing more is to be written: the program reads the end of a pipe."""
        if not self.terminal:
            self.close()

    def close(self) -> None:
        """Let go: a terminal hangs up, a pipe ends. May be repeated; not while something is read or written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


async def _ready(fd: int, watch: Callable[..., Any], unwatch: Callable[[int], Any]) -> None:
    ready = asyncio.Event()
    watch(fd, ready.set)
    try:
        await ready.wait()
    finally:
        unwatch(fd)


class Consoles:
    """The consoles of the node's interactive tasks. One can be taken once."""

    def __init__(self) -> None:
        self.on_lost: Callable[[str, str], None] = lambda task_id, reason: None
        """Told of a task that nobody is attached to any more, and why."""
        self._waiting: dict[str, Console] = {}
        self._taken: dict[str, Console] = {}

    def knows(self, task_id: str) -> bool:
        """Whether somebody is attached to a task, or may still be."""
        return task_id in self._waiting or task_id in self._taken

    def hold(self, task_id: str, console: Console) -> None:
        """Keep the console of a container that was made just now, until somebody attaches or that takes too long."""
        if before := self._waiting.pop(task_id, None):
            before.close()
        self._waiting[task_id] = console
        asyncio.get_running_loop().call_later(UNATTACHED_S, self._give_up, task_id, console)

    def _give_up(self, task_id: str, console: Console) -> None:
        if self._waiting.get(task_id) is console:
            del self._waiting[task_id]
            console.close()
            self.on_lost(task_id, f"nobody attached to it within {UNATTACHED_S:.0f} s")

    def take(self, task_id: str) -> Console | None:
        """Attach to a task; None when nobody can, or somebody is or was."""
        console = self._waiting.pop(task_id, None)
        if console is not None:
            self._taken[task_id] = console
        return console

    def end(self, task_id: str, lost: str) -> None:
        """End an attachment. `lost`: why, when it was not the program that ended it."""
        self._taken.pop(task_id).close()
        if lost:
            self.on_lost(task_id, lost)
