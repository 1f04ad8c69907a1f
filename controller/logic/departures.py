"""Tasks that leave drained nodes, as far as more than one service has to know of them.

A drain has a pace for all services together, and tasks of global services leave last, so that what they do for the
others (collect logs, mount storage) is there until the end. The orchestrator's loop builds one `Departures` for each
round of plans; the plans take from it as they begin to move tasks.
"""

from collections.abc import Callable, Iterable, Mapping, Set

from argosy.core.node import Availability, Node, NodeState
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal

Tasks = Callable[[str], Iterable[Task]]


class Departures:
    """Mutable: one for a round of plans. `room`: how many more tasks may set out, of nodes whose drain has a pace."""

    def __init__(self, room: Mapping[str, int] | None = None, occupied: Iterable[str] = ()) -> None:
        """`occupied`: drained nodes on which tasks of other than global services are left."""
        self._room = dict(room or {})
        self._occupied = frozenset(occupied)

    @classmethod
    def build(cls, nodes: Iterable[Node], tasks_on_node: Tasks, tasks_of_service: Tasks) -> "Departures":
        """Look at the nodes that are being drained. Costs nothing while none is."""
        nodes = tuple(nodes)
        lost = {node.meta.id for node in nodes if node.status.state is NodeState.DOWN}
        there = {"", *(node.meta.id for node in nodes)} - lost
        room: dict[str, int] = {}
        occupied = []
        for node in nodes:
            if node.spec.availability is not Availability.DRAIN:
                continue
            node_id = node.meta.id
            left = [task for task in tasks_on_node(node_id) if _is_served(task) and not is_terminal(task.status.state)]
            if left:
                occupied.append(node_id)
            if node.spec.drain.pace:
                room[node_id] = node.spec.drain.pace - _on_their_way(left, tasks_of_service, there)
        return cls(room, occupied)

    def may_begin(self, node_id: str) -> bool:
        """Whether one more task may set out from a node."""
        return self._room.get(node_id, 1) > 0

    def begin(self, node_id: str) -> None:
        """Note that one more sets out."""
        if node_id in self._room:
            self._room[node_id] -= 1

    def is_occupied(self, node_id: str) -> bool:
        """Whether a drained node still has tasks of other than global services."""
        return node_id in self._occupied


def _on_their_way(tasks: list[Task], tasks_of_service: Tasks, there: Set[str]) -> int:
    """Count those that are stopping, or have an heir somewhere; `there` are the nodes that may be counted on."""
    own = {task.meta.id for task in tasks}
    heirs = {
        _place_of(task)
        for service_id in {task.service_id for task in tasks}
        for task in tasks_of_service(service_id)
        if is_coming(task) and task.meta.id not in own and task.node_id in there
    }
    return sum(not is_wanted(task) or _place_of(task) in heirs for task in tasks)


def _place_of(task: Task) -> tuple[str, int, int]:
    """Return what a task and its heir have in common. A job's runs share slots: none of them is another's heir."""
    return task.service_id, task.slot, task.iteration


def _is_served(task: Task) -> bool:
    """Whether a task is no global service's. A global job's has no slot either, but a run."""
    return bool(task.slot or task.iteration)


def is_wanted(task: Task) -> bool:
    """Whether a task is to run."""
    return task.desired_state <= TaskState.RUNNING


def is_coming(task: Task) -> bool:
    """Whether a task is to run and has not ended."""
    return is_wanted(task) and not is_terminal(task.status.state)
