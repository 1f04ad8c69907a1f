"""What the planners want of a node's namespaces."""

import re
from ipaddress import IPv4Address, IPv4Network

import pytest

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_container import ContainerRoute, plan_container_links
from argosy.agent.logic.network_firewall import HostFirewall, host_ruleset, network_ruleset
from argosy.agent.logic.network_plan import (
    Site,
    link_mtu,
    plan_container,
    plan_egress,
    plan_host_uplink,
    plan_network,
    plan_peer,
)
from argosy.agent.logic.network_state import Address, Fdb, Link, LinkKind, Neighbour, Route, RouteKind, Sysctl, key_of
from argosy.agent.logic.network_uplink import UplinkPair, allocate, number_of, pair
from argosy.core.assignment import NetworkAssignment, PeerAssignment
from argosy.core.errors import PreconditionError

SITE = Site("node1", int(IPv4Address("192.0.2.1")), 1500, 14789)
WEB = NetworkAssignment("netaaaaaaaaaa", "web", 100, "10.64.0.0/16")
DATA = NetworkAssignment("netbbbbbbbbbb", "data", 101, "10.65.0.0/16", internal=True)
UPLINK = UplinkPair(int(IPv4Address("169.254.64.2")), int(IPv4Address("169.254.64.3")))


def ip(text: str) -> int:
    return int(IPv4Address(text))


def of_type(entries, kind):
    return [e for e in entries if isinstance(e, kind)]


def test_a_network_has_its_vtep_its_router_and_no_way_for_unused_addresses() -> None:
    entries = plan_network(SITE, WEB, None)
    (vtep,) = [e for e in of_type(entries, Link) if e.kind is LinkKind.VTEP]
    assert (vtep.vni, vtep.local, vtep.port, vtep.mtu, vtep.learning) == (100, ip("192.0.2.1"), 14789, 1450, False)
    assert Address("lo", ip("169.254.1.1"), 32) in entries
    assert of_type(entries, Route) == [Route(ip("10.64.0.0"), 16, RouteKind.UNREACHABLE)]
    assert Sysctl("ipv4/conf/all/rp_filter", "1") in entries
    assert Sysctl("ipv4/conf/all/forwarding", "1") in entries


def test_an_uplink_adds_the_default_route() -> None:
    entries = plan_network(SITE, WEB, UPLINK)
    assert Route(0, 0, RouteKind.UNICAST, "uplink", UPLINK.host) in entries
    assert Address("uplink", UPLINK.inner, 31) in entries
    outer = plan_host_uplink(SITE, WEB, UPLINK)
    assert Address("aunetaaaaaaaaaa", UPLINK.host, 31) in outer
    # Each end knows the other's MAC address.
    (inner_link,) = [e for e in of_type(entries, Link) if e.kind is LinkKind.UPLINK]
    (outer_link,) = of_type(outer, Link)
    assert Neighbour("uplink", UPLINK.host, outer_link.mac) in entries
    assert Neighbour(outer_link.name, UPLINK.inner, inner_link.mac) in outer


def test_a_peer_costs_a_neighbour_a_forwarding_entry_and_a_route_a_slice() -> None:
    peer = PeerAssignment(WEB.id, "node2", "192.0.2.2", (7, 2, 9))
    neighbour, fdb, *routes = plan_peer(WEB, peer)
    placeholder = ip("10.64.0.64")
    mac = names.vtep_mac(WEB.id, "node2")
    assert neighbour == Neighbour("vtep", placeholder, mac)
    assert fdb == Fdb("vtep", mac, ip("192.0.2.2"))
    assert {r.destination for r in routes} == {ip("10.64.0.64"), ip("10.64.0.224"), ip("10.64.1.32")}
    assert {(r.prefix, r.device, r.gateway) for r in of_type(routes, Route)} == {(27, "vtep", placeholder)}


