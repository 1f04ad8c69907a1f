"""Whose turn it is to be told what has changed, so that 5,000 sessions that are due at once hold up neither each
other's heartbeats nor the leader's lease.

Own changes of a node (its tasks, a first full set) go first. What a node is told only because a network of its has
changed goes at a rate: while such sessions wait for their turn, what else changes joins in. A turn is short, and after
a few of them everything else in the event loop has one.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

SLICE_S: Final = 0.01
"""How long turns are given before other tasks of the event loop run."""
SHARED_PER_S: Final = 2000
"""Sessions a second that are told of their networks alone; 50 nodes are told at once."""
BURST_S: Final = 0.025

S = TypeVar("S")


class Turns(Generic[S]):
    """`take` gives one a turn. `run` must be running; one event loop only."""

    def __init__(self, take: Callable[[S], None]) -> None:
        self._take = take
        self._own: dict[S, None] = {}
        self._shared: dict[S, None] = {}
        self._asked = asyncio.Event()
        self._paid_until = 0.0  # the time for which turns of `shared` were given

    def ask(self, one: S, *, own: bool) -> None:
        """Ask for a turn."""
        if own:
            self._shared.pop(one, None)
            self._own[one] = None
        elif one not in self._own:
            self._shared[one] = None
        self._asked.set()

    def forget(self, one: S) -> None:
        """Take one back who has asked."""
        self._own.pop(one, None)
        self._shared.pop(one, None)

    async def run(self) -> None:
        """Give turns until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._asked.clear()
            until = loop.time() + SLICE_S
            while (one := self._next(loop.time())) is not None:
                self._take(one)
                if loop.time() >= until:
                    await asyncio.sleep(0)
                    until = loop.time() + SLICE_S
            if not self._shared:
                await self._asked.wait()
            elif not self._asked.is_set():
                waker = loop.call_at(self._paid_until, self._asked.set)
                await self._asked.wait()
                waker.cancel()

    def _next(self, now: float) -> S | None:
        if self._own:
            return _first(self._own)
        if self._shared and now >= self._paid_until:
            self._paid_until = max(self._paid_until, now - BURST_S) + 1 / SHARED_PER_S
            return _first(self._shared)
        return None


def _first(queue: dict[S, None]) -> S:
    one = next(iter(queue))
    del queue[one]
    return one
