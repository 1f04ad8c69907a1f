"""The task state machine: the states, who writes them, which follow which, and a checker of the invariants.

A task is one run of one slot on one node; it never moves and never restarts. Its state only grows. The numbers
leave gaps for later states and are what is stored. Desired states are a subset: what the controller wants of it.
"""

from enum import IntEnum
from typing import Final


class TaskState(IntEnum):
    """States in the order of a task's life; values as in proto/argosy/v1/types.proto."""

    NEW = 0  # created by an orchestrator
    PENDING = 64  # waits for a node; its reason says why
    ASSIGNED = 192  # has a node and addresses
    ACCEPTED = 256  # the agent has it
    PREPARING = 320  # image, root filesystem, network
    READY = 384  # could start at once
    STARTING = 448  # its program runs; not healthy yet
    RUNNING = 512
    COMPLETE = 576  # ended by itself with exit code 0
    SHUTDOWN = 640  # ended because it was asked to
    FAILED = 704  # ended otherwise
    REJECTED = 768  # this host cannot run it
    REMOVE = 800  # only desired: stop, then forget
    ORPHANED = 832  # its node has been away for too long


# From each state, those that may follow. Only the successor of a task runs again.
TRANSITIONS: Final[dict[TaskState, frozenset[TaskState]]] = {
    TaskState.NEW: frozenset({TaskState.PENDING, TaskState.ASSIGNED, TaskState.SHUTDOWN}),
    TaskState.PENDING: frozenset({TaskState.ASSIGNED, TaskState.SHUTDOWN}),
    TaskState.ASSIGNED: frozenset(
        {TaskState.ACCEPTED, TaskState.PREPARING, TaskState.READY, TaskState.STARTING, TaskState.RUNNING}
        | {TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.REJECTED, TaskState.ORPHANED}
    ),
    TaskState.ACCEPTED: frozenset(
        {TaskState.PREPARING, TaskState.READY, TaskState.STARTING, TaskState.RUNNING}
        | {TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.REJECTED, TaskState.ORPHANED}
    ),
    TaskState.PREPARING: frozenset(
        {TaskState.READY, TaskState.STARTING, TaskState.RUNNING}
        | {TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.REJECTED, TaskState.ORPHANED}
    ),
    TaskState.READY: frozenset(
        {TaskState.STARTING, TaskState.RUNNING}
        | {TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.REJECTED, TaskState.ORPHANED}
    ),
    TaskState.STARTING: frozenset(
        {TaskState.RUNNING, TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.ORPHANED}
    ),
    TaskState.RUNNING: frozenset({TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.ORPHANED}),
    TaskState.COMPLETE: frozenset(),
    TaskState.SHUTDOWN: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.REJECTED: frozenset(),
    TaskState.REMOVE: frozenset(),
    TaskState.ORPHANED: frozenset(),
}
"""An agent reports what it last saw, so a report may jump over states that it passed through quickly."""

DESIRED_STATES: Final = frozenset({TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE})
CONTROLLER_STATES: Final = frozenset({TaskState.NEW, TaskState.PENDING, TaskState.ASSIGNED, TaskState.ORPHANED})


def is_terminal(state: TaskState) -> bool:
    """Whether the task has ended for good."""
    return state > TaskState.RUNNING


def is_up(state: TaskState) -> bool:
    """Whether the task's program runs, or is about to."""
    return TaskState.STARTING <= state <= TaskState.RUNNING


def is_failure(state: TaskState) -> bool:
    """Whether the end counts as a failure of the service (a node that went away does not)."""
    return state in (TaskState.FAILED, TaskState.REJECTED)


def may_follow(old: TaskState, new: TaskState) -> bool:
    """Whether a task may go from `old` to `new`; staying where it is always may."""
    return new == old or new in TRANSITIONS[old]


def broken_invariants(
    old: tuple[TaskState, TaskState] | None, new: tuple[TaskState, TaskState], *, node_id: str, by_agent: bool
) -> list[str]:
    """Say what a change of (observed, desired) breaks; an empty list means it is lawful.

    `old` is None for a task that is being created.
    """
    state, desired = new
    broken = []
    if desired not in DESIRED_STATES:
        broken.append(f"{desired.name} cannot be desired")
    if state is TaskState.REMOVE:
        broken.append("REMOVE is only ever desired")
    if state >= TaskState.ASSIGNED and state != TaskState.SHUTDOWN and not node_id:
        broken.append(f"{state.name} without a node")
    if old is None:
        return broken
    if not may_follow(old[0], state):
        broken.append(f"state fell from {old[0].name} to {state.name}")
    if desired < old[1]:
        broken.append(f"desired state fell from {old[1].name} to {desired.name}")
    if by_agent and state != old[0] and state in CONTROLLER_STATES:
        broken.append(f"an agent wrote {state.name}")
    return broken
