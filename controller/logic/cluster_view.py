"""The cluster as the scheduler sees it: for each node what is free on it, and indexes over all nodes.

Built from a snapshot, changed by `place` as it places, and by `put` and `forget` as tasks change, so that a loop may
keep it between rounds; when a Node changes it is built anew. What counts:

    occupied   resources and host ports of every task on a node that has not ended, also one that is asked to stop
    spread     tasks that are meant to go on: a task that is asked to stop attracts no replacement elsewhere

A task whose revision is unknown occupies nothing; only a snapshot that is broken has one.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from argosy.controller.logic.ask import Amounts, Needs, Port, amounts, platform_of
from argosy.controller.logic.node_set import NodeSet, from_flags, from_positions
from argosy.core.constraints import Attribute, Constraint
from argosy.core.node import Node
from argosy.core.service import TaskSpec
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal

UNLIMITED = 1 << 62
"""Room for processes on a node that states no limit."""


@dataclass(slots=True)
class NodeInfo:
    """A node and what is left of it. Only ClusterView changes it. `services`: tasks to go on, by service."""

    node: Node
    bit: NodeSet
    cpus: int
    memory: int
    pids: int
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
    """What one task holds of one node. `stays`: it is meant to go on."""

    task_id: str
    position: int
    service_id: str
    needs: Needs
    stays: bool = True


Key = TypeVar("Key", bound=Hashable)


def _index(infos: Sequence[NodeInfo], key: Callable[[Node], Key]) -> dict[Key, NodeSet]:
    """Return the nodes by a key of theirs."""
    members: defaultdict[Key, list[int]] = defaultdict(list)
    for position, info in enumerate(infos):
        members[key(info.node)].append(position)
    return {value: from_positions(group) for value, group in members.items()}


class ClusterView:
    """All nodes with what tasks hold of them. `infos` and the sets are for reading; change it by its methods."""

    def __init__(self, nodes: Iterable[Node], shunned: Mapping[str, Collection[str]] | None = None) -> None:
        ordered = sorted(nodes, key=lambda node: node.meta.id, reverse=True)
        self.infos = [NodeInfo.of(node, position) for position, node in enumerate(ordered)]
        self.all: NodeSet = (1 << len(ordered)) - 1
        self.by_tasks: list[NodeSet] = [self.all]
        self.by_state = _index(self.infos, lambda node: node.status.state)
        self.by_availability = _index(self.infos, lambda node: node.spec.availability)
        self.by_platform = _index(self.infos, platform_of)
        self._positions = {node.meta.id: position for position, node in enumerate(ordered)}
        self._shunned = {service: self.set_of(ids) for service, ids in (shunned or {}).items()}
        self._held: dict[str, Held] = {}
        self._needs: dict[tuple[str, int], Needs] = {}
        self._replicas: defaultdict[str, dict[int, int]] = defaultdict(dict)
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
        shunned: Mapping[str, Collection[str]] | None = None,
    ) -> "ClusterView":
        """Return the view of a snapshot.

        `specs` has the task spec of each (service id, revision) that a task may run; `shunned` the ids of nodes on
        which a service failed repeatedly of late (controller/logic/shunned.py): they come last for it.
        """
        view = cls(nodes, shunned)
        view._needs = {key: Needs.of(spec) for key, spec in specs.items()}
        for task in tasks:
            view.put(task)
        return view

    # ------------------------------------------------------------- changes

    def put(self, task: Task, spec: TaskSpec | None = None) -> None:
        """Take note of a task as it is now stored; idempotent. `spec` is needed once per new revision."""
        key = (task.service_id, task.revision)
        if spec is not None and key not in self._needs:
            self._needs[key] = Needs.of(spec)
        self.forget(task.meta.id)
        position = self._positions.get(task.node_id)
        state = task.status.state
        if position is None or state < TaskState.ASSIGNED or is_terminal(state):
            return
        stays = task.desired_state <= TaskState.RUNNING
        self.hold(Held(task.meta.id, position, task.service_id, self._needs.get(key, Needs()), stays))

    def hold(self, held: Held) -> None:
        """Note that a task holds something of a node."""
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

    def _lifted(self, held: Held, room: bool, sign: int) -> None:
        self._count(held, sign)
        if room:
            self._occupy(held, sign)

    def _occupy(self, held: Held, sign: int) -> None:
        needs, info = held.needs, self.infos[held.position]
        if any(needs.room):
            cpus, memory, pids = needs.room
            info.cpus -= sign * cpus
            info.memory -= sign * memory
            info.pids -= sign * pids
            self._changed.append(held.position)
        for port in needs.ports:
            users = info.ports.get(port, 0) + sign
            info.ports[port] = users
            self._ports[port] = self._ports[port] | info.bit if users else self._ports[port] & ~info.bit

    def _count(self, held: Held, sign: int) -> None:
        if not held.stays:
            return
        info, service = self.infos[held.position], held.service_id
        self.by_tasks[info.tasks] ^= info.bit
        info.tasks += sign
        if info.tasks == len(self.by_tasks):
            self.by_tasks.append(0)
        self.by_tasks[info.tasks] |= info.bit
        count = info.services.get(service, 0) + sign
        if count:
            info.services[service] = self._replicas[service][held.position] = count
        else:
            del info.services[service], self._replicas[service][held.position]

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

    def replicas(self, service_id: str) -> Mapping[int, int]:
        """Return how many tasks of a service are to go on at each position that has any."""
        return self._replicas[service_id]

    def shunned(self, service_id: str) -> NodeSet:
        """Return the nodes on which a service failed repeatedly of late."""
        return self._shunned.get(service_id, 0)

    def with_port(self, port: Port) -> NodeSet:
        """Return the nodes on which a task has that port."""
        return self._ports.get(port, 0)

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
