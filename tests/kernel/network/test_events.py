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
        found: list[bool] = []
        home = Home()
        events = KernelEvents(lambda _, tables: found.append(tables))
        events.add("net", listen(home, namespace.fd, 0))
        with home.away(namespace.fd):
            nft.run("add table ip ours")
        for _ in range(3):
            await asyncio.sleep(0)  # what the kernel has sent is there: let the loop read it
        assert found == []
        namespace.run(lambda: nft.run("add table ip theirs"))
        deadline = asyncio.get_running_loop().time() + 10
        while not found and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.001)
        assert found == [True]
        events.close()
        home.close()

    try:
        in_thread(lambda: asyncio.run(scenario()))
    finally:
        namespace.close()
