"""The part of the Control service that tells what requests would do: plans, and their ids.

`GetPlan` runs a request's own handler on a rehearsal of the store, then lets the controller's decisions go on from
there in memory (loops/forecast.py), and compares where that comes to rest with where the cluster would without it. The
id is of the difference: a request that names one is refused unless it would do just that.
"""

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias, cast

import grpc

from argosy.controller.api.rehearsal import Rehearsal
from argosy.controller.changes.refs import project_of
from argosy.controller.logic.departures import is_coming
from argosy.controller.logic.plan_diff import (
    PLAN_ID,
    SpecChange,
    TaskChange,
    Verb,
    field_changes,
    plan_id,
    task_changes,
)
from argosy.controller.logic.slots import serves
from argosy.controller.loops.forecast import after, forecast, tasks_there
from argosy.controller.session.dispatcher import DispatcherServicer
from argosy.controller.store import Cache, Op, Snapshot, Store
from argosy.core.errors import InvalidError, PreconditionError
from argosy.core.files import Config, FileVersion, Secret
from argosy.core.network import Network, NetworkSpec
from argosy.core.node import Availability, Node, NodeSpec, NodeState
from argosy.core.service import JOB_MODES, Service, ServiceSpec
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_HANDLERS: Final = {
    "apply_stack": "ApplyStack",
    "create_service": "CreateService",
    "update_service": "UpdateService",
    "scale_services": "ScaleServices",
    "rollback_service": "RollbackService",
    "update_node": "UpdateNode",
    "rebalance": "Rebalance",
}
_CLUSTER_WIDE: Final = frozenset({"update_node", "rebalance"})
"""The requests in GetClusterPlanRequest: about no project, with plans that tell of all."""
_SPECS: Final[tuple[tuple[type[Any], str, Any], ...]] = (
    (Service, "service", ServiceSpec()),
    (Network, "network", NetworkSpec()),
    (Node, "node", NodeSpec()),
)
_FILES: Final[tuple[tuple[type[Any], str], ...]] = ((Config, "config"), (Secret, "secret"))
_TIMES: Final = frozenset({"drain.deadline"})
"""Fields whose value is a time: it would be another at each asking."""
_NAMED: Final = 5
"""So many nodes are named in a notice."""
_VERBS: Final = {verb: pb.PlanVerb.Value(f"PLAN_VERB_{verb.name}") for verb in Verb}


class PlanHandlers(rpc.ControlServicer):
    """Handlers that `ControlServicer` inherits."""

    _store: Store
    _cache: Cache
    _dispatcher: DispatcherServicer

    async def GetPlan(self, request: pb.GetPlanRequest, context: Context) -> pb.GetPlanResponse:
        """Tell what a request would do to a project."""
        return await self._plan(request, context)

    async def GetClusterPlan(self, request: pb.GetClusterPlanRequest, context: Context) -> pb.GetPlanResponse:
        """Tell what a request would do to the tasks of all projects. It tells of no secret, so to look is enough."""
        return await self._plan(request, context)

    async def _plan(
        self, request: pb.GetPlanRequest | pb.GetClusterPlanRequest, context: Context
    ) -> pb.GetPlanResponse:
        name = request.WhichOneof("change")
        if name is None:
            raise InvalidError("the request to plan is missing")
        snap = self._cache.snapshot
        specs, tasks, notices = await self._planned(name, getattr(request, name), context, snap)
        return _response(specs, tasks, [*notices, *self._unheard(snap)])

    def _unheard(self, snap: Snapshot) -> list[str]:
        """Say which nodes a plan takes to be as they told an earlier leader; only the leader knows."""
        term = self._dispatcher.term
        busy = {task.node_id for task in snap.all(Task) if task.status.state is TaskState.RUNNING}
        names = sorted(
            node.spec.name
            for node in snap.all(Node)
            if term is not None
            and node.meta.id in busy
            and node.status.state in (NodeState.READY, NodeState.UNKNOWN)
            and not term.heard.vouches(node)
        )
        if not names:
            return []
        who = f"{', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}"
        one = len(names) == 1
        return [
            f"{who} {'has' if one else 'have'} not told the new leader yet what runs there: the plan goes by what "
            f"{'it' if one else 'they'} told before"
        ]

    async def check_plan(self, name: str, request: Any, context: Context) -> Snapshot | None:
        """Refuse a request that names a plan which is not what it would do now; return the state it was judged by.

        `name`: its field in GetPlanRequest or GetClusterPlanRequest. None: it names no plan.
        """
        if not request.plan_id:
            return None
        if not PLAN_ID.fullmatch(request.plan_id):
            raise InvalidError(
                f"{request.plan_id!r} is no id of a plan: --plan prints one, of 16 characters 0-9 and a-f"
            )
        snap = self._cache.snapshot
        specs, tasks, _ = await self._planned(name, request, context, snap)
        if plan_id(specs, tasks) != request.plan_id:
            raise PreconditionError(
                f"plan {request.plan_id} is stale, or of another request: now this would "
                f"{_in_short(specs, tasks)}; nothing was done: make a new plan with --plan"
            )
        return snap

    async def _planned(
        self, name: str, request: Any, context: Context, snap: Snapshot
    ) -> tuple[Sequence[SpecChange], Sequence[TaskChange], Sequence[str]]:
        rehearsal = Rehearsal(snap)
        twin = copy.copy(self)
        twin._store, twin._cache = cast(Store, rehearsal), cast(Cache, rehearsal)
        bare = type(request)()
        bare.CopyFrom(request)
        bare.plan_id = ""
        answer = await getattr(twin, _HANDLERS[name])(bare, context)
        # Deciding for a whole cluster takes a while: agents' sessions go on meanwhile.
        project = None if name in _CLUSTER_WIDE else project_of(request.project)
        abandoned = threading.Event()
        try:
            specs, tasks = await asyncio.to_thread(
                differences, snap, rehearsal.ops, time.time(), project, abandoned.is_set
            )
        finally:
            abandoned.set()  # a client that goes away leaves no thread behind that works for nobody
        notices = [*getattr(answer, "notices", ()), *filter(None, [getattr(answer, "notice", "")])]
        return specs, tasks, [*notices, *_staying(snap, after(snap, rehearsal.ops)[0])]


