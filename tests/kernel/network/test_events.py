"""Notifications of the kernel: whose change they tell of."""

import asyncio

from network_world import Namespace, in_thread

from argosy.agent.network import nft
from argosy.agent.network.events import KernelEvents, listen
from argosy.agent.network.namespace import Home


def test_our_own_transactions_wake_nobody() -> None:
    """The kernel names the thread: a plane changes tables in one that is not its process' first."""
    namespace = Namespace.new()

    async def scenario() -> None:
        found: asyncio.Queue[bool] = asyncio.Queue()
        home = Home()
        events = KernelEvents(lambda _, tables: found.put_nowait(tables))
        events.add("net", listen(home, namespace.fd, 0))
        with home.away(namespace.fd):
            nft.run("add table ip ours")
        for _ in range(3):
            await asyncio.sleep(0)  # what the kernel has sent is there: let the loop read it
        assert found.empty()
        namespace.run(lambda: nft.run("add table ip theirs"))
        assert await asyncio.wait_for(found.get(), 10) is True
        assert found.empty()
        events.close()
        home.close()

    try:
        in_thread(lambda: asyncio.run(scenario()))
    finally:
        namespace.close()
