"""Whose turn it is to be told what has changed, so that 5,000 sessions that are due at once hold up neither each
other's heartbeats nor the leader's lease.

Own changes of a node (its tasks, a first full set) go first. What a node is told only because a network of its has
changed takes a share of the time: while such sessions wait for their turn, what else changes joins in. So a network of
500 nodes hears of a change in some tenths of a second while there is nothing else to do, and waits while there is.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from argosy.controller.sparing import LONGEST_S

SLICE_S: Final = 0.01
"""How long turns are given before other tasks of the event loop run."""
SHARED_AT_ONCE: Final = 20
"""Sessions that are told of their networks alone before there is a rest."""
SHARED_SHARE: Final = 0.4
"""Of the time, at most, in which such are told."""

ITERATIONS: Final = 2
"""Of the event loop, until what a session was given is out."""

S = TypeVar("S")


class Turns(Generic[S]):
    """`take` gives one a turn. `run` must be running; one event loop only."""

    def __init__(self, take: Callable[[S], None]) -> None:
        self._take = take
        self._own: dict[S, None] = {}
        self._shared: dict[S, None] = {}
        self._asked = asyncio.Event()
        self._asked_shared = asyncio.Event()

    def ask(self, one: S, *, own: bool) -> None:
        """Ask for a turn."""
        if own:
            self._shared.pop(one, None)
            self._own[one] = None
            self._asked.set()
        elif one not in self._own:
            self._shared[one] = None
            self._asked_shared.set()

    def forget(self, one: S) -> None:
        """Take one back who has asked."""
        self._own.pop(one, None)
        self._shared.pop(one, None)

    async def run(self) -> None:
        """Give turns until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._give_own())
            group.create_task(self._give_shared())

    async def _give_own(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            until = loop.time() + SLICE_S
            while self._own and loop.time() < until:
                self._take(_first(self._own))
            if self._own:
                await asyncio.sleep(0)
            else:
                self._asked.clear()
                await self._asked.wait()

    async def _give_shared(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            for _ in range(min(SHARED_AT_ONCE, len(self._shared))):
                self._take(_first(self._shared))
            for _ in range(ITERATIONS):  # in which what they said goes out, beside whatever else there is to do
                await asyncio.sleep(0)
            if self._shared:
                await asyncio.sleep(min(LONGEST_S, (loop.time() - began) * (1 / SHARED_SHARE - 1)))
            else:
                self._asked_shared.clear()
                await self._asked_shared.wait()


def _first(queue: dict[S, None]) -> S:
    one = next(iter(queue))
    del queue[one]
    return one
