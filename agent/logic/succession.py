"""Restarts that a node decides by itself while no controller is reachable: pure.

A task never runs twice, so a restart is a new task: the *successor* takes over slot, revision and addresses of the one
that ended here. The same policy decides as in the controller (core/restart.py). When a controller is back, it is told
of the end and of the successor in one report, and stores both at once. Until then the successor is known here alone,
and what is desired of it is what is desired of the assigned task that it descends from, its root. So a service that
was changed, moved or removed meanwhile stops it like any other of its tasks.

Not restarted is what the controller may restart otherwise: a task whose end it has confirmed to know. Nor is one that
may run only while a controller vouches for it (`fenced`), a run of a job that completed, or what this host could not
even start (REJECTED): that is for another host.

What depends on other services and ended before or when its host restarted is left to a controller for LEFT_S: it knows
what the others do. After a power cut all hosts restart, and the controllers are back last. A plain crash beside running
others is mended at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from argosy.agent.logic.assignments import Assignments
from argosy.core.assignment import Piece, Succession, TaskAssignment, key_of
from argosy.core.restart import NoSuccessor, succeed
from argosy.core.service import RestartPolicy
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

LEFT_S: Final = 600.0
"""Large servers take minutes to boot, and most of those that etcd runs on have to be back. With no controller for so
long a start out of order is better than none."""
ENDED_KEPT: Final = 5
"""How many successors of one root that have ended are kept to be told of: a service's history is no longer."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A task of this node that has ended. `confirmed`: a controller has stored that."""

    assigned: TaskAssignment
    status: TaskStatus
    running_since: float
    confirmed: bool


def succession_of(
    ended: Ended,
    root: str,
    policy: RestartPolicy,
    *,
    fenced: bool,
    dependent: bool,
    alone_s: float,
    up_s: float,
    now: float,
) -> Succession | None:
    """Return how a task is to be succeeded here and now; None: not, or not yet.

    `dependent`: its service depends on others; `alone_s`: for how long there has been no controller; `up_s`: for how
    long this host has been up.
    """
    assigned, status = ended.assigned, ended.status
    if fenced or ended.confirmed or not status.released or assigned.desired_state is not TaskState.RUNNING:
        return None
    if status.state is not TaskState.FAILED and (status.state is not TaskState.COMPLETE or assigned.iteration):
        return None
    before_boot = status.host_restarted or status.at < now - up_s
    if dependent and before_boot and alone_s < LEFT_S:
        return None
    task = Task(
        status=status,
        failures=assigned.failures,
        not_before=assigned.not_before,
        running_since=ended.running_since,
        attempts=assigned.attempts,
        attempts_since=assigned.attempts_since,
    )
    heritage = succeed(task, policy, now)
    if isinstance(heritage, NoSuccessor) or not heritage.prepare:
        return None
    return Succession(root, now, heritage.failures, heritage.not_before, heritage.attempts, heritage.attempts_since)


def with_successors(assignments: Assignments, made: Mapping[str, Succession]) -> Assignments:
    """Return the assignments as they are to be carried out: with the successors made here, by id, oldest first.

    The newest one of a root has its addresses; the root and those in between have ended.
    """
    if not made:
        return assignments
    tasks, put = assignments.tasks(), dict[str, Piece]()
    newest = {succession.root: task_id for task_id, succession in made.items()}
    for task_id, succession in made.items():
        root = tasks.get(succession.root)
        if root is None or task_id in tasks:
            continue
        successor = replace(
            root,
            id=task_id,
            attachments=root.attachments if newest[succession.root] == task_id else (),
            not_before=succession.not_before,
            failures=succession.failures,
            attempts=succession.attempts,
            attempts_since=succession.attempts_since,
        )
        put[key_of(successor)] = successor
        put[key_of(root)] = replace(root, attachments=())
    return replace(assignments, pieces=assignments.pieces.changed(put))


def settled(assignments: Assignments, made: Mapping[str, Succession]) -> list[str]:
    """Return the successors that are no business of this node's own any more.

    The controller has assigned them, or has forgotten the task that they descend from.
    """
    if not assignments.synced:
        return []
    tasks = assignments.tasks()
    return [task_id for task_id, s in made.items() if task_id in tasks or s.root not in tasks]


def superfluous(made: Mapping[str, Succession], ended: set[str]) -> list[str]:
    """Return the successors, among those that have `ended`, that nobody needs to be told of."""
    by_root: dict[str, list[str]] = {}
    for task_id, succession in made.items():
        if task_id in ended:
            by_root.setdefault(succession.root, []).append(task_id)
    return [task_id for ids in by_root.values() for task_id in ids[:-ENDED_KEPT]]
