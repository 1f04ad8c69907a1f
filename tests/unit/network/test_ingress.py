"""Published ports on a node: what the tables say, what a change costs, which door a port has, who keeps a client."""

from collections import Counter
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.agent.logic import network_ingress, network_leads, network_ports
from argosy.agent.logic.network_ingress import BUCKETS, MARKED, Door, Ingress, buckets, change, node_marks, zone_of
from argosy.agent.logic.network_leads import Lead, leads
from argosy.agent.logic.network_ports import HostPort, LocalPort, lost_ports, openings, published_rules
from argosy.agent.logic.network_uplink import UplinkPair
from argosy.core.assignment import NetworkAssignment, PublishedAssignment
from argosy.core.service import HostPort as SpecPort
from argosy.core.service import PortSpec

SUBNET = "10.64.0.0/16"
ONE, TWO = int(IPv4Address("10.64.0.33")), int(IPv4Address("10.64.0.65"))
WEB = Door("tcp", 8080, 80, ((ONE, 0), (TWO, 0)))
MARKS = {bytes.fromhex("020000000001"): 0x80000007}


def lines(held, wanted):
    return change(held, wanted).splitlines()


def test_a_door_leads_to_endpoints_in_turn():
    made = lines(Ingress(SUBNET), Ingress(SUBNET, (WEB,)))
    turns = "numgen inc mod 2 map { 0 : 10.64.0.33 . 80, 1 : 10.64.0.65 . 80 }"
    assert made == [
        "add chain ip argosy-ingress tcp-8080",
        "flush chain ip argosy-ingress tcp-8080",
        f"add rule ip argosy-ingress tcp-8080 meta l4proto tcp dnat ip to {turns}",
        "add rule ip argosy-ingress tcp-8080 meta l4proto tcp dnat ip to 10.64.0.33:80",
        "add element ip argosy-ingress doors { tcp . 8080 : goto tcp-8080 }",
    ]


def test_weights_are_turns_in_their_smallest_ratio():
    door = Door("udp", 53, 53, ((ONE, 20), (TWO, 10)))
    rule = lines(Ingress(SUBNET), Ingress(SUBNET, (door,)))[2]
    assert "numgen inc mod 3 map { 0-1 : 10.64.0.33 . 53, 2 : 10.64.0.65 . 53 }" in rule


def test_without_endpoints_it_refuses():
    closed = Door("tcp", 8080, 80)
    assert lines(Ingress(SUBNET, (WEB,)), Ingress(SUBNET, (closed,))) == [
        "delete element ip argosy-ingress doors { tcp . 8080 : goto tcp-8080 }",
        "add element ip argosy-ingress refused { tcp . 8080 }",
        "flush chain ip argosy-ingress tcp-8080",
        "delete chain ip argosy-ingress tcp-8080",
    ]


def test_a_change_says_nothing_of_other_doors_and_nodes():
    doors = tuple(Door("tcp", 1000 + i, 80, ((ONE + i, 0),)) for i in range(500))
    start = Ingress(SUBNET, doors, MARKS)
    after = Ingress(SUBNET, (*doors[:-1], Door("tcp", 1499, 80, ((TWO, 0),))), MARKS)
    assert lines(start, after) == [
        "add chain ip argosy-ingress tcp-1499",
        "flush chain ip argosy-ingress tcp-1499",
        "add rule ip argosy-ingress tcp-1499 meta l4proto tcp dnat ip to 10.64.0.65:80",
    ]
    assert change(start, start) == ""
    joined = {**MARKS, bytes.fromhex("020000000002"): 0x80000009}
    assert lines(start, Ingress(SUBNET, doors, joined)) == [
        "add element ip argosy-ingress marks { 02:00:00:00:00:02 : 0x80000009 }",
        f"add element ip argosy-ingress zones {{ 02:00:00:00:00:02 : {zone_of(0x80000009)} }}",
        "add element netdev argosy-ingress nodes { 0x80000009 : 02:00:00:00:00:02 }",
    ]


def test_what_is_not_known_is_written_whole_and_what_is_not_wanted_goes():
    whole = lines(None, Ingress(SUBNET, (WEB,), MARKS))
    assert whole[:2] == ["add table ip argosy-ingress", "delete table ip argosy-ingress"]
    assert whole[-len(lines(Ingress(SUBNET), Ingress(SUBNET, (WEB,), MARKS))) :] == lines(
        Ingress(SUBNET), Ingress(SUBNET, (WEB,), MARKS)
    )
    assert {line.split()[0] for line in lines(Ingress(SUBNET), None)} == {"add", "delete"}
    assert lines(Ingress("10.65.0.0/16"), Ingress(SUBNET))[0] == whole[0]


def test_every_node_has_a_mark_of_its_own_that_stays():
    nodes = [f"node{i}" for i in range(300)]
    marks = node_marks("net", nodes)
    assert len(marks) == len(set(marks.values())) == 300
    assert all(mark & MARKED and 1 <= zone_of(mark) <= 65535 for mark in marks.values())
    assert node_marks("net", nodes[:100]).items() <= marks.items()


@given(st.dictionaries(st.integers(1, 2**32 - 1), st.integers(0, 5), min_size=2, max_size=8), st.data())
def test_only_the_clients_of_an_endpoint_that_goes_move(weights, data):
    gone = data.draw(st.sampled_from(sorted(weights)))
    before = buckets(weights.items())
    after = buckets((a, w) for a, w in weights.items() if a != gone)
    assert len(before) == BUCKETS
    assert all(b == a for b, a in zip(before, after, strict=True) if b != gone)
    assert gone not in after


