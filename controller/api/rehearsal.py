"""A store that is only played: requests run on it as they would on the real one, and nothing is written.

A plan answers "what would this request do" with the very handler that would do it, so that the two cannot differ. The
handler reads a snapshot and commits operations; here they are kept, and the snapshot becomes what it would have been.
"""

import asyncio
from collections.abc import Iterable, Sequence

from argosy.controller.loops.forecast import after
from argosy.controller.store import Fence, Op, Outcome, Snapshot


class Rehearsal:
    """Stands in for Store and Cache at once, as far as handlers use them. `ops` are all that were committed."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.ops: list[Op] = []
        self.contended = asyncio.Lock()

    async def commit(self, ops: Iterable[Op], fence: Fence | None = None) -> int:
        """Keep the operations; their checks hold, since nobody else writes here."""
        del fence
        kept = list(ops)
        self.ops += kept
        self.snapshot, _ = after(self.snapshot, kept)
        return self.snapshot.revision

    async def commit_batched(self, groups: Sequence[Iterable[Op]], fence: Fence | None = None) -> list[Outcome]:
        """Keep the operations of all groups."""
        return [Outcome(await self.commit(ops, fence)) for ops in groups]

    async def revision(self) -> int:
        """Return the revision of the snapshot."""
        return self.snapshot.revision

    async def wait_for(self, revision: int) -> None:
        """Return at once: nothing lags behind."""
