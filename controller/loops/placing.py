"""What the scheduler decides with, kept between rounds: the load of all nodes, and the addresses of networks.

Both are made from a snapshot when they are first needed and then follow the changes, so that a round costs what has
changed and what is to be placed, not what the cluster is large. Whatever is kept could be made anew from the objects at
any time and would then give the same answers: a new leader decides as the old one would have. The scheduler loop owns
one for a term; a forecast (forecast.py) makes its own.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from argosy.controller.logic.address_pool import AddressPool, Asking, Attached, Full, attach
from argosy.controller.logic.ask import clashing, qualified_name
from argosy.controller.logic.cluster_view import ClusterView
from argosy.controller.logic.dependencies import Gate, Held, Objects
from argosy.controller.logic.schedule import Request, place, predecessor_of, request_for
from argosy.controller.logic.shunned import shunned_nodes
from argosy.controller.store import Change, Snapshot
from argosy.core.addresses import parse_ipv4
from argosy.core.meta import Cluster, Scheduling
from argosy.core.network import Network, Slice
from argosy.core.node import Node, NodeState
from argosy.core.ports import said
from argosy.core.service import JOB_MODES, Revision, Service, TaskSpec, revision_id
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

TASKS_A_TURN = 1000
"""Tasks that are taken in before heartbeats and the like get a turn of the event loop."""
_HELD_UNTIL = {
    NodeState.AGENT_LOST: "which is without an agent: it may run there until that is back",
    NodeState.DOWN: "which is DOWN: it may run there until the node is back, or removed by 'argosy node rm'",
}
"""How long the task of another service holds an address, where its node cannot say that nothing of it is left."""


@dataclass(slots=True)
class _Round:
    """What became of some requests: of those that did not get a place, by task the reason.

    `refused`: no node takes it. `short`: the node has no address for it. `blocked`: its node would take it if the task
    that it takes over from were gone.
    """

    refused: Mapping[str, str]
    placed: list[Task] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    short: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)


class Placing:
    """Mutable; call `follow` with every change, `reset` when something that was decided could not be stored."""

    def __init__(self) -> None:
        self._view: ClusterView | None = None
        self._pools: dict[str, AddressPool] = {}
        self._last_given: dict[str, dict[str, int]] = {}  # by network and node: addresses go round

    def reset(self) -> None:
        """Forget everything but which addresses were given last."""
        self._view = None
        self._pools.clear()

    def follow(self, changes: Iterable[Change], snap: Snapshot) -> None:
        """Take note of changes; `snap` is the snapshot after them, or a later one."""
        for change in changes:
            match change.new or change.old:
                case Node() as node if self._view is not None:
                    if change.new is None or not self._view.put_node(node):
                        self._view = None
                case Task() as task:
                    self._follow_task(task, snap, gone=change.new is None)
                case Revision() as revision if change.new is None and self._view is not None:
                    self._view.forget_spec(revision.service_id, revision.number)
                case Slice() as lease if lease.network_id in self._pools:
                    pool = self._pools[lease.network_id]
                    (pool.forget_slice if change.new is None else pool.put_slice)(lease)
                case Network() as network:
                    self._pools.pop(network.meta.id, None)
                    if network.spec.encrypted and self._view is not None:
                        self._view.encrypted.add(network.meta.id)
                case Cluster() as cluster if self._view is not None:
                    self._view.scheduling = cluster.scheduling
                case _:
                    pass

    def forget_slices(self, slices: Iterable[Slice]) -> None:
        """Take note that slices are about to be given back: no task gets an address of them."""
        for lease in slices:
            if lease.network_id in self._pools:
                self._pools[lease.network_id].forget_slice(lease)

    def _follow_task(self, task: Task, snap: Snapshot, *, gone: bool) -> None:
        for attachment in task.attachments:
            pool = self._pools.get(attachment.network_id)
            if pool is not None:
                (pool.forget if gone else pool.put)(task)
        if self._view is None:
            return
        if gone:
            self._view.forget(task.meta.id)
            return
        self._know(self._view, task, snap)
        self._view.put(task)

    def _know(self, view: ClusterView, task: Task, snap: Snapshot) -> None:
        """Let the view know the service and the revision of a task."""
        revision = snap.get(Revision, revision_id(task.service_id, task.revision))
        if revision is not None:
            view.put_name(task.service_id, qualified_name(revision.meta.project, revision.spec.name))
            view.put_spec(task.service_id, task.revision, revision.spec.task)

    def begin(self, snap: Snapshot) -> Iterator[None]:
        """Make the view, if there is none; yields now and then, so that others get a turn: it may take seconds."""
        if self._view is None:
            view = view_of(snap, ())
            for number, task in enumerate(snap.all(Task), 1):
                view.put(task)
                if number % TASKS_A_TURN == 0:
                    yield
            self._view = view

    def view(self, snap: Snapshot) -> ClusterView:
        """Return the load of all nodes."""
        if self._view is None:
            self._view = view_of(snap)
        return self._view

    def decide(
        self,
        snap: Snapshot,
        waiting: Iterable[Task],
        now: float,
        runs: Callable[[Node, str], bool] = lambda node, task_id: True,
    ) -> tuple[list[Task], list[Slice]]:
        """Return the waiting tasks as they are to be stored (ASSIGNED, or PENDING with a reason), and slices to lease.

        What other services hold back (`depends_on`) is held before a node is looked for.
        What was placed is noted here: it counts in the next round whether or not its change was followed by then.
        """
        tasks, held = _gate(snap, waiting, now, runs)
        view = self.view(snap)
        for task in tasks.values():
            self._know(view, task, snap)
        requests, refused = _requests(snap, tasks.values())
        for service_id in {r.service_id for r in requests}:
            shunned = shunned_nodes(snap.tasks_of_service(service_id), now)
            view.shun(view.name_of(service_id), shunned.get(service_id, ()))
        results = [_pending(task, why.reason, now, held=True) for task, why in held]
        slices: list[Slice] = []
        blocked: dict[str, str] = {}
        left = requests
        while left:
            found = self._round(snap, view, left, tasks, now)
            results += found.placed
            slices += found.slices
            refused.update(found.refused)
            blocked.update(found.blocked)
            if not found.placed:
                refused.update(found.short)
                break
            # What was given is known in the next round: there they go where addresses are left, if anywhere.
            left = [request for request in left if request.task_id in found.short]
        for task_id in _could_follow(snap, view, [request for request in requests if request.task_id in refused]):
            blocked[task_id] = refused.pop(task_id)
        results += [_pending(tasks[task_id], reason, now) for task_id, reason in refused.items()]
        results += [_pending(tasks[task_id], reason, now, waits_for_old=True) for task_id, reason in blocked.items()]
        return results, [replace(s, meta=replace(s.meta, created_at=now, updated_at=now)) for s in slices]

    def _round(
        self, snap: Snapshot, view: ClusterView, requests: Sequence[Request], tasks: Mapping[str, Task], now: float
    ) -> "_Round":
        """Look for a node and then for addresses for each request."""
        pools = self._pools_for(snap, requests)
        for network_id in {n.target for request in requests for n in request.spec.networks} & pools.keys():
            view.put_shortage(network_id, pools[network_id].shortage())
        placements = place(requests, view)
        found = _Round(refused=placements.refused)
        for request in requests:
            node_id = placements.assigned.get(request.task_id)
            if node_id is None:
                continue
            asking = _asking(request, snap)
            ports = _ports_of_old(request, node_id, snap)
            if ports:
                reason = f"the task that it replaces has port {' and '.join(ports)} of the host"
                found.blocked[request.task_id] = reason
                view.forget(request.task_id)
                continue
            granted = attach(pools, [n.target for n in request.spec.networks], node_id, asking)
            if isinstance(granted, Full):
                old = _serving_old(request, snap)
                has_it = old is not None and old.meta.id == granted.held_by
                (found.blocked if has_it else found.short)[request.task_id] = granted.reason
                view.forget(request.task_id)
                continue
            found.slices += granted.new_slices
            found.placed.append(_assigned(tasks[request.task_id], node_id, granted, now))
            if asking:
                self._hold_static(found.placed[-1])
        return found

    def _hold_static(self, task: Task) -> None:
        """Note at once that a task has its static addresses: another of the round may want them, too."""
        for attachment in task.attachments:
            if attachment.fixed and attachment.network_id in self._pools:
                self._pools[attachment.network_id].put(task)

    def _pools_for(self, snap: Snapshot, requests: Sequence[Request]) -> Mapping[str, AddressPool]:
        wanted = {n.target for request in requests for n in request.spec.networks}
        missing = {i: network for i in wanted - self._pools.keys() if (network := snap.get(Network, i)) is not None}
        for network_id, network in missing.items():
            slices, last = snap.slices_of_network(network_id), self._last_given.get(network_id)
            pool = AddressPool.build(network, slices, snap.tasks_on_network(network_id), last)
            self._pools[network_id] = pool
            self._last_given[network_id] = pool.last_given
        return self._pools


def view_of(snap: Snapshot, tasks: Iterable[Task] | None = None) -> ClusterView:
    """Return the load of all nodes of a snapshot; with `tasks`, what those hold alone."""
    revisions = snap.all(Revision)
    cluster = next(iter(snap.all(Cluster)), None)
    view = ClusterView.build(
        snap.all(Node),
        snap.all(Task) if tasks is None else tasks,
        {(r.service_id, r.number): r.spec.task for r in revisions},
        {r.service_id: qualified_name(r.meta.project, r.spec.name) for r in revisions},
        cluster.scheduling if cluster is not None else Scheduling.SPREAD,
    )
    view.encrypted.update(n.meta.id for n in snap.all(Network) if n.spec.encrypted)
    return view


def note_shortages(view: ClusterView, snap: Snapshot, specs: Iterable[TaskSpec]) -> None:
    """Let a view know on which nodes alone tasks of these specs can have addresses."""
    for network_id in {n.target for spec in specs for n in spec.networks}:
        network = snap.get(Network, network_id)
        if network is not None:
            slices, tasks = snap.slices_of_network(network_id), snap.tasks_on_network(network_id)
            view.put_shortage(network_id, AddressPool.build(network, slices, tasks).shortage())


def waits(task: Task) -> bool:
    """Whether a task is to get a node."""
    return task.status.state < TaskState.ASSIGNED and task.desired_state <= TaskState.RUNNING


def request_of(task: Task, snap: Snapshot, siblings: Iterable[Task]) -> Request | None:
    """Return the request of a stored task that has no place yet; None when its revision or service is gone."""
    revision = snap.get(Revision, revision_id(task.service_id, task.revision))
    service = snap.get(Service, task.service_id)
    if revision is None or service is None:
        return None
    is_job = service.spec.mode in JOB_MODES  # its runs share slots, and replace nothing
    before = None if is_job else predecessor_of(task, siblings)
    return request_for(task, revision.spec.task, before)


def _gate(
    snap: Snapshot, waiting: Iterable[Task], now: float, runs: Callable[[Node, str], bool]
) -> tuple[dict[str, Task], list[tuple[Task, Held]]]:
    """Return the tasks to place, by id, and those that their services' dependencies hold, with what they wait for."""
    gate = Gate(
        Objects(
            service=lambda project, name: snap.by_name(Service, project, name),
            tasks=snap.tasks_of_service,
            revisions=snap.revisions_of_service,
            node=lambda node_id: snap.get(Node, node_id),
            runs=runs,
        )
    )
    free: dict[str, Task] = {}
    held: list[tuple[Task, Held]] = []
    for task in waiting:
        service = snap.get(Service, task.service_id)
        why = gate.what_holds(service, task) if service is not None else None
        if why is not None:
            rests_since = (task.held_until or now) if why.at_rest else 0.0
            held.append((replace(task, held_until=rests_since), why))
        else:
            free[task.meta.id] = replace(task, held_until=now) if task.status.held else task
    return free, held


