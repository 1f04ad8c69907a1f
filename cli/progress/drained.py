"""Waiting for a node to be drained: what is left on it, and for each task what holds it up. Pure.

The cluster decides (controller/logic); here it is only read from the same objects why a task is still there.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from argosy.cli.progress.goals import Assessment, Status
from argosy.cli.progress.picture import Picture
from argosy.core.node import Availability, Node
from argosy.core.service import Disconnect
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal


@dataclass(frozen=True, slots=True)
class NodeDrained:
    """No task runs on a node any more; of one that is cut off, others run in place of those that nobody can stop."""

    node: Node

    def concerns(self, task: Task) -> bool:
        """Whether the task is on the node."""
        return task.node_id == self.node.meta.id

    def assess(self, picture: Picture) -> Assessment:
        """Done when all of the node's tasks have ended or were replaced; failed when somebody took the drain back."""
        name = self.node.spec.name
        node = picture.nodes.get(self.node.meta.id)
        if node is None:
            return _failed(name, "the node was removed meanwhile")
        if node.spec.availability is not Availability.DRAIN:
            if node.meta.updated_at < self.node.meta.updated_at:
                return Assessment(Status.WAITING, (f"{name}: waiting for the cluster",))
            return _failed(name, "somebody else has changed its availability meanwhile")
        there = [t for t in picture.tasks.values() if self.concerns(t) and not is_terminal(t.status.state)]
        left = [t for t in there if not _is_replaced(t, picture)]
        if not left:
            unheard = f"; nobody can stop what is cut off there: {_count(there)}, replaced elsewhere" if there else ""
            return Assessment(Status.DONE, (f"{name}: drained{unheard}",))
        summary = f"{name}: {_count(left)} left"
        return Assessment(Status.WAITING, (summary, *_told(left, node, picture)), _reason(summary, left, node, picture))


def what_holds(task: Task, node: Node, picture: Picture) -> str:
    """Return why a task is still on a drained node, in words."""
    if picture.cannot_hear(task):
        return f"it cannot be told to stop: the node is {node.status.state.name}{_instead(task, picture)}"
    if task.desired_state > TaskState.RUNNING:
        return "it is stopping"
    if task.iteration:
        bound = "" if node.spec.drain.deadline else " (--deadline would bound that)"
        return f"a job's task goes on to its end{bound}"
    if not task.slot:
        return "a global service's task leaves last"
    heirs = [t for t in picture.tasks_of(task.service_id) if _is_heir(t, task)]
    if not heirs:
        return f"it waits for its turn{_limits(task, node, picture)}"
    heir = max(heirs, key=lambda t: (t.status.state, t.meta.created_at))
    where = f" on {picture.node_name(heir.node_id)}" if heir.node_id else ""
    state = heir.status.state
    if state is TaskState.PENDING:
        return f"no other node can take it: {heir.status.reason or 'it is being placed'}"
    if state is TaskState.NEW:
        return "its replacement is being placed"
    if state is TaskState.RUNNING and heir.status.unready:
        return f"its replacement{where} is not ready"
    if state is TaskState.READY and heir.desired_state is TaskState.READY:
        return f"its replacement{where} is prepared and waits{_limits(task, node, picture)}"
    return f"its replacement{where} is {state.name}" + (f": {heir.status.reason}" if heir.status.reason else "")


def _instead(task: Task, picture: Picture) -> str:
    """Say what becomes of the place of a task that cannot be told to stop."""
    service = picture.services.get(task.service_id)
    if service is not None and service.spec.disconnect is Disconnect.KEEP and task.desired_state <= TaskState.RUNNING:
        return ", and it is kept until the node is back or removed (disconnect: keep)"
    heirs = [t for t in picture.tasks_of(task.service_id) if _is_heir(t, task)]
    if not heirs:
        return ", and it is not replaced yet"
    heir = max(heirs, key=lambda t: (t.status.state, t.meta.created_at))
    reason = f": {heir.status.reason}" if heir.status.reason else ""
    return f", and its replacement is {heir.status.state.name}{reason}"


def _is_replaced(task: Task, picture: Picture) -> bool:
    """Whether a task that cannot be told to stop is not waited for: another does its work, or it has none any more.

    A global service has no other place for it.
    """
    if not picture.cannot_hear(task):
        return False
    heirs = [t for t in picture.tasks_of(task.service_id) if _is_heir(t, task)]
    if not task.slot or (not heirs and task.desired_state > TaskState.RUNNING):
        return True
    return any(t.status.state is TaskState.RUNNING and not t.status.unready for t in heirs)


def _is_heir(other: Task, task: Task) -> bool:
    wanted = other.desired_state <= TaskState.RUNNING and not is_terminal(other.status.state)
    same = (other.slot, other.iteration) == (task.slot, task.iteration)
    return wanted and same and other.node_id != task.node_id


def _limits(task: Task, node: Node, picture: Picture) -> str:
    service = picture.services.get(task.service_id)
    limits = [f"pace {node.spec.drain.pace}"] if node.spec.drain.pace else []
    if service is not None and service.spec.max_unavailable:
        limits.append(f"max_unavailable {service.spec.max_unavailable}")
    elif service is not None and service.spec.disconnect is Disconnect.FENCE:
        limits.append("a fenced service moves one task at a time")
    return f" ({', '.join(limits)})" if limits else ""


def _count(tasks: list[Task]) -> str:
    return f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}"


def _told(left: Iterable[Task], node: Node, picture: Picture) -> list[str]:
    """Return a line for what holds tasks up, each with how many of whose it holds."""
    held = Counter((_service(task, picture), what_holds(task, node, picture)) for task in left)
    return [f"{name}: {why}" if n == 1 else f"{name}: {n} tasks: {why}" for (name, why), n in sorted(held.items())]


def _reason(summary: str, left: list[Task], node: Node, picture: Picture) -> str:
    deadline = node.spec.drain.deadline
    stops = ""
    if deadline:
        stops = f"; what is left is stopped at {time.strftime('%H:%M:%S', time.localtime(deadline))}"
    return "; ".join([summary + stops, *_told(left, node, picture)])


def _service(task: Task, picture: Picture) -> str:
    service = picture.services.get(task.service_id)
    return service.spec.name if service is not None else task.service_id


def _failed(name: str, reason: str) -> Assessment:
    return Assessment(Status.FAILED, (f"{name}: {reason}",), f"{name}: {reason}")
