"""Python's cyclic garbage collector, kept from walking through the cache.

A cluster of 100,000 tasks is about a million small objects, none of them part of a cycle: reference counting frees
them. The collector walks through all of them all the same, for 0.4 to 1 s at a time on a small machine, about once in
10,000 changes: a pause in which no lease is renewed and no agent is heard. So a large cache is put out of its sight
(gc.freeze), and it looks less often at what is new. An event cost 110 to 200 µs before, and 30 µs since.
"""

import contextlib
import gc
from collections.abc import Iterator

LARGE = 10_000
"""Objects from which on it is worth it."""
THRESHOLDS = (20_000, 5, 1000)
"""As for gc.set_threshold: new containers until a look at the youngest, such looks until one at the next older, …

A look at the youngest takes some 5 ms, one at the next older five times that.
"""


def tune_collector() -> None:
    """Have the collector look less often; for the start of a process that runs a cache."""
    gc.set_threshold(*THRESHOLDS)


def hide_from_collector() -> None:
    """Free what garbage there is, then put all that is left out of the collector's sight.

    It costs as much as what was made since the last time is large. What is hidden is still freed when its last
    reference goes; only cycles made of hidden objects never are.
    """
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def collector_resting() -> Iterator[None]:
    """Do not collect while very many objects without cycles are made, and hide them afterwards.

    A collector that is switched off altogether is left alone.
    """
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    before = gc.get_count()[0]
    try:
        yield
    finally:
        if gc.get_count()[0] - before > LARGE:
            gc.freeze()
        gc.enable()