def _requests(snap: Snapshot, tasks: Iterable[Task]) -> tuple[list[Request], dict[str, str]]:
    requests, refused = [], {}
    slots: dict[str, defaultdict[int, list[Task]]] = {}
    for task in sorted(tasks, key=lambda t: (t.meta.created_at, t.service_id, t.slot, t.meta.id)):
        if task.service_id not in slots:
            slots[task.service_id] = defaultdict(list)
            for sibling in snap.tasks_of_service(task.service_id):
                slots[task.service_id][sibling.slot].append(sibling)
        request = request_of(task, snap, slots[task.service_id][task.slot])
        if request is None:
            refused[task.meta.id] = f"revision {revision_id(task.service_id, task.revision)} of its service is gone"
        else:
            requests.append(request)
    return requests, refused


def _asking(request: Request, snap: Snapshot) -> Asking | None:
    """Return what a request's service asked for, if it asked for addresses."""
    asked = {n.target: parse_ipv4(n.address) for n in request.spec.networks if n.address}
    if not asked:
        return None
    holders = snap.tasks_of_service(request.service_id)
    nodes = {task.node_id: snap.get(Node, task.node_id) for task in holders if task.node_id}
    lost = {i for i, node in nodes.items() if node is None or node.status.state is NodeState.DOWN}
    return Asking(request.task_id, request.service_id, asked, partial(_whose, snap), lost)


