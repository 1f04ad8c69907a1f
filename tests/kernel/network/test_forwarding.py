"""A host that forwards for others keeps doing so, and one that does not is made a router for containers alone."""

import os
from collections.abc import Iterator

import pytest
from network_world import Host, Namespace, World
from test_reach import WEB, converse

ROUTER = "echo 1 > /proc/sys/net/ipv4/ip_forward"
LANS_ONLY = "echo 1 > /proc/sys/net/ipv4/conf/lan0/forwarding; echo 1 > /proc/sys/net/ipv4/conf/lan1/forwarding"
ROUTER_BUT_FOR_ETH0 = f"{ROUTER}; echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding"


@pytest.fixture
def host(wire: World) -> Host:
    return wire.add_host(dns=False)


@pytest.fixture
def lans(wire: World, host: Host) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces behind the host, at its lan0 and lan1, that know no other way than over it; as does the wire."""
    made = (Namespace.new(), Namespace.new())
    try:
        for n, lan in enumerate(made):
            gateway = f"198.51.100.{n * 128 + 1}"
            lan.sh(f"ip link add eth0 type veth peer name lan{n} netns /proc/{os.getpid()}/fd/{host.namespace.fd}")
            host.sh(f"ip addr add {gateway}/25 dev lan{n}; ip link set lan{n} up")
            lan.sh(f"ip link set lo up; ip addr add {address(n)}/25 dev eth0; ip link set eth0 up")
            lan.sh(f"ip route add default via {gateway}")
        wire.outside.sh(f"ip route add 198.51.100.0/24 via {host.address}")
        yield made
    finally:
        for lan in made:
            lan.close()


def address(n: int) -> str:
    return f"198.51.100.{n * 128 + 2}"


def assert_no_way(source: Namespace, to: str) -> None:
    """Have nobody answer, not even with a refusal, as there would be at once: nothing listens there."""
    with source.open_socket() as calling:
        calling.settimeout(0.5)
        with pytest.raises(TimeoutError):
            calling.connect((to, 8000))


def carry_a_network(wire: World, host: Host) -> None:
    """Have the host carry a network with a way out, and a container that uses it."""
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)})
    container = host.start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    assert converse(container, wire.outside, "192.0.2.254") == host.address


def forwarding(host: Host) -> dict[str, str]:
    """Return what each of the host's own devices is set to."""
    lines = host.sh("grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding").splitlines()
    return {path: value for path, _, value in (line.partition(":") for line in lines) if "/au" not in path}


def test_a_router_stays_one(wire: World, host: Host, lans: tuple[Namespace, Namespace]) -> None:
    """As a Docker host is: whatever passed before passes with a network there, and when it has gone."""
    host.sh(ROUTER)
    before = forwarding(host)
    carry_a_network(wire, host)

    def assert_all_pass() -> None:
        assert converse(lans[0], lans[1], address(1)) == address(0)
        assert converse(lans[1], lans[0], address(0)) == address(1)
        assert converse(lans[0], wire.outside, "192.0.2.254") == address(0)
        assert converse(wire.outside, lans[1], address(1)) == "192.0.2.254"

    assert_all_pass()
    assert forwarding(host) == before
    host.new_life()
    host.apply()
    assert_all_pass()
    host.do(host.plane.purge())
    assert_all_pass()
    assert forwarding(host) == before


def test_single_devices_that_forward_are_left_alone(wire: World, host: Host, lans: tuple[Namespace, Namespace]) -> None:
    """Between two other devices all passes; what comes in by the device that we switched on still does not."""
    host.sh(LANS_ONLY)
    before = forwarding(host)
    carry_a_network(wire, host)
    assert converse(lans[0], lans[1], address(1)) == address(0)
    assert converse(lans[1], lans[0], address(0)) == address(1)
    with wire.outside.listen("0.0.0.0", 8000):
        assert_no_way(wire.outside, address(0))
        assert_no_way(lans[0], "192.0.2.254")  # its answer would have to come in by eth0
    host.do(host.plane.purge())
    assert forwarding(host) == before


def test_a_device_kept_out_of_a_routers_forwarding_stays_so(
    wire: World, host: Host, lans: tuple[Namespace, Namespace]
) -> None:
    host.sh(ROUTER_BUT_FOR_ETH0)
    before = forwarding(host)
    assert_no_way(wire.outside, address(0))
    carry_a_network(wire, host)
    assert_no_way(wire.outside, address(0))
    assert converse(lans[0], lans[1], address(1)) == address(0)
    host.do(host.plane.purge())
    assert forwarding(host) == before


def test_a_host_made_a_router_later_is_one_from_the_next_audit_on(
    wire: World, host: Host, lans: tuple[Namespace, Namespace]
) -> None:
    """As when Docker is installed beside us; in the end its forwarding is left as it is."""
    carry_a_network(wire, host)
    assert_no_way(wire.outside, address(0))
    host.sh(ROUTER)
    assert [drift.what for drift in host.do(host.plane.repair())] == [f"nft table argosy-{host.name}"]
    assert converse(wire.outside, lans[0], address(0)) == "192.0.2.254"
    assert host.do(host.plane.verify()) == []
    after = forwarding(host)
    host.do(host.plane.purge())
    assert converse(wire.outside, lans[0], address(0)) == "192.0.2.254"
    assert forwarding(host) == after
