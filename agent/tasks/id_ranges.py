"""Ranges of 65,536 user and group ids, one for each task's user namespace."""

from collections.abc import Iterable

from argosy.core.errors import TransientError

RANGE_SIZE = 65_536


class IdRanges:
    """Hands out range numbers; a number is used by one task at a time, and the longest unused comes first.

    Reusing the longest unused one keeps files that a leak left behind from meeting a new owner soon.
    """

    def __init__(self, base: int, count: int, taken: Iterable[int] = ()) -> None:
        self._base = base
        used = set(taken)
        self._free = dict.fromkeys(n for n in range(count) if n not in used)
        self._count = count

    def take(self) -> int:
        """Return a range number; TransientError when all are in use."""
        if not self._free:
            raise TransientError(f"all {self._count} user id ranges of this node are in use (--id-ranges)")
        number: int = next(iter(self._free))
        del self._free[number]
        return number

    def give_back(self, number: int) -> None:
        """Return a number to the end of the queue; idempotent. One beyond a count that was lowered is not kept."""
        if number < self._count:
            self._free.setdefault(number, None)

    def first_id(self, number: int) -> int:
        """Return the host id that is root in this range."""
        return self._base + number * RANGE_SIZE