def _whose(snap: Snapshot, task: Task) -> str:
    """Say to another service whose task has the address that it asks for, where, and what that waits for."""
    service, node = snap.get(Service, task.service_id), snap.get(Node, task.node_id)
    of = service.spec.name if service is not None else task.service_id
    on = node.spec.name if node is not None else task.node_id
    until = _HELD_UNTIL.get(node.status.state if node is not None else NodeState.READY, "until nothing of that is left")
    return f"a task of service {of} on node {on}, {until}"


def _serving_old(request: Request, snap: Snapshot) -> Task | None:
    """Return the task that a request's task is to follow, if that has not been told to stop yet."""
    old = snap.get(Task, request.replaces) if request.after_stop else None
    return old if old is not None and old.desired_state <= TaskState.RUNNING else None


def _ports_of_old(request: Request, node_id: str, snap: Snapshot) -> list[str]:
    """Return the ports of the chosen node that the old task has: a node prepares no second task that wants one."""
    old = _serving_old(request, snap)
    if old is None or old.node_id != node_id or not request.spec.host_ports:
        return []
    revision = snap.get(Revision, revision_id(old.service_id, old.revision))
    theirs = revision.spec.task.host_ports if revision is not None else ()
    return [said(p.protocol, p.port, p.host_ip) for p in clashing(request.spec.host_ports, theirs)]


