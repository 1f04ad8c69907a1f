"""The launcher's event loop: descriptors and timers. One thread, no callbacks from elsewhere."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable
from typing import Final

Handler = Callable[[], object]

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT


class Loop:
    """Calls handlers as `run` finds them ready; handlers must not block."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Handler]] = []
        self._serial = 0
        self.stopping = False

    def watch(self, fd: int, handler: Handler, events: int = READ) -> None:
        """Call `handler` when a descriptor is ready; replaces what was watched for on it."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Stop watching; must come before the descriptor is closed. Unknown descriptors are fine."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, handler: Handler) -> None:
        """Call `handler` once, not before `seconds` have passed."""
        self._serial += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._serial, handler))

    def run(self) -> None:
        """Run until `stopping` is set."""
        while not self.stopping:
            self.turn()

    def turn(self) -> None:
        """Wait for what comes next and handle all of it."""
        for fd, _ in self._epoll.poll(self._timeout()):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _timeout(self) -> float:
        if not self._timers:
            return -1
        return max(0.0, self._timers[0][0] - time.monotonic())
