"""One slot: brings it to exactly one task of the wanted revision, on a node that is to keep it.

Restart, update, drain and loss of a node are the same work here. Of the slot's live tasks those that run the wanted
revision on a node that is not drained are *good*; the best of them is the *heir*, and the others go. If there is no
heir one is created; what serves until then goes in the order of `Order`:

    PREPARE_FIRST  heir created with desired READY ─► heir READY ─► old stopped ─► old ended ─► heir to RUNNING
    START_FIRST    heir created with desired RUNNING ─► heir RUNNING (healthy) ─► old stopped
    STOP_BEFORE    old stopped, heir created with desired READY ─► old ended ─► heir to RUNNING

Where the heir of PREPARE_FIRST finds no room beside the old one (it is PENDING), and the old one's node could take it,
the old one makes room. A successor under the restart policy is created at once, with desired READY and its
`not_before`: it is prepared during the delay, and told to run after it (only after it, if it was the preparation that
failed).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from argosy.controller.logic.actions import CreateTask
from argosy.controller.logic.draft import Draft
from argosy.controller.logic.slots import Slot, is_unassigned, serves
from argosy.controller.logic.view import View
from argosy.core.restart import Heritage, NoSuccessor, ended_by_itself, inherit, succeed
from argosy.core.task import Task
from argosy.core.task_state import TaskState

DRAIN_PATIENCE_S: Final = 30.0
"""How long a drained task goes on while no other node has room for its replacement."""


class Order(Enum):
    """How a serving task and its heir take turns."""

    PREPARE_FIRST = 1
    START_FIRST = 2
    STOP_BEFORE = 3


@dataclass(frozen=True, slots=True)
class Aim:
    """What a slot is to become.

    `hold`: the update is paused, so no serving task makes way for it. `since`: when the latest update started.
    """

    revision: int
    order: Order
    hold: bool
    since: float


def plan_slot(view: View, draft: Draft, slot: Slot, aim: Aim) -> None:
    """Take the slot's next steps towards its aim."""
    good, outgoing = _sort_out(view, slot, aim)
    for task in (*good[1:], *outgoing[1:]):
        draft.stop(task)
    if good:
        _hand_over(view, draft, slot, aim, good[0], outgoing)
    elif slot.may_create:
        _create_heir(view, draft, slot, aim, outgoing)


def runs_aim(view: View, task: Task, revision: int) -> bool:
    """Whether a task runs what the slot is to run: the very revision or, of the present one, something equal."""
    return task.revision == revision or (revision == view.service.revision and view.is_current(task))


def succession(view: View, slot: Slot, revision: int, since: float) -> Heritage | NoSuccessor:
    """Return what a new task of `revision` would inherit in a slot without heir, or why there must be none.

    Only the latest task counts, and only if it ran the same: a new revision starts with a clean sheet.
    """
    last = slot.latest(since)
    if last is None or not runs_aim(view, last, revision):
        return Heritage()
    if ended_by_itself(last):
        return succeed(last, view.spec_of(last.revision).restart, view.now)
    return inherit(last, view.now)


def _sort_out(view: View, slot: Slot, aim: Aim) -> tuple[list[Task], list[Task]]:
    """Return the good tasks and those that go, the ones furthest on first: of each kind one is enough."""
    good: list[Task] = []
    outgoing: list[Task] = []
    for task in slot.live:
        stays = runs_aim(view, task, aim.revision) and not view.is_leaving(task)
        (good if stays else outgoing).append(task)
    for tasks in good, outgoing:
        if len(tasks) > 1:
            tasks.sort(key=lambda t: (-t.status.state, -t.desired_state, t.meta.created_at, t.meta.id))
    return good, outgoing


def _create_heir(view: View, draft: Draft, slot: Slot, aim: Aim, outgoing: list[Task]) -> None:
    heritage = succession(view, slot, aim.revision, aim.since)
    if isinstance(heritage, NoSuccessor):
        return
    draft.wake(heritage.not_before)
    if not heritage.prepare:
        return
    _stop(draft, (t for t in outgoing if not serves(t) or aim.order is Order.STOP_BEFORE))
    waits = heritage.not_before > 0 or (aim.order is not Order.START_FIRST and _somebody_runs(slot, outgoing))
    number, node_id = slot.key
    draft.create(
        CreateTask(
            view.service.meta.id,
            number,
            node_id,
            aim.revision,
            TaskState.READY if waits else TaskState.RUNNING,
            heritage.failures,
            heritage.not_before,
            heritage.attempts,
            heritage.attempts_since,
        )
    )


def _hand_over(view: View, draft: Draft, slot: Slot, aim: Aim, heir: Task, outgoing: list[Task]) -> None:
    due = view.now >= heir.not_before
    if heir.desired_state is TaskState.READY:
        if not due:
            draft.wake(heir.not_before)
        elif aim.order is Order.START_FIRST or not _somebody_runs(slot, outgoing):
            draft.desire(heir, TaskState.RUNNING)
    _stop(draft, (t for t in outgoing if not serves(t) or _may_stop(view, draft, aim, heir, due, t)))


def _may_stop(view: View, draft: Draft, aim: Aim, heir: Task, due: bool, old: Task) -> bool:
    """Whether a serving task goes now that it has an heir."""
    leaving = view.is_leaving(old)
    state = heir.status.state
    if leaving and _out_of_patience(view, draft, heir):
        return True
    if aim.order is Order.START_FIRST:
        return state is TaskState.RUNNING
    if not due or (aim.hold and not leaving):
        return False
    if aim.order is Order.STOP_BEFORE or state >= TaskState.READY:
        return True
    return state is TaskState.PENDING and view.takes_tasks(old.node_id)


def _out_of_patience(view: View, draft: Draft, heir: Task) -> bool:
    """Whether a drain has waited long enough for a node that takes the heir."""
    if heir.status.state > TaskState.PENDING:
        return False
    draft.wake(heir.meta.created_at + DRAIN_PATIENCE_S)
    return view.now >= heir.meta.created_at + DRAIN_PATIENCE_S


def _somebody_runs(slot: Slot, outgoing: list[Task]) -> bool:
    """Whether a task of the slot may still run, so that its heir has to wait."""
    return bool(slot.ending) or not all(map(is_unassigned, outgoing))


def _stop(draft: Draft, tasks: Iterable[Task]) -> None:
    for task in tasks:
        draft.stop(task)
