"""What must hold of tasks that are cut off: fenced ones never run twice, kept ones are waited for."""

from typing import Any

from argosy.core.node import NodeState
from argosy.core.service import Disconnect, Service
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from tests.sim.kernel import Container

KNOWN_S = 2.0
"""After so long a leader is sure to have seen what was stored."""


class Disconnections:
    """Judges by what truly runs on hosts, and by what is created beside it."""

    def __init__(self, watcher: Any) -> None:
        self._watcher = watcher

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
        for other in siblings.values():
            node = self._watcher.nodes.get(other.node_id)
            if other.meta.id == task.meta.id or node is None or node.status.state is not NodeState.DOWN:
                continue
            is_kept = other.desired_state <= TaskState.RUNNING and other.status.state <= TaskState.RUNNING
            if is_kept and now - node.status.since > KNOWN_S:
                self._watcher.fail("kept tasks are waited for", f"{task.meta.id} replaces {other.meta.id}")
