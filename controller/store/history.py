"""The latest changes, for those who were away for a moment and know up to which revision they had seen all.

Bounded in changes, so that the memory it takes does not grow with time.
"""

from collections import deque
from dataclasses import dataclass

from argosy.controller.store.errors import VersionTooOldError
from argosy.controller.store.snapshot import Change


@dataclass(frozen=True, slots=True)
class Step:
    """What changed at one revision."""

    revision: int
    changes: tuple[Change, ...]


class History:
    """The steps after `floor`, all of them, up to a number of changes."""

    def __init__(self, floor: int, max_changes: int) -> None:
        self.floor = floor
        self._max_changes = max_changes
        self._steps: deque[Step] = deque()
        self._changes = 0

    def add(self, step: Step) -> None:
        """Keep a step, and forget the oldest when there are too many."""
        self._steps.append(step)
        self._changes += len(step.changes)
        while self._changes > self._max_changes and self._steps:
            oldest = self._steps.popleft()
            self._changes -= len(oldest.changes)
            self.floor = oldest.revision

    def reset(self, floor: int) -> None:
        """Forget all: what happened before `floor` is not known step by step."""
        self._steps.clear()
        self._changes = 0
        self.floor = floor

    def after(self, revision: int) -> list[Step]:
        """Return the steps after a revision. VersionTooOldError when some of them are forgotten."""
        if revision < self.floor:
            raise VersionTooOldError(
                f"the changes since version {revision} are not kept any more, only those since {self.floor}: "
                "list again, and watch from there"
            )
        return [s for s in self._steps if s.revision > revision]