def differences(
    snap: Snapshot,
    ops: Sequence[Op],
    now: float,
    project: str | None = None,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> tuple[list[SpecChange], tuple[TaskChange, ...]]:
    """Return what operations would change: of specs at once, of placement until the cluster is at rest.

    With `project` only of its tasks: what waits for room in another one is nobody's business here. AbandonedError soon
    after `is_abandoned` has become true.
    """
    begins = after(snap, ops)[0]
    specs = list(_spec_changes(snap, begins))
    without, then = forecast(snap, [], now, is_abandoned), forecast(snap, ops, now, is_abandoned)
    names = {s.meta.id: s.spec.name for world in (without, then) for s in world.all(Service)}
    nodes = {n.meta.id: n.spec.name for n in snap.all(Node)}
    known = frozenset(task.meta.id for task in snap.all(Task))
    jobs = _moved_before_they_begin(snap, begins, without, then)
    before, behind = (
        [t for t in (*tasks_there(world), *moved) if project in (None, t.meta.project)]
        for world, moved in zip((without, then), jobs, strict=True)
    )
    return specs, task_changes(before, behind, known, names, nodes)


def _moved_before_they_begin(
    snap: Snapshot, begins: Snapshot, without: Snapshot, then: Snapshot
) -> tuple[list[Task], list[Task]]:
    """Return what has not begun of jobs on the nodes that a request drains, and the tasks that run instead.

    At rest all of them have ended, here or there.
    """
    waiting = (t for node in _drained(snap, begins) for t, _ in _job_tasks(snap, node) if not serves(t))
    here = [t for t in waiting if _completes(without, t) and not _completes(then, t)]
    places = {(t.service_id, t.slot, t.iteration) for t in here if t.slot}
    return here, [t for t in then.all(Task) if (t.service_id, t.slot, t.iteration) in places and _completes(then, t)]


def _completes(world: Snapshot, task: Task) -> bool:
    found = world.get(Task, task.meta.id)
    return found is not None and found.status.state is TaskState.COMPLETE


def _drained(snap: Snapshot, begins: Snapshot) -> Iterable[Node]:
    """Yield the nodes that a request drains, or drains otherwise than before."""
    for node in begins.all(Node):
        before = snap.get(Node, node.meta.id)
        if node.spec.availability is Availability.DRAIN and before is not None and before.spec != node.spec:
            yield node


def _job_tasks(snap: Snapshot, node: Node) -> Iterable[tuple[Task, Service]]:
    """Yield the tasks of jobs that are to run on a node and have not ended."""
    for task in snap.tasks_on_node(node.meta.id):
        service = snap.get(Service, task.service_id)
        if service is not None and service.spec.mode in JOB_MODES and is_coming(task):
            yield task, service


def _staying(snap: Snapshot, begins: Snapshot) -> list[str]:
    """Say which tasks of jobs go on on the nodes that a request drains: no plan can say when they end."""
    notices = []
    for node in _drained(snap, begins):
        left = [f"{job.spec.name}.{t.slot or node.spec.name}" for t, job in _job_tasks(snap, node) if serves(t)]
        until = ", or to the drain's deadline" if node.spec.drain.deadline else ""
        if left:
            notices.append(f"tasks of jobs on {node.spec.name} run on to their end{until}: {', '.join(sorted(left))}")
    return notices


def _if_set(moment: str) -> str:
    return "set" if moment not in ("", "0") else ""


def _spec_changes(old: Snapshot, new: Snapshot) -> Iterable[SpecChange]:
    for kind, word, empty in _SPECS:
        there = {o.meta.id: o for o in old.all(kind)}
        for one in sorted(new.all(kind), key=lambda o: o.spec.name):
            before = there.pop(one.meta.id, None)
            if getattr(one, "removing", False):
                if before is not None and not getattr(before, "removing", False):
                    yield SpecChange(Verb.REMOVE, word, one.spec.name)
                continue
            found = field_changes(_named(before.spec, old, old) if before else empty, _named(one.spec, new, old))
            found = tuple(replace(f, old=_if_set(f.old), new=_if_set(f.new)) if f.path in _TIMES else f for f in found)
            if found or before is None:
                yield SpecChange(Verb.UPDATE if before is not None else Verb.CREATE, word, one.spec.name, found)
        for gone in sorted(o.spec.name for o in there.values()):
            yield SpecChange(Verb.REMOVE, word, gone)
    for file_kind, word in _FILES:  # never what is in them
        files = {o.meta.id: o for o in old.all(file_kind)}
        for file in sorted(new.all(file_kind), key=lambda o: o.name):
            had = files.pop(file.meta.id, None)
            if file.removing:
                if had is not None and not had.removing:
                    yield SpecChange(Verb.REMOVE, word, file.name)
            elif had is None or replace(had, meta=file.meta) != file:
                yield SpecChange(Verb.CREATE if had is None else Verb.UPDATE, word, file.name)


def _named(spec: Any, snap: Snapshot, known: Snapshot) -> Any:
    """Return a spec with names for ids, which say nothing to people and are random where they are new."""
    if not isinstance(spec, ServiceSpec):
        return spec
    networks = tuple(
        replace(n, target=found.spec.name if (found := snap.get(Network, n.target)) is not None else n.target)
        for n in spec.task.networks
    )
    files = tuple(
        replace(f, id=f.id if not f.id or known.get(FileVersion, f.id) else "new") for f in spec.task.container.files
    )
    container = replace(spec.task.container, files=files)
    return replace(spec, task=replace(spec.task, networks=networks, container=container))


def _response(specs: Sequence[SpecChange], tasks: Sequence[TaskChange], notices: Sequence[str]) -> pb.GetPlanResponse:
    response = pb.GetPlanResponse(id=plan_id(specs, tasks), notices=notices)
    for spec in specs:
        fields = [pb.FieldChange(path=f.path, old=f.old, new=f.new) for f in spec.fields]
        response.specs.add(verb=_VERBS[spec.verb], kind=spec.kind, name=spec.name, fields=fields)
    for task in tasks:
        response.tasks.add(
            verb=_VERBS[task.verb],
            service=task.service,
            task=task.task,
            old_node=task.old_node,
            new_node=task.new_node,
            reason=task.reason,
        )
    return response


def _in_short(specs: Sequence[SpecChange], tasks: Sequence[TaskChange]) -> str:
    parts = [f"{s.verb.value} {s.kind} {s.name}" for s in specs]
    parts += [f"{t.verb.value} {t.task}" + (f" ({t.new_node})" if t.new_node else "") for t in tasks]
    if not parts:
        return "change nothing"
    return ", ".join(parts[:4]) + (f" and {len(parts) - 4} more" if len(parts) > 4 else "")
