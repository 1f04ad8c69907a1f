"""The orchestrator loop: keeps every service's tasks as its spec wants them.

Looks at a service when it, one of its tasks or a node that it uses changed, when a task that it waits for is known to
all nodes, and at the time that its last plan named.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from argosy.controller.logic.departures import Departures
from argosy.controller.logic.orchestrate import plan_service
from argosy.controller.loops.apply import groups_of
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.sparing import Sparing
from argosy.controller.store import Cache, Change, ChangeBatch, Fence, Op, Snapshot, Store
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.fence import Grants
from argosy.core.node import Availability, Node
from argosy.core.service import Revision, Service, ServiceMode
from argosy.core.task import Task

EVERYWHERE = (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB)
"""Modes that have a task on every node: each change of a node concerns them."""
PLANS_A_TURN = 4
"""Services that are planned before heartbeats and the like get a turn of the event loop."""

SHARE = 0.4
"""Of the time that planning takes, at most: while many tasks come up, every service changes all the time."""

log = structlog.get_logger(__name__)


class Arrivals(Protocol):
    """Knows which tasks every node knows (controller/session/arrivals.py)."""

    on_arrival: Callable[[str], None]
    """To be told the service of a task that was asked about in vain before, and has arrived."""

    def has_arrived(self, task: Task) -> bool:
        """Whether every node that may connect to a task knows it."""


class ServicesLoop:
    """One for a term of leadership."""

    def __init__(
        self, store: Store, cache: Cache, fence: Fence, grants: Grants, arrivals: Arrivals, ambient: Ambient = SYSTEM
    ) -> None:
        self._grants = grants
        self._arrivals = arrivals
        arrivals.on_arrival = self._look_at
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient
        self._wake = Wake(ambient.wall)
        self._sparing = Sparing(ambient.processor, SHARE)
        self._due: dict[str, float] = {}  # service id -> when to look again

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, self._wake):
            dirty = self._dirty(batch)
            while dirty:
                dirty = await self._settle(dirty)
                await self._sparing.rest()
            self._wake.at(min(self._due.values(), default=None))

    def _look_at(self, service_id: str) -> None:
        self._due[service_id] = 0.0
        self._wake.now()

    def _dirty(self, batch: ChangeBatch | None) -> set[str]:
        now = self._ambient.wall()
        dirty = {service_id for service_id, when in self._due.items() if when <= now}
        if batch is None:
            return dirty
        if batch.resync:
            return {s.meta.id for s in batch.snapshot.all(Service)}
        return dirty | concerned(batch.changes, batch.snapshot)

    async def _settle(self, dirty: set[str]) -> set[str]:
        """Plan and write for the services; return those whose write conflicted and which are to be planned anew."""
        snap, now = self._cache.snapshot, self._ambient.wall()
        owners: list[str] = []
        groups: list[list[Op]] = []
        nodes = {n.meta.id: n for n in snap.all(Node)}
        departures = Departures.build(nodes.values(), snap.tasks_on_node, snap.tasks_of_service)
        for number, service_id in enumerate(sorted(dirty), 1):
            if number % PLANS_A_TURN == 0:
                await asyncio.sleep(0)
            self._due.pop(service_id, None)
            service = snap.get(Service, service_id)
            if service is None:
                continue
            with self._sparing.working():
                plan = plan_service(
                    service,
                    {r.number: r for r in snap.revisions_of_service(service_id)},
                    snap.tasks_of_service(service_id),
                    nodes,
                    now,
                    replace_in=self._grants.replace_in,
                    departures=departures,
                    arrived=self._arrivals.has_arrived,
                )
            if plan.wake_at is not None:
                self._due[service_id] = plan.wake_at
            for group in groups_of(plan.actions, snap, service, now, self._ambient.new_id):
                owners.append(service_id)
                groups.append(group)
        if not groups:
            return set()
        outcomes = await self._store.commit_batched(groups, self._fence)
        again: set[str] = set()
        revision = 0
        for service_id, outcome in zip(owners, outcomes, strict=True):
            revision = max(revision, outcome.revision)
            if isinstance(outcome.error, ConflictError):
                again.add(service_id)
            elif outcome.error is not None:
                raise outcome.error
        await self._cache.wait_for(await self._store.revision() if again else revision)
        return again


def concerned(changes: Iterable[Change], snap: Snapshot) -> set[str]:
    """Return the services whose plans changes may change."""
    services: set[str] = set()
    nodes = False
    for change in changes:
        match change.new or change.old:
            case Service() as service:
                services.add(service.meta.id)
            case Task() as task:
                services.add(task.service_id)
                services |= _waiting_on_drained(task.node_id, snap)
            case Revision() as revision:
                services.add(revision.service_id)
            case Node() as node:
                nodes = True
                services.update(t.service_id for t in snap.tasks_on_node(node.meta.id))
            case _:
                pass
    if nodes:
        services.update(s.meta.id for s in snap.all(Service) if s.spec.mode in EVERYWHERE)
    return services


def _waiting_on_drained(node_id: str, snap: Snapshot) -> set[str]:
    """Return the services whose tasks may leave a drained node now that another task of it has changed."""
    node = snap.get(Node, node_id) if node_id else None
    if node is None or node.spec.availability is not Availability.DRAIN:
        return set()
    return {t.service_id for t in snap.tasks_on_node(node_id)}
