"""Tasks that are to stop, and the nodes that may still send them connections.

A task's endpoint is withdrawn the moment that it is to stop. Its node is told that it is drained once every node that
carries one of its networks has confirmed that the endpoint is out of its balancer. Nothing here measures time: the
task's agent waits no longer than TaskSpec.drain_timeout, whatever becomes of the controller.
"""

from collections.abc import Iterable
from typing import Protocol

from argosy.core.task import Task
from argosy.core.task_state import TaskState


class Balancers(Protocol):
    """What the dispatcher knows of the nodes' balancers."""

    def carriers(self, task: Task) -> Iterable[str]:
        """Return the nodes that may carry a network of a task."""

    def may_send_to(self, node_id: str, task: Task) -> bool:
        """Whether a node may still open connections to a task; not one that is down."""


def is_draining(task: Task) -> bool:
    """Whether a task runs, is to stop, and can be reached over a network."""
    running = task.status.state is TaskState.RUNNING
    return running and task.desired_state > TaskState.RUNNING and bool(task.attachments)


class Drains:
    """Which tasks drain, and whom each waits for. Used by one dispatcher, which tells it what happens."""

    def __init__(self, balancers: Balancers) -> None:
        self._balancers = balancers
        self._tasks: dict[str, Task] = {}
        self._waited_for: dict[str, set[str]] = {}  # task -> nodes
        self._waiting: dict[str, set[str]] = {}  # node -> tasks

    def follow(self, old: Task | None, new: Task | None) -> None:
        """Take what has become of a task, after the balancers' assignments have."""
        if new is not None and is_draining(new):
            if new.meta.id not in self._tasks:
                self._begin(new)
        elif old is not None and old.meta.id in self._tasks:
            del self._tasks[old.meta.id]
            for node_id in self._waited_for.pop(old.meta.id):
                self._waiting[node_id].discard(old.meta.id)

    def rebuild(self, tasks: Iterable[Task]) -> None:
        """Take everything anew."""
        self._tasks.clear()
        self._waited_for.clear()
        self._waiting.clear()
        for task in tasks:
            self.follow(None, task)

    def heard(self, node_id: str) -> set[str]:
        """Look again at the tasks that wait for a node; return the nodes of those that wait for none any more."""
        done: set[str] = set()
        for task_id in list(self._waiting.get(node_id, ())):
            task = self._tasks[task_id]
            if self._balancers.may_send_to(node_id, task):
                continue
            self._waiting[node_id].discard(task_id)
            self._waited_for[task_id].discard(node_id)
            if not self._waited_for[task_id]:
                done.add(task.node_id)
        return done

    def over(self, task_id: str) -> bool:
        """Whether a task is drained: nobody is waited for."""
        return task_id in self._tasks and not self._waited_for[task_id]

    def _begin(self, task: Task) -> None:
        nodes = {n for n in self._balancers.carriers(task) if self._balancers.may_send_to(n, task)}
        self._tasks[task.meta.id] = task
        self._waited_for[task.meta.id] = nodes
        for node_id in nodes:
            self._waiting.setdefault(node_id, set()).add(task.meta.id)
