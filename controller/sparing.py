"""Work that may wait and then be done at once for all that has piled up, such as looking at a service again.

On a large cluster there is always something to look at again. A loop that rests after its work, in proportion to it,
takes its share of the processor and no more; on a small one there is nothing to rest from.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

FREE_S: Final = 0.005
"""Work that takes no longer needs no rest."""
LONGEST_S: Final = 0.5
"""No rest is longer: the clock also goes on while the process is stopped, or waits for a processor."""


class Sparing:
    """Keeps one loop's work to a share of the time, as `clock` has it."""

    def __init__(self, clock: Callable[[], float], share: float) -> None:
        self._clock = clock
        self._share = share
        self._worked_s = 0.0

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Do a piece of work that waits for nobody."""
        began = self._clock()
        try:
            yield
        finally:
            self._worked_s += self._clock() - began

    async def rest(self) -> None:
        """Rest from all work since the last time."""
        worked_s, self._worked_s = self._worked_s, 0.0
        if worked_s > FREE_S:
            await asyncio.sleep(min(LONGEST_S, worked_s * (1 / self._share - 1)))
