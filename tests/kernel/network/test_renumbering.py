"""A host that gets another address while its containers run: they stay, and so do their addresses."""

import pytest
from ingress_world import CLIENT, Published, ask
from mesh_world import WEB, Secret
from network_world import Host, World, wait_until
from test_audit import two_ends
from test_host_links import reported
from test_reach import converse

from argosy.agent.network.desired import AuditTiming

NEW = "192.0.2.99"
QUICK = AuditTiming(period=3600, silent=0.1, away=0.2)
PATIENT = AuditTiming(period=3600, silent=0.1, away=3600)
"""Whatever is away is back in time, however slow the test's machine is."""
FOLLOWING = pytest.mark.parametrize(
    "found", [{"advertise": "eth0"}, {"towards": "192.0.2.254:7070"}], ids=["interface", "way to the controller"]
)


def renumber(host: Host, address: str = NEW) -> None:
    """Take a host's address away and give it another; its peers are told of that by `World.state_for` from now on."""
    host.sh(f"ip addr flush dev eth0; ip addr add {address}/24 dev eth0; ip route replace default via 192.0.2.254")
    host.address = address


def vtep_indexes(host: Host) -> str:
    """Return what differs between two lives of a VTEP."""
    return host.in_network(WEB, "cat /sys/class/net/vtep/ifindex; ip -d link show vtep | grep -o 'local [0-9.]*'")


@FOLLOWING
def test_a_network_follows_the_hosts_address(found: dict[str, object], wire: World) -> None:
    one, other = two_ends(wire, QUICK, **found)
    report = reported(one)
    renumber(one.host)
    wait_until(lambda: report().underlay_address == NEW)
    other.host.apply()
    assert converse(one, other, "10.64.0.161") == "10.64.0.33"
    assert converse(other, one, "10.64.0.33") == "10.64.0.161"
    assert f"local {NEW}" in vtep_indexes(one.host)
    assert (report().underlay_problem, report().problems, one.host.plane.drift) == ("", {}, {})
    assert one.host.do(one.host.plane.verify()) == []


@FOLLOWING
def test_an_encrypted_network_follows_the_hosts_addresses(found: dict[str, object], wire: World) -> None:
    """Of both ends, one after the other: what either knows of the other is then another address than at first."""
    secret = Secret(wire, audit=QUICK, **found)
    secret.exchange()
    one, other = secret.start(1), secret.start(2)
    secret.up()
    for container, address in ((other, "192.0.2.99"), (one, "192.0.2.98")):
        report = reported(container)
        renumber(container.host, address)
        wait_until(lambda report=report, address=address: report().underlay_address == address)
        secret.apply()
        assert converse(one, other, "10.64.0.65") == "10.64.0.33"
        assert converse(other, one, "10.64.0.33") == "10.64.0.65"
        secret.up()
    for host in secret.hosts:
        assert host.do(host.plane.verify()) == []


def test_published_ports_follow_the_hosts_address(wire: World) -> None:
    hosts = [wire.add_host(dns=False, audit=QUICK, advertise="eth0") for _ in range(2)]
    published = Published(wire)
    task = published.add(hosts[1], "taskbbbbbbbb1", "10.64.0.65")
    published.publish("ingress", "tcp")
    report = reported(task)
    renumber(hosts[1])
    wait_until(lambda: report().underlay_address == NEW)
    published.apply()
    for entry in hosts:
        assert ask(wire.outside, task, entry.address, 8080) == CLIENT


def test_an_address_that_was_given_is_waited_for(wire: World) -> None:
    one, other = two_ends(wire, QUICK, advertise="192.0.2.1")
    report, before = reported(one), vtep_indexes(one.host)
    renumber(one.host)
    wait_until(lambda: report().underlay_problem)
    assert report().underlay_problem.startswith(
        "the host has lost its address 192.0.2.1, by which the others reach it: --advertise 192.0.2.1: neither"
    )
    assert set(report().problems.values()) == {report().underlay_problem}, "tasks say it, too"
    assert report().underlay_address == "192.0.2.1"
    renumber(one.host, "192.0.2.1")
    wait_until(lambda: not report().underlay_problem)
    assert (report().problems, vtep_indexes(one.host)) == ({}, before)
    assert converse(other, one, "10.64.0.33") == "10.64.0.161"


def test_an_address_that_is_away_for_a_moment_changes_nothing(wire: World) -> None:
    """Also where the host has another one meanwhile, by which the way to the controller leads."""
    one, other = two_ends(wire, PATIENT, advertise="eth0")
    report, before = reported(one), vtep_indexes(one.host)
    one.host.sh("ip addr add 192.0.2.77/24 dev eth0")
    wait_until(lambda: "192.0.2.77" in report().addresses)
    one.host.sh("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1; ip addr del 192.0.2.1/24 dev eth0")
    wait_until(lambda: report().addresses == ("192.0.2.77",))
    assert (report().underlay_address, report().underlay_problem) == ("192.0.2.1", "")
    one.host.sh("ip addr add 192.0.2.1/24 dev eth0")
    wait_until(lambda: len(report().addresses) == 2)
    assert (report().underlay_address, vtep_indexes(one.host)) == ("192.0.2.1", before)
    assert converse(one, other, "10.64.0.161") == "10.64.0.33"


def test_an_address_that_the_host_has_is_kept_whatever_else_it_gets(wire: World) -> None:
    one, _ = two_ends(wire, QUICK, advertise="eth0")
    report, before = reported(one), vtep_indexes(one.host)
    one.host.sh(f"ip addr flush dev eth0; ip addr add {NEW}/24 dev eth0; ip addr add 192.0.2.1/24 dev eth0")
    wait_until(lambda: len(report().addresses) == 2)
    assert (report().underlay_address, vtep_indexes(one.host)) == ("192.0.2.1", before)


def test_another_life_follows_an_address_that_changed_meanwhile(wire: World) -> None:
    one, other = two_ends(wire, QUICK)
    host = one.host
    host.do(host.plane.close())
    renumber(host)
    host.plane = host._new_plane()
    host.do(host.plane.start())
    host.apply()
    other.host.apply()
    assert converse(one, other, "10.64.0.161") == "10.64.0.33"
    assert f"local {NEW}" in vtep_indexes(host)
