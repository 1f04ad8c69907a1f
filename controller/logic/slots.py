"""Slots: the tasks of a service, ordered by the place that each has in it and by what may still come of them.

A slot of a replicated service is a number from 1 up; of a global service it is a node (number 0). A slot *exists* as
long as one of its tasks is not to be forgotten (desired REMOVE): so scaling down forgets a slot with its history, and a
slot whose program ended for good still counts as one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from argosy.controller.logic.view import View
from argosy.core.restart import ended_at, ended_by_itself
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal, is_up

Key: TypeAlias = tuple[int, str]
"""(slot number, "") of a replicated service, (0, node id) of a global one."""


@dataclass(slots=True)
class Slot:
    """The tasks of one slot. Filled by `group`; nobody changes it afterwards.

    live:    wanted and not ended, on a node that is not away
    ending:  asked to stop, not known to have ended yet, on a node that will tell (also of a former life of the slot)
    lost:    not ended as far as is known, but its node is DOWN: counts for nothing any more
    ended:   ended for good; the slot's history
    past:    of those that are not live any more, the one that had the slot last
    may_create: False where there must be no new task for now: a global service's node takes none, or a task on a node
                that is DOWN is kept
    canary: beside the wanted slots, to try an update
    """

    key: Key
    live: list[Task] = field(default_factory=list)
    ending: list[Task] = field(default_factory=list)
    lost: list[Task] = field(default_factory=list)
    ended: list[Task] = field(default_factory=list)
    past: Task | None = None
    may_create: bool = True
    canary: bool = False

    @property
    def exists(self) -> bool:
        """Whether the slot has a task that is not to be forgotten."""
        return self.past is not None or bool(self.live)

    def latest(self, since: float) -> Task | None:
        """Return the task that says how the slot is doing: the live one, or what was tried beside it since it came.

        Tries from before `since`, the start of the latest update, no longer count.
        """
        newest = max(self.live, key=age, default=None)
        past = self.past
        if newest is None or (past is not None and past.meta.created_at >= since and age(past) > age(newest)):
            return past
        return newest

    def records(self) -> Iterable[Task]:
        """Yield all tasks but those that have ended and are to be forgotten."""
        yield from self.live
        yield from self.ending
        yield from self.lost
        yield from self.ended


def group(view: View, tasks: Iterable[Task], by_node: bool) -> dict[Key, Slot]:
    """Return the slots that the tasks make up, by key."""
    slots: dict[Key, Slot] = {}
    for task in tasks:
        key = (0, task.node_id) if by_node else (task.slot, "")
        slot = slots.get(key)
        if slot is None:
            slot = slots[key] = Slot(key)
        _file(view, slot, task)
    return slots


def _file(view: View, slot: Slot, task: Task) -> None:
    away = view.is_away(task)
    ended = has_ended(task, away)
    if task.desired_state is TaskState.REMOVE:
        if not ended and not away:
            slot.ending.append(task)
        return
    slot.canary = slot.canary or task.canary
    if ended:
        slot.ended.append(task)
    elif away:
        slot.lost.append(task)
    elif task.desired_state > TaskState.RUNNING:
        slot.ending.append(task)
    else:
        slot.live.append(task)
        slot.may_create = slot.may_create and not view.is_kept(task)
        return
    if slot.past is None or left_at(view, task) > left_at(view, slot.past):
        slot.past = task


def left_at(view: View, task: Task) -> tuple[float, str]:
    """Return a sort key: the later a task lost its slot, the greater.

    One that ended by itself had the slot until then, also if others were tried beside it in vain. One that was told to
    go had it until its successor was created: what counts is only that it came before that.
    """
    if task.desired_state <= TaskState.RUNNING and ended_by_itself(task):
        return max(ended_at(task, view.now), task.meta.created_at), task.meta.id
    return age(task)


def has_ended(task: Task, away: bool) -> bool:
    """Whether a task has ended for good.

    An ORPHANED task whose node is back has not, until its agent confirmed that it is stopped.
    """
    state = task.status.state
    if state is TaskState.ORPHANED and not away and not task.status.released:
        return False
    return is_terminal(state)


def age(task: Task) -> tuple[float, str]:
    """Return a sort key: the later created, the greater."""
    return task.meta.created_at, task.meta.id


def is_unassigned(task: Task) -> bool:
    """Whether no agent has ever been told of a task (a global service's has a node from the start)."""
    return task.status.state < TaskState.ASSIGNED


def serves(task: Task) -> bool:
    """Whether a task's program runs, so that stopping it takes something away."""
    return is_up(task.status.state)
