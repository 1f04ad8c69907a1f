"""The audit's loop, with a kernel that is not there."""

import asyncio
from unittest.mock import AsyncMock

import pytest

from argosy.agent.network.audit import Drift, DriftKind, Scope
from argosy.agent.network.auditor import Auditor
from argosy.agent.network.desired import AuditTiming
from argosy.core.errors import TransientError

FOUND = Drift("net", DriftKind.MISSING, "route 10.64.0.32/27")


@pytest.mark.parametrize("error", [TransientError("the kernel has no memory left"), ValueError("a bug")], ids=repr)
async def test_it_goes_on_whatever_a_look_ends_with(error: Exception) -> None:
    failures = [error, error]

    async def repair(scope: Scope) -> list[Drift]:
        if failures:
            raise failures.pop()
        return [FOUND]

    async def silent() -> list[str]:
        return []

    auditor = Auditor(repair, silent, AuditTiming(period=0.01, settle=0.0, silent=0.01, retry=0.01))
    running = asyncio.create_task(auditor.run())
    try:
        async with asyncio.timeout(10):
            while not auditor.drift and not running.done():
                await asyncio.wait([running], timeout=0.01)
        assert auditor.drift["net"] >= 1
        assert failures == []
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_the_latest_repairs_are_remembered_each_with_what_it_put_right_first() -> None:
    """However much one put right: with a VTEP go its peers."""
    auditor = Auditor(AsyncMock(), AsyncMock(), AuditTiming())
    auditor.note([Drift("net", DriftKind.MISSING, "link vtep"), Drift("", DriftKind.MISSING, "pin")])
    peers = [Drift("net", DriftKind.MISSING, f"route {i}") for i in range(5000)]
    auditor.note([Drift("net", DriftKind.DIFFERENT, "link vtep"), *peers])
    found = [(r.drift.network_id, str(r.drift), r.others) for r in auditor.recent]
    assert found == [("net", "missing: link vtep", 0), ("", "missing: pin", 0), ("net", "different: link vtep", 5000)]
    assert auditor.drift == {"net": 5002, "": 1}
