"""Writes agents' reports to the store, many at a time, and acknowledges them when etcd has them.

Reports that come while a write is under way form the next one. A task that somebody else changed meanwhile is decided
anew on the new state; a report is acknowledged when all its tasks are settled.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from argosy.controller.logic.status_report import reported
from argosy.controller.store import Cache, Fence, Op, Store, update
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError, LostLeadershipError
from argosy.core.task import Task, TaskStatus

log = structlog.get_logger(__name__)

RETRY_S = 0.2
"""Pause before a status that the store did not take, other than for a conflict, is tried again."""


@dataclass(slots=True)
class Report:
    """One report of a node and what to call when it is stored."""

    node_id: str
    statuses: dict[str, TaskStatus]
    acknowledge: Callable[[], None]
    left: set[str] = field(default_factory=set)


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
        report.left = set(report.statuses)
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
        tasks: dict[str, Task] = {}
        origin: dict[str, list[Report]] = {}
        for report in reports:
            for task_id in tuple(report.left):
                known = tasks.get(task_id) or snap.get(Task, task_id)
                changed = reported(known, report.statuses[task_id], now) if known else None
                if known and known.node_id != report.node_id:
                    log.warning("report of a task on another node", task=task_id, node=report.node_id)
                    changed = None
                if changed is not None:
                    tasks[task_id] = changed
                if task_id in tasks:
                    origin.setdefault(task_id, []).append(report)
                else:
                    report.left.discard(task_id)
        await self._commit(tasks, origin)
        for report in reports:
            if not report.left:
                report.acknowledge()

    async def _commit(self, tasks: dict[str, Task], origin: dict[str, list[Report]]) -> None:
        if not tasks:
            return
        groups: list[list[Op]] = [[update(task)] for task in tasks.values()]
        outcomes = await self._store.commit_batched(groups, self._fence)
        settled, conflict, refused = 0, False, None
        for task_id, outcome in zip(tasks, outcomes, strict=True):
            if outcome.ok:
                settled = max(settled, outcome.revision)
                for report in origin[task_id]:
                    report.left.discard(task_id)
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
