"""The progress deadline: an update that comes no further for so long has failed, and says what it waits for.

Progress is a new task that runs (counted from when it has done well for `monitor`) or is over and done with, and an old
one that has ended. All of it stands in the tasks, so nothing is stored. Times that the update's own settings make
it wait (`delay`, `monitor`, the grace of a task that stops) are no lack of progress, nor is the time in which all that
is under way is held by services that it depends on, until those come to rest; a slot that keeps failing makes none.
"""

from collections.abc import Iterator, Sequence

from argosy.controller.logic.attempts import failures, node_name, place, turn_of
from argosy.controller.logic.counted import of_all
from argosy.controller.logic.draft import Draft
from argosy.controller.logic.slots import Slot, age
from argosy.controller.logic.view import View
from argosy.core.restart import ended_at
from argosy.core.service import DEFAULT_DRAIN_TIMEOUT_S, DEFAULT_STOP_GRACE_PERIOD_S, UpdateConfig, UpdateStatus
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from argosy.core.units import format_duration


def stalled(view: View, draft: Draft, update: UpdateStatus, config: UpdateConfig, slots: Sequence[Slot]) -> str:
    """Return what the update waits for if its deadline is over; "" if it is not, and the plan wakes when it will be."""
    if not config.progress_deadline:
        return ""
    moments = (moment for slot in slots for moment in _moments(view, slot, update, config))
    last = view.now if _is_held(view, slots) else max((update.started_at, update.resumed_at, *moments))
    over_at = last + config.progress_deadline
    draft.wake(over_at)
    if view.now < over_at:
        return ""
    return f"no progress for {format_duration(config.progress_deadline)}: {_what_for(view, slots)}"


def _is_held(view: View, slots: Sequence[Slot]) -> bool:
    """Whether there is nothing under way but tasks that other services hold."""
    if any(slot.ending for slot in slots):
        return False
    coming = [t for s in slots for t in s.live if view.is_current(t) and t.status.state is not TaskState.RUNNING]
    return bool(coming) and all(task.status.held and not task.held_until for task in coming)


def _moments(view: View, slot: Slot, update: UpdateStatus, config: UpdateConfig) -> Iterator[float]:
    """Yield when the slot last came further, or will have with nothing but planned waiting."""
    failing = bool(failures(view, slot, update, config))
    yield from (task.held_until for task in slot.records() if task.held_until and view.is_current(task))
    for task in slot.live:
        if task.running_since and view.is_current(task):
            done_well = task.running_since + config.monitor
            if not failing or done_well <= view.now:
                yield done_well
    turn = turn_of(view, slot, update)
    if turn and not failing:
        yield turn + config.delay
    for task in slot.ended:
        if not view.is_current(task):
            yield ended_at(task, view.now)
    for task in slot.ending:
        yield task.meta.updated_at + _patience(view, task)


def _patience(view: View, task: Task) -> float:
    """Return how long a task may take to stop."""
    spec = view.spec_of(task.revision)
    grace, drain = spec.container.stop_grace_period, spec.drain_timeout
    return (DEFAULT_STOP_GRACE_PERIOD_S if grace is None else grace) + (
        DEFAULT_DRAIN_TIMEOUT_S if drain is None else drain
    )


def _what_for(view: View, slots: Sequence[Slot]) -> str:
    """Return what the update waits for: its task that is furthest behind, or an old one that does not stop."""
    coming = [t for s in slots for t in s.live if view.is_current(t) and t.status.state is not TaskState.RUNNING]
    if coming:
        task = min(coming, key=lambda t: (t.status.state, age(t)))
        more = f" (and {len(coming) - 1} more)" if len(coming) > 1 else ""
        return f"{place(view, task)} is {_state(view, task)}{more}"
    for slot in slots:
        if slot.ending:
            task = slot.ending[0]
            return f"{place(view, task)} waits for the task on {node_name(view, task.node_id)} that is to stop"
    left = sum(not any(map(view.is_current, slot.live)) for slot in slots)
    verb = "is" if left == 1 else "are"
    return f"{of_all(left, len(slots), 'replica', 'replicas')} {verb} not updated"


def _state(view: View, task: Task) -> str:
    state = task.status.state.name.lower()
    where = f" on {node_name(view, task.node_id)}" if task.node_id and task.slot else ""
    return f"{state}{where}: {task.status.reason}" if task.status.reason else state + where
