"""A plan in the making: collects actions so that none contradicts or repeats another.

The parts of `plan_service` each look at their own concern and may want the same thing of one task; the draft keeps the
strongest wish (deleting over REMOVE over SHUTDOWN over RUNNING).
"""

from argosy.controller.logic.actions import (
    Action,
    CreateTask,
    DeleteService,
    DeleteTask,
    OrphanTask,
    Plan,
    SetDesired,
    SetJob,
    SetUpdate,
)
from argosy.controller.logic.slots import is_unassigned
from argosy.core.service import JobStatus, UpdateStatus
from argosy.core.task import Task
from argosy.core.task_state import TaskState


class Draft:
    """Collects the actions of one plan made at `now`. `update`: how the update is to stand, if that changes."""

    def __init__(self, service_id: str, now: float) -> None:
        self._service_id = service_id
        self._now = now
        self.update: UpdateStatus | None = None
        self._job: JobStatus | None = None
        self._desired: dict[str, TaskState] = {}
        self._orphans: dict[str, OrphanTask] = {}
        self._deleted: dict[str, DeleteTask] = {}
        self._created: list[CreateTask] = []
        self._last: list[Action] = []
        self._wake_at: float | None = None

    def desire(self, task: Task, state: TaskState) -> None:
        """Raise what is desired of a task; no action if that much is desired already."""
        if state > max(task.desired_state, self._desired.get(task.meta.id, TaskState.NEW)):
            self._desired[task.meta.id] = state

    def stop(self, task: Task) -> None:
        """Have a task stopped and kept as history; one that no agent knows leaves nothing to keep."""
        if is_unassigned(task):
            self.delete(task)
        else:
            self.desire(task, TaskState.SHUTDOWN)

    def delete(self, task: Task) -> None:
        """Delete a task's record now."""
        self._deleted[task.meta.id] = DeleteTask(task.meta.id)

    def orphan(self, task: Task) -> None:
        """Mark a task ORPHANED."""
        self._orphans[task.meta.id] = OrphanTask(task.meta.id)

    def create(self, action: CreateTask) -> None:
        """Create a task."""
        self._created.append(action)

    def set_update(self, update: UpdateStatus) -> None:
        """Store the update's progress, before anything else of this plan."""
        self.update = update

    def set_job(self, job: JobStatus) -> None:
        """Store how the job stands, before anything else of this plan."""
        self._job = job

    @property
    def sets_job(self) -> bool:
        """Whether the draft stores how the job stands."""
        return self._job is not None

    def delete_service(self) -> None:
        """Delete the service, after everything else of this plan."""
        self._last.append(DeleteService(self._service_id))

    def deletes(self, task: Task) -> bool:
        """Whether the draft deletes a task."""
        return task.meta.id in self._deleted

    def wake(self, at: float) -> None:
        """Have the service planned again at `at`, if that is still to come."""
        if at > self._now and (self._wake_at is None or at < self._wake_at):
            self._wake_at = at

    def plan(self) -> Plan:
        """Return the finished plan: progress first, then stops, deletions, creations, the service's own end last."""
        desired = [SetDesired(i, s) for i, s in self._desired.items() if i not in self._deleted]
        orphans = [o for i, o in self._orphans.items() if i not in self._deleted]
        progress: list[Action] = []
        if self.update is not None:
            progress.append(SetUpdate(self._service_id, self.update))
        if self._job is not None:
            progress.append(SetJob(self._service_id, self._job))
        actions: list[Action] = [*progress, *desired, *orphans, *self._deleted.values(), *self._created]
        return Plan((*actions, *self._last), self._wake_at)
