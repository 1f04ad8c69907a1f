"""How much of something each asker has under way: a limit for each, so that none of them takes all that there is."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Shares:
    """At most `each` of one asker, and `total` of all."""

    def __init__(self, each: int, total: int) -> None:
        self._each = each
        self._total = total
        self._taken: Counter[Hashable] = Counter()
        self._all = 0

    @contextmanager
    def one(self, asker: Hashable) -> Iterator[bool]:
        """Take one while the body runs, if the asker may have one more; tell whether it has."""
        if self._all >= self._total or self._taken[asker] >= self._each:
            yield False
            return
        self._taken[asker] += 1
        self._all += 1
        try:
            yield True
        finally:
            self._all -= 1
            self._taken[asker] -= 1
            if not self._taken[asker]:
                del self._taken[asker]
