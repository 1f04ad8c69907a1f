"""The scheduler loop: gives waiting tasks a node and their addresses, in one write.

What cannot be placed now stays PENDING with the reason, and is tried again when anything changes that might help. So
does what has to wait for services that its own depends on: it is held before a node is looked for.
"""

import asyncio

from argosy.controller.loops.placing import Placing, waits
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.store import Cache, ChangeBatch, Fence, Op, Store, create, update
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.network import Slice
from argosy.core.task import Task
from argosy.core.task_state import TaskState

RETRY_PERIOD_S = 0.25
"""Least time between two tries for tasks that could not be placed."""


class SchedulerLoop:
    """One for a term of leadership."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient
        self._wake = Wake(ambient.monotonic)
        self._waiting: set[str] = set()
        self._next_retry = 0.0
        self._placing = Placing()

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, self._wake):
            fresh = batch is not None and self._take(batch)
            if not self._waiting:
                continue
            if not fresh and self._ambient.monotonic() < self._next_retry:
                self._wake.at(self._next_retry)
                continue
            await self._place()

    def _take(self, batch: ChangeBatch) -> bool:
        """Follow changes; return whether tasks have come that were never tried."""
        if batch.resync:
            self._placing.reset()
            tasks = list(batch.snapshot.all(Task))
        else:
            self._placing.follow(batch.changes, batch.snapshot)
            tasks = [c.new for c in batch.changes if isinstance(c.new, Task)]
        fresh = {t.meta.id for t in tasks if waits(t)} - self._waiting
        self._waiting |= fresh
        return bool(fresh)

    async def _place(self) -> None:
        snap = self._cache.snapshot
        found = (snap.get(Task, task_id) for task_id in self._waiting)
        tasks = [t for t in found if t is not None and waits(t)]
        self._waiting = {t.meta.id for t in tasks}
        if not tasks:
            return
        placed, slices = self._placing.decide(snap, tasks, self._ambient.wall())
        if not await self._lease(slices):
            return
        changed = [t for t in placed if t != snap.get(Task, t.meta.id)]
        groups: list[list[Op]] = [[update(t)] for t in changed]
        outcomes = await self._store.commit_batched(groups, self._fence) if groups else []
        conflict, revision = False, 0
        for task, outcome in zip(changed, outcomes, strict=True):
            revision = max(revision, outcome.revision)
            if isinstance(outcome.error, ConflictError):
                conflict = True
            elif outcome.error is not None:
                raise outcome.error
            elif task.status.state is TaskState.ASSIGNED:
                self._waiting.discard(task.meta.id)
        self._next_retry = self._ambient.monotonic() + RETRY_PERIOD_S
        if conflict:
            await self._look_again()
        else:
            await self._cache.wait_for(revision)

    async def _lease(self, slices: list[Slice]) -> bool:
        """Store slices, before any task gets an address of them; False when that is to be planned anew."""
        for outcome in await self._store.commit_batched([[create(s)] for s in slices], self._fence):
            if isinstance(outcome.error, ConflictError):
                await self._look_again()
                return False
            if outcome.error is not None:
                raise outcome.error
        return True

    async def _look_again(self) -> None:
        """Somebody else has changed what was planned with: see that, and plan anew."""
        await self._cache.wait_for(await self._store.revision())
        self._placing.reset()
        self._next_retry = 0.0
        self._wake.now()
        await asyncio.sleep(0)
