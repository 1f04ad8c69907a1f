"""What a process gets from its surroundings: the time, and fresh ids.

Whoever acts by a clock takes it as an argument, so that tests/sim can run controllers and agents in a time of its own.
Time within the event loop alone (pauses, deadlines of calls) is the loop's: `asyncio.get_running_loop().time()`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from argosy.core.ids import new_id


def boottime() -> float:
    """Return seconds since boot, time asleep included (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Ambient:
    """Clocks in seconds: `wall` since the epoch, `monotonic` since some moment, `boot` also while asleep."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    boot: Callable[[], float] = boottime
    new_id: Callable[[], str] = new_id
    processor: Callable[[], float] = time.thread_time
    """What the calling thread has used of a processor: it stands still while the process is stopped, or waits."""


SYSTEM = Ambient()
"""The machine's own clocks, and ids by chance."""
