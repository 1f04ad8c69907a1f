"""What must hold of tasks that are cut off: fenced ones never run twice, kept ones are waited for."""

from typing import Any

from argosy.core.node import Availability, Node, NodeState
from argosy.core.service import Disconnect, Service
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from tests.sim.kernel import Container

KNOWN_S = 2.0
"""After so long a leader is sure to have seen what was stored."""
LATE_S = 10.0
"""How long a decision may wait for etcd to take it."""


class Disconnections:
    """Judges by what truly runs on hosts, and by what is created beside it."""

    def __init__(self, watcher: Any) -> None:
        self._watcher = watcher
        self._respecified_at: dict[str, float] = {}

    def node_changed(self, old: Node | None, new: Node) -> None:
        """Note when somebody last said something else of a node."""
        if old is not None and old.spec != new.spec:
            self._respecified_at[new.meta.id] = self._watcher.now()

    def started(self, container: Container, hosts: Any) -> None:
        """Judge a program that begins to run: of a fenced slot no other one runs anywhere."""
        service, task = self._of(container)
        if service is None or task is None or service.spec.disconnect is not Disconnect.FENCE:
            return
        for host in hosts:
            for other in host.kernel.containers.values():
                twin = self._watcher.tasks.get(other.id)
                if other is container or other.status != "running" or twin is None:
                    continue
                if (twin.service_id, twin.slot) == (task.service_id, task.slot):
                    self._watcher.fail(
                        "fenced tasks run once",
                        f"{container.id} starts on {container.host}, {other.id} runs on {host.name}",
                    )

    def _of(self, container: Container) -> tuple[Service | None, Task | None]:
        task = self._watcher.tasks.get(container.id)
        return (self._watcher.services.get(task.service_id) if task else None), task

    def task_created(self, task: Task, service: Service, siblings: dict[str, Task]) -> None:
        """Judge a new task: the one before it is not kept on a node that is DOWN."""
        if service.spec.disconnect is not Disconnect.KEEP or service.removing:
            return
        now = self._watcher.now()
        for other in map(self._watcher.before, siblings.values()):
            node = self._watcher.nodes.get(other.node_id)
            if other.meta.id == task.meta.id or node is None or node.status.state is not NodeState.DOWN:
                continue
            is_kept = other.desired_state <= TaskState.RUNNING and other.status.state <= TaskState.RUNNING
            is_known = now - node.status.since > KNOWN_S
            if is_kept and (is_known or self._nothing_else_moves(other, task, service, node)):
                self._watcher.fail("kept tasks are waited for", f"{task.meta.id} replaces {other.meta.id}")

    def _nothing_else_moves(self, old: Task, new: Task, service: Service, node: Node) -> bool:
        """Whether a task has no reason to be replaced but that its node is DOWN, so that it is no matter since when."""
        if not old.revision == new.revision == service.revision or old.evict:
            return False
        respecified_s = self._watcher.now() - self._respecified_at.get(node.meta.id, 0.0)
        return node.spec.availability is Availability.ACTIVE and respecified_s > LATE_S
