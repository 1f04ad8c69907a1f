"""Work that may wait and then be done at once for all that has piled up, such as looking at a service again.

On a large cluster there is always something to look at again. A loop that rests after its work, in proportion to it,
takes its share of the processor and no more; on a small one there is nothing to rest from.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

FREE_S: Final = 0.005
"""Work that takes no longer needs no rest."""


def in_turns(items: Sequence[T], at_once: int = 1000) -> Iterator[Sequence[T]]:
    """Yield many things some at a time, after which the event loop is to have a turn."""
    for start in range(0, len(items), at_once):
        yield items[start : start + at_once]


class Sparing:
    """Keeps one loop's work to a share of a processor.

    `clock` is one of processor time (Ambient.processor): time in which the process was stopped, or waited for a
    processor, is no work to rest from.
    """

    def __init__(self, clock: Callable[[], float], share: float) -> None:
        self._clock = clock
        self._share = share
        self._worked_s = self._began = 0.0

    def working(self) -> "Sparing":
        """Do a piece of work that waits for nobody (`with`). Not within another one."""
        return self

    def __enter__(self) -> None:
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        self._worked_s += self._clock() - self._began

    async def rest(self) -> None:
        """Rest from all work since the last time."""
        worked_s, self._worked_s = self._worked_s, 0.0
        if worked_s > FREE_S:
            await asyncio.sleep(worked_s * (1 / self._share - 1))
