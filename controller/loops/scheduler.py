"""The scheduler loop: gives waiting tasks a node and their addresses, in one write.

What cannot be placed now stays PENDING with the reason, and is tried again when anything changes that might help. So
does what has to wait for services that its own depends on: it is held before a node is looked for.

Now and then slices of addresses that nodes no longer need are given back (logic/idle_slices.py): here, since no task
gets an address meanwhile.
"""

import asyncio
import itertools
from dataclasses import replace

from argosy.controller.logic.idle_slices import IdleSlices, blocks_of
from argosy.controller.loops.placing import Placing, waits
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.session.heard import HeardNodes
from argosy.controller.sparing import in_turns
from argosy.controller.store import Cache, ChangeBatch, Fence, Op, Snapshot, Store, create, delete, update
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.network import Network, Slice
from argosy.core.task import Task
from argosy.core.task_state import TaskState

RETRY_PERIOD_S = 0.25
"""Least time between two tries for tasks that could not be placed."""
LOOK_PERIOD_S = 60.0
"""How often it is looked which slices are not needed any more."""
AT_ONCE = 250
"""Tasks in one round: deciding takes the event loop, and heartbeats and the leader's lease must not wait for long."""


class SchedulerLoop:
    """One for a term of leadership."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, heard: HeardNodes, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._heard = heard
        self._ambient = ambient
        self._wake = Wake(ambient.monotonic)
        self._fresh: dict[str, None] = {}  # tasks that were never tried, oldest first
        self._refused: dict[str, None] = {}  # those that could not be placed, longest ago first
        self._owed = 0  # how many of the refused have not been tried since something changed
        self._next_retry = 0.0
        self._placing = Placing()
        self._idle = IdleSlices(ambient.monotonic())
        self._next_look = ambient.monotonic() + LOOK_PERIOD_S
        heard.on_report = self._try_again

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, self._wake):
            if batch is not None:
                await self._follow(batch)
            retries = self._owed if self._ambient.monotonic() >= self._next_retry else 0
            if self._fresh or retries:
                await self._place(retries)
            if self._ambient.monotonic() >= self._next_look:
                await self._give_back()
            if self._fresh:
                self._wake.now()
            else:
                self._wake.at(min(self._next_look, self._next_retry) if self._owed else self._next_look)

    def _try_again(self) -> None:
        """Take that it is known now what runs on a node: other services may have waited for that."""
        self._owed = len(self._refused)
        self._wake.now()

    async def _follow(self, batch: ChangeBatch) -> None:
        if batch.resync:
            self._take(batch)
        for some in in_turns(batch.changes):
            self._take(replace(batch, changes=tuple(some)))
            await asyncio.sleep(0)

    def _take(self, batch: ChangeBatch) -> None:
        """Follow changes; all that was refused is worth another try."""
        if batch.resync:
            self._placing.reset()
            self._idle = IdleSlices(self._ambient.monotonic())
            tasks = list(batch.snapshot.all(Task))
        else:
            self._placing.follow(batch.changes, batch.snapshot)
            for change in batch.changes:
                old, new = change.old, change.new
                left = not isinstance(new, Task) or new.status.released
                if isinstance(old, Task) and not old.status.released and left:
                    self._idle.left(old, self._ambient.monotonic())
            tasks = [c.new for c in batch.changes if isinstance(c.new, Task)]
        self._fresh.update((t.meta.id, None) for t in tasks if waits(t) and t.meta.id not in self._refused)
        self._owed = len(self._refused)

    def _next(self, snap: Snapshot, retries: int) -> list[Task]:
        """Return the tasks of the next round: those never tried first. What no longer waits is forgotten."""
        tasks: list[Task] = []
        for queue, limit in ((self._fresh, AT_ONCE), (self._refused, retries)):
            for task_id in list(itertools.islice(queue, min(limit, AT_ONCE - len(tasks)))):
                task = snap.get(Task, task_id)
                if task is not None and waits(task):
                    tasks.append(task)
                else:
                    del queue[task_id]
                if queue is self._refused:
                    self._owed -= 1
        return tasks

    async def _place(self, retries: int) -> None:
        snap = self._cache.snapshot
        tasks = self._next(snap, retries)
        if retries:
            self._next_retry = self._ambient.monotonic() + RETRY_PERIOD_S
        if not tasks:
            return
        for _ in self._placing.begin(snap):
            await asyncio.sleep(0)
        placed, slices = self._placing.decide(snap, tasks, self._ambient.wall(), self._heard.runs)
        if not await self._lease(slices):
            return
        changed = [t for t in placed if t != snap.get(Task, t.meta.id)]
        groups: list[list[Op]] = [[update(t)] for t in changed]
        outcomes = await self._store.commit_batched(groups, self._fence) if groups else []
        conflict, revision = False, 0
        placed_now: set[str] = set()
        for task, outcome in zip(changed, outcomes, strict=True):
            revision = max(revision, outcome.revision)
            if isinstance(outcome.error, ConflictError):
                conflict = True
            elif outcome.error is not None:
                raise outcome.error
            elif task.status.state is TaskState.ASSIGNED:
                placed_now.add(task.meta.id)
        if conflict:
            await self._look_again()
            return
        for tried in tasks:
            self._fresh.pop(tried.meta.id, None)
            self._refused.pop(tried.meta.id, None)
            if tried.meta.id not in placed_now:
                self._refused[tried.meta.id] = None
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

    async def _give_back(self) -> None:
        """Delete the slices that their nodes no longer need."""
        snap, now = self._cache.snapshot, self._ambient.monotonic()
        due: list[Slice] = []
        for network in snap.all(Network):
            tasks = (task for task in snap.tasks_on_network(network.meta.id) if not task.status.released)
            held = {block for task in tasks for block in blocks_of(task)}
            due += self._idle.due([network], snap.slices_of_network(network.meta.id), held, now)
            await asyncio.sleep(0)
        self._idle.expire(now)
        self._next_look = self._ambient.monotonic() + LOOK_PERIOD_S
        self._placing.forget_slices(due)
        revision = 0
        for outcome in await self._store.commit_batched([[delete(s)] for s in due], self._fence):
            if outcome.error is not None and not isinstance(outcome.error, ConflictError):
                raise outcome.error
            revision = max(revision, outcome.revision)
        await self._cache.wait_for(revision)

    async def _look_again(self) -> None:
        """Somebody else has changed what was planned with: see that, and plan anew."""
        await self._cache.wait_for(await self._store.revision())
        self._placing.reset()
        self._next_retry = 0.0
        self._owed = len(self._refused)
        self._wake.now()
        await asyncio.sleep(0)
