"""What to do next for one task: a pure decision over what is desired and what was observed.

The owner of a task (agent/tasks/owner.py) calls `next_step` after every event, carries the step out and calls again
until it says WAIT. Nothing here remembers anything, so an agent that restarts goes on from what it finds.
"""

from dataclasses import dataclass, replace
from enum import Enum

from argosy.core.assignment import TaskAssignment
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState, is_terminal


class ContainerState(Enum):
    """Where the task's container stands in the runtime."""

    NONE = "none"
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"


class Step(Enum):
    """What the owner does next."""

    WAIT = "wait"  # for an event, or until `Decision.until`
    PREPARE = "prepare"  # image, root filesystem, container, network
    START = "start"
    DRAIN = "drain"  # begin to wait for open connections, or count them again
    SETTLE = "settle"  # no node sends new connections from now on: let those arrive that are under way
    STOP = "stop"  # send the stop signal; once more where an earlier agent may have died before it was sent
    KILL = "kill"  # SIGKILL to the whole cgroup
    END = "end"  # enter the terminal state `Decision.status`
    RELEASE = "release"  # give all its resources back
    FORGET = "forget"  # drop the record: the controller has dropped the task


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How the container's program ended; `code` None is unknown."""

    code: int | None
    oom_killed: bool = False
    at: float = 0.0


MOST_LOST = 5
"""Containers that may end before their program is started, until it is given up."""
SETTLE_S = 0.03
"""From when no node sends new connections to a task until they are counted: packets of some may still be under way."""
LATE_S = 0.01
"""Where that wait itself took so much longer, packets wait for a processor as well: it begins anew."""
SETTLED_AFTER_S = 0.5
"""From when no node sends new connections, after which it does not begin anew."""
COUNT_PERIOD_S = 0.1
"""Between two counts of the connections that a task has before it stops."""


@dataclass(frozen=True, slots=True)
class Drain:
    """A task that is to stop, and finishes what it has first: `connections` at `counted_at`, None: not counted yet.

    `drained_at`: since when it is known that no node sends new ones; `settling_since`: when it was begun last to let
    those arrive that are under way.
    """

    since: float
    connections: int | None = None
    counted_at: float = 0.0
    drained_at: float | None = None
    settling_since: float = 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """All that the owner knows of its task. Times are seconds since the epoch."""

    status: TaskStatus
    container: ContainerState = ContainerState.NONE
    exit: ExitStatus | None = None
    stop_at: float | None = None  # when stopping began: the grace period counts from it
    signalled: bool = False  # the stop signal was surely sent
    killed: bool = False
    drain: Drain | None = None
    unhealthy: str = ""  # why liveness was given up; "" while it has not been
    lost: int = 0  # containers that ended before their program was started


@dataclass(frozen=True, slots=True)
class Decision:
    """The step, with the terminal status of END or the time until which WAIT may sleep."""

    step: Step
    status: TaskStatus | None = None
    until: float | None = None


WAIT = Decision(Step.WAIT)


def next_step(
    assigned: TaskAssignment | None,
    seen: Observed,
    grace_s: float,
    now: float,
    drain_s: float = 0.0,
    *,
    waits: bool = False,
) -> Decision:
    """Return the next step. `assigned` None: the controller's set no longer has the task (it is to go).

    `grace_s`: from the stop signal to the kill; `drain_s`: how long open connections may put the stop signal off;
    `waits`: a task that this one follows has not ended.
    """
    if is_terminal(seen.status.state):
        if not seen.status.released:
            return Decision(Step.RELEASE)
        return WAIT if assigned else Decision(Step.FORGET)
    if assigned is None or assigned.desired_state >= TaskState.SHUTDOWN:
        return _drain(assigned, seen, drain_s, now) or _stop(seen, grace_s, now, TaskState.SHUTDOWN, "")
    if seen.unhealthy:
        return _stop(seen, grace_s, now, TaskState.FAILED, seen.unhealthy)
    return _run(assigned, seen, now, waits)


