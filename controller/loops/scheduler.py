"""The scheduler loop: gives waiting tasks a node and their addresses, in one write.

What cannot be placed now stays PENDING with the reason, and is tried again when anything changes that might help. So
does what has to wait for services that its own depends on: it is held before a node is looked for.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from argosy.controller.logic.address_pool import AddressPool, Attached, Full, attach
from argosy.controller.logic.cluster_view import ClusterView
from argosy.controller.logic.schedule import Request, place, predecessor_of, request_for
from argosy.controller.logic.shunned import shunned_nodes
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.store import Cache, ChangeBatch, Fence, Op, Snapshot, Store, create, update
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.network import Network, Slice
from argosy.core.node import Node
from argosy.core.service import NetworkAttachmentSpec, Revision, Service, TaskSpec, UpdateState, revision_id
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState, is_failure

RETRY_PERIOD_S = 0.25
"""Least time between two tries for tasks that could not be placed."""


class SchedulerLoop:
    """One for a term of leadership. Keeps its view of the nodes' load from round to round, changed as tasks change."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient
        self._wake = Wake(ambient.monotonic)
        self._waiting: set[str] = set()
        self._next_retry = 0.0
        self._view: ClusterView | None = None
        self._last_given: dict[str, dict[str, int]] = {}  # by network and node: addresses go round

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
            self._view = None
            tasks = list(batch.snapshot.all(Task))
        else:
            self._follow(batch)
            tasks = [c.new for c in batch.changes if isinstance(c.new, Task)]
        fresh = {t.meta.id for t in tasks if _waits(t)} - self._waiting
        self._waiting |= fresh
        return bool(fresh)

    def _follow(self, batch: ChangeBatch) -> None:
        for change in batch.changes:
            match change.new or change.old:
                case Node():
                    self._view = None
                case Task() as task if is_failure(task.status.state):
                    self._view = None  # which nodes a service shuns may differ now
                case Task() as task if self._view is not None and change.new is None:
                    self._view.forget(task.meta.id)
                case Task() as task if self._view is not None:
                    revision = batch.snapshot.get(Revision, revision_id(task.service_id, task.revision))
                    self._view.put(task, revision.spec.task if revision else None)
                case _:
                    pass

    async def _place(self) -> None:
        snap = self._cache.snapshot
        found = (snap.get(Task, task_id) for task_id in self._waiting)
        tasks = [t for t in found if t is not None and _waits(t)]
        self._waiting = {t.meta.id for t in tasks}
        if not tasks:
            return
        if self._view is None:
            self._view = build_view(snap, self._ambient.wall())
        placed, slices = decide(snap, self._view, self._last_given, tasks, self._ambient.wall())
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
        self._view = None
        self._next_retry = 0.0
        self._wake.now()
        await asyncio.sleep(0)


def _waits(task: Task) -> bool:
    return task.status.state < TaskState.ASSIGNED and task.desired_state <= TaskState.RUNNING


def build_view(snap: Snapshot, now: float) -> ClusterView:
    """Return the load of all nodes."""
    everything = snap.all(Task)
    return ClusterView.build(snap.all(Node), everything, _specs(snap), shunned_nodes(everything, now))


def _specs(snap: Snapshot) -> dict[tuple[str, int], TaskSpec]:
    return {(r.service_id, r.number): r.spec.task for r in snap.all(Revision)}


def decide(
    snap: Snapshot, view: ClusterView, last_given: dict[str, dict[str, int]], waiting: Iterable[Task], now: float
) -> tuple[list[Task], list[Slice]]:
    """Return the waiting tasks as they are to be stored (ASSIGNED, or PENDING with a reason), and slices to lease.

    Placements are noted in `view`, and the addresses given last in `last_given`.
    """
    tasks = {t.meta.id: t for t in waiting}
    requests, refused = _requests(snap, tasks.values(), _specs(snap))
    placements = place(requests, view)
    refused.update(placements.refused)
    pools = _pools(snap, {r.spec.networks for r in requests}, last_given)
    results: list[Task] = []
    slices: list[Slice] = []
    for request in requests:
        node_id = placements.assigned.get(request.task_id)
        if node_id is None:
            continue
        granted: Attached | Full = attach(pools, [n.target for n in request.spec.networks], node_id)
        if isinstance(granted, Full):
            refused[request.task_id] = granted.reason
            continue
        slices += granted.new_slices
        results.append(_assigned(tasks[request.task_id], node_id, granted, now))
    last_given.update({network_id: pool.last_given for network_id, pool in pools.items()})
    results += [_pending(tasks[task_id], reason, now) for task_id, reason in refused.items()]
    return results, [replace(s, meta=replace(s.meta, created_at=now, updated_at=now)) for s in slices]


def _requests(
    snap: Snapshot, tasks: Iterable[Task], specs: dict[tuple[str, int], TaskSpec]
) -> tuple[list[Request], dict[str, str]]:
    requests, refused = [], {}
    for task in sorted(tasks, key=lambda t: (t.meta.created_at, t.service_id, t.slot)):
        spec = specs.get((task.service_id, task.revision))
        service = snap.get(Service, task.service_id)
        if spec is None or service is None:
            refused[task.meta.id] = f"revision {revision_id(task.service_id, task.revision)} of its service is gone"
            continue
        going_back = service.update.state in (UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED)
        order = (service.spec.rollback if going_back else service.spec.update).order
        requests.append(request_for(task, spec, predecessor_of(task, snap.tasks_of_service(task.service_id)), order))
    return requests, refused


def _pools(
    snap: Snapshot, attached: Iterable[tuple[NetworkAttachmentSpec, ...]], last_given: dict[str, dict[str, int]]
) -> dict[str, AddressPool]:
    wanted = {n.target for networks in attached for n in networks}
    pools = {}
    users: dict[str, list[Task]] = {network_id: [] for network_id in wanted}
    for task in snap.all(Task):
        for attachment in task.attachments:
            if attachment.network_id in users:
                users[attachment.network_id].append(task)
    for network_id in wanted:
        network = snap.get(Network, network_id)
        if network is not None:
            pools[network_id] = AddressPool.build(
                network, snap.slices_of_network(network_id), users[network_id], last_given.get(network_id)
            )
    return pools


def _assigned(task: Task, node_id: str, granted: Attached, now: float) -> Task:
    return replace(
        task,
        node_id=node_id,
        attachments=granted.attachments,
        status=TaskStatus(TaskState.ASSIGNED, at=now),
        meta=replace(task.meta, updated_at=now),
    )


def _pending(task: Task, reason: str, now: float) -> Task:
    if task.status.state is TaskState.PENDING and task.status.reason == reason:
        return task
    return replace(
        task,
        status=TaskStatus(TaskState.PENDING, at=now, reason=reason),
        meta=replace(task.meta, updated_at=now),
    )
