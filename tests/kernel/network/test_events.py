"""Notifications of the kernel: whose change they tell of."""

import asyncio
from collections.abc import Callable
from contextlib import closing

import pytest
from network_world import Namespace, in_thread

from argosy.agent.network import rtnetlink
from argosy.agent.network.events import KernelEvents, listen
from argosy.agent.network.namespace import Home
from argosy.agent.network.netlink import Netlink
from argosy.agent.network.nft import Nft

LOOPBACK = 1


def add_table(netlink: Netlink, number: int) -> None:
    with closing(Nft()) as nft:
        nft.run(f"add table ip table{number}")


def add_route(netlink: Netlink, number: int) -> None:
    netlink.execute([rtnetlink.route_via(LOOPBACK, 0x0A000000 + number, 32)])


@pytest.mark.parametrize(("change", "tables"), [(add_table, True), (add_route, False)])
def test_what_we_change_ourselves_wakes_nobody(change: Callable[[Netlink, int], None], tables: bool) -> None:
    """The kernel names the thread that changed a table: a plane does it in one that is not its process' first."""
    namespace = Namespace.new()
    namespace.sh("ip link set lo up")

    async def scenario() -> None:
        found: asyncio.Queue[bool] = asyncio.Queue()
        home = Home()
        netlink = home.netlink_in(namespace.fd)
        events = KernelEvents(lambda _, tables: found.put_nowait(tables))
        listener = listen(home, namespace.fd, netlink.port)
        events.add("net", listener)
        with home.away(namespace.fd):
            change(netlink, 1)
        for own in (listener.routes, listener.tables):
            with pytest.raises(BlockingIOError):
                own.recv(1 << 16)
        namespace.run(lambda: change(Netlink(), 2))
        assert await asyncio.wait_for(found.get(), 10) is tables
        assert found.empty()
        events.close()
        home.close()

    try:
        in_thread(lambda: asyncio.run(scenario()))
    finally:
        namespace.close()
