"""What must hold of `depends_on`: no task is placed for the first time before what it waits for came true.

And after everything lost power no program starts, on whoever's decision, before what it waits for has run since.
"""

from collections import defaultdict
from typing import Any

from argosy.agent.logic.succession import LEFT_S
from argosy.core.assignment import TaskAssignment
from argosy.core.service import JOB_MODES, DependencyCondition, JobState, Service
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from tests.sim.kernel import Container

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
        self._cut_at = -LEFT_S
        self._torn: set[tuple[str, int, str, int]] = set()
        self._excused: set[str] = set()
        self._up: set[str] = set()
        self._began: set[str] = set()
        self._well: set[str] = set()
        self._restarted: set[tuple[str, int, str, int]] = set()

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
        if task.status.state is S.RUNNING and task.meta.id in self._began:
            self._well.add(task.service_id)

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

    # ---- after everything lost power

    def power_cut(self, hosts: Any) -> None:
        """Note what is about to be torn down. What had its node before and did not run is not held again."""
        self._cut_at = self._watcher.now()
        self._up, self._began, self._well, self._torn, self._restarted = set(), set(), set(), set(), set()
        self._excused = {t.meta.id for t in self._watcher.tasks.values() if S.ASSIGNED <= t.status.state < S.STARTING}
        for host in hosts:
            for container in host.kernel.containers.values():
                self._excused.add(container.id)  # its record may be lost
                if (task := _assigned(container, host)) is not None and container.status == "running":
                    self._torn.add(_torn_place(task, host))
            if host.agent is not None:
                self._excused.update(host.agent._host.assignments.tasks())

    def started(self, container: Container, host: Any) -> None:
        """Judge a program that begins to run: the first one in its place since the cut."""
        task = _assigned(container, host)
        if task is None:
            return
        self._up.add(task.service_id)
        self._began.add(container.id)
        stored = self._watcher.tasks.get(container.id)
        if stored is not None and stored.status.state is S.RUNNING:  # run again by a host that lost its record
            self._well.add(task.service_id)
        place = _torn_place(task, host)
        has_run, is_over = place in self._restarted, self._watcher.now() - self._cut_at >= LEFT_S
        self._restarted.add(place)
        service = self._watcher.services.get(task.service_id)
        if has_run or is_over or service is None or container.id in self._excused:
            return
        for wanted in service.spec.depends_on:
            found = next((s for s in self._watcher.services.values() if s.spec.name == wanted.service), None)
            if found is None or found.removing or found.spec.mode in JOB_MODES:
                continue
            needs_health = wanted.condition is DependencyCondition.HEALTHY and place in self._torn
            has_been = self._well if needs_health else self._up
            if found.meta.id not in has_been and not self._has_ended_well(found):
                self._watcher.fail(
                    "dependents wait after a power cut",
                    f"{container.id} of {service.spec.name} runs on {host.name}, and {wanted.service} has not been "
                    f"{wanted.condition.name.lower()} since",
                )

    def _has_ended_well(self, service: Service) -> bool:
        tasks = [t for t in self._watcher.tasks.values() if t.service_id == service.meta.id]
        return any(t.status.state is S.COMPLETE for t in tasks)

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


def _assigned(container: Container, host: Any) -> TaskAssignment | None:
    """Return what a container's agent knows of its task, also of one that no controller knows yet."""
    found: TaskAssignment | None = host.agent._host.assignments.tasks().get(container.id) if host.agent else None
    return found


def _torn_place(task: TaskAssignment, host: Any) -> tuple[str, int, str, int]:
    return task.service_id, task.slot, "" if task.slot else host.name, task.revision


def _place(task: Task) -> tuple[int, str, int]:
    return task.slot, "" if task.slot else task.node_id, task.revision