def test_a_static_address_of_a_peer_has_a_route_of_its_own() -> None:
    fixed = ip("10.64.9.70")
    both = plan_peer(WEB, PeerAssignment(WEB.id, "node2", "192.0.2.2", (7,), (fixed,)))
    assert of_type(both, Route)[-1] == Route(fixed, 32, device="vtep", gateway=ip("10.64.0.224"))
    alone = plan_peer(WEB, PeerAssignment(WEB.id, "node2", "192.0.2.2", (), (fixed,)))
    mac = names.vtep_mac(WEB.id, "node2")
    assert alone == [
        Neighbour("vtep", fixed, mac),
        Fdb("vtep", mac, ip("192.0.2.2")),
        Route(fixed, 32, device="vtep", gateway=fixed),
    ]


def test_a_peer_without_slices_gets_answers_alone() -> None:
    """To clients that came in by it; one whose address is not known gets nothing."""
    mac = names.vtep_mac(WEB.id, "node2")
    assert plan_peer(WEB, PeerAssignment(WEB.id, "node2", "192.0.2.2", ())) == [Fdb("vtep", mac, ip("192.0.2.2"))]
    assert plan_peer(WEB, PeerAssignment(WEB.id, "node2", "", (1,))) == []


def test_a_container_has_a_route_and_a_neighbour_of_its_own() -> None:
    entries = plan_container(SITE, WEB, "vetask", ip("10.64.0.33"))
    assert Route(ip("10.64.0.33"), 32, RouteKind.UNICAST, "vetask") in entries
    assert Neighbour("vetask", ip("10.64.0.33"), names.container_mac(WEB.id, ip("10.64.0.33"))) in entries
    assert Sysctl("ipv4/conf/vetask/rp_filter", "1", "vetask") in entries


@pytest.mark.parametrize(
    ("assigned", "underlay", "expected"), [(0, 1500, 1450), (0, 9000, 8950), (1400, 1500, 1400), (1450, 1400, 1350)]
)
def test_the_mtu_is_never_more_than_the_underlay_carries(assigned: int, underlay: int, expected: int) -> None:
    network = NetworkAssignment(WEB.id, "web", 1, WEB.subnet, mtu=assigned)
    assert link_mtu(Site("n", 1, underlay, 1), network) == expected


def test_every_entry_has_a_key_of_its_own() -> None:
    entries = [
        *plan_network(SITE, WEB, UPLINK),
        *plan_peer(WEB, PeerAssignment(WEB.id, "node2", "192.0.2.2", (1, 2))),
        *plan_peer(WEB, PeerAssignment(WEB.id, "node3", "192.0.2.3", (3,))),
        *plan_container(SITE, WEB, "vea", ip("10.64.0.161")),
        *plan_container(SITE, WEB, "veb", ip("10.64.0.162")),
        *plan_egress(["eth0"]),
    ]
    assert len({key_of(e) for e in entries}) == len(entries)


def test_names_fit_the_kernel_and_are_apart() -> None:
    for make in (names.container_device, names.host_uplink_device):
        assert make("a" * 13).endswith("a" * 13)
        for identifier in ("x", "a" * 13, "a" * 14, "b" * 64):
            assert len(make(identifier)) <= 15
        assert make("a" * 14) != make("a" * 15)
    assert names.is_host_uplink(names.host_uplink_device(WEB.id))
    assert names.is_host_uplink(names.host_uplink_device("a" * 14))
    for name in ("au-x", "au1", "au-syd-wg-001", "au-syd-wg-00001", "au" + "a" * 12, "ve" + "a" * 13, "AU" + "a" * 13):
        assert not names.is_host_uplink(name)
    macs = {names.vtep_mac("n", "a"), names.vtep_mac("n", "b"), names.router_mac("n"), names.uplink_mac("n", "a")}
    assert len(macs) == 4
    assert all(mac[0] & 3 == 2 for mac in macs)  # locally administered, to one station
    assert names.network_of_pin("h1", names.pin_name("h1", "net")) == "net"
    assert names.network_of_pin("h1", names.pin_name("h2", "net")) is None
    assert names.network_of_pin("h1", "h1.") is None
    assert names.host_table("my host/1") == "argosy-my_host_1"


def test_one_attachment_needs_only_a_default_route() -> None:
    (link,) = plan_container_links(SITE, [(WEB, ip("10.64.0.33"))])
    assert (link.name, link.mtu, link.default_route, link.rule_table) == ("eth0", 1450, True, 0)
    assert link.routes == (ContainerRoute(0, 0),)


