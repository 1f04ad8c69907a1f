"""Waiting for a node to be drained: what is left on it, and for each task what holds it up. Pure.

The cluster decides (controller/logic); here it is only read from the same objects why a task is still there.
"""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

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
            return Assessment(Status.DONE, (f"{name}: drained{unheard}", *_gone(node, picture)))
        summary = f"{name}: {_count(left)} left"
        return Assessment(Status.WAITING, (summary, *_told(left, node, picture)), _reason(summary, left, node, picture))


class _Words(NamedTuple):
    """How one speaks of one task, or of several for which the same is true."""

    it: str = "it"
    them: str = "it"
    is_: str = "is"
    waits: str = "waits"
    turn: str = "its turn"
    replacement: str = "its replacement"
    job: str = "a job's task goes on to its end"
    everywhere: str = "a global service's task leaves last"


_ONE: Final = _Words()
_MANY: Final = _Words(
    "they",
    "them",
    "are",
    "wait",
    "their turn",
    "their replacements",
    "jobs' tasks go on to their end",
    "tasks of global services leave last",
)


def what_holds(task: Task, node: Node, picture: Picture, *, many: bool = False) -> str:
    """Return why a task is still on a drained node, in words; `many`: of several for which that is the same."""
    say = _MANY if many else _ONE
    if picture.cannot_hear(task):
        return f"{say.it} cannot be told to stop: the node is {node.status.state.name}{_instead(task, picture, say)}"
    if task.desired_state > TaskState.RUNNING:
        return f"{say.it} {say.is_} stopping"
    if task.iteration:
        return say.job if node.spec.drain.deadline else f"{say.job} (--deadline would bound that)"
    if not task.slot:
        return say.everywhere
    heir = _heir(task, picture)
    if heir is None:
        return f"{say.it} {say.waits} for {say.turn}{_limits(task, node, picture)}"
    if heir.status.state is TaskState.PENDING:
        return f"no other node can take {say.them}: {heir.status.reason or f'{say.it} {say.is_} being placed'}"
    if heir.status.state is TaskState.READY and heir.desired_state is TaskState.READY:
        limits = _limits(task, node, picture)
        return f"{say.replacement}{_where(heir, picture)} {say.is_} prepared and {say.waits}{limits}"
    return _coming(heir, picture, say)


def _coming(heir: Task, picture: Picture, say: _Words) -> str:
    """Say how far a task's replacement is."""
    state, who = heir.status.state, f"{say.replacement}{_where(heir, picture)} {say.is_}"
    if state is TaskState.NEW:
        return f"{who} being placed"
    if state is TaskState.RUNNING and heir.status.unready:
        return f"{who} not ready"
    return f"{who} {state.name}" + (f": {heir.status.reason}" if heir.status.reason else "")


def _where(task: Task, picture: Picture) -> str:
    return f" on {picture.node_name(task.node_id)}" if task.node_id else ""


def _instead(task: Task, picture: Picture, say: _Words) -> str:
    """Say what becomes of the place of a task that cannot be told to stop."""
    service = picture.services.get(task.service_id)
    if service is not None and service.spec.disconnect is Disconnect.KEEP and task.desired_state <= TaskState.RUNNING:
        return f", and {say.it} {say.is_} kept until the node is back or removed (disconnect: keep)"
    heir = _heir(task, picture)
    if heir is None:
        return f", and {say.it} {say.is_} not replaced yet"
    reason = f": {heir.status.reason}" if heir.status.reason else ""
    return f", and {say.replacement} {say.is_} {heir.status.state.name}{reason}"


def _gone(node: Node, picture: Picture) -> list[str]:
    """Say what the end of a drain's deadline stopped that runs nowhere now."""
    deadline = node.spec.drain.deadline
    stopped = {
        (t.service_id, t.slot, t.iteration): t
        for t in picture.tasks.values()
        if t.node_id == node.meta.id and t.slot and t.desired_state is TaskState.SHUTDOWN
        if 0 < deadline <= t.meta.updated_at
    }
    lines = []
    for task in stopped.values():
        heir = _heir(task, picture)
        if heir is None:
            why = "it is not replaced yet"
        elif heir.status.state is TaskState.RUNNING:
            continue
        else:
            why = (heir.status.state is TaskState.PENDING and heir.status.reason) or _coming(heir, picture, _ONE)
        lines.append(f"{picture.task_name(task)} was stopped at the deadline and runs nowhere now: {why}")
    return sorted(lines)


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


def _heir(task: Task, picture: Picture) -> Task | None:
    """Return the task elsewhere that takes over from one, the one that is furthest on."""
    heirs = (t for t in picture.tasks_of(task.service_id) if _is_heir(t, task))
    return max(heirs, key=lambda t: (t.status.state, t.meta.created_at), default=None)


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
    held: defaultdict[tuple[str, str], list[Task]] = defaultdict(list)
    for task in left:
        held[_service(task, picture), what_holds(task, node, picture)].append(task)
    lines = []
    for (name, why), tasks in sorted(held.items()):
        together = f"{len(tasks)} tasks: {what_holds(tasks[0], node, picture, many=True)}"
        lines.append(f"{name}: {why if len(tasks) == 1 else together}")
    return lines


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
