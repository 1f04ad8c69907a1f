"""What begins while something is broken finds its way once it is repaired, though the kernel remembers another one.

The kernel translates a connection, or does not, as it did with its first packet. One that began while the rules were
not there would go on without them as long as its client says anything.
"""

import socket
from contextlib import ExitStack, suppress

import pytest
from failing import fail_once
from ingress_world import WEB, Published
from network_world import Container, Host, World, wait_until
from test_ingress_flows import datagrams_at, flow
from test_life import BREAKAGES, break_it, renaming

from argosy.agent.network.host import HostNamespace
from argosy.core.errors import TransientError
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


@pytest.mark.parametrize("ended", ["by the repair", "by the next repair"])
def test_what_a_repair_could_not_have_begin_anew_the_next_one_does(
    ended: str, wire: World, one: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though that one finds nothing that differs any more."""
    with datagrams_at(wire.outside) as server, one.open_socket(socket.SOCK_DGRAM) as calling:
        calling.connect((OUTSIDE, 53))
        break_it(one, "host's rules flushed", GAPS)
        with suppress(OSError):
            calling.send(b"in the gap")
        if ended == "by the next repair":
            fail_once(monkeypatch, HostNamespace, "forget_unanswered")
            with pytest.raises(TransientError, match="not now"):
                one.host.do(one.host.plane.repair())
        one.host.do(one.host.plane.repair())
        server.setblocking(False)

        def came() -> bool:
            with suppress(OSError):
                calling.send(b"after it")
            with suppress(BlockingIOError):
                said, (address, _) = server.recvfrom(100)
                return said == b"after it" and address == one.host.address
            return False

        wait_until(came, 5)


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


def test_datagrams_of_the_host_itself_that_began_while_an_uplink_had_another_name_go_on(
    wire: World, web: Published
) -> None:
    """To its own 127.0.0.1, of which nobody could answer what came by an uplink."""
    one = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(protocol="udp", target=53, published=5300),)
    web.apply()
    with datagrams_at(one) as server, flow(one.host.namespace, "127.0.0.1") as asking:
        one.host.sh(renaming(f"au{WEB}"))
        asking.reaches([])
        one.host.do(one.host.plane.repair())
        wait_until(lambda: asking.reaches([server]) is server, 5)


def test_datagrams_to_what_a_route_makes_the_hosts_own_find_a_port_that_opens(wire: World, web: Published) -> None:
    """An address of no device, as load balancers of clouds send to."""
    one = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    one.host.sh("ip route add local 198.51.100.7 dev lo")
    wire.outside.sh(f"ip route add 198.51.100.7 via {one.host.address}")
    with datagrams_at(one) as server, flow(wire.outside, "198.51.100.7") as asking:
        asking.is_refused()
        asking.reaches([])
        web.ports = (PortSpec(protocol="udp", target=53, published=5300),)
        web.apply()
        wait_until(lambda: asking.reaches([server]) is server, 5)


@pytest.mark.parametrize("breakage", ["container's route removed", "host's rules flushed"])
def test_a_repair_forgets_nothing_that_goes_to_others(breakage: str, wire: World, web: Published) -> None:
    """Though there is a published port of the same number: the host's firewall lets in what somebody asked for."""
    one = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(protocol="udp", target=53, published=53),)
    web.apply()
    rules = "type filter hook input priority 0; ct state established accept; udp sport 53 drop;"
    one.host.sh(f"nft 'table ip strange/firewall {{ chain input {{ {rules} }}; }}'")
    with datagrams_at(wire.outside) as server, one.host.namespace.open_socket(socket.SOCK_DGRAM) as asking:
        asking.connect((OUTSIDE, 53))
        asking.send(b"question")
        _, who = server.recvfrom(100)
        break_it(one, breakage, BREAKAGES | GAPS)
        one.host.do(one.host.plane.repair())
        server.sendto(b"answer", who)
        assert asking.recv(100) == b"answer"
