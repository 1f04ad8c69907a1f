"""What begins while something is broken finds its way once it is repaired, though the kernel remembers another one.

The kernel translates a connection, or does not, as it did with its first packet. One that began while the rules were
not there would go on without them as long as its client says anything.
"""

import socket
from contextlib import ExitStack, suppress

import pytest
from ingress_world import WEB, Published
from network_world import Container, Host, World, wait_until
from test_ingress_flows import datagrams_at, flow
from test_life import BREAKAGES, break_it, renaming

from argosy.core.service import PortSpec

OUTSIDE = "192.0.2.254"
HOST_TABLE = "ip $(nft list tables | cut -d' ' -f3 | grep -v /)"
PORTS_TABLE = "ip $(nft list tables | cut -d' ' -f3 | grep /ports)"
GAPS = {
    "network's table flushed": BREAKAGES["network's table flushed"],
    "network's rules flushed": ("net", "nft flush chain ip argosy postrouting"),
    "host's rules flushed": ("host", f"nft flush chain {HOST_TABLE} postrouting"),
    "host's tables flushed": BREAKAGES["host's tables flushed"],
    "uplink renamed": ("net", renaming("uplink")),
}
DOORS = {
    "doors deleted": ("net", "nft delete table ip argosy-ingress"),
    "doors flushed": ("net", "nft flush map ip argosy-ingress doors"),
    "ports deleted": ("host", f"nft delete table {PORTS_TABLE}"),
    "ports flushed": ("host", f"nft flush map {PORTS_TABLE} published"),
    "host's tables flushed": BREAKAGES["host's tables flushed"],
}


@pytest.fixture
def one(wire: World, pair: tuple[Host, Host]) -> Container:
    """A container of a network of two hosts."""
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
    pair[1].apply()
    return pair[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))


@pytest.mark.parametrize("gap", GAPS)
def test_datagrams_to_the_outside_that_began_in_a_gap_go_on_after_it(gap: str, wire: World, one: Container) -> None:
    with datagrams_at(wire.outside) as server, one.open_socket(socket.SOCK_DGRAM) as calling:
        calling.connect((OUTSIDE, 53))
        break_it(one, gap, GAPS)
        for _ in range(3):
            with suppress(OSError):
                calling.send(b"in the gap")
        one.host.do(one.host.plane.repair())
        calling.setblocking(False)

        def answer() -> bytes | None:
            with suppress(OSError):
                calling.send(b"after it")
            server.settimeout(0.1)
            with suppress(TimeoutError):
                said, who = server.recvfrom(100)
                if who[0] == one.host.address and said == b"after it":
                    return said
            return None

        assert wait_until(answer, 5) == b"after it"


@pytest.mark.parametrize("gap", GAPS)
def test_a_connection_to_the_outside_that_began_in_a_gap_comes_about(gap: str, wire: World, one: Container) -> None:
    with wire.outside.listen("0.0.0.0", 8000) as server, one.open_socket() as calling:
        break_it(one, gap, GAPS)
        calling.setblocking(False)
        started = calling.connect_ex((OUTSIDE, 8000))
        one.host.do(one.host.plane.repair())
        assert started
        _, (seen, _) = server.accept()
        assert seen == one.host.address


@pytest.mark.parametrize("gap", DOORS)
def test_datagrams_to_a_port_that_began_in_a_gap_go_on_after_it(gap: str, wire: World, web: Published) -> None:
    one = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(protocol="udp", target=53, published=5300),)
    web.apply()
    with ExitStack() as open_, flow(wire.outside, one.host.address) as asking:
        server = open_.enter_context(datagrams_at(one))
        break_it(one, gap, DOORS)
        assert asking.reaches([server]) is None
        one.host.do(one.host.plane.repair())
        wait_until(lambda: asking.reaches([server]) is server, 5)  # its first one may but hear that it was refused
