"""Read, decide, commit; on a conflict read again: the loop around every change that a user asks for."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from argosy.controller.store import Cache, Op, Snapshot, Store
from argosy.core.errors import ConflictError, PreconditionError

T = TypeVar("T")

TRIES = 5


async def change(
    store: Store,
    cache: Cache,
    decide: Callable[[Snapshot], tuple[Sequence[Op], T]],
    planned: Snapshot | None = None,
) -> T:
    """Commit what `decide` makes of the present state; return its result once this cache shows the change.

    With `planned`, the state that a plan was found to hold for, it is decided by that one and only once:
    PreconditionError when what it touches has changed since.

    `decide` is called again when somebody else changed the objects meanwhile; ConflictError after five times.
    A caller's own version check belongs into `decide`: it fails there on the second reading.
    """
    for attempt in range(TRIES):
        ops, result = decide(planned or cache.snapshot)
        if not ops:
            return result
        try:
            revision = await store.commit(ops)
        except ConflictError as error:
            if planned is not None:
                raise PreconditionError(
                    f"the plan is stale: {error}; nothing was done: make a new plan with --plan"
                ) from None
            if attempt == TRIES - 1:
                raise
            await cache.wait_for(await store.revision())
        else:
            await cache.wait_for(revision)
            return result
    raise AssertionError("the last try returns or raises")
