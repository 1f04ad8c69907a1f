"""The cluster as the scheduler sees it: for each node what is free on it, and indexes over all nodes.

Built from a snapshot, changed by `place` as it places, and by `put`, `forget` and `put_node` as tasks and nodes
change, so that a loop may keep it between rounds: at 5,000 nodes and 100,000 tasks a round must not cost what the
cluster is large. When a node comes or goes it is built anew, since positions follow the order of ids. What counts:

    occupied   resources, host ports and anti-affinities of every task on a node that has not ended, also of one that
               is asked to stop
    spread     tasks that are meant to go on: a task that is asked to stop attracts no replacement elsewhere

A task whose revision is unknown occupies nothing; only a snapshot that is broken has one.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from argosy.controller.logic.address_pool import Shortage
from argosy.controller.logic.ask import Amounts, Near, Needs, Port, amounts, makes_tunnels, platform_of
from argosy.controller.logic.company import Place, Presence, Sort
from argosy.controller.logic.node_set import NodeSet, from_flags, from_positions
from argosy.core.constraints import Attribute, Constraint
from argosy.core.errors import InvalidError
from argosy.core.meta import Scheduling
from argosy.core.node import Node
from argosy.core.service import Placement, TaskSpec
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal

UNLIMITED = 1 << 62
"""Room for processes on a node that states no limit."""
LOADS = 32
"""How finely nodes are told apart by how much of them is reserved."""


@dataclass(slots=True)
class NodeInfo:
    """A node and what is left of it. Only ClusterView changes it. `services`: tasks to go on, by service."""

    node: Node
    bit: NodeSet
    cpus: int
    memory: int
    pids: int
    shown_load: int = 0
    tasks: int = 0
    services: dict[str, int] = field(default_factory=dict)
    ports: dict[Port, int] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Node, position: int) -> "NodeInfo":
        """Return an empty node."""
        cpus, memory, pids = amounts(node.description.resources)
        return cls(node, 1 << position, cpus, memory, pids or UNLIMITED)

    @property
    def name(self) -> str:
        """What people call the node."""
        return self.node.spec.name or self.node.meta.id

    def load(self) -> int:
        """How much of the node is reserved, of CPUs or memory what is scarcer: from 0 (nothing) to LOADS (all)."""
        cpus, memory, _ = amounts(self.node.description.resources)
        free = min(self.cpus / cpus if cpus else 1.0, self.memory / memory if memory else 1.0)
        return LOADS - max(0, min(LOADS, int(free * LOADS)))

    def has_room(self, room: Amounts) -> bool:
        """Whether so much is free; what is not asked for may be overdrawn."""
        cpus, memory, pids = room
        return (
            (not cpus or self.cpus >= cpus)
            and (not memory or self.memory >= memory)
            and (not pids or self.pids >= pids)
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What one task holds of one node. `service`: its qualified name; `stays`: it is meant to go on."""

    task_id: str
    position: int
    service: str
    needs: Needs
    stays: bool = True


Key = TypeVar("Key", bound=Hashable)
CountKey: TypeAlias = tuple[Sort, str, Attribute | None]
"""A sort of tasks, the service that they are of (or that they repel), and within what they repel."""


def _index(infos: Sequence[NodeInfo], key: Callable[[Node], Key]) -> dict[Key, NodeSet]:
    """Return the nodes by a key of theirs."""
    members: defaultdict[Key, list[int]] = defaultdict(list)
    for position, info in enumerate(infos):
        members[key(info.node)].append(position)
    return {value: from_positions(group) for value, group in members.items()}


def _move(index: dict[Key, NodeSet], bit: NodeSet, old: Key, new: Key) -> None:
    index[old] = index.get(old, 0) & ~bit
    index[new] = index.get(new, 0) | bit


