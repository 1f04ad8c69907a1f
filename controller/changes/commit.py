"""Read, decide, commit; on a conflict read again: the loop around every change that a user asks for."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from argosy.controller.store import Cache, Op, Snapshot, Store
from argosy.core.errors import ArgosyError, ConflictError, NoLeaderError, PreconditionError

T = TypeVar("T")

TRIES = 5
_ENDED = "this controller does not lead any more"


async def change(
    store: Store,
    cache: Cache,
    decide: Callable[[Snapshot], tuple[Sequence[Op], T]],
    planned: Snapshot | None = None,
) -> T:
    """Commit what `decide` makes of the present state; return its result once this cache shows the change.

    With `planned`, the state that a plan was found to hold for, it is decided by that one and only once:
    PreconditionError when what it touches has changed since.

    `decide` is called again when somebody else changed the objects meanwhile; ConflictError after five times. While
    somebody tries again the others wait for their turn, so that so many tries are enough however many there are.
    A caller's own version check belongs into `decide`: it fails there on the second reading.
    """
    if planned is not None or not store.contended.locked():
        result, conflict, wrote = await _try(store, cache, decide, planned or cache.snapshot)
        if not wrote and planned is None:
            # Etcd has not judged it: another controller may have answered a change that this cache does not show yet.
            await cache.wait_for(await store.revision())
            result, conflict, _ = await _try(store, cache, decide, cache.snapshot)
        if conflict is None:
            return result
        if planned is not None:
            raise PreconditionError(f"the plan is stale: {conflict}; nothing was done: make a new plan with --plan")
    async with store.contended:
        for left in reversed(range(TRIES)):
            await cache.wait_for(await store.revision())
            result, conflict, _ = await _try(store, cache, decide, cache.snapshot)
            if conflict is None:
                return result
            if not left:
                raise conflict
    raise AssertionError("the last try returns or raises")


async def _try(
    store: Store, cache: Cache, decide: Callable[[Snapshot], tuple[Sequence[Op], T]], snap: Snapshot
) -> tuple[T, ConflictError | None, bool]:
    """Decide and commit once; return the result, what the commit met if it was not made, and whether there was one."""
    ops, result = decide(snap)
    if ops:
        try:
            revision = await store.commit(ops)
        except ConflictError as conflict:
            return result, conflict, True
        await cache.wait_for(revision)
    return result, None, bool(ops)


class Changes:
    """As `change`, for what many ask for at the same time, such as 5,000 agents that join.

    What comes while a write is under way goes together in the next one. `run` must be running.
    """

    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        self._asked: list[_Asked] = []
        self._wake = asyncio.Event()
        self._ended = False

    async def make(self, decide: Callable[[Snapshot], tuple[Sequence[Op], T]]) -> T:
        """Commit what `decide` makes of the present state; return its result once this cache shows the change.

        It is decided anew when somebody else changed the objects meanwhile; ConflictError after five times.
        NoLeaderError when `run` has ended, or ends before this is done.
        """
        asked = _Asked(decide, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        self._wake.set()
        if self._ended:
            asked.fail(NoLeaderError(_ENDED))
        result: T = await asked.result
        return result

    async def run(self) -> None:
        """Write until cancelled."""
        asked: list[_Asked] = []
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                asked, self._asked = self._asked, []
                try:
                    await self._write(asked)
                except ArgosyError as error:
                    for one in asked:
                        one.fail(error)
        finally:
            self._ended = True
            for one in (*asked, *self._asked):
                one.fail(NoLeaderError(_ENDED))

    async def _write(self, asked: "list[_Asked]") -> None:
        wanted = [(one, *decided) for one in asked if (decided := one.decided(self._cache.snapshot)) is not None]
        outcomes = await self._store.commit_batched([ops for _, ops, _ in wanted])
        again = [one for (one, _, _), outcome in zip(wanted, outcomes, strict=True) if one.goes_on(outcome.error)]
        newest = max((outcome.revision for outcome in outcomes), default=0)
        await self._cache.wait_for(await self._store.revision() if again else newest)
        for (one, _, result), outcome in zip(wanted, outcomes, strict=True):
            if outcome.ok and not one.result.done():
                one.result.set_result(result)
        if again:
            self._asked = again + self._asked
            self._wake.set()


@dataclass(slots=True)
class _Asked:
    decide: Callable[[Snapshot], tuple[Sequence[Op], Any]]
    result: asyncio.Future[Any]
    tries: int = 0

    def decided(self, snap: Snapshot) -> tuple[Sequence[Op], Any] | None:
        """Return what to write, and the result; None when it is refused."""
        try:
            return self.decide(snap)
        except ArgosyError as error:
            self.fail(error)
            return None

    def goes_on(self, error: ArgosyError | None) -> bool:
        """Take what became of a try; tell whether there is to be another."""
        self.tries += 1
        if isinstance(error, ConflictError) and self.tries < TRIES and not self.result.done():
            return True
        if error is not None:
            self.fail(error)
        return False

    def fail(self, error: ArgosyError) -> None:
        """Have whoever waits see an error."""
        if not self.result.done():
            self.result.set_exception(error)
