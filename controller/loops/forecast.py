"""What would come of a change: the real decisions, made on a snapshot in memory until it comes to rest. Pure.

The controller's own parts decide (the orchestrator, the scheduler); what stands in for the hosts is simple: every task
does at once what it is told, programs of jobs end well, containers that are asked to stop are gone. Nodes stay as they
are: on one that is down nothing happens. Time jumps to when the next decision is due, unless nothing but a deadline is
left, as for an update whose tasks no node can take: then the cluster is at rest, too. For jobs with a schedule time
stands still: their next runs come without the change as well, and one every minute would never let the cluster rest.

Used for plans (api/plan.py). What a forecast cannot know is how programs behave: it says where tasks would go.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import Final

from argosy.controller.logic.departures import Departures
from argosy.controller.logic.orchestrate import plan_service
from argosy.controller.loops.apply import groups_of
from argosy.controller.loops.placing import Placing, waits
from argosy.controller.store import Change, Delete, Op, Put, Snapshot
from argosy.controller.store.ops import create, update
from argosy.core.node import Node, NodeState
from argosy.core.service import JOB_MODES, Service
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal

PATIENCE_S: Final = 90.0
"""Beyond the delays that services ask for themselves: what is due later after the last change is a deadline."""
ROUNDS: Final = 100_000
"""More than any change takes; what would go on for ever (a program of ours that is wrong) ends here."""
_ANSWERING: Final = frozenset({NodeState.READY, NodeState.UNKNOWN})


class AbandonedError(Exception):
    """Nobody waits for the forecast any more."""


def forecast(
    snap: Snapshot, ops: Iterable[Op], now: float, is_abandoned: Callable[[], bool] = lambda: False
) -> Snapshot:
    """Return the snapshot at which the cluster comes to rest after `ops`, made at time `now` (seconds since 1970).

    For a large cluster that takes seconds: AbandonedError soon after `is_abandoned` has become true.
    """
    world = _World(snap, now, is_abandoned)
    world.write(ops)
    world.settle()
    return world.snap


def after(snap: Snapshot, ops: Iterable[Op]) -> tuple[Snapshot, list[Change]]:
    """Return the snapshot right after a write, and what it changed; its checks are taken to hold."""
    version = snap.revision + 1
    changes: list[Change] = []
    for op in ops:
        if isinstance(op, Put):
            kind, meta = type(op.obj), op.obj.meta
            stored = replace(op.obj, meta=replace(meta, version=version))
            changes.append(Change(kind, meta.id, snap.get(kind, meta.id, meta.project), stored))
        elif isinstance(op, Delete):
            old = snap.get(op.kind, op.id, op.project)
            changes += [Change(op.kind, op.id, old, None)] if old is not None else []
    return snap.apply(version, changes), changes


class _World:
    """The cluster in memory. `snap` is how it is now."""

    def __init__(self, snap: Snapshot, now: float, is_abandoned: Callable[[], bool]) -> None:
        self.snap = snap
        self._is_abandoned = is_abandoned
        self._began = self._now = now
        self._placing = Placing()
        self._ids = (f"forecast-{snap.revision}-{number:06d}" for number in count(1))
        self._dirty = {service.meta.id for service in snap.all(Service)}
        self._moved = {task.meta.id for task in snap.all(Task)}  # tasks whose agent has something to look at
        self._waiting = {task.meta.id for task in snap.all(Task) if waits(task)}
        self._due: dict[str, float] = {}
        self._later: dict[str, float] = {}  # tasks that start after a delay
        self._changed_at = now
        self._nodes = {node.meta.id: node for node in snap.all(Node)}

    def write(self, ops: Iterable[Op]) -> bool:
        """Store something; tell whether anything changed."""
        self.snap, changes = after(self.snap, ops)
        self._placing.follow(changes, self.snap)
        for change in changes:
            match change.new or change.old:
                case Task() as task:
                    self._dirty |= {task.service_id} | self._waiting_on_drained(task.node_id)
                    self._moved.add(task.meta.id)
                    if waits(task):
                        self._waiting.add(task.meta.id)
                case Service() as service:
                    self._dirty.add(service.meta.id)
                case Node():
                    self._nodes = {node.meta.id: node for node in self.snap.all(Node)}
                    self._dirty = {service.meta.id for service in self.snap.all(Service)}
                case _:
                    pass
        if changes:
            self._changed_at = self._now
        return bool(changes)

    def settle(self) -> None:
        """Go on until nothing happens any more."""
        for _ in range(ROUNDS):
            self._go_on()
            if not (self._orchestrate() | self._schedule() | self._run()) and not self._sleep():
                return

    def _go_on(self) -> None:
        if self._is_abandoned():
            raise AbandonedError

    def _orchestrate(self) -> bool:
        nodes = self._nodes
        departures = Departures.build(nodes.values(), self.snap.tasks_on_node, self.snap.tasks_of_service)
        changed = False
        dirty, self._dirty = sorted(self._dirty), set()
        for service_id in dirty:
            self._go_on()
            self._due.pop(service_id, None)
            service = self.snap.get(Service, service_id)
            if service is None:
                continue
            revisions = {r.number: r for r in self.snap.revisions_of_service(service_id)}
            tasks = self.snap.tasks_of_service(service_id)
            scheduled = service.spec.job is not None and service.spec.job.cron is not None
            now = self._began if scheduled else self._now
            plan = plan_service(service, revisions, tasks, nodes, now, departures=departures)
            if plan.wake_at is not None and not scheduled:
                self._due[service_id] = plan.wake_at
            for group in groups_of(plan.actions, self.snap, service, self._now, lambda: next(self._ids)):
                changed |= self.write(group)
        return changed

    def _waiting_on_drained(self, node_id: str) -> set[str]:
        node = self.snap.get(Node, node_id) if node_id else None
        if node is None or not node.spec.availability:
            return set()
        return {task.service_id for task in self.snap.tasks_on_node(node_id)}

    def _schedule(self) -> bool:
        found = (self.snap.get(Task, task_id) for task_id in sorted(self._waiting))
        tasks = [task for task in found if task is not None and waits(task)]
        self._waiting = {task.meta.id for task in tasks}
        if not tasks:
            return False
        placed, slices = self._placing.decide(self.snap, tasks, self._now)
        ops: list[Op] = [create(lease) for lease in slices]
        ops += [update(task) for task in placed if task != self.snap.get(Task, task.meta.id)]
        return self.write(ops)

    def _run(self) -> bool:
        """Play the agents: each task that changed does what it is told."""
        moved, self._moved = sorted(self._moved), set()
        moved += [task_id for task_id, at in self._later.items() if at <= self._now]
        ops: list[Op] = []
        for task_id in moved:
            self._later.pop(task_id, None)
            task = self.snap.get(Task, task_id)
            if task is None or not task.node_id:
                continue
            node = self.snap.get(Node, task.node_id)
            if node is None or node.status.state in _ANSWERING:
                following = self._obeyed(task)
                ops += [update(following)] if following != task else []
        return self.write(ops)

    def _obeyed(self, task: Task) -> Task:
        status, wanted = task.status, task.desired_state
        if is_terminal(status.state):
            return replace(task, status=replace(status, released=True))
        if status.state < TaskState.ASSIGNED:
            return task
        if wanted > TaskState.RUNNING:
            return replace(task, status=replace(status, state=TaskState.SHUTDOWN, at=self._now, released=True))
        if task.not_before > self._now:
            self._later[task.meta.id] = task.not_before
            wanted = min(wanted, TaskState.READY)
        service = self.snap.get(Service, task.service_id)
        if wanted is TaskState.RUNNING and service is not None and service.spec.mode in JOB_MODES:
            done = replace(status, state=TaskState.COMPLETE, at=self._now, exit_code=0, released=True)
            return replace(task, status=done, running_since=task.running_since or self._now)
        if status.state < wanted:
            since = self._now if wanted is TaskState.RUNNING else 0.0
            return replace(task, status=replace(status, state=wanted, at=self._now, reason=""), running_since=since)
        if status.unready:
            return replace(task, status=replace(status, unready=False))
        return task

    def _sleep(self) -> bool:
        """Jump to when something is due; False when it is at rest."""
        times = [*self._due.values(), *self._later.values()]
        wake = min(times, default=None)
        if wake is None or wake > self._changed_at + PATIENCE_S + self._longest_delay():
            return False
        self._now = max(self._now, wake)
        self._dirty = {service_id for service_id, at in self._due.items() if at <= self._now}
        return True

    def _longest_delay(self) -> float:
        services = [s for service_id in self._due if (s := self.snap.get(Service, service_id)) is not None]
        specs = [service.spec for service in services]
        return max((c.delay + c.monitor for spec in specs for c in (spec.update, spec.rollback)), default=0.0)


def tasks_there(snap: Snapshot) -> Sequence[Task]:
    """Return the tasks that are to go on."""
    return [t for t in snap.all(Task) if t.desired_state <= TaskState.RUNNING and not is_terminal(t.status.state)]
