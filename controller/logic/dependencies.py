"""Whether a task has to wait for services that its own depends on: `depends_on`, held in the cluster.

Asked by the scheduler for every task that waits for a node: one that is held gets none, and stays PENDING with what it
waits for. A dependency is there when

    started     one of its tasks runs, or has ended well
    healthy     one of its tasks is RUNNING (so its health check has passed) and ready; a job: it has completed
    completed   all of its tasks have ended with 0; a job: its present run has completed

One task is enough for the first two: a service answers then, and a host that is gone must not hold up all that depends
on it. When both services change in one deploy the new tasks wait until the dependency's update has come through, too.

A replacement is not held: where a task of the slot has run the same revision before, it is enough that the dependency
runs at all. So a crash beside a dependency that is ill, or updated, or removed, is mended. What went with its host is
held as at first, though not for an update, nor for what had only to complete: after a loss of the whole cluster
everything starts in order.

What a record says of a host counts while somebody vouches for it:

    READY        once its agent has told this leader that it runs there: the host may be back from a restart
    AGENT_LOST   the host has been up all the time, so most likely what ran there runs
    UNKNOWN      not: a new leader waits for a node no longer than a grace period, and most are back in a second
    DOWN         not; and it does not keep a dependency from having completed either
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from argosy.core.dependencies import CONDITION_NAMES
from argosy.core.node import Node, NodeState
from argosy.core.service import (
    JOB_MODES,
    Dependency,
    DependencyCondition,
    JobState,
    RestartCondition,
    Revision,
    Service,
    ServiceMode,
    UpdateState,
)
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_failure, is_terminal, is_up


@dataclass(frozen=True, slots=True)
class Objects:
    """How the cluster's objects are found: a service by (project, name), its tasks and revisions by its id.

    `runs`: whether a task that is recorded to run on a node, READY or AGENT_LOST, is believed to by this leader.
    """

    service: Callable[[str, str], Service | None]
    tasks: Callable[[str], Sequence[Task]]
    revisions: Callable[[str], Sequence[Revision]]
    node: Callable[[str], Node | None]
    runs: Callable[[Node, str], bool]


@dataclass(frozen=True, slots=True)
class Held:
    """What a task waits for ("waiting for db: healthy"). `at_rest`: and something of it comes no further by itself."""

    reason: str
    at_rest: bool = False


class _Before(Enum):
    """What became of the last task that ran the same revision in the same place."""

    NONE = auto()
    """There was none."""
    ENDED = auto()
    """It crashed, was stopped or moved; its host lives."""
    LOST = auto()
    """It went with its host."""


class Gate:
    """Answers for many tasks at one moment; keeps what it found out, so each question is answered once."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._ran: dict[str, dict[tuple[int, str, int], Task]] = {}
        self._unmet: dict[tuple[str, str, int, _Before], Held] = {}

    def what_holds(self, service: Service, task: Task) -> Held | None:
        """Return what a task waits for; None when it may start."""
        if not service.spec.depends_on:
            return None
        before = self._before(task)
        found = [self._why_unmet(service, task.revision, d, before) for d in service.spec.depends_on]
        unmet = [held for held in found if held.reason]
        if not unmet:
            return None
        reason = "; ".join(held.reason for held in unmet)
        return Held(f"waiting for {reason}", any(held.at_rest for held in unmet))

    def _before(self, task: Task) -> _Before:
        if task.service_id not in self._ran:
            tasks = sorted(self._objects.tasks(task.service_id), key=lambda t: (t.meta.created_at, t.meta.id))
            self._ran[task.service_id] = {_place(t): t for t in tasks if t.running_since}
        last = self._ran[task.service_id].get(_place(task))
        if last is None:
            return _Before.NONE
        lost = last.status.host_restarted or last.status.state is TaskState.ORPHANED or self._is_away(last)
        return _Before.LOST if lost else _Before.ENDED

    def _why_unmet(self, service: Service, revision: int, wanted: Dependency, before: _Before) -> Held:
        key = (service.meta.id, wanted.service, revision, before)
        if key not in self._unmet:
            self._unmet[key] = self._judge(service, revision, wanted, before)
        return self._unmet[key]

    def _judge(self, service: Service, revision: int, wanted: Dependency, before: _Before) -> Held:
        name, condition = wanted.service, wanted.condition
        is_first = before is _Before.NONE
        found = self._objects.service(service.meta.project, name)
        if found is None or found.removing:
            return Held("" if wanted.optional or not is_first else f"{name}: there is no such service")
        if not is_first and condition is DependencyCondition.COMPLETED:
            return Held("")
        state = self._state_of(found)
        if before is _Before.ENDED and state.runs():
            return Held("")
        changing = self._changing_with(service, revision, found) if is_first else Held("")
        if changing.reason:
            return Held(f"{name}: {changing.reason}", changing.at_rest)
        if state.has_reached(condition):
            return Held("")
        return Held(f"{name}: {CONDITION_NAMES[condition]}{state.why_not(condition)}")

    def _state_of(self, service: Service) -> "_State":
        tasks = [t for t in self._objects.tasks(service.meta.id) if not self._is_away(t)]
        unheard = {t.meta.id: node for t in tasks if (node := self._unheard(t))}
        return _State(service, tasks, unheard)

    def _changing_with(self, service: Service, revision: int, found: Service) -> Held:
        """Say what is left of an update of the dependency that came in the same deploy as the revision; "" if nothing.

        What one request changes carries one time.
        """
        revisions = self._objects.revisions
        own = next((r for r in revisions(service.meta.id) if r.number == revision), None)
        if own is None or found.spec.mode in JOB_MODES:
            return Held("")
        at = own.meta.created_at
        twin = next((r for r in revisions(found.meta.id) if r.number > 1 and r.meta.created_at == at), None)
        if twin is None:
            return Held("")
        match found.update.state:
            case UpdateState.UPDATING if found.revision == twin.number:
                return Held("its update")
            case UpdateState.PAUSED if found.revision == twin.number:
                return Held("its update, which is paused", at_rest=True)
            case UpdateState.ROLLBACK_STARTED | UpdateState.ROLLBACK_PAUSED | UpdateState.ROLLBACK_COMPLETED:
                return Held("its update, which was rolled back", at_rest=True)
            case _:
                return Held("")

    def _is_away(self, task: Task) -> bool:
        if not task.node_id or is_terminal(task.status.state):
            return False
        node = self._objects.node(task.node_id)
        return node is None or node.status.state is NodeState.DOWN

    def _unheard(self, task: Task) -> str:
        """Return the name of the node of a task that runs only as far as is known; "" where somebody vouches for it."""
        if not is_up(task.status.state):
            return ""
        node = self._objects.node(task.node_id)
        if node is None:
            return ""
        if node.status.state in (NodeState.READY, NodeState.AGENT_LOST) and self._objects.runs(node, task.meta.id):
            return ""
        return node.spec.name or task.node_id


