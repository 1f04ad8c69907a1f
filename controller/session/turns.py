"""Whose turn it is to be told what has changed, so that 5,000 sessions that are due at once hold up neither each
other's heartbeats nor the leader's lease.

Own changes of a node (its tasks) go first, in turn with first full sets. Of those only so many are on their way at
once: after a failover every node wants one, and what is made before it can go out is memory and time for nothing. What
a node is told only because a network of its has changed takes a share of the time: while such sessions wait for their
turn, what else changes joins in. So a network of 500 nodes hears of a change in some tenths of a second while there is
nothing else to do, and waits while there is.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

SLICE_S: Final = 0.01
"""How long turns are given before other tasks of the event loop run."""
SHARED_AT_ONCE: Final = 20
"""Sessions that are told of their networks alone before there is a rest."""
SHARED_SHARE: Final = 0.4
"""Of the time, at most, in which such are told."""
LONGEST_S: Final = 0.5
"""No rest between them is longer: the time that they took also went on while the process was stopped."""

FIRST_AT_ONCE: Final = 64
"""First full sets that are on their way: made, and not yet taken by the network."""
FIRST_PATIENCE_S: Final = 1.0
"""A set that is on its way for longer, to a node that is slow or gone, does not keep others from being made."""

ITERATIONS: Final = 2
"""Of the event loop, until what a session was given is out."""

S = TypeVar("S")


class Turns(Generic[S]):
    """`take` gives one a turn. `run` must be running; one event loop only."""

    def __init__(self, take: Callable[[S], None]) -> None:
        self._take = take
        self._first: dict[S, None] = {}
        self._on_way: dict[S, asyncio.TimerHandle] = {}
        self._own: dict[S, None] = {}
        self._shared: dict[S, None] = {}
        self._asked = asyncio.Event()
        self._asked_shared = asyncio.Event()

    def ask(self, one: S, *, own: bool, first: bool = False) -> None:
        """Ask for a turn; a `first` one takes everything along, and is followed by `came_out`."""
        if first:
            self._first[one] = None
            self._asked.set()
        elif own:
            self._shared.pop(one, None)
            self._own[one] = None
            self._asked.set()
        elif one not in self._own:
            self._shared[one] = None
            self._asked_shared.set()

    def came_out(self, one: S) -> None:
        """Note that a first full set is not held in memory any more."""
        if timer := self._on_way.pop(one, None):
            timer.cancel()
            self._asked.set()

    def forget(self, one: S) -> None:
        """Take one back who has asked."""
        for queue in (self._first, self._own, self._shared):
            queue.pop(one, None)
        self.came_out(one)

    async def run(self) -> None:
        """Give turns until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._give_own())
            group.create_task(self._give_shared())

    async def _give_own(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._asked.clear()
            until = loop.time() + SLICE_S
            while (self._own or self._may_begin()) and loop.time() < until:
                if self._own:
                    self._take(_first(self._own))
                if self._may_begin():
                    one = _first(self._first)
                    self._on_way[one] = loop.call_later(FIRST_PATIENCE_S, self.came_out, one)
                    self._take(one)
            if self._own or self._may_begin():
                await asyncio.sleep(0)
            else:
                await self._asked.wait()

    def _may_begin(self) -> bool:
        return bool(self._first) and len(self._on_way) < FIRST_AT_ONCE

    async def _give_shared(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            for _ in range(min(SHARED_AT_ONCE, len(self._shared))):
                self._take(_first(self._shared))
                if loop.time() - began >= SLICE_S:
                    break
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
