"""The probes of the ways between nodes, between real planes: what passes, what is lost, and what is too large."""

import pytest
from network_world import Host, World
from test_reach import WEB

from argosy.core.assignment import PublishedAssignment
from argosy.core.errors import PreconditionError
from argosy.core.service import PortSpec

SUBNET = "10.64.0.0/16"


@pytest.fixture
def hosts(pair: tuple[Host, Host], wire: World) -> tuple[Host, Host]:
    """Two hosts that carry a network, neither with a container on it."""
    wire.add_network(WEB, SUBNET, {"h1": (1,), "h2": (2, 5)})
    for host in pair:
        host.apply()
    return pair


def probe(source: Host, target: Host, network: str = WEB):
    tallies, mtu = source.do(source.plane.probe(network, [f"node-{target.name}"]))
    return tallies[f"node-{target.name}"], mtu


def test_a_peer_answers_though_neither_has_a_container(hosts: tuple[Host, Host]) -> None:
    for source, target in (hosts, hosts[::-1]):
        tally, mtu = probe(source, target)
        assert (tally.sent, tally.lost, tally.largest, mtu) == (10, 0, 1450, 1450)
        assert 0 < tally.latency < 1


def test_containers_see_nothing_of_it(hosts: tuple[Host, Host], wire: World) -> None:
    """The first address of a slice stands for its node, and may be a container's, too."""
    one, two = hosts
    container = one.start_container("taskaaaaaaaa1", (WEB, "10.64.0.32"))
    before = container.sh("cat /proc/net/snmp | grep '^Icmp:'")
    assert probe(one, two)[0].lost == 0
    assert container.sh("cat /proc/net/snmp | grep '^Icmp:'") == before


def test_a_link_that_is_narrower_than_the_hosts_say_is_found(hosts: tuple[Host, Host], wire: World) -> None:
    one, two = hosts
    wire.outside.sh("ip link set p2 mtu 1300")  # the bridge drops what the port does not take, and tells nobody
    tally, mtu = probe(one, two)
    assert (tally.lost, tally.largest, mtu) == (0, 1254, 1450)  # a bridge has 4 bytes to spare, for a VLAN's tag


def test_a_host_that_is_cut_off_and_one_that_lacks_the_network_lose_everything(
    hosts: tuple[Host, Host], wire: World
) -> None:
    one, two = hosts
    wire.outside.sh("ip link set p2 down")
    tally, _ = probe(one, two)
    assert (tally.sent, tally.lost, tally.largest) == (10, 10, 0)
    wire.outside.sh("ip link set p2 up")
    two.in_network(WEB, "ip link set vtep down")
    assert probe(one, two)[0].lost == 10


def test_a_peer_without_the_way_back_does_not_answer(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    two.in_network(WEB, "ip route del 10.64.0.32/27")
    assert probe(one, two)[0].lost == 10
    found = two.do(two.plane.audit())
    assert [str(d) for d in found.found] == ["missing: route 10.64.0.32/27 via 10.64.0.32 dev vtep"]
    assert (found.problem, found.earlier) == ("", ())
    assert two.plane.drift == {WEB: 1}
    assert probe(one, two)[0].lost == 0
    again = two.do(two.plane.audit())
    assert again.found == ()
    assert [str(r.drift) for r in again.earlier] == [str(found.found[0])]


def test_a_network_that_is_not_carried_cannot_be_tried_from(pair: tuple[Host, Host]) -> None:
    with pytest.raises(PreconditionError, match="not assigned"):
        probe(*pair)


@pytest.mark.parametrize("slices", [(1,), ()], ids=["one has addresses", "none has"])
def test_nodes_that_carry_it_for_published_ports_alone(
    pair: tuple[Host, Host], wire: World, slices: tuple[int, ...]
) -> None:
    wire.add_network(WEB, SUBNET, {"h1": slices, "h2": ()})
    ports = (PortSpec(target=80, published=8080),)
    wire.extra["published"] = (PublishedAssignment(WEB, "web", "web", False, ports),)
    for host in pair:
        host.apply()
    for source, target in (pair, pair[::-1]):
        tally, mtu = probe(source, target)
        assert (tally.sent, tally.lost, tally.largest, mtu) == (10, 0, 1450, 1450)
