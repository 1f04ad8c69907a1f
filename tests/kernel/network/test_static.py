"""Addresses that services asked for, on hosts without a slice; and networks that a host cannot carry."""

from ipaddress import IPv4Address

import pytest
from network_world import Host, World
from test_reach import WEB, converse, refusal

from argosy.core.errors import PreconditionError

FIXED = "10.64.9.70"


def test_a_static_address_is_reached_and_moves_to_another_host(wire: World, pair: tuple[Host, Host]) -> None:
    """It lies within no slice of its host, and even in one that the other host leases: a /32 goes before a /27."""
    one, two = pair
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1, 2 * 147 + 2), "h2": ()})
    wire.statics[WEB, "h2"] = (int(IPv4Address(FIXED)),)
    client = one.start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    two.apply()
    server = two.start_container("taskbbbbbbbb1", (WEB, FIXED))
    assert converse(client, server, FIXED) == "10.64.0.33"
    assert converse(server, client, "10.64.0.33") == FIXED
    tallies, _ = two.do(two.plane.probe(WEB, [f"node-{one.name}"]))
    assert tallies[f"node-{one.name}"].lost == 0

    two.stop_container("taskbbbbbbbb1")
    wire.statics = {(WEB, "h1"): (int(IPv4Address(FIXED)),)}
    two.apply()
    moved = one.start_container("taskcccccccc1", (WEB, FIXED))
    assert converse(client, moved, FIXED) == "10.64.0.33"


def test_a_static_address_that_moved_while_its_host_was_cut_off_is_reached_from_there(
    wire: World, pair: tuple[Host, Host]
) -> None:
    """The host that comes back has a container with it still, and is told who has it now; then that container ends."""
    one, two = pair
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": ()})
    wire.statics[WEB, "h1"] = (int(IPv4Address(FIXED)),)
    client = one.start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    one.start_container("taskbbbbbbbb1", (WEB, FIXED))
    wire.statics = {(WEB, "h2"): (int(IPv4Address(FIXED)),)}
    two.apply()
    moved = two.start_container("taskcccccccc1", (WEB, FIXED))
    one.apply()
    one.stop_container("taskbbbbbbbb1")
    assert converse(client, moved, FIXED) == "10.64.0.33"
    assert one.do(one.plane.verify()) == []


def test_an_unused_address_of_the_own_slices_is_refused_at_once(wire: World, pair: tuple[Host, Host]) -> None:
    """No way to itself leads through the tunnel: such packets would go round until they have no hop left."""
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
    client = pair[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    assert "10.64.0.32/27" not in pair[0].in_network(WEB, "ip route")
    assert refusal(client, "10.64.0.34") == 113  # EHOSTUNREACH


def test_a_network_whose_addresses_the_host_reaches_by_itself_is_refused(wire: World, pair: tuple[Host, Host]) -> None:
    one = pair[0]
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)})
    one.sh("ip route add 10.64.128.0/24 via 192.0.2.254")
    with pytest.raises(PreconditionError, match=r"overlaps .* which this host reaches over eth0: remove that route"):
        one.start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    one.sh("ip route del 10.64.128.0/24")
    container = one.containers["taskaaaaaaaa1"]
    one.do(one.plane.attach(container.id, container.pid, container.attachments))


def test_a_link_that_is_too_narrow_is_refused(wire: World) -> None:
    host = wire.add_host(mtu=1300, dns=False)
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)})
    with pytest.raises(PreconditionError, match="takes 1300 bytes, which leaves 1250 for network web"):
        host.start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
