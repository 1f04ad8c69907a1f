"""Canaries: an update tries the present spec in a few tasks before it touches what serves.

A replicated service gets slots of their own for them, beside the wanted ones; their tasks are marked (`Task.canary`),
so that every leader knows them. A global service has no room beside: it tries on that many nodes first. Canaries are
there from the beginning of an update until its end: they add to what serves while the others are replaced, and go last.

An update *tries* from its start until it is promoted, by a person or, with `auto_promote`, when its canaries have done
well. A rollback takes the canaries away, and an update that nothing is left of to do has none.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from argosy.controller.logic.dirty import is_dirty, is_untouched, stale_task
from argosy.controller.logic.slots import Slot
from argosy.controller.logic.view import View
from argosy.core.service import ServiceMode, UpdateState, UpdateStatus

_FORWARD: Final = frozenset({UpdateState.UPDATING, UpdateState.PAUSED})


def canaries_wanted(view: View, regular: Sequence[Slot], canaries: Sequence[Slot]) -> int:
    """Return how many slots of its own the update is to have for canaries, given the slots that there are."""
    spec, update = view.service.spec, view.service.update
    if update.state not in _FORWARD or not spec.canary:
        return 0
    if update.promoted:
        return min(spec.canary, len(canaries))
    return min(spec.canary, spec.replicas) if any(is_untouched(view, slot) for slot in regular) else 0


def is_trying(view: View, update: UpdateStatus, slots: Sequence[Slot]) -> bool:
    """Whether the update still leaves alone all slots but those of its canaries."""
    if update.state not in _FORWARD or update.promoted or not view.service.spec.canary:
        return False
    if view.service.spec.mode is ServiceMode.GLOBAL:
        return any(is_dirty(view, slot) for slot in slots)
    return any(slot.canary for slot in slots)


def former_revision(view: View, slots: Sequence[Slot]) -> int:
    """Return what a new slot runs while an update tries: what most of the others run."""
    stale = (stale_task(view, slot) for slot in slots if not slot.canary)
    counts = Counter(task.revision for task in stale if task is not None and task.revision in view.revisions)
    return max(counts, key=lambda number: (counts[number], number), default=view.service.revision)
