"""What must hold of `depends_on`: no task is placed for the first time before what it waits for came true."""

from collections import defaultdict
from typing import Any

from argosy.core.service import JOB_MODES, DependencyCondition, JobState, Service
from argosy.core.task import Task
from argosy.core.task_state import TaskState

LATE_S = 10.0
"""How long a decision may wait for etcd to take it."""
S = TaskState


class Dependencies:
    """Follows when each service last had reached what others wait for."""

    def __init__(self, watcher: Any) -> None:
        self._watcher = watcher
        self._is_so: dict[tuple[str, DependencyCondition], bool] = {}
        self._was_so_at: dict[tuple[str, DependencyCondition], float] = {}
        self._ran: defaultdict[str, set[tuple[int, str, int]]] = defaultdict(set)

    def changed(self, service: Service) -> None:
        """Look at a service anew, of which something was stored."""
        for condition in DependencyCondition:
            key = (service.spec.name, condition)
            before, now = self._is_so.get(key, False), self._has_reached(service, condition)
            self._is_so[key] = now
            if before or now:
                self._was_so_at[key] = self._watcher.now()

    def task_changed(self, task: Task) -> None:
        """Note that a place has run a revision: it may do so again."""
        if task.running_since:
            self._ran[task.service_id].add(_place(task))

    def placed(self, task: Task, service: Service) -> None:
        """Judge a task that was given a node."""
        if _place(task) in self._ran[task.service_id]:
            return
        for wanted in service.spec.depends_on:
            if all(s.spec.name != wanted.service or s.removing for s in self._watcher.services.values()):
                continue  # there is no such service any more
            key = (wanted.service, wanted.condition)
            late_s = self._watcher.now() - self._was_so_at.get(key, 0.0)
            if not self._is_so.get(key) and late_s > LATE_S:
                self._watcher.fail(
                    "dependents wait",
                    f"{task.meta.id} of {service.spec.name} starts, and {wanted.service} is not "
                    f"{wanted.condition.name.lower()}",
                )

    def _has_reached(self, service: Service, condition: DependencyCondition) -> bool:
        is_job = service.spec.mode in JOB_MODES
        if condition is DependencyCondition.COMPLETED:
            return is_job and service.job.state is JobState.COMPLETE
        last = S.RUNNING if condition is DependencyCondition.HEALTHY else S.COMPLETE
        first = S.RUNNING if condition is DependencyCondition.HEALTHY else S.STARTING
        tasks = [t for t in self._watcher.tasks.values() if t.service_id == service.meta.id]
        return (is_job and service.job.state is JobState.COMPLETE) or any(
            first <= t.status.state <= last and t.desired_state <= S.RUNNING for t in tasks
        )


def _place(task: Task) -> tuple[int, str, int]:
    return task.slot, "" if task.slot else task.node_id, task.revision
