"""What one plan may take away from a service: its availability budget, and how many tasks may move at once.

A task that has to move (drained, evicted, rebalanced) starts elsewhere first, so it takes nothing away; how many do so
at once is bounded all the same, by `max_unavailable` (without it only by the drain's pace). Where the old task has to
stop first, and in stop-first updates, the budget itself is spent: a task that is available is only stopped if its
slot stays available, or the budget has one left. Without a budget of their own, updates keep to their parallelism, and
tasks that stop to move do so one at a time. While an update goes on, a new task counts only once every node that may
connect to it knows it.
"""

from collections.abc import Iterable
from typing import Final

from argosy.controller.logic.departures import Departures
from argosy.controller.logic.slots import Slot
from argosy.controller.logic.view import View
from argosy.core.budget import Budget, parse_max_unavailable
from argosy.core.service import ServiceMode, UpdateState
from argosy.core.task import Task
from argosy.core.task_state import TaskState

_UPDATING: Final = frozenset({UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED})
MOVES_THAT_STOP_FIRST: Final = 1
"""The budget of moves where the service names none."""


def is_available(view: View, task: Task) -> bool:
    """Whether a task does its service's work now: it runs, is healthy and ready, and its node is there."""
    return view.answers(task) and task.takes_requests


def is_still_there(view: View, task: Task) -> bool:
    """Whether a task does its service's work at this moment, be it told to stop or not."""
    return view.answers(task) and task.status.state is TaskState.RUNNING and not task.status.unready


def may_be_available(view: View, task: Task) -> bool:
    """Whether a task does its service's work for all that anybody knows: a node not heard from yet may well run it."""
    return not view.is_given_up(task) and task.takes_requests


class Allowance:
    """Mutable: what one plan of one service may still do. Slots that are not available count as missing."""

    def __init__(self, view: View, slots: Iterable[Slot], departures: Departures, stops: int | None = None) -> None:
        """`slots`: those that the service is to have, without an update's canaries.

        `stops`: how many an update without a budget may stop, None: as many as it has begun.
        """
        slots = tuple(slots)
        self._view = view
        self._departures = departures
        self._updating = view.service.update.state in _UPDATING
        self._stops = stops
        missing = sum(not any(map(self._counts, slot.live)) for slot in slots)
        self.budget = Budget(_limit(view, len(slots)), missing)
        self._moving = sum(_is_moving(view, slot) for slot in slots)
        self.refused = False

    def may_move(self, slot: Slot, task: Task) -> bool:
        """Take a slot's task on its way elsewhere, if pace and budget allow it, or it has set out already."""
        if _is_moving(self._view, slot):
            return True
        limit = self.budget.limit
        if limit is not None and self._moving >= max(1, limit):
            return False
        if not self._departures.may_begin(task.node_id):
            return False
        self._moving += 1
        self._departures.begin(task.node_id)
        return True

    def may_stop(self, task: Task, *, moves: bool) -> bool:
        """Take a task out of service, if the budget allows it; `moves`: it has to leave its node.

        One that only may be available, on a node not heard from yet, is counted as missing already, and not twice.
        """
        budget = self.budget
        limit = MOVES_THAT_STOP_FIRST if moves and budget.limit is None else budget.limit
        takes = self._counts(task)
        if limit is None and self._stops is not None:
            allowed = not takes or self._stops > 0
            self._stops -= allowed and takes
            return allowed
        allowed = limit is None or budget.missing + takes <= limit
        budget.missing += allowed and takes
        self.refused = self.refused or not allowed
        return allowed

    def _counts(self, task: Task) -> bool:
        """Whether a task serves everybody. Nobody is asked who knows it where nothing is stopped for its sake."""
        return is_available(self._view, task) and (not self._updating or self._view.has_arrived(task))


def _limit(view: View, slots: int) -> int | None:
    """Return the budget in tasks. Nobody knows how many nodes there will be: of a global service a share is never 0."""
    spec = view.service.spec
    parsed = parse_max_unavailable(spec.max_unavailable)
    if parsed is None:
        return None
    limit = parsed.of(slots)
    return max(1, limit) if parsed.percent and parsed.number and spec.mode is ServiceMode.GLOBAL else limit


def _is_moving(view: View, slot: Slot) -> bool:
    """Whether a task of the slot has set out: it has an heir, which may have to leave too, and has not ended yet.

    Where nothing can be created for now (a task there is kept) nothing is on its way either.
    """
    if not slot.may_create:
        return False
    if len(slot.live) > 1 and any(map(view.is_leaving, slot.live)):
        return True
    return bool(slot.live) and any(map(view.is_leaving, slot.ending))
