"""What an update could not reach: tasks that are kept on nodes that are DOWN (`disconnect: keep`), and what it says.

Such a slot is left out: the update goes on over the others, and is complete without it. It says so for as long as it
is true; when the node returns the slot is updated, too.
"""

from collections.abc import Sequence
from typing import Final

from argosy.controller.logic.attempts import node_name
from argosy.controller.logic.slots import Slot
from argosy.controller.logic.view import View

_UNTIL: Final = "back, or by 'argosy node rm'"


def is_cut_off(view: View, slot: Slot) -> bool:
    """Whether a slot has a task that is kept, so that nothing can be done about it for now."""
    return not slot.may_create and any(map(view.is_kept, slot.live))


def remark(view: View, slots: Sequence[Slot], said: str) -> str:
    """Return what a completed update is to say of the slots that it left out; `said`: what it says now.

    Why it was rolled back stays said.
    """
    return said if said and not said.endswith(_UNTIL) else _remark(view, slots)


def _remark(view: View, slots: Sequence[Slot]) -> str:
    left = [t for slot in slots for t in slot.live if view.is_kept(t) and not view.is_current(t)]
    if not left:
        return ""
    nodes = sorted({node_name(view, task.node_id) for task in left})
    where = f"node {nodes[0]}, which is" if len(nodes) == 1 else f"nodes {_listed(nodes)}, which are"
    numbers = sorted({task.revision for task in left})
    what = f"revision{'s' if len(numbers) > 1 else ''} {_listed(list(map(str, numbers)))}"
    tasks = "1 task" if len(left) == 1 else f"{len(left)} tasks"
    run = "runs" if len(left) == 1 else "run"
    returns = "it is" if len(nodes) == 1 else "they are"
    return f"{tasks} on {where} cut off, still {run} {what}: replaced when {returns} {_UNTIL}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
