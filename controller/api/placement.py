"""The part of the Control service that is about where tasks run: explanations, rebalancing, how they are placed."""

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import grpc

from argosy.controller.api.plan import PlanHandlers
from argosy.controller.changes import cluster as cluster_changes
from argosy.controller.changes import mesh, refs
from argosy.controller.changes.commit import change
from argosy.controller.changes.refs import project_of
from argosy.controller.cluster import ClusterView
from argosy.controller.logic.ask import Ask
from argosy.controller.logic.explain import summary, verdicts
from argosy.controller.logic.rebalance import is_at_rest, is_movable, plan_moves
from argosy.controller.logic.shunned import shunned_nodes
from argosy.controller.loops.forecast import tasks_there
from argosy.controller.loops.placing import note_shortages, view_of, waits
from argosy.controller.store import MAX_OPS, Snapshot, update
from argosy.core.codec import encode, encode_into
from argosy.core.errors import ConflictError, InvalidError, PreconditionError
from argosy.core.meta import Scheduling
from argosy.core.service import Revision, Service, ServiceMode
from argosy.core.task import Task
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as tpb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

MOST_PLANNED_MOVES: Final = MAX_OPS
"""What one transaction takes."""


class PlacementHandlers(PlanHandlers):
    """Handlers that `ControlServicer` inherits."""

    _view: ClusterView

    async def UpdateCluster(self, request: pb.UpdateClusterRequest, context: Context) -> tpb.Cluster:
        """Change how tasks are placed from now on."""
        if int(request.scheduling) not in Scheduling.__members__.values():
            raise InvalidError(
                f"there is no scheduling {request.scheduling}: there are {', '.join(Scheduling.__members__)}"
            )
        wanted = Scheduling(request.scheduling)
        cluster = await change(
            self._store, self._cache, lambda snap: cluster_changes.updated(snap, wanted, time.time())
        )
        return encode(replace(cluster, name=self._view.cluster), tpb.Cluster)

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: Context) -> tpb.Cluster:
        """Begin a rotation of the tunnels' keys."""
        cluster = await change(self._store, self._cache, lambda snap: mesh.rotation(snap, time.time()))
        return encode(replace(cluster, name=self._view.cluster), tpb.Cluster)

    async def GetExplanation(self, request: pb.GetExplanationRequest, context: Context) -> pb.GetExplanationResponse:
        """Say of each node whether it could run another task of a service."""
        snap = self._cache.snapshot
        service = refs.service(snap, project_of(request.project), request.ref)
        return await asyncio.to_thread(_explained, snap, service)

    async def Rebalance(self, request: pb.RebalanceRequest, context: Context) -> pb.RebalanceResponse:
        """Mark tasks that should move; the orchestrator moves them as their services' budgets allow."""
        planned = await self.check_plan("rebalance", request, context)
        snap, now = planned or self._cache.snapshot, time.time()
        tasks, notice = await asyncio.to_thread(moves_of, snap)
        evicted = [replace(t, evict=True, meta=replace(t.meta, updated_at=now)) for t in tasks]
        marked = await (self._mark_as_planned(planned, evicted) if planned else self._mark(evicted))
        response = pb.RebalanceResponse(notice=notice or _too_many(len(evicted)))
        for task in marked:
            encode_into(task, response.tasks.add())
        for service_id in sorted({task.service_id for task in response.tasks}):
            if found := self._cache.snapshot.get(Service, service_id):
                encode_into(found, response.services.add())
        return response

    async def _mark(self, evicted: Sequence[Task]) -> Sequence[Task]:
        """Store tasks that are to move, but those that have changed meanwhile: they are not at rest."""
        outcomes = await self._store.commit_batched([[update(task)] for task in evicted])
        for outcome in outcomes:
            if outcome.error is not None and not isinstance(outcome.error, ConflictError):
                raise outcome.error
        await self._cache.wait_for(max((outcome.revision for outcome in outcomes), default=0))
        return [task for task, outcome in zip(evicted, outcomes, strict=True) if outcome.ok]

    async def _mark_as_planned(self, planned: Snapshot, evicted: Sequence[Task]) -> Sequence[Task]:
        """Store all tasks that are to move, or none."""
        if len(evicted) > MOST_PLANNED_MOVES:
            raise PreconditionError(f"{_too_many(len(evicted))}; nothing was done")
        return await change(self._store, self._cache, lambda _: ([update(t) for t in evicted], evicted), planned)


def moves_of(snap: Snapshot) -> tuple[Sequence[Task], str]:
    """Return the tasks that should move, or why there are none."""
    view = view_of(snap)
    if view.scheduling is Scheduling.BINPACK:
        return [], "the cluster is packed (argosy cluster update --scheduling spread lets it be evened out)"
    going_on = tasks_there(snap)
    busy = {t.service_id for t in going_on if not is_movable(t)}
    quiet = {s.meta.id for s in snap.all(Service) if is_at_rest(s)} - busy
    tasks = [t for t in going_on if t.service_id in quiet]
    specs = {(r.service_id, r.number): r.spec.task for r in snap.all(Revision)}
    used = {(t.service_id, t.revision) for t in tasks}
    note_shortages(view, snap, (spec for key, spec in specs.items() if key in used))
    moves = plan_moves(tasks, specs, view)
    return [move.task for move in moves], "" if moves else _even(snap, quiet)


def _too_many(moves: int) -> str:
    """Return why so many moves cannot be held to a plan; empty when they can."""
    if moves <= MOST_PLANNED_MOVES:
        return ""
    return (
        f"{moves} tasks are to move, and only {MOST_PLANNED_MOVES} can be all or none: `argosy rebalance` without "
        "--plan-id moves each on its own"
    )


def _even(snap: Snapshot, quiet: Collection[str]) -> str:
    others = [
        s.spec.name for s in snap.all(Service) if s.meta.id not in quiet and s.spec.mode is ServiceMode.REPLICATED
    ]
    if not others:
        return "every service is spread as evenly as it can be"
    return f"every service at rest is spread as evenly as it can be; not looked at: {', '.join(sorted(others)[:6])}"


def _explained(snap: Snapshot, service: Service) -> pb.GetExplanationResponse:
    view = view_of(snap)
    name, tasks = view.name_of(service.meta.id), snap.tasks_of_service(service.meta.id)
    view.shun(name, shunned_nodes(tasks, time.time()).get(service.meta.id, ()))
    note_shortages(view, snap, [service.spec.task])
    ask = Ask.of(name, service.spec.task)
    response = pb.GetExplanationResponse(summary=summary(ask, view))
    encode_into(service, response.service)
    for one in verdicts(ask, view):
        response.nodes.add(node=one.node, fits=one.fits, reason=one.reason, tasks=one.tasks, next=one.next)
    for task in sorted(tasks, key=lambda t: (t.slot, t.meta.id)):
        if waits(task):
            encode_into(task, response.waiting.add())
    return response
