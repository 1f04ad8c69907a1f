"""What happens to the records of tasks that have served their time: history, orphans, removal.

A record holds a task's addresses, so it is deleted only when its node's agent confirmed that nothing of the task is
left (`released`), when the task never had a node, or when the operator removed the node. A record on a node that is
away stays for as long as the node does.
"""

from collections.abc import Iterable
from functools import partial
from typing import Final

from argosy.controller.logic.draft import Draft
from argosy.controller.logic.slots import Slot, is_unassigned, left_at
from argosy.controller.logic.view import View
from argosy.core.node import NodeState
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal

HISTORY_PER_SLOT: Final = 5
"""Ended tasks kept in a slot for people to look at."""
ORPHANED_AFTER_S: Final = 24 * 3600.0
"""How long a node is DOWN before its tasks are called ORPHANED."""


def drop_gone(view: View, draft: Draft, tasks: Iterable[Task]) -> list[Task]:
    """Delete the tasks that went with their node when the operator removed it; return the others.

    The rest of the plan is made as though they had never been. What had ended and was released stays as history.
    """
    here = []
    for task in tasks:
        if task.node_id and task.node_id not in view.nodes and not task.status.released:
            draft.delete(task)
        else:
            here.append(task)
    return here


def plan_removal(view: View, draft: Draft, tasks: Iterable[Task]) -> None:
    """Bring a service that is being removed to its end: forget its tasks; when none is left, it goes too."""
    left = False
    for task in tasks:
        forget(view, draft, task)
        left = left or not draft.deletes(task)
    if not left:
        draft.delete_service()


def reap(view: View, draft: Draft, tasks: Iterable[Task]) -> None:
    """Delete records that nothing needs any more, and call tasks of nodes that are DOWN for long ORPHANED."""
    for task in tasks:
        if is_unassigned(task):
            if task.desired_state >= TaskState.SHUTDOWN:
                draft.delete(task)
        elif is_terminal(task.status.state):
            if task.desired_state is TaskState.REMOVE and task.status.released:
                draft.delete(task)
        else:
            _orphan(view, draft, task)


def trim(view: View, draft: Draft, slot: Slot) -> None:
    """Keep the last few ended tasks of a slot; the last one of them that ran a former spec is among those.

    By it the update can tell, and people can see, that the slot was updated and what it ran before.
    """
    if len(slot.ended) <= HISTORY_PER_SLOT:
        return
    latest_first = sorted(slot.ended, key=partial(left_at, view), reverse=True)
    former = next((task for task in latest_first if not view.is_current(task)), None)
    kept = latest_first[:HISTORY_PER_SLOT]
    if former is not None and former not in kept:
        kept[-1] = former
    for task in latest_first:
        if task not in kept:
            forget(view, draft, task)


def forget_slot(view: View, draft: Draft, slot: Slot) -> None:
    """Forget all tasks of a slot."""
    for task in slot.records():
        forget(view, draft, task)


def forget(view: View, draft: Draft, task: Task) -> None:
    """Have a task stopped, and its record deleted as soon as nothing of it is left on its node."""
    ended = is_terminal(task.status.state) and task.status.released
    if ended or is_unassigned(task):
        draft.delete(task)
    else:
        draft.desire(task, TaskState.REMOVE)
        _orphan(view, draft, task)


def _orphan(view: View, draft: Draft, task: Task) -> None:
    """Mark a task ORPHANED whose node has been DOWN for long; it is stopped should the node ever return."""
    if is_terminal(task.status.state):
        return
    status = view.nodes[task.node_id].status
    if status.state is not NodeState.DOWN or view.is_kept(task):
        return
    if view.now >= status.since + ORPHANED_AFTER_S:
        draft.orphan(task)
        draft.stop(task)
    else:
        draft.wake(status.since + ORPHANED_AFTER_S)
