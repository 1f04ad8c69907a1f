"""Subscriptions to the cache: change batches in order, in bounded memory.

A subscriber that does not keep up is not allowed to hold up the cache or to fill the memory: beyond a number of
changes they are dropped and it gets one batch that says `resync`: look at everything anew. Control loops do that
anyway when they start, so it is no special case for them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from argosy.controller.store.history import Step
from argosy.controller.store.snapshot import Change, Snapshot


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Changes up to `revision`. `snapshot` has them applied, and maybe later ones, too.

    With `resync` changes were dropped (`changes` is empty): everything may have changed.
    """

    revision: int
    snapshot: Snapshot
    changes: tuple[Change, ...]
    resync: bool = False


class Subscription:
    """An iterator of ChangeBatch. Counts from its making on, ends when closed; `with` closes it.

    `coalesce`: all that is pending comes as one batch with one change an object, from its first old to its last new
    state; an object that came and went in between does not appear. Otherwise every etcd revision is a batch.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        backlog: Iterable[Step],
        *,
        after: int,
        coalesce: bool,
        max_pending: int,
    ) -> None:
        """`backlog` are the steps there are already; steps up to revision `after` are left out."""
        self._after = after
        self._snapshot = snapshot
        self._coalesce = coalesce
        self._max_pending = max_pending
        self._steps: deque[Step] = deque()
        self._pending = 0
        self._resync = False
        self._arrived = asyncio.Event()
        self.closed = False
        self.resyncs = 0
        for step in backlog:
            self.publish(step)

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> ChangeBatch:
        while not self.closed:
            if self._steps or self._resync:
                batch = self._take()
                if batch.changes or batch.resync:
                    return batch
            else:
                self._arrived.clear()
                await self._arrived.wait()
        raise StopAsyncIteration

    def close(self) -> None:
        """End: whoever iterates comes to the end. May be called again."""
        self.closed = True
        self._steps.clear()
        self._arrived.set()

    def publish(self, step: Step) -> None:
        """Take a step of the cache. Never blocks."""
        if self.closed or self._resync or not step.changes or step.revision <= self._after:
            return
        self._steps.append(step)
        self._pending += len(step.changes)
        if self._pending > self._max_pending:
            self.demand_resync()
        self._arrived.set()

    def demand_resync(self) -> None:
        """Drop what is pending and have the subscriber look at everything."""
        self._steps.clear()
        self._pending = 0
        self._after = 0
        if not self._resync:
            self._resync = True
            self.resyncs += 1
        self._arrived.set()

    def _take(self) -> ChangeBatch:
        snapshot = self._snapshot()
        if self._resync:
            self._resync = False
            return ChangeBatch(snapshot.revision, snapshot, (), resync=True)
        if not self._coalesce:
            step = self._steps.popleft()
            self._pending -= len(step.changes)
            return ChangeBatch(step.revision, snapshot, step.changes)
        steps, self._steps = self._steps, deque()
        self._pending = 0
        return ChangeBatch(steps[-1].revision, snapshot, merged(c for s in steps for c in s.changes))


def merged(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return one change an object, from the first old state to the last new one."""
    found: dict[tuple[type[Any], str, str], Change] = {}
    for change in changes:
        key = (change.kind, change.project, change.id)
        before = found.get(key)
        found[key] = change if before is None else Change(change.kind, change.id, before.old, change.new)
    return tuple(c for c in found.values() if c.old is not None or c.new is not None)
