"""Waits for the next reason to look: a batch of changes, a wake-up time, or both; joins what has piled up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from argosy.controller.store import Cache, ChangeBatch


async def batches(cache: Cache, wake: "Wake") -> AsyncIterator[ChangeBatch | None]:
    """Yield the next batch of changes, or None when `wake` is due; the first one is a resync: look at everything."""
    with cache.subscribe(coalesce=True) as changes:
        snap = cache.snapshot
        yield ChangeBatch(snap.revision, snap, (), resync=True)
        source = aiter(changes)
        pending: asyncio.Task[ChangeBatch] | None = None
        waker: asyncio.Task[None] | None = None
        try:
            while True:
                pending = pending or asyncio.ensure_future(_next(source))
                waker = asyncio.create_task(wake.wait())
                await asyncio.wait({pending, waker}, return_when=asyncio.FIRST_COMPLETED)
                due = waker.done()
                waker.cancel()
                if pending.done():
                    batch, pending = pending.result(), None
                    yield batch
                if due:  # also beside a batch: not every batch is a reason to look, and the time would be lost
                    yield None
        finally:
            unfinished = [task for task in (pending, waker) if task]
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)


async def _next(source: AsyncIterator[ChangeBatch]) -> ChangeBatch:
    return await anext(source)


class Wake:
    """A time at which to look again though nothing has changed. `clock` is time.time or time.monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: float | None = None
        self._changed = asyncio.Event()

    def at(self, when: float | None) -> None:
        """Set the time; None: no time."""
        self._at = when
        self._changed.set()

    def now(self) -> None:
        """Look again at once."""
        self.at(self._clock())

    async def wait(self) -> None:
        """Return when the time has come."""
        while True:
            self._changed.clear()
            if self._at is not None and self._at <= self._clock():
                self._at = None
                return
            delay = None if self._at is None else self._at - self._clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._changed.wait()