def test_buckets_follow_weights():
    counts = Counter(buckets([(ONE, 3), (TWO, 1)]))
    assert 150 < counts[ONE] < 230


def published(service: str, *ports: PortSpec, network: str = "net") -> PublishedAssignment:
    return PublishedAssignment(network, service, service, ports=ports)


def test_a_door_has_the_published_number_unless_another_has_it():
    here, there, other = (PortSpec(published=80, host_ip=f"192.0.2.{i}") for i in (1, 2, 3))
    found = openings([published("b", there), published("a", here), published("c", other, network="o")])
    first, second, third = found
    assert (first.service_id, first.door) == ("a", 80)
    assert second.service_id == "b"
    assert second.door not in (80, 0)
    assert (third.network_id, third.door) == ("o", 80)
    assert openings([published("b", there)])[0].door == 80


def test_no_port_is_open_twice():
    """Of two services the first in order has it; of a node's own tasks all that are of one service."""
    both = openings([published("b", PortSpec(published=80)), published("a", PortSpec(published=80, host_ip="0.0.0.0"))])
    assert [o.service_id for o in both] == ["a"]
    own = SpecPort("tcp", 80, 8080)
    local = [LocalPort("s", "net", ONE, own), LocalPort("s", "net", TWO, own), LocalPort("t", "net", 7, own)]
    assert [(o.service_id, o.target, o.only) for o in openings([], local)] == [("s", 8080, frozenset({ONE, TWO}))]
    assert [o.only for o in openings([published("a", PortSpec(published=80))], local)] == [None]


def test_who_has_lost_a_port_to_another_service_is_told():
    """A rollback may bring back a port that was given away meanwhile."""
    local = [LocalPort("s", "net", ONE, SpecPort("tcp", 80, 8080)), LocalPort("s", "net", ONE, SpecPort("udp", 80, 80))]
    wanted = openings([published("a", PortSpec(published=80))], local)
    [(lost, reason)] = lost_ports(local, wanted)
    assert lost == local[0]
    assert reason == "port 80/tcp is published by another service of the cluster (a)"
    assert list(lost_ports(local, openings([], local))) == []


def test_a_port_that_every_node_has_for_the_same_service_is_not_lost():
    """An update from host mode to every node has both for a while."""
    local = [LocalPort("s", "net", ONE, SpecPort("tcp", 80, 8080))]
    wanted = openings([published("s", PortSpec(published=80))], local)
    assert [o.only for o in wanted] == [None]
    assert list(lost_ports(local, wanted)) == []


def test_ports_that_have_no_number_yet_are_not_open():
    assert openings([published("a", PortSpec(target=80))]) == []


@pytest.mark.parametrize(
    ("port", "said"),
    [
        (HostPort("", "tcp", 80), "80/tcp"),
        (HostPort("127.0.0.1", "udp", 53), "127.0.0.1:53/udp"),
    ],
)
def test_a_port_is_said_as_people_write_it(port, said):
    assert str(port) == said


def test_the_host_translates_to_the_uplinks_of_networks_that_have_one():
    network = NetworkAssignment("net", "net", 4096, SUBNET)
    pair = UplinkPair(int(IPv4Address("169.254.64.0")), int(IPv4Address("169.254.64.1")))
    local = PortSpec(published=53, host_ip="127.0.0.1", protocol="udp")
    wanted = openings([published("a", PortSpec(published=8080)), published("b", local)])
    found = leads(wanted, {"net": pair})
    assert found == {
        Lead("published", "tcp . 8080", "169.254.64.1 . 8080"),
        Lead("published_at", "127.0.0.1 . udp . 53", "169.254.64.1 . 53"),
    }
    assert leads(wanted, {}) is None
    assert published_rules(wanted, [(network, pair)]).chains != ()
    assert published_rules(wanted, []).chains == ()


def test_where_datagrams_may_go():
    """By the address that a port has to itself, by the number else; in the network's namespace to an endpoint."""
    all_of, one_of = PortSpec(protocol="udp", published=53, target=5), PortSpec(protocol="tcp", published=53, target=5)
    at = PortSpec(protocol="udp", published=53, target=6, host_ip="192.0.2.7")
    wanted = openings([published("a", all_of, one_of), published("b", at), published("c", all_of, network="internal")])
    led = network_ports.led_datagrams(wanted, {"net": UplinkPair(1, 2)})
    assert led == {("", 53): (2, 53), ("192.0.2.7", 53): (2, next(o.door for o in wanted if o.port.host_ip))}
    doors = (Door("udp", 53, 5, ((11, 0), (12, 0))), Door("tcp", 53, 7, ((11, 0),)), Door("udp", 54, 6))
    assert network_ingress.led_datagrams(doors) == {(53, (11, 5)), (53, (12, 5))}


def test_ports_that_come_and_go_are_elements_of_a_table_that_stays():
    one, two = (Lead("published", f"tcp . {port}", f"169.254.64.1 . {port}") for port in (80, 81))
    assert "table ip argosy-x/ports {" in network_leads.change("argosy-x/ports", None, frozenset({one}))
    assert network_leads.change("argosy-x/ports", frozenset({one}), frozenset({two})).splitlines() == [
        "delete element ip argosy-x/ports published { tcp . 80 : 169.254.64.1 . 80 }",
        "add element ip argosy-x/ports published { tcp . 81 : 169.254.64.1 . 81 }",
    ]
    assert "delete table" in network_leads.change("argosy-x/ports", frozenset({one}), None)
