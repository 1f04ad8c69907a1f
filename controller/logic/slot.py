"""One slot: brings it to exactly one task of the wanted revision, on a node that is to keep it.

Restart, update, drain, eviction and loss of a node are the same work here. Of the slot's live tasks those that run the
wanted revision and need not leave their node are *good*; the best of them is the *heir*, and the others go. If there is
no heir one is created; what serves until then goes in the order of `Order`:

    PREPARE_FIRST  heir created with desired READY ─► heir READY ─► old stopped ─► old ended ─► heir to RUNNING
                   (on one node: old stopped and heir to RUNNING at once, and the node starts it when the old one ended)
    START_FIRST    heir created with desired RUNNING ─► heir RUNNING (healthy, known to all nodes) ─► old stopped

A task that has to leave its node starts elsewhere first, whatever the update's order says (unless an update has begun
to prepare its heir on that very node), yet beside it alone: for what else of the slot still runs the heir waits as the
order says. A fenced one stops first, since two of it must never run, and so does one with an address that its service
asked for. Whatever the order, a task that is available is stopped before its heir is available only as the service's
availability budget allows (availability.py): else it goes on, and the slot waits. What is left on a drained node when
the drain's deadline is over is stopped at once.

The scheduler places the heir of PREPARE_FIRST as if what the old one takes of its node were free. What the two cannot
even be prepared with side by side (a port of the host, an address) the heir has to wait for: it is PENDING then, and
marked (`TaskStatus.waits_for_old`), and the old one makes room. An heir that no node could take even then is PENDING
without the mark, and the old one goes on.

A successor under the restart policy is created at once with its `not_before`: it is prepared during the delay, and its
node starts it after it, also while no controller is there (it is created only after the delay, if it was the
preparation that failed).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from argosy.controller.logic.actions import CreateTask
from argosy.controller.logic.availability import Allowance, is_available, may_be_available
from argosy.controller.logic.draft import Draft
from argosy.controller.logic.slots import Slot, age, is_unassigned, serves
from argosy.controller.logic.view import View
from argosy.core.restart import Heritage, NoSuccessor, ended_at, ended_by_itself, inherit, succeed
from argosy.core.task import Task
from argosy.core.task_state import TaskState


class Order(Enum):
    """How a serving task and its heir take turns."""

    PREPARE_FIRST = 1
    START_FIRST = 2


@dataclass(frozen=True, slots=True)
class Aim:
    """What a slot is to become.

    `hold`: the update is paused, so no serving task makes way for it. `since`: when the latest update started.
    """

    revision: int
    order: Order
    hold: bool
    since: float


@dataclass(frozen=True, slots=True)
class _Turns:
    """How a slot's heir takes turns with what may run there before it.

    `order`: with the old task, if there is one. `others`: what else has to end before the heir starts.
    """

    old: Task | None
    order: Order
    others: Sequence[Task]


def plan_slot(view: View, draft: Draft, allowance: Allowance, slot: Slot, aim: Aim) -> None:
    """Take the slot's next steps towards its aim."""
    good, outgoing = _sort_out(view, slot, aim)
    surplus = (*good[1:], *outgoing[1:])
    for task in surplus:
        draft.stop(task)
    heir = good[0] if good else None
    old = outgoing[0] if outgoing else None
    turns = _turns(view, aim, heir, old, (*slot.ending, *surplus))
    if old is not None:
        draft.wake(view.drain_deadline(old))
    if heir is not None:
        _hand_over(view, draft, allowance, aim, heir, turns)
    elif slot.may_create and (old is None or _may_begin(view, allowance, slot, old)):
        _create_heir(view, draft, allowance, slot, aim, turns)


def _turns(view: View, aim: Aim, heir: Task | None, old: Task | None, others: Sequence[Task]) -> _Turns:
    if old is not None and (view.fenced or is_fixed(old)):
        return _Turns(old, Order.PREPARE_FIRST, others)
    moves = old is not None and view.is_leaving(old) and (heir is None or not _takes_its_room(heir, old))
    order = Order.START_FIRST if moves else aim.order
    return _Turns(old, order, () if aim.order is Order.START_FIRST else others)


def _takes_its_room(heir: Task, old: Task) -> bool:
    """Whether the heir was placed on the old task's node to start when that has ended: both may be too much for it."""
    return heir.desired_state is TaskState.READY and heir.node_id == old.node_id and not is_unassigned(heir)


