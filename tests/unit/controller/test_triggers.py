"""Reasons to look: changes, times, and both at once."""

import asyncio

from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.store import Snapshot
from argosy.controller.store.history import Step
from argosy.controller.store.snapshot import Change
from argosy.controller.store.subscription import Subscription
from argosy.core.node import Node
from tests.unit.controller.objects import node


class Cache:
    """One subscriber's."""

    snapshot = Snapshot()

    def subscribe(self, *, coalesce):
        self.changes = Subscription(lambda: self.snapshot, (), after=0, coalesce=coalesce, max_pending=10)
        return self.changes


async def test_a_time_that_comes_together_with_a_change_is_not_lost():
    cache, wake = Cache(), Wake(lambda: 7.0)
    reasons = batches(cache, wake)
    assert (await anext(reasons)).resync
    wake.at(3.0)
    cache.changes.publish(Step(2, (Change(Node, "n1", None, node("n1")),)))
    async with asyncio.timeout(10):
        assert (await anext(reasons)).revision == 2
        assert await anext(reasons) is None
    await reasons.aclose()