class ClusterView:
    """All nodes with what tasks hold of them. `infos` and the sets are for reading; change it by its methods."""

    def __init__(
        self,
        nodes: Iterable[Node],
        names: Mapping[str, str] | None = None,
        scheduling: Scheduling = Scheduling.SPREAD,
    ) -> None:
        """`names`: qualified names of services by id; one that is missing goes by its id."""
        ordered = sorted(nodes, key=lambda node: node.meta.id, reverse=True)
        self.scheduling = scheduling
        self.infos = [NodeInfo.of(node, position) for position, node in enumerate(ordered)]
        self.all: NodeSet = (1 << len(ordered)) - 1
        self.by_tasks: list[NodeSet] = [self.all]
        self.by_load: list[NodeSet] = [self.all, *[0] * LOADS]
        self.by_state = _index(self.infos, lambda node: node.status.state)
        self.by_availability = _index(self.infos, lambda node: node.spec.availability)
        self.by_platform = _index(self.infos, platform_of)
        self.by_tunnels = _index(self.infos, makes_tunnels)
        self.encrypted: set[str] = set()
        """The networks that are encrypted, by id."""
        self._shortages: dict[str, tuple[NodeSet, str]] = {}
        self._positions = {node.meta.id: position for position, node in enumerate(ordered)}
        self._names = dict(names or {})
        self._shunned: dict[str, NodeSet] = {}
        self._held: dict[str, Held] = {}
        self._needs: dict[tuple[str, int], Needs] = {}
        self._counts: defaultdict[CountKey, dict[int, int]] = defaultdict(dict)
        self._presences: defaultdict[CountKey, dict[Attribute | None, Presence]] = defaultdict(dict)
        self._repelled_within: defaultdict[str, set[Attribute | None]] = defaultdict(set)
        self._ports: defaultdict[Port, NodeSet] = defaultdict(int)
        self._values: dict[Attribute, dict[str | None, NodeSet]] = {}
        self._meeting: dict[Constraint, NodeSet] = {}
        self._roomy: dict[Amounts, tuple[NodeSet, int]] = {}
        self._changed: list[int] = []

    @classmethod
    def build(
        cls,
        nodes: Iterable[Node],
        tasks: Iterable[Task],
        specs: Mapping[tuple[str, int], TaskSpec],
        names: Mapping[str, str] | None = None,
        scheduling: Scheduling = Scheduling.SPREAD,
    ) -> "ClusterView":
        """Return the view of a snapshot. `specs` has the spec of each (service id, revision) that a task may run."""
        view = cls(nodes, names, scheduling)
        for (service_id, revision), spec in specs.items():
            view.put_spec(service_id, revision, spec)
        for task in tasks:
            view.put(task)
        return view

    # ------------------------------------------------------------- changes

    def put_name(self, service_id: str, name: str) -> None:
        """Take note of a service's qualified name, before any task of it is put."""
        self._names[service_id] = name

    def put_spec(self, service_id: str, revision: int, spec: TaskSpec) -> None:
        """Take note of what tasks of a revision need; a revision never changes."""
        if (service_id, revision) not in self._needs:
            self._needs[service_id, revision] = _readable_needs(spec, self.name_of(service_id))

    def forget_spec(self, service_id: str, revision: int) -> None:
        """Note that a revision is gone, and so are its tasks."""
        self._needs.pop((service_id, revision), None)

    def put_node(self, node: Node) -> bool:
        """Take note of a node as it is now stored; False when the view does not have it and must be built anew."""
        position = self._positions.get(node.meta.id)
        if position is None:
            return False
        info = self.infos[position]
        old, info.node = info.node, node
        _move(self.by_state, info.bit, old.status.state, node.status.state)
        _move(self.by_availability, info.bit, old.spec.availability, node.spec.availability)
        _move(self.by_platform, info.bit, platform_of(old), platform_of(node))
        _move(self.by_tunnels, info.bit, makes_tunnels(old), makes_tunnels(node))
        if old.description.resources != node.description.resources:
            self._resize(info, old)
        if (old.spec.labels, old.description, old.spec.role) != (node.spec.labels, node.description, node.spec.role):
            self._forget_values(old, node)
        return True

    def _resize(self, info: NodeInfo, old: Node) -> None:
        before, now = NodeInfo.of(old, 0), NodeInfo.of(info.node, 0)
        position = self._positions[old.meta.id]
        self._load(info, position, before.cpus - now.cpus, before.memory - now.memory, before.pids - now.pids)

    def _forget_values(self, old: Node, new: Node) -> None:
        """Forget what was worked out of attributes whose value changed; it is worked out again when asked for."""
        changed = {attribute for attribute in self._values if attribute.of(old) != attribute.of(new)}
        for attribute in changed:
            del self._values[attribute]
        self._meeting = {c: nodes for c, nodes in self._meeting.items() if c.attribute not in changed}
        self._presences.clear()

    def put(self, task: Task) -> None:
        """Take note of a task as it is now stored; idempotent."""
        position = self._positions.get(task.node_id)
        state = task.status.state
        if position is None or state < TaskState.ASSIGNED or is_terminal(state):
            self.forget(task.meta.id)
            return
        stays = task.desired_state <= TaskState.RUNNING
        needs = self._needs.get((task.service_id, task.revision), Needs())
        self.hold(Held(task.meta.id, position, self.name_of(task.service_id), needs, stays))

    def hold(self, held: Held) -> None:
        """Note that a task holds something of a node."""
        if self._held.get(held.task_id) == held:
            return
        self.forget(held.task_id)
        self._held[held.task_id] = held
        self._occupy(held, 1)
        self._count(held, 1)

    def forget(self, task_id: str) -> None:
        """Note that a task holds nothing any more; idempotent."""
        held = self._held.pop(task_id, None)
        if held is not None:
            self._occupy(held, -1)
            self._count(held, -1)

    def lift(self, task_id: str, *, room: bool) -> Held | None:
        """Leave a task out of the spread, and with `room` also out of what is occupied, until `lower`."""
        held = self._held.get(task_id)
        if held is not None:
            self._lifted(held, room, -1)
        return held

    def lower(self, held: Held, *, room: bool) -> None:
        """Undo `lift`, which was called with the same `room`."""
        self._lifted(held, room, 1)

    def shun(self, service: str, node_ids: Collection[str]) -> None:
        """Let these nodes come last for a service: it failed on them repeatedly of late (shunned.py)."""
        self._shunned[service] = self.set_of(node_ids)

    def put_shortage(self, network_id: str, shortage: Shortage | None) -> None:
        """Take note of which nodes alone can have an address of a network; None: each can."""
        if shortage is None:
            self._shortages.pop(network_id, None)
        else:
            self._shortages[network_id] = self.set_of(shortage.with_room), shortage.reason

    def shortage(self, network_id: str) -> tuple[NodeSet, str]:
        """Return the nodes that can have an address of a network, and why the others cannot."""
        return self._shortages.get(network_id, (self.all, ""))

    def _lifted(self, held: Held, room: bool, sign: int) -> None:
        self._count(held, sign)
        if room:
            self._occupy(held, sign)

    def _occupy(self, held: Held, sign: int) -> None:
        needs, position = held.needs, held.position
        info = self.infos[position]
        if any(needs.room):
            cpus, memory, pids = needs.room
            self._load(info, position, sign * cpus, sign * memory, sign * pids)
        for mark in (mark for port in needs.ports for mark in port.marks()):
            users = info.ports.get(mark, 0) + sign
            info.ports[mark] = users
            self._ports[mark] = self._ports[mark] | info.bit if users else self._ports[mark] & ~info.bit
        self._tally((Sort.THERE, held.service, None), position, sign)
        for near in needs.repels:
            self._repelled_within[near.service].add(near.within)
            self._tally((Sort.REPELLING, near.service, near.within), position, sign)

    def _load(self, info: NodeInfo, position: int, cpus: int, memory: int, pids: int) -> None:
        """Take so much of a node's room."""
        self.by_load[info.shown_load] &= ~info.bit
        info.cpus -= cpus
        info.memory -= memory
        info.pids -= pids
        info.shown_load = info.load()
        self.by_load[info.shown_load] |= info.bit
        self._changed.append(position)

    def _count(self, held: Held, sign: int) -> None:
        if not held.stays:
            return
        info, service = self.infos[held.position], held.service
        self.by_tasks[info.tasks] ^= info.bit
        info.tasks += sign
        if info.tasks == len(self.by_tasks):
            self.by_tasks.append(0)
        self.by_tasks[info.tasks] |= info.bit
        count = info.services.get(service, 0) + sign
        if count:
            info.services[service] = count
        else:
            del info.services[service]
        self._tally((Sort.GOING_ON, service, None), held.position, sign)

    def _tally(self, key: CountKey, position: int, sign: int) -> None:
        counts = self._counts[key]
        count = counts.get(position, 0) + sign
        if count:
            counts[position] = count
        else:
            del counts[position]
        if key in self._presences:
            for presence in self._presences[key].values():
                presence.add(position, sign)

    # ------------------------------------------------------------- questions

    def position(self, node_id: str) -> int | None:
        """Return where a node stands; None for one that does not exist."""
        return self._positions.get(node_id)

    def set_of(self, node_ids: Iterable[str]) -> NodeSet:
        """Return nodes as a set; ids that do not exist are left out."""
        result = 0
        for node_id in node_ids:
            position = self._positions.get(node_id)
            if position is not None:
                result |= 1 << position
        return result

    def name_of(self, service_id: str) -> str:
        """Return a service's qualified name, by which the view knows its tasks."""
        return self._names.get(service_id, service_id)

    def held(self, task_id: str) -> Held | None:
        """Return what a task holds; None when it holds nothing."""
        return self._held.get(task_id)

    def replicas(self, service: str) -> Mapping[int, int]:
        """Return how many tasks of a service are to go on at each position that has any."""
        return self._counts[Sort.GOING_ON, service, None]

    def shunned(self, service: str) -> NodeSet:
        """Return the nodes on which a service failed repeatedly of late."""
        return self._shunned.get(service, 0)

    def near(self, near: Near) -> NodeSet:
        """Return the nodes of all places that have tasks of a service.

        For an anti-affinity these are the tasks that have not ended: two that repel each other must never run
        together. What only attracts has to go on.
        """
        return self._presence((Sort.THERE if near.anti else Sort.GOING_ON, near.service, None), near.within)

    def repelled(self, service: str) -> NodeSet:
        """Return the nodes of all places that have tasks which keep the service away."""
        nodes = 0
        for within in self._repelled_within.get(service, ()):
            nodes |= self._presence((Sort.REPELLING, service, within), within)
        return nodes

    def is_there(self, service: str) -> bool:
        """Whether any task of a service is to go on anywhere."""
        return bool(self._counts[Sort.GOING_ON, service, None])

    def _presence(self, key: CountKey, within: Attribute | None) -> NodeSet:
        known = self._presences[key].get(within)
        if known is None:
            known = self._presences[key][within] = Presence(self._places(within), self._counts[key])
        return known.nodes

    def _places(self, within: Attribute | None) -> Callable[[int], Place]:
        """Return the function from a position to its place."""

        def place_of(position: int) -> Place:
            info = self.infos[position]
            value = None if within is None else within.of(info.node)
            if within is None or value is None:
                return f"node {info.node.meta.id}", info.bit
            return f"value {value}", self.values(within)[value]

        return place_of

    def with_port(self, port: Port) -> NodeSet:
        """Return the nodes on which a task has that port, or one beside which it cannot stand."""
        found = 0
        for mark in port.obstacles():
            found |= self._ports.get(mark, 0)
        return found

    def values(self, attribute: Attribute) -> Mapping[str | None, NodeSet]:
        """Return the nodes by their value of an attribute; None has those without it."""
        found = self._values.get(attribute)
        if found is None:
            found = self._values[attribute] = _index(self.infos, attribute.of)
        return found

    def meeting(self, constraint: Constraint) -> NodeSet:
        """Return the nodes that meet a constraint."""
        found = self._meeting.get(constraint)
        if found is None:
            found = 0
            for value, nodes in self.values(constraint.attribute).items():
                if constraint.accepts(value):
                    found |= nodes
            self._meeting[constraint] = found
        return found

    def roomy(self, room: Amounts) -> NodeSet:
        """Return the nodes with so much free. Kept up by looking again only at nodes that changed since."""
        if not any(room):
            return self.all
        known = self._roomy.get(room)
        if known is None:
            nodes = from_flags(info.has_room(room) for info in self.infos)
        else:
            nodes, seen = known
            for position in set(self._changed[seen:]):
                info = self.infos[position]
                nodes = nodes | info.bit if info.has_room(room) else nodes & ~info.bit
        self._roomy[room] = nodes, len(self._changed)
        return nodes


def _readable_needs(spec: TaskSpec, name: str) -> Needs:
    """Return what a stored task needs; an affinity that nobody can read repels nobody (its own request is refused)."""
    try:
        return Needs.of(spec, name)
    except InvalidError:
        return Needs.of(replace(spec, placement=Placement()), name)