def _run(assigned: TaskAssignment, seen: Observed, now: float, waits: bool) -> Decision:
    match seen.container:
        case ContainerState.NONE | ContainerState.STOPPED if seen.status.state < TaskState.STARTING:
            return _prepare(seen)
        case ContainerState.NONE:
            return _end(seen, TaskState.FAILED, "its container is gone: the host restarted?", host_restarted=True)
        case ContainerState.CREATED:
            if assigned.desired_state < TaskState.RUNNING or waits:
                return WAIT
            if assigned.not_before > now:
                return Decision(Step.WAIT, until=assigned.not_before)
            return Decision(Step.START)
        case ContainerState.RUNNING:
            return WAIT
        case ContainerState.STOPPED:
            return _ended_by_itself(seen)


def _prepare(seen: Observed) -> Decision:
    """Make the container, also anew: with its launcher one ends that waits for its start, and nothing of it has run."""
    if seen.lost < MOST_LOST:
        return Decision(Step.PREPARE)
    reason = f"its container ended {seen.lost} times before its program was started: the launcher dies again and again"
    return _end(replace(seen, exit=None), TaskState.FAILED, reason)


def _ended_by_itself(seen: Observed) -> Decision:
    code = seen.exit.code if seen.exit else None
    if code == 0:
        return _end(seen, TaskState.COMPLETE, "")
    if code is None:
        return _end(seen, TaskState.FAILED, "it ended; with which exit code is unknown")
    if seen.exit and seen.exit.oom_killed:
        return _end(seen, TaskState.FAILED, "killed: out of memory (its limit, deploy.resources.limits.memory)")
    return _end(seen, TaskState.FAILED, f"exit code {code}{_meaning(code)}")


def _meaning(code: int) -> str:
    known = {126: ": the program cannot be executed", 127: ": no such program in the image", 137: ": killed by SIGKILL"}
    return known.get(code, f": ended by signal {code - 128}" if 128 < code < 193 else "")


def _drain(assigned: TaskAssignment | None, seen: Observed, drain_s: float, now: float) -> Decision | None:
    """Return what to do before the stop signal; None: send it.

    First every node has to have stopped to send new connections here (`drained`), then those that are open have to end.
    """
    serves = seen.status.state is TaskState.RUNNING and assigned and assigned.attachments
    if not serves or assigned is None or seen.container is not ContainerState.RUNNING or seen.stop_at is not None:
        return None
    if seen.drain is None:
        return Decision(Step.DRAIN) if drain_s > 0 else None
    deadline = seen.drain.since + drain_s
    if now >= deadline or (assigned.drained and seen.drain.connections == 0):
        return None
    if not assigned.drained:
        return Decision(Step.WAIT, until=deadline)
    if seen.drain.connections is None:
        if seen.drain.drained_at is None:
            return Decision(Step.SETTLE)
        settled_at = seen.drain.settling_since + SETTLE_S
        if now < settled_at:
            return Decision(Step.WAIT, until=min(deadline, settled_at))
        late = now >= settled_at + LATE_S and now < seen.drain.drained_at + SETTLED_AFTER_S
        return Decision(Step.SETTLE if late else Step.DRAIN)
    again_at = seen.drain.counted_at + COUNT_PERIOD_S
    if now >= again_at:
        return Decision(Step.DRAIN)
    return Decision(Step.WAIT, until=min(deadline, again_at))


def _stop(seen: Observed, grace_s: float, now: float, state: TaskState, reason: str) -> Decision:
    if seen.container in (ContainerState.NONE, ContainerState.CREATED, ContainerState.STOPPED):
        return _end(seen, state, reason)
    if seen.stop_at is None or not seen.signalled:
        return Decision(Step.STOP)
    if seen.killed:
        return WAIT
    deadline = seen.stop_at + grace_s
    return Decision(Step.KILL) if now >= deadline else Decision(Step.WAIT, until=deadline)


def _end(seen: Observed, state: TaskState, reason: str, *, host_restarted: bool = False) -> Decision:
    end = seen.exit
    return Decision(
        Step.END,
        TaskStatus(
            state=state,
            reason=reason,
            exit_code=end.code if end else None,
            oom_killed=end.oom_killed if end else False,
            pid=0,
            host_restarted=host_restarted,
        ),
    )