@dataclass(frozen=True, slots=True)
class _State:
    """A dependency and its tasks, those on lost nodes left out.

    `unheard`: tasks that count as little as if they did not run, with the nodes that have not told yet.
    """

    service: Service
    tasks: Sequence[Task]
    unheard: Mapping[str, str]

    def runs(self) -> bool:
        """Whether any of its programs runs."""
        return any(_wanted(t) and is_up(t.status.state) for t in self._known())

    def _known(self) -> list[Task]:
        return [t for t in self.tasks if t.meta.id not in self.unheard]

    def has_reached(self, condition: DependencyCondition) -> bool:
        """Whether the condition holds."""
        is_job, job = self.service.spec.mode in JOB_MODES, self.service.job
        if is_job and job.state is JobState.COMPLETE:
            return True
        match condition:
            case DependencyCondition.STARTED:
                return any(_has_started(t) and (not is_job or t.iteration == job.iteration) for t in self._known())
            case DependencyCondition.HEALTHY:
                return any(_is_healthy(t) and (not is_job or t.iteration == job.iteration) for t in self._known())
            case DependencyCondition.COMPLETED:
                return not is_job and self._has_finished()

    def _has_finished(self) -> bool:
        """Whether a service that is no job has ended for good: all of its tasks with 0."""
        wanted = [t for t in self.tasks if _wanted(t) and t.revision == self.service.revision]
        done = {_place(t) for t in wanted if t.status.state is TaskState.COMPLETE}
        goes_on = any(not is_terminal(t.status.state) for t in self.tasks)
        is_global = self.service.spec.mode is ServiceMode.GLOBAL
        return not goes_on and len(done) >= (1 if is_global else max(1, self.service.spec.replicas))

    def why_not(self, condition: DependencyCondition) -> str:
        """Return what keeps the dependency, in brackets; "" when it is just on its way."""
        spec, job = self.service.spec, self.service.job
        if spec.stopped:
            return " (it is stopped)"
        if spec.mode is ServiceMode.REPLICATED and not spec.replicas:
            return " (it has no replicas)"
        if job.state is JobState.FAILED:
            return f" ({job.message})"
        if spec.mode in JOB_MODES and not job.iteration:
            return " (its schedule has not started it yet)"
        restarts = spec.mode not in JOB_MODES and spec.task.restart.condition is RestartCondition.ANY
        if condition is DependencyCondition.COMPLETED and restarts:
            return " (which it never is: it restarts whenever it ends)"
        return self._told()

    def _told(self) -> str:
        """Return the reason of the task that says most: one that waits, else the one that failed last."""
        if self.unheard and all(t.meta.id in self.unheard for t in self.tasks if not is_terminal(t.status.state)):
            return f" ({next(iter(self.unheard.values()))}, where it ran, has not told yet what runs there)"
        waiting = [t for t in self.tasks if not is_terminal(t.status.state) and t.status.reason and _wanted(t)]
        if waiting:
            task = max(waiting, key=lambda t: (t.status.at, t.meta.id))
            who = f"{self.service.spec.name} is " if task.status.held else ""
            return f" ({who}{task.status.reason})"
        if any(t.status.state is TaskState.RUNNING and _wanted(t) for t in self.tasks):
            return ""
        present = [t for t in self.tasks if t.iteration == self.service.job.iteration and _wanted(t)]
        done = {_place(t) for t in present if t.status.state is TaskState.COMPLETE}
        failed = [t for t in present if is_failure(t.status.state) and t.status.reason and _place(t) not in done]
        return f" ({max(failed, key=lambda t: (t.status.at, t.meta.id)).status.reason})" if failed else ""


def _place(task: Task) -> tuple[int, str, int]:
    return task.slot, "" if task.slot else task.node_id, task.revision


def _wanted(task: Task) -> bool:
    return task.desired_state <= TaskState.RUNNING


def _has_started(task: Task) -> bool:
    return _wanted(task) and TaskState.STARTING <= task.status.state <= TaskState.COMPLETE


def _is_healthy(task: Task) -> bool:
    return task.takes_requests
