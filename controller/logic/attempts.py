"""What an update did so far, read from the tasks that it made: turns, failures, and what does well.

Those tasks are the ones that run the present spec and were created since the update started. A failure is one that
ended by itself before it was RUNNING for `monitor` (unless it completed, and its restart policy lets it). What failed
before a paused update was resumed is forgiven: a person has looked at it.
"""

from collections.abc import Sequence

from argosy.controller.logic.counted import of_all
from argosy.controller.logic.slot import succession
from argosy.controller.logic.slots import Slot, age, is_unassigned
from argosy.controller.logic.view import View
from argosy.core.restart import NoSuccessor, ended_at, ended_by_itself
from argosy.core.service import RestartCondition, UpdateConfig, UpdateStatus
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_failure


def failures(view: View, slot: Slot, update: UpdateStatus, config: UpdateConfig) -> list[Task]:
    """Return the slot's tasks that count as failures of the update."""
    if not slot.ended:
        return []
    made = (t for t in slot.ended if t.meta.created_at >= update.started_at and view.is_current(t))
    return [task for task in made if _failed_young(view, task, update, config)]


def _failed_young(view: View, task: Task, update: UpdateStatus, config: UpdateConfig) -> bool:
    if not ended_by_itself(task):
        return False
    if not is_failure(task.status.state):
        restarts = view.spec_of(task.revision).restart.condition is RestartCondition.ANY
        if not restarts:
            return False
    end = ended_at(task, view.now)
    if end <= update.resumed_at:
        return False
    return task.running_since == 0 or end - task.running_since < config.monitor


def say_failed(
    view: View, update: UpdateStatus, config: UpdateConfig, failed: Sequence[Slot], total: int, one: str, many: str
) -> str:
    """Return how many of `total` slots failed, and why the last one did; `one` and `many` is what they are."""
    last = max((task for slot in failed for task in failures(view, slot, update, config)), key=age)
    reason = last.status.reason or (f"exit code {last.status.exit_code}" if last.status.exit_code is not None else "")
    who, they = of_all(len(failed), total, one, many), "it" if len(failed) == 1 else "they"
    said = f"{who} failed before {they} had run for {config.monitor:g} s; {place(view, last)}"
    return f"{said}: {reason}" if reason else f"{said} {last.status.state.name.lower()}"


def place(view: View, task: Task) -> str:
    """Return where a task belongs, in words: its slot, or its node in a global service."""
    return f"slot {task.slot}" if task.slot else f"node {node_name(view, task.node_id)}"


def node_name(view: View, node_id: str) -> str:
    """Return what people call a node."""
    node = view.nodes.get(node_id)
    return (node.spec.name if node is not None else "") or node_id


def good_at(view: View, update: UpdateStatus, config: UpdateConfig, slot: Slot) -> float | None:
    """Return when the slot will have done well for long enough, if it does well and nothing else is left; else None."""
    if slot.ending:
        return None
    if not slot.live:
        last = slot.past
        if last is None or not view.is_current(last) or last.status.state is not TaskState.COMPLETE:
            return None
        finished = succession(view, slot, view.service.revision, update.started_at) is NoSuccessor.FINISHED
        return ended_at(last, view.now) if finished else None
    known = [task for task in slot.live if not is_unassigned(task)]  # one without a node goes, or waits to move there
    current = [task for task in known if view.is_current(task)]
    if any(task.status.state is not TaskState.RUNNING or task.status.unready for task in current):
        return None
    if not current or len(known) > len(current):
        return None
    return max(task.running_since for task in current) + config.monitor


def has_given_up(view: View, slot: Slot, update: UpdateStatus) -> bool:
    """Whether the present spec was tried in the slot, and the restart policy allows no further attempt."""
    last = slot.latest(update.started_at)
    if last is None or last in slot.live or not view.is_current(last):
        return False
    return isinstance(succession(view, slot, view.service.revision, update.started_at), NoSuccessor)


def turn_of(view: View, slot: Slot, update: UpdateStatus) -> float | None:
    """Return when the slot's new task first ran or ended, 0 if it did not yet, None if the update has not begun it.

    One that runs and is not ready does not count as running. A slot that only ever ran the present spec was created,
    not updated; what never had a node leaves no trace, so it says nothing here.
    """
    new: list[Task] = []
    was_stale = False
    for task in slot.records():
        if view.is_current(task):
            if task.meta.created_at >= update.started_at or task in slot.live:
                new.append(task)
        elif not is_unassigned(task):
            was_stale = True
    if not new or not was_stale:
        return None
    ran = (t for t in new if ended_by_itself(t) or (t.running_since and not t.status.unready))
    over = [t.running_since or ended_at(t, view.now) for t in ran]
    return min(over, default=0.0)
