"""The restart policy: whether a task that ended gets a successor, when, and what the successor inherits.

The leader decides by it (controller/logic/slot.py), and so does the agent of a task's node while it hears of no
controller (agent/logic/succession.py): pure, so that both come to the same answer.

Everything that the policy counts stands in the tasks themselves, so that it survives a failover of the controller: a
task carries how many of its predecessors failed in a row (`failures`) and how many restarts of its slot count against
`max_attempts` (`attempts`, counted since `attempts_since`).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from argosy.core.service import RestartCondition, RestartPolicy
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_failure
from argosy.core.units import format_duration

MAX_DELAY_S: Final = 300.0
"""The delay doubles up to this while a slot keeps failing, or stays at the policy's own delay if that is longer."""
HEALTHY_AFTER_S: Final = 600.0
"""A task that ran this long is healthy: the count of failures in a row begins anew."""


@dataclass(frozen=True, slots=True)
class Heritage:
    """What a new task takes over from the one before it.

    `not_before` 0: may run at once. `prepare`: may be created now, to be ready when it may run.
    """

    failures: int = 0
    not_before: float = 0.0
    prepare: bool = True
    attempts: int = 0
    attempts_since: float = 0.0


class NoSuccessor(Enum):
    """Why an ended task gets none."""

    FINISHED = "finished"
    """It ended as its policy allows it to."""
    GAVE_UP = "gave up"
    """It failed, and the policy does not allow another attempt."""


def ended_by_itself(task: Task) -> bool:
    """Whether a task ended without having been asked to (also one that was asked at the same moment)."""
    state = task.status.state
    return is_failure(state) or state is TaskState.COMPLETE


def ended_at(task: Task, now: float) -> float:
    """Return when a task ended, by its host's clock, but never later than now: clocks differ."""
    return min(task.status.at, now)


def succeed(task: Task, policy: RestartPolicy, now: float) -> Heritage | NoSuccessor:
    """Decide on the successor of a task that ended by itself.

    A program that ended with 0 restarts after the plain delay (condition any) or is finished; one that failed restarts
    after delay, 2 delay, 4 delay, … up to MAX_DELAY_S. Attempts are counted in windows that begin with the first
    restart; time is that of the end, so the answer does not change while one looks at it. The successor of a task that
    could not even be prepared is not prepared ahead: that would fail again without any delay.
    """
    failed = is_failure(task.status.state)
    if not failed and policy.condition is not RestartCondition.ANY:
        return NoSuccessor.FINISHED
    if failed and policy.condition is RestartCondition.NONE:
        return NoSuccessor.GAVE_UP
    end = ended_at(task, now)
    attempts, since = task.attempts, task.attempts_since
    if attempts == 0 or (policy.window > 0 and end - since >= policy.window):
        attempts, since = 0, end
    if 0 < policy.max_attempts <= attempts:
        return NoSuccessor.GAVE_UP
    failures = _failures_before(task, end) + 1 if failed else 0
    not_before = _unless_past(end + _delay(policy, failures), now)
    ended_in_preparation = task.status.state is TaskState.REJECTED or end < task.not_before
    return Heritage(failures, not_before, not (not_before and ended_in_preparation), attempts + 1, since)


def inherit(task: Task, now: float) -> Heritage:
    """Return what the replacement of a task inherits that is moved, not restarted: it may run at once."""
    return Heritage(_failures_before(task, now), attempts=task.attempts, attempts_since=task.attempts_since)


def idle_settings(policy: RestartPolicy) -> dict[str, tuple[str, str]]:
    """Return which settings have no effect: by the setting's name why, and what to do.

    Docker accepts them all, so it is no error to have them; but whoever writes one expects something of it.
    """
    idle: dict[str, tuple[str, str]] = {}
    attempts, window = policy.max_attempts, policy.window
    if policy.condition is RestartCondition.NONE:
        never = ("what is never restarted makes no attempts: it has no effect", "remove it, or the condition 'none'")
        return {name: never for name, value in (("max_attempts", attempts), ("window", window)) if value}
    if window and not attempts:
        idle["window"] = ("attempts are counted within it, and not limited: it has no effect", "add max_attempts")
    needed = _shortest(policy)
    if window and attempts and window <= needed:
        idle["max_attempts"] = (
            f"with the delays between them, so many attempts take more than {format_duration(needed)}, and after a "
            f"window of {format_duration(window)} they are counted anew: what fails is restarted for ever",
            f"write a window longer than {format_duration(needed)}, or none",
        )
    return idle


def _shortest(policy: RestartPolicy) -> float:
    """Return how long `max_attempts` restarts take of a program that fails at once."""
    growing = min(policy.max_attempts, 32)
    grown = sum(_delay(policy, failures) for failures in range(1, growing + 1))
    return grown + (policy.max_attempts - growing) * _delay(policy, growing)


def _failures_before(task: Task, end: float) -> int:
    healthy = 0 < task.running_since <= end - HEALTHY_AFTER_S
    return 0 if healthy else task.failures


def _delay(policy: RestartPolicy, failures: int) -> float:
    doublings = min(max(failures - 1, 0), 32)
    return min(policy.delay * 2.0**doublings, max(MAX_DELAY_S, policy.delay))


def _unless_past(moment: float, now: float) -> float:
    return moment if moment > now else 0.0
