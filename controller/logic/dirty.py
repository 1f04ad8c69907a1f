"""Whether a slot is what the present spec wants, and what it has instead. A slot that is not is *dirty*."""

from argosy.controller.logic.slots import Slot, age
from argosy.controller.logic.view import View
from argosy.core.task import Task


def is_dirty(view: View, slot: Slot) -> bool:
    """Whether the slot is not (only) what the present spec wants."""
    return stale_task(view, slot) is not None


def is_untouched(view: View, slot: Slot) -> bool:
    """Whether the slot is dirty and nothing live in it is what the present spec wants: it waits for its turn.

    A dirty slot that is not untouched gets to the present spec whatever the update does: what is stale in it goes.
    """
    return is_dirty(view, slot) and not any(view.is_current(task) for task in slot.live)


def stale_task(view: View, slot: Slot) -> Task | None:
    """Return the live task that does not run the present spec, or the last one of a slot without live ones."""
    if not slot.live:
        last = slot.past
        return last if last is not None and not view.is_current(last) else None
    stale = [task for task in slot.live if not view.is_current(task)]
    return max(stale, key=lambda t: (t.status.state, age(t))) if stale else None
