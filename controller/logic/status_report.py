"""Whether and how an agent's status report changes a stored task: pure.

Times are the controller's: clocks of hosts differ, and `monitor`, restart delays and history compare them.
"""

from dataclasses import replace

from argosy.core.assignment import Succession
from argosy.core.meta import Meta
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import CONTROLLER_STATES, TaskState, is_terminal, is_up, may_follow

MAX_REASON = 1000
"""Characters of a reason that are kept: an error may quote a program's output, and a record has to stay small."""


def reported(task: Task, status: TaskStatus, now: float) -> Task | None:
    """Return the task after the report, or None when the report says nothing new or nothing lawful.

    States only grow; an agent never writes the controller's states. An end is final: of a task that is orphaned, or
    that ended otherwise (a host that loses power may lose its last records), only the release of its resources counts.
    A host that has lost its record of what ran runs it anew, and may not even be able to start it: that has FAILED.
    """
    old, status = task.status, replace(status, reason=status.reason[:MAX_REASON])
    if status.state is TaskState.REJECTED and is_up(old.state):
        status = replace(status, state=TaskState.FAILED)
    if is_terminal(old.state) and status.state is not old.state:
        if status.released and not old.released:
            return _with(task, replace(old, released=True), now)
        return None
    if status.state in CONTROLLER_STATES or not may_follow(old.state, status.state):
        return None
    if status.state == old.state:
        merged = replace(status, at=old.at, released=old.released or status.released)
        return None if merged == old else _with(task, merged, now)
    return _with(task, replace(status, at=_until(now, status.at)), now)


def adopted(root: Task, task_id: str, succession: Succession, status: TaskStatus, now: float) -> Task:
    """Return the record of a task that a node made itself out of `root`, which had ended there.

    What is desired of the root is desired of it: if the slot was given to another task meanwhile, it is to go.
    """
    task = Task(
        meta=Meta(
            task_id,
            root.meta.project,
            created_at=max(_until(now, succession.created_at), root.meta.created_at),
            updated_at=now,
        ),
        service_id=root.service_id,
        slot=root.slot,
        node_id=root.node_id,
        revision=root.revision,
        desired_state=root.desired_state,
        status=TaskStatus(TaskState.ASSIGNED, at=now),
        attachments=root.attachments,
        failures=succession.failures,
        not_before=succession.not_before,
        attempts=succession.attempts,
        attempts_since=succession.attempts_since,
        iteration=root.iteration,
        canary=root.canary,
    )
    return reported(task, status, now) or task


def _with(task: Task, status: TaskStatus, now: float) -> Task:
    running_since = task.running_since
    if status.state is TaskState.RUNNING and not running_since:
        running_since = now
    elif status.ran_s is not None:  # its host knows better; perhaps no controller heard before that it ran
        running_since = min(status.at, max(task.meta.created_at, status.at - max(0.0, status.ran_s)))
    return replace(task, status=status, running_since=running_since, meta=replace(task.meta, updated_at=now))


def _until(now: float, at: float) -> float:
    """Return a moment that a host gave, if it can be: not 0 (unknown), not to come, and a number at all."""
    return at if 0 < at <= now else now
