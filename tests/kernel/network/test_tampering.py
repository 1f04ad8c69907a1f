"""What a container that may change its own network (NET_ADMIN) can do to others: nothing."""

from dataclasses import replace

import pytest
from network_world import Container, Host, World
from test_reach import OTHER, WEB, converse

from argosy.agent.network import container
from argosy.agent.network.audit import Scope
from argosy.agent.network.desired import DriftKind

ASIDE = (
    "set -e; ip link set eth0 down; ip link set eth0 name aside; ip link add eth0 type veth peer name {};"
    "ip link del aside"
)
IN_THE_WAY = {
    "a device of its name": ASIDE.format("eth1"),
    "a device of its index": "set -e; index=$(ip -o link show eth0 | cut -d: -f1); ip link del eth0;"
    "ip link add eth1 index $index type veth peer name eth2",
    "a device of a name that is no text": ASIDE.format("\"$(printf '\\377')\""),
}


@pytest.fixture
def tampering(wire: World, pair: tuple[Host, Host]) -> Container:
    for number, network in enumerate((WEB, OTHER)):
        wire.add_network(network, f"10.{64 + number}.0.0/16", {"h1": (1,), "h2": (2,)})
    pair[1].apply()
    return pair[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"), admin=True)


@pytest.mark.parametrize("obstacle", IN_THE_WAY)
def test_one_in_the_way_of_its_own_link_harms_nobody_else(
    obstacle: str, wire: World, pair: tuple[Host, Host], tampering: Container
) -> None:
    host = pair[0]
    one = host.start_container("taskbbbbbbbb1", (WEB, "10.64.0.34"))
    other = host.start_container("taskcccccccc1", (OTHER, "10.65.0.34"))
    far = pair[1].start_container("taskdddddddd1", (WEB, "10.64.0.65"), (OTHER, "10.65.0.65"))
    tampering.sh(IN_THE_WAY[obstacle])
    host.in_network(WEB, "ip link del vetaskbbbbbbbb1; nft flush ruleset")
    host.in_network(OTHER, "ip route flush 10.65.0.64/27")
    host.do(host.plane.repair())
    assert converse(far, one, "10.64.0.34") == "10.64.0.65"
    assert converse(other, far, "10.65.0.65") == "10.65.0.34"
    host.start_container("taskeeeeeeee1", (WEB, "10.64.0.35"))
    assert "table ip argosy-balance" in host.in_network(WEB, "nft list tables")


def test_one_that_is_in_the_way_no_more_has_its_link_again(pair: tuple[Host, Host], tampering: Container) -> None:
    host = pair[0]
    far = pair[1].start_container("taskdddddddd1", (WEB, "10.64.0.65"))
    tampering.sh(IN_THE_WAY["a device of its name"])
    for _ in range(2):
        audited = host.do(host.plane.audit())
        assert list(audited.found) == host.do(host.plane.verify())
        (found,) = audited.found
        assert (found.network_id, found.kind) == (WEB, DriftKind.MISSING)
        assert found.what == audited.problem
        assert found.what.startswith("link vetaskaaaaaaaa1, which cannot be made: make link vetaskaaaaaaaa1")
        assert "vetaskaaaaaaaa1" not in host.in_network(WEB, "ip link")
    tampering.sh("ip link del eth0")
    host.do(host.plane.repair())
    assert host.do(host.plane.verify()) == []
    assert converse(far, tampering, "10.64.0.33") == "10.64.0.65"


def test_one_whose_link_fails_when_it_is_made_has_no_half_of_it(
    pair: tuple[Host, Host], tampering: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it tried again because of what the kernel tells of the try: that would have no end."""

    def refuse(*_: object) -> None:
        raise OSError("not this way")

    host = pair[0]
    tampering.sh("ip link del eth0")
    with monkeypatch.context() as patched:
        patched.setattr(container, "_await_carrier", refuse)
        host.do(host.plane.repair())
        assert "vetaskaaaaaaaa1" not in host.in_network(WEB, "ip link")
    assert host.do(host.plane.repair(Scope(frozenset({WEB}), frozenset()))) == []
    assert "vetaskaaaaaaaa1" not in host.in_network(WEB, "ip link")
    host.do(host.plane.repair())
    assert host.do(host.plane.verify()) == []


def test_a_change_of_its_network_is_brought_about_beside_one_in_the_way(
    wire: World, pair: tuple[Host, Host], tampering: Container
) -> None:
    host = pair[0]
    tampering.sh(IN_THE_WAY["a device of its name"])
    host.do(host.plane.repair())
    network, slices = wire.networks[WEB]
    wire.networks[WEB] = (replace(network, internal=True), slices)
    host.apply()
    assert "uplink" not in host.in_network(WEB, "ip link")


def test_one_that_ended_in_the_way_is_forgotten(pair: tuple[Host, Host], tampering: Container) -> None:
    host = pair[0]
    tampering.sh(IN_THE_WAY["a device of its name"])
    host.do(host.plane.repair())
    host.stop_container("taskaaaaaaaa1")
    assert host.do(host.plane.verify()) == []
    host.apply()
    assert host.apply() == 0
