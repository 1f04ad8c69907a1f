"""How often each asker may ask: a limit for each, so that none of them takes all the time that there is."""

from collections.abc import Hashable
from typing import Final

_MANY: Final = 10_000
"""Askers that are remembered before those that have all theirs again are forgotten."""


class Rates:
    """Each asker has `at_once`, of which it gets `each` a second back (a token bucket)."""

    def __init__(self, each: float, at_once: int) -> None:
        self._each = each
        self._at_once = at_once
        self._left: dict[Hashable, tuple[float, float]] = {}
        """How many an asker had left, and when."""

    def take(self, asker: Hashable, now: float) -> bool:
        """Take one, if the asker may have one now (in seconds; of one asker never back); tell whether it may."""
        left = self._left_at(now, *self._left.get(asker, (self._at_once, now)))
        if left < 1:
            return False
        if asker not in self._left and len(self._left) >= _MANY:
            self._left = {one: told for one, told in self._left.items() if self._left_at(now, *told) < self._at_once}
        self._left[asker] = left - 1, now
        return True

    def _left_at(self, now: float, left: float, then: float) -> float:
        return min(self._at_once, left + (now - then) * self._each)
