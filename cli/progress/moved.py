"""Waiting for tasks to have moved: what became of those that a rebalancing marked. Pure."""

from collections import Counter
from dataclasses import dataclass

from argosy.cli.progress.goals import Assessment, Status
from argosy.cli.progress.picture import Picture
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal


@dataclass(frozen=True, slots=True)
class TasksMoved:
    """The tasks have stopped where they were, and others of their slots run."""

    tasks: tuple[Task, ...]

    def concerns(self, task: Task) -> bool:
        """Whether the task is of a service that is being moved."""
        return any(task.service_id == one.service_id for one in self.tasks)

    def assess(self, picture: Picture) -> Assessment:
        """Done when none of the tasks is left; one that stays says why its heir does not come."""
        left = []
        for task in self.tasks:
            now = picture.tasks.get(task.meta.id)
            if now is not None and not is_terminal(now.status.state):
                left.append(now)
        moved = len(self.tasks) - len(left)
        summary = f"moved {moved} of {len(self.tasks)} task{'s' if len(self.tasks) != 1 else ''}"
        if not left:
            return Assessment(Status.DONE, (summary,))
        held = Counter(why for task in left if (why := _what_holds(task, picture)))
        lines = [why if count == 1 else f"{count} tasks: {why}" for why, count in sorted(held.items())]
        return Assessment(Status.WAITING, (summary, *lines), "; ".join([summary, *lines]))


def _what_holds(task: Task, picture: Picture) -> str:
    heirs = [t for t in picture.tasks_of(task.service_id) if t.slot == task.slot and t.meta.id != task.meta.id]
    waiting = [t for t in heirs if t.status.state is TaskState.PENDING and t.desired_state <= TaskState.RUNNING]
    return next((t.status.reason for t in waiting if t.status.reason), "")