def _could_follow(snap: Snapshot, view: ClusterView, requests: Iterable[Request]) -> Iterable[str]:
    """Return the tasks that could be where their old ones are, once those have given their addresses back."""
    following = []
    for request in requests:
        old = _serving_old(request, snap)
        if old is None or old.node_id == request.avoids or any(n.address for n in request.spec.networks):
            continue
        if {n.target for n in request.spec.networks} <= {a.network_id for a in old.attachments}:
            following.append(replace(request, node_id=old.node_id))
    for network_id in {n.target for request in following for n in request.spec.networks}:
        view.put_shortage(network_id, None)
    could = place(following, view).assigned
    for task_id in could:
        view.forget(task_id)
    return could


def _assigned(task: Task, node_id: str, granted: Attached, now: float) -> Task:
    return replace(
        task,
        node_id=node_id,
        attachments=granted.attachments,
        status=TaskStatus(TaskState.ASSIGNED, at=now),
        meta=replace(task.meta, updated_at=now),
    )


def _pending(task: Task, reason: str, now: float, *, held: bool = False, waits_for_old: bool = False) -> Task:
    status = TaskStatus(TaskState.PENDING, now, reason, held=held, waits_for_old=waits_for_old)
    if replace(status, at=task.status.at) == task.status:
        return task
    return replace(
        task,
        status=status,
        meta=replace(task.meta, updated_at=now),
    )