def is_fixed(task: Task) -> bool:
    """Whether a task has an address that its service asked for: its heir can be given it only when it is gone."""
    return any(a.fixed for a in task.attachments)


def _may_begin(view: View, allowance: Allowance, slot: Slot, old: Task) -> bool:
    """Whether an old task's heir may be created now: one that leaves for good has to keep to the pace."""
    if not view.is_leaving(old) or not serves(old) or view.is_overdue(old):
        return True
    return allowance.may_move(slot, old)


def runs_aim(view: View, task: Task, revision: int) -> bool:
    """Whether a task runs what the slot is to run: the very revision or, of the present one, something equal."""
    return task.revision == revision or (revision == view.service.revision and view.is_current(task))


def succession(view: View, slot: Slot, revision: int, since: float) -> Heritage | NoSuccessor:
    """Return what a new task of `revision` would inherit in a slot without heir, or why there must be none.

    Only the latest task counts, and only if it ran the same: a new revision starts with a clean sheet. What gave up
    before a paused update was resumed is tried again.
    """
    last = slot.latest(since)
    if last is None or not runs_aim(view, last, revision):
        return Heritage()
    if ended_by_itself(last):
        heritage = succeed(last, view.spec_of(last.revision).restart, view.now)
        forgiven = heritage is NoSuccessor.GAVE_UP and ended_at(last, view.now) <= view.service.update.resumed_at
        return Heritage() if forgiven else heritage
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
            tasks.sort(key=lambda t: (not is_available(view, t), -t.status.state, -t.desired_state, age(t)))
    return good, outgoing


def _create_heir(view: View, draft: Draft, allowance: Allowance, slot: Slot, aim: Aim, turns: _Turns) -> None:
    old = turns.old
    heritage = succession(view, slot, aim.revision, aim.since)
    if isinstance(heritage, NoSuccessor):
        return
    draft.wake(heritage.not_before)
    if not heritage.prepare:
        return
    if old is not None and (not serves(old) or view.is_overdue(old)):
        if not _may_stop_now(view, allowance, old):
            return
        draft.stop(old)
    waits = any(map(_runs, turns.others)) or (turns.order is not Order.START_FIRST and _runs(old))
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
            slot.canary,
        )
    )


def _hand_over(view: View, draft: Draft, allowance: Allowance, aim: Aim, heir: Task, turns: _Turns) -> None:
    due = view.now >= heir.not_before
    beside = turns.order is Order.START_FIRST
    old, ends = turns.old, list(turns.others)
    if old is not None and _makes_way(view, allowance, aim, heir, due, old, beside):
        draft.stop(old)
        if not beside:
            ends.append(old)
        old = None
    if heir.desired_state is TaskState.READY:
        if not due:
            draft.wake(heir.not_before)
        elif (beside or not _runs(old)) and _takes_turns(heir, ends):
            draft.desire(heir, TaskState.RUNNING)


def _makes_way(view: View, allowance: Allowance, aim: Aim, heir: Task, due: bool, old: Task, beside: bool) -> bool:
    """Whether an old task goes now that it has an heir. One that is kept, whose node is DOWN, waits for its node.

    `beside`: the heir runs beside it until that is available.
    """
    if view.is_kept(old):
        return is_available(view, heir)
    if not serves(old) or view.is_overdue(old) or (is_available(view, heir) and view.has_arrived(heir)):
        return True
    leaving = view.is_leaving(old)
    if beside or not due or (aim.hold and not leaving):
        return False
    if heir.status.state < TaskState.READY and not heir.status.waits_for_old:
        return False
    return _may_stop_now(view, allowance, old)


def _may_stop_now(view: View, allowance: Allowance, old: Task) -> bool:
    """Whether an old task may go before its heir is there: in the budget, if it may still be of use."""
    if not may_be_available(view, old) or view.is_overdue(old):
        return True
    return allowance.may_stop(old, moves=view.is_leaving(old))


def _runs(task: Task | None) -> bool:
    """Whether a task that has not ended may run, so that its heir has to wait."""
    return task is not None and not is_unassigned(task)


def _takes_turns(heir: Task, ends: Sequence[Task]) -> bool:
    """Whether the heir may be told to run though others may still: its own node sees to it that they have ended first.

    The node is told so with its assignments (logic/assign.py).
    """
    return all(not _runs(task) or (task.node_id == heir.node_id and not is_unassigned(heir)) for task in ends)
