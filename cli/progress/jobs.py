"""Waiting for jobs: whether a run has completed. Pure.

A deployed job is waited for until its run is complete; one with a schedule only until the cluster has taken it over.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime

from argosy.cli.progress.goals import Assessment, Goal, Status, hopeless, takes, why_waiting
from argosy.cli.progress.picture import Picture
from argosy.core.cron import parse_zone
from argosy.core.node import Node
from argosy.core.service import JobSpec, JobState, Service, ServiceMode
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_failure, is_terminal

Slot = tuple[int, str]
"""A completion: a number of a replicated job, a node of a global one."""


@dataclass(frozen=True, slots=True)
class JobRun:
    """A run of a job has completed: the one that was begun last when the cluster acknowledged `service`.

    `scheduled`: it is enough that the job waits for its time, if it has a schedule.
    """

    service: Service
    scheduled: bool = False

    def concerns(self, task: Task) -> bool:
        """Whether the task is one of the run's."""
        return task.service_id == self.service.meta.id and task.iteration == self.service.job.iteration

    def assess(self, picture: Picture) -> Assessment:
        """Return how the run goes."""
        name, run = self.service.spec.name, self.service.job.iteration
        service = picture.services.get(self.service.meta.id)
        if service is None or service.meta.updated_at < self.service.meta.updated_at:
            waiting = f"{name}: waiting for the cluster"
            return Assessment(Status.WAITING, (waiting,), waiting)
        if service.removing:
            return _failed(name, "it is being removed")
        if service.spec.stopped:
            return Assessment(Status.DONE, (f"{name}: stopped",))
        if self.scheduled and service.spec.job is not None and service.spec.job.cron is not None:
            return Assessment(Status.DONE, (f"{name}: next run {next_run(service)}",))
        tasks = [task for task in picture.tasks_of(service.meta.id) if task.iteration == run]
        state, message = service.job.state, service.job.message
        if service.job.iteration > run:
            state, message = _superseded(service, picture, tasks), f"run {service.job.iteration} was begun meanwhile"
        summary = self._summary(service, picture, tasks)
        if state is JobState.COMPLETE:
            return Assessment(Status.DONE, (summary,))
        if state is JobState.FAILED:
            return Assessment(Status.FAILED, (summary,), f"{name}: {message}", _culprits(tasks))
        stuck = hopeless(service, picture, tasks, counts_all=False)
        if stuck is not None:
            return Assessment(Status.FAILED, (summary,), f"{name}: {stuck[0]}", stuck[1])
        return Assessment(Status.WAITING, (summary,), f"{summary}{why_waiting(tasks)}")

    def _summary(self, service: Service, picture: Picture, tasks: Sequence[Task]) -> str:
        done, total = _counts(service, picture, tasks)
        running = {_slot(t) for t in tasks if t.status.state is TaskState.RUNNING} - done
        text = f"{service.spec.name}: {len(done)}/{total} complete"
        return f"{text}, {len(running)} running" if running else text


@dataclass(frozen=True, slots=True)
class AllOf:
    """Several goals: failed if one has, done when all are."""

    goals: tuple[Goal, ...]

    def concerns(self, task: Task) -> bool:
        """Whether the task is one of theirs."""
        return any(goal.concerns(task) for goal in self.goals)

    def assess(self, picture: Picture) -> Assessment:
        """Combine them."""
        parts = [goal.assess(picture) for goal in self.goals]
        summary = tuple(line for part in parts for line in part.summary)
        for status in (Status.FAILED, Status.WAITING):
            such = [part for part in parts if part.status is status]
            if such:
                reason = "\n".join(part.reason for part in such if part.reason)
                hint = "\n  ".join(part.hint for part in such if part.hint)
                return Assessment(status, summary, reason, tuple(t for part in such for t in part.culprits), hint)
        return Assessment(Status.DONE, summary, steady_s=max((p.steady_s for p in parts), default=0.0))


def next_run(service: Service) -> str:
    """Return when a job runs next, in its own time zone; "" when it has no schedule."""
    job = service.spec.job or JobSpec()
    if job.cron is None or not service.job.next_at:
        return ""
    return (
        datetime.fromtimestamp(service.job.next_at, UTC)
        .astimezone(parse_zone(job.cron.time_zone))
        .strftime("%Y-%m-%d %H:%M %Z")
    )


def _failed(name: str, reason: str) -> Assessment:
    return Assessment(Status.FAILED, (f"{name}: {reason}",), f"{name}: {reason}")


def _superseded(service: Service, picture: Picture, tasks: list[Task]) -> JobState:
    """Return how a run goes that is not the last one any more: its own tasks tell."""
    done, total = _counts(service, picture, tasks)
    if len(done) >= total:
        return JobState.COMPLETE
    goes_on = any(not is_terminal(t.status.state) and t.desired_state <= TaskState.RUNNING for t in tasks)
    return JobState.RUNNING if goes_on else JobState.FAILED


def total_completions(service: Service, nodes: Iterable[Node], done: Set[Slot], busy: Set[Slot]) -> int:
    """Return how many completions a run of a job has.

    Of a global one: those that it has (`done`), is at (`busy`), and is to have on nodes that take tasks now. A node
    that is drained, or is not there, does not count unless it has done its part, or still does.
    """
    if service.spec.mode is ServiceMode.REPLICATED_JOB:
        return (service.spec.job or JobSpec()).total_completions
    return len({(0, node.meta.id) for node in nodes if takes(node, service)} | done | busy)


def _counts(service: Service, picture: Picture, tasks: Iterable[Task]) -> tuple[set[Slot], int]:
    """Return the slots of a run that are complete, and how many there are."""
    done, busy = set(), set()
    for task in tasks:
        if task.status.state is TaskState.COMPLETE:
            done.add(_slot(task))
        elif task.status.state <= TaskState.RUNNING >= task.desired_state and not picture.is_away(task):
            busy.add(_slot(task))
    return done, total_completions(service, picture.nodes.values(), done, busy)


def _culprits(tasks: Iterable[Task]) -> tuple[Task, ...]:
    return tuple(sorted((t for t in tasks if is_failure(t.status.state)), key=lambda t: -t.status.at)[:1])


def _slot(task: Task) -> tuple[int, str]:
    return task.slot, "" if task.slot else task.node_id
