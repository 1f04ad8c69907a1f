"""What a watch has told so far: the cluster's objects by id, and which tasks ended while one looked."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from argosy.core.network import Network
from argosy.core.node import Node, NodeState
from argosy.core.service import Disconnect, Service
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal

Watched: TypeAlias = Service | Task | Node | Network


@dataclass(slots=True)
class Picture:
    """Changed only by `put`, `remove` and `restart`; goals read it.

    `endings`: the tasks that ended while one looked, as they were then; kept also when the cluster forgets them.
    """

    services: dict[str, Service] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    endings: dict[str, Task] = field(default_factory=dict)
    synced: bool = False
    _had_synced: bool = False

    def put(self, obj: Watched) -> None:
        """Add or replace an object."""
        match obj:
            case Service():
                self.services[obj.meta.id] = obj
            case Task():
                before = self.tasks.get(obj.meta.id)
                self.tasks[obj.meta.id] = obj
                was_ended = before is not None and is_terminal(before.status.state)
                if is_terminal(obj.status.state) and not was_ended and self._had_synced:
                    self.endings[obj.meta.id] = obj
            case Node():
                self.nodes[obj.meta.id] = obj
            case Network():
                self.networks[obj.meta.id] = obj

    def remove(self, obj: Watched) -> None:
        """Forget an object."""
        match obj:
            case Service():
                self.services.pop(obj.meta.id, None)
            case Task():
                self.tasks.pop(obj.meta.id, None)
            case Node():
                self.nodes.pop(obj.meta.id, None)
            case Network():
                self.networks.pop(obj.meta.id, None)

    def restart(self) -> None:
        """Begin anew: the next objects are all there are. What ended meanwhile counts as seen."""
        for kind in (self.services, self.tasks, self.nodes, self.networks):
            kind.clear()
        self.synced = False

    def mark_synced(self) -> None:
        """Note that all that exists has been told."""
        self.synced = True
        self._had_synced = True

    def tasks_of(self, service_id: str) -> Iterable[Task]:
        """Return the tasks of a service."""
        return (task for task in self.tasks.values() if task.service_id == service_id)

    def node_name(self, node_id: str) -> str:
        """Return what people call a node."""
        node = self.nodes.get(node_id)
        return (node.spec.name or node.description.hostname or node_id) if node is not None else node_id

    def trouble_of(self, node_id: str) -> str:
        """Return why nothing begins on a node for now; "" of one that is READY, or that one does not know."""
        node = self.nodes.get(node_id)
        if node is None or node.status.state is NodeState.READY:
            return ""
        message = f": {node.status.message}" if node.status.message else ""
        return f"its node is {node.status.state.name}{message}"

    def is_away(self, task: Task) -> bool:
        """Whether a task's node is lost: the task counts for nothing any more."""
        return self._node_is(task, NodeState.DOWN)

    def is_kept(self, task: Task) -> bool:
        """Whether a task is waited for though its node is DOWN: its service says `disconnect: keep`."""
        service = self.services.get(task.service_id)
        keeps = service is not None and service.spec.disconnect is Disconnect.KEEP
        node = self.nodes.get(task.node_id)
        is_down = node is not None and node.status.state is NodeState.DOWN
        return keeps and is_down and task.desired_state <= TaskState.RUNNING and not is_terminal(task.status.state)

    def cannot_hear(self, task: Task) -> bool:
        """Whether a task's node cannot be told anything now, so that waiting for the task to stop is in vain."""
        return self._node_is(task, NodeState.DOWN, NodeState.AGENT_LOST)

    def _node_is(self, task: Task, *states: NodeState) -> bool:
        if not task.node_id:
            return False
        node = self.nodes.get(task.node_id)
        return node is None or node.status.state in states

    def task_name(self, task: Task) -> str:
        """Return what people call a task: "web.2", or "web.node-1" of a global service."""
        service = self.services.get(task.service_id)
        name = service.spec.name if service is not None else task.service_id
        return f"{name}.{task.slot or self.node_name(task.node_id)}"
