"""Writes agents' reports to the store, many at a time, and acknowledges them when etcd has them.

Reports that come while a write is under way form the next one. A task that somebody else changed meanwhile is decided
anew on the new state; a report is acknowledged when all its tasks are settled.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from argosy.controller.logic.status_report import adopted, reported
from argosy.controller.store import Cache, Fence, Op, Store, create, update
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.assignment import Succession
from argosy.core.errors import ConflictError, LostLeadershipError
from argosy.core.ids import ID_PATTERN
from argosy.core.task import Task, TaskStatus

log = structlog.get_logger(__name__)

REPORTS_A_TURN = 100
"""Reports that are judged before heartbeats and the like get a turn: after a failover each node reports everything."""
RETRY_S = 0.2
"""Pause before a status that the store did not take, other than for a conflict, is tried again."""


@dataclass(slots=True)
class Report:
    """One report of a node and what to call when it is stored."""

    node_id: str
    statuses: dict[str, TaskStatus]
    acknowledge: Callable[[], None]
    successions: dict[str, Succession] = field(default_factory=dict)
    """Of tasks that the node made itself while there was no controller."""
    left: list[str] = field(default_factory=list)
    """What is not settled yet, a root before what descends from it."""


@dataclass(slots=True)
class _Changes:
    """What one write is to change: tasks by id, those among them that are new with their roots, and who reported."""

    tasks: dict[str, Task] = field(default_factory=dict)
    born: dict[str, str] = field(default_factory=dict)
    origin: dict[str, list[Report]] = field(default_factory=dict)

    def groups(self) -> list[dict[str, Op]]:
        """Return the operations by task in groups that are each atomic.

        A task that a node made itself comes with the end of the one that it followed: the slot is never without.
        """
        groups: dict[str, dict[str, Op]] = {}
        for task_id, task in self.tasks.items():
            op = create(task) if task_id in self.born else update(task)
            groups.setdefault(self.born.get(task_id, task_id), {})[task_id] = op
        return list(groups.values())


class StatusWriter:
    """One for a term of leadership; `run` owns the writing."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient
        self._queue: list[Report] = []
        self._wake = asyncio.Event()

    def submit(self, report: Report) -> None:
        """Queue a report; reports of a node are settled in the order in which they came."""
        report.left = sorted(report.statuses, key=lambda task_id: task_id in report.successions)
        self._queue.append(report)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            reports, self._queue = self._queue, []
            await self._write(reports)
            if left := [r for r in reports if r.left]:
                self._queue[:0] = left
                self._wake.set()

    async def _write(self, reports: list[Report]) -> None:
        now, snap = self._ambient.wall(), self._cache.snapshot
        changes = _Changes()
        for number, report in enumerate(reports, 1):
            if number % REPORTS_A_TURN == 0:
                await asyncio.sleep(0)
            for task_id in tuple(report.left):
                known = changes.tasks.get(task_id) or snap.get(Task, task_id)
                succession, changed = report.successions.get(task_id), None
                if known is None and succession is not None and ID_PATTERN.fullmatch(task_id):
                    known = changes.tasks.get(succession.root) or snap.get(Task, succession.root)
                    if known is not None and known.node_id == report.node_id:
                        changed = adopted(known, task_id, succession, report.statuses[task_id], now)
                        changes.born[task_id] = succession.root
                elif known is not None and known.node_id == report.node_id:
                    changed = reported(known, report.statuses[task_id], now)
                if known is not None and known.node_id != report.node_id:
                    log.warning("report of a task on another node", task=task_id, node=report.node_id)
                if changed is not None:
                    changes.tasks[task_id] = changed
                if task_id in changes.tasks:
                    changes.origin.setdefault(task_id, []).append(report)
                else:
                    report.left.remove(task_id)
        await self._commit(changes)
        for report in reports:
            if not report.left:
                report.acknowledge()

    async def _commit(self, changes: _Changes) -> None:
        if not changes.tasks:
            return
        groups = changes.groups()
        outcomes = await self._store.commit_batched([[*ops.values()] for ops in groups], self._fence)
        settled, conflict, refused = 0, False, None
        for ops, outcome in zip(groups, outcomes, strict=True):
            if outcome.ok:
                settled = max(settled, outcome.revision)
                for task_id in ops:
                    for report in changes.origin[task_id]:
                        report.left.remove(task_id)
            elif isinstance(outcome.error, LostLeadershipError):
                raise outcome.error
            elif isinstance(outcome.error, ConflictError):
                conflict = True
            else:
                refused = outcome.error
        if refused is not None:
            log.warning("statuses not stored yet", why=str(refused))
            await asyncio.sleep(RETRY_S)
        await self._cache.wait_for(await self._store.revision() if conflict or refused else settled)
