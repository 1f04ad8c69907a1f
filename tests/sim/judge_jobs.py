"""What must hold of jobs: a time of the schedule starts one run, whoever leads; completions are counted once."""

from typing import Any

from argosy.core.node import Node, NodeState
from argosy.core.service import JOB_MODES, JobState, Overlap, Service
from argosy.core.task import Task
from argosy.core.task_state import TaskState

KNOWN_S = 2.0
"""After so long a leader is sure to have seen what was stored."""
MINUTE_S = 60.0


class Jobs:
    """Hears of every change of a service and of every new task."""

    def __init__(self, watcher: Any) -> None:
        self._watcher = watcher
        self._minutes: dict[str, int] = {}

    def service_changed(self, old: Service | None, new: Service, *, by_user: bool) -> None:
        """Judge the beginning of runs."""
        if old is None or old.job.iteration == new.job.iteration:
            return
        name, number = new.spec.name, new.job.iteration
        if number != old.job.iteration + 1:
            self._watcher.fail("a run starts once", f"{name}: run {number} follows run {old.job.iteration}")
        cron = new.spec.job.cron if new.spec.job is not None else None
        if by_user or cron is None:
            return
        if new.spec.stopped:
            self._watcher.fail("a run starts once", f"{name} is stopped, and run {number} begins")
        if cron.overlap is Overlap.FORBID and old.job.state is JobState.RUNNING:
            self._watcher.fail("a run starts once", f"{name}: run {number} begins beside the last one")
        minute = int(new.job.started_at // MINUTE_S)  # schedules of the simulator fire every minute, or never
        if minute <= self._minutes.get(new.meta.id, 0):
            self._watcher.fail("a run starts once", f"{name}: run {number} begins in the minute of an earlier one")
        self._minutes[new.meta.id] = minute

    def task_created(self, task: Task, service: Service, siblings: dict[str, Task]) -> None:
        """Judge a new task: its slot is not complete, and no more work at once than may."""
        if service.spec.mode not in JOB_MODES:
            return
        now = self._watcher.now()
        for other in siblings.values():
            if other.status.state is TaskState.COMPLETE and now - other.meta.updated_at > KNOWN_S:
                self._watcher.fail(
                    "a completion counts once", f"{task.meta.id} follows {other.meta.id}, which completed"
                )
        most = service.spec.job.max_concurrent if service.spec.job is not None else 0
        if most:
            busy = self._busy_slots(task, now)
            if len(busy) > most:
                self._watcher.fail(
                    "max_concurrent holds", f"{len(busy)} of run {task.iteration} of {service.spec.name} run at once"
                )

    def _busy_slots(self, task: Task, now: float) -> set[tuple[int, str]]:
        return {
            (other.slot, "" if other.slot else other.node_id)
            for other in self._watcher.tasks.values()
            if (other.service_id, other.iteration) == (task.service_id, task.iteration)
            and other.status.state <= TaskState.RUNNING
            and (not other.node_id or self._answers(other.node_id, now))
        }

    def _answers(self, node_id: str, now: float) -> bool:
        node: Node | None = self._watcher.nodes.get(node_id)
        return node is not None and node.status.state is NodeState.READY and now - node.status.since > KNOWN_S

    def lacks(self, service: Service, tasks: list[Task]) -> str:
        """Say what keeps a job from being over."""
        live = [t for t in tasks if t.status.state <= TaskState.RUNNING]
        if live:
            return f"{live[0].meta.id} of job {service.spec.name} still runs"
        scheduled = service.spec.job is not None and service.spec.job.cron is not None
        over = (JobState.COMPLETE,) if not scheduled else (JobState.NONE, JobState.COMPLETE, JobState.FAILED)
        if not service.spec.stopped and service.job.state not in over:
            return f"job {service.spec.name} is {service.job.state.name} ({service.job.message})"
        return ""