def test_an_internal_attachment_has_no_default_route_but_reaches_its_names() -> None:
    (link,) = plan_container_links(SITE, [(DATA, ip("10.65.0.33"))])
    assert not link.default_route
    assert ContainerRoute(ip("10.65.0.0"), 16) in link.routes
    assert ContainerRoute(ip("169.254.1.1"), 32, via_router=False) in link.routes
    assert not [r for r in link.routes if r.prefix == 0]


def test_of_several_attachments_the_first_that_is_not_internal_leads_out() -> None:
    data, web = plan_container_links(SITE, [(DATA, 1), (WEB, 2)])
    assert (data.name, data.default_route, web.name, web.default_route) == ("eth0", False, "eth1", True)
    assert {data.rule_table, web.rule_table} == {1000, 1001}
    for link in (data, web):
        assert ContainerRoute(0, 0, table=link.rule_table) in link.routes
    assert ContainerRoute(0, 0) in web.routes
    assert ContainerRoute(0, 0) not in data.routes


def test_networks_that_overlap_are_refused_on_one_task() -> None:
    inside = NetworkAssignment("netcccccccccc", "inside", 5, "10.64.128.0/20")
    with pytest.raises(PreconditionError, match=r"web \(10\.64\.0\.0/16\) and inside"):
        plan_container_links(SITE, [(WEB, 1), (inside, 2)])


RANGE = IPv4Network("169.254.64.0/29")  # four pairs


def test_uplink_numbers_follow_the_vni_and_stay() -> None:
    assert allocate(RANGE, {}, {"a": 4, "b": 5, "c": 8}) == {"a": 0, "b": 1, "c": 2}
    assert allocate(RANGE, {"a": 3}, {"a": 4, "b": 7}) == {"a": 3, "b": 0}
    # One that is held by a network about to go is not given away.
    assert allocate(RANGE, {"gone": 0}, {"a": 4}) == {"a": 1}
    with pytest.raises(PreconditionError, match="larger uplink range"):
        allocate(RANGE, {}, {str(n): n for n in range(5)})


def test_pairs_and_their_numbers() -> None:
    assert [number_of(RANGE, pair(RANGE, n).host) for n in range(4)] == [0, 1, 2, 3]
    assert number_of(RANGE, pair(RANGE, 1).inner) is None
    assert number_of(RANGE, ip("169.254.64.8")) is None


def test_rulesets_say_what_they_must() -> None:
    text = host_ruleset(HostFirewall("argosy-n", 14789, (51820,), (2379, 2380), "169.254.64.0/18", ("eth0",)))
    assert "udp dport { 14789, 51820 } counter drop" in text
    assert "tcp dport { 2379, 2380 } counter drop" in text
    assert "ip daddr 169.254.169.254 counter drop" in text
    assert text.index("direction reply udp dport 14789 counter drop") < text.index("direction reply accept")
    assert text.index("udp sport 14789 masquerade to") < text.index('!= "au*" masquerade')
    assert 'iifname { "eth0" } oifname != "au*" counter drop' in text
    open_host = host_ruleset(HostFirewall("argosy-n", 14789, (), (), "169.254.64.0/18"))
    assert "tcp dport" not in open_host
    assert "eth0" not in open_host
    carried = network_ruleset(uplink=True)
    assert "masquerade" in carried
    assert (
        "udp dport 53 update @askers { ip saddr limit rate over 2000/second burst 1000 packets } counter drop"
        in carried
    )
    assert carried.index("udp dport 53 udp length > 1240 counter drop") < carried.index("update @askers")
    # Of what passes between containers only the first packet of a connection meets a chain.
    hooks = set(re.findall(r"type (\w+) hook (\w+)", carried))
    assert hooks == {("filter", "input"), ("filter", "output"), ("nat", "postrouting")}
    assert "masquerade" not in network_ruleset(uplink=False)
    assert 'oifname "vtep" meta mark 0 meta mark set 1' in network_ruleset(uplink=False, encrypted=True)
    assert "meta mark" not in carried
