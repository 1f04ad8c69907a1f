"""What the mesh holds, which tunnel leads to a peer, what to set of a device: tables over the pure planner."""

import asyncio
import socket
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_mesh import (
    BEING_MADE,
    MOST_MISSED,
    NO_KEY,
    PATIENCE_S,
    SESSION_S,
    DeviceChange,
    DeviceState,
    PeerState,
    TunnelPeer,
    change,
    choose,
    epochs_of,
    in_place,
    others,
    peers_of,
    plan_mesh,
    problem_of,
    sentence,
    told,
)
from argosy.agent.logic.network_plan import Site, link_mtu
from argosy.agent.logic.network_state import Route, state_of
from argosy.agent.network.desired import MeshReport, NetworkState
from argosy.agent.network.mesh import Way
from argosy.agent.network.tunnels import Looked, TunnelWatch, echo_request, is_reply
from argosy.agent.network.wireguard_go import _state
from argosy.core.assignment import (
    EndpointAssignment,
    MeshAssignment,
    MeshPeerAssignment,
    NetworkAssignment,
    PeerAssignment,
)
from argosy.core.mesh import MeshKey, Tunnel

NOW = 10_000.0
A, B = b"a" * 32, b"b" * 32
ADDRESS = int(IPv4Address("192.0.2.2"))
OURS = int(IPv4Address("192.0.2.1"))


def peer(*keys: MeshKey, address: str = "192.0.2.2") -> MeshPeerAssignment:
    return MeshPeerAssignment("n2", "node2", address, keys)


OLD, NEW = MeshKey(1, A, 51821), MeshKey(2, B, 51820)


@pytest.mark.parametrize(
    ("of_one", "of_other", "taken"),
    [((), (OLD,), (OLD,)), ((OLD,), (OLD, NEW), (OLD, NEW)), ((OLD, NEW), (NEW,), (OLD, NEW)), ((OLD,), (), (OLD,))],
    ids=["first key", "next key", "older key gone", "no key any more"],
)
def test_of_networks_that_tell_of_the_same_node_who_knows_its_latest_key_is_heard(of_one, of_other, taken) -> None:
    told = [
        replace(peer(*keys), node_id=node_id, network_id=network)
        for network, keys in (("b", of_other), ("a", of_one))
        for node_id in ("n3", "n2", "n1")
    ]
    assert [(p.node_id, p.keys) for p in others(told, "n1")] == [("n2", taken), ("n3", taken)]


def test_a_node_that_is_down_leaves_its_address_to_the_one_that_has_it_now() -> None:
    """A lease that ran out: each write of the one's way would take the other's."""
    down, live = replace(peer(OLD), node_id="n3", down=True), peer(NEW)
    assert in_place([down, live]) == [replace(down, underlay_address=""), live]
    for alone in ([down], [live], [down, replace(live, underlay_address="192.0.2.3")]):
        assert in_place(alone) == alone


def device(key: bytes, handshake_at: float) -> DeviceState:
    return DeviceState(peers={key: PeerState(key, ADDRESS, 51820, ((ADDRESS, 32),), handshake_at)})


@pytest.mark.parametrize(
    ("keys", "devices", "present", "epoch"),
    [
        ((), {1: device(A, NOW)}, 1, 0),
        ((OLD,), {1: device(A, 0)}, 0, 1),
        ((OLD, NEW), {1: device(A, NOW), 2: device(B, 0)}, 1, 1),
        ((OLD, NEW), {1: device(A, NOW), 2: device(B, NOW)}, 1, 2),
        ((OLD, NEW), {1: device(A, NOW - SESSION_S), 2: device(B, NOW - SESSION_S)}, 1, 1),
        ((OLD, NEW), {2: device(B, 0)}, 1, 2),
        ((OLD,), {2: device(B, NOW)}, 1, 0),
    ],
    ids=[
        "no key",
        "first",
        "the new one is untried",
        "it works",
        "none works",
        "the old one is over",
        "none in common",
    ],
)
def test_a_peer_is_reached_by_the_newest_tunnel_that_works(
    keys: tuple[MeshKey, ...], devices: dict[int, DeviceState], present: int, epoch: int
) -> None:
    assert choose(peer(*keys), devices, present, NOW) == epoch


def test_the_mesh_has_no_way_but_tunnels() -> None:
    entries = plan_mesh(OURS, 1500, True, {1: "awn0", 2: "awn1"}, {ADDRESS: 2})
    links = {e.name: e.mtu for e in entries if hasattr(e, "learning")}
    assert links == {"lo": 0, "awn0": 1420, "awn1": 1420}
    assert [e for e in entries if isinstance(e, Route)] == [Route(ADDRESS, 32, device="awn1")]
    assert len(state_of(entries)) == len(entries)
    assert plan_mesh(OURS, 1500, True, {}, {ADDRESS: 2})[-1:] != [Route(ADDRESS, 32, device="awn1")]


@pytest.mark.parametrize(("encrypted", "mtu", "links"), [(False, 0, 1450), (True, 0, 1370), (True, 1300, 1300)])
def test_the_mtu_follows(encrypted: bool, mtu: int, links: int) -> None:
    network = NetworkAssignment("net", "net", 5, "10.64.0.0/16", mtu=mtu, encrypted=encrypted)
    assert link_mtu(Site("n1", OURS, 1500, 14789), network) == links


WANTED = {B: TunnelPeer(B, ADDRESS, 51820)}
SERVING = PeerState(B, ADDRESS, 51820, ((ADDRESS, 32),), NOW)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (DeviceState(A, 51820, {B: SERVING}), DeviceChange()),
        (DeviceState(), DeviceChange(True, tuple(WANTED.values()))),
        (DeviceState(B, 51820, {B: SERVING}), DeviceChange(rekey=True)),
        (DeviceState(A, 1, {B: SERVING}), DeviceChange(rekey=True)),
        (DeviceState(A, 51820, {A: PeerState(A), B: SERVING}), DeviceChange(remove=(A,))),
        (DeviceState(A, 51820, {B: PeerState(B, ADDRESS, 51820, (), NOW)}), DeviceChange(put=tuple(WANTED.values()))),
        (DeviceState(A, 51820, {B: PeerState(B, 7, 7, ((ADDRESS, 32),), NOW)}), DeviceChange()),
        (DeviceState(A, 51820, {B: PeerState(B, 7, 7, ((ADDRESS, 32),), 0)}), DeviceChange(put=tuple(WANTED.values()))),
    ],
    ids=["same", "new", "key", "port", "stranger", "addresses", "heard from elsewhere", "looked for elsewhere in vain"],
)
def test_only_what_differs_is_set(there: DeviceState, expected: DeviceChange) -> None:
    assert change(there, A, 51820, WANTED, NOW) == expected
    assert bool(expected) == (expected != DeviceChange())


def carried_out(there: DeviceState, change: DeviceChange, public_key: bytes, port: int) -> DeviceState:
    """Return what WireGuard makes of a change: an address is allowed to one peer, the last that it was given to."""
    peers = {key: peer for key, peer in (there.peers or {}).items() if key not in change.remove}
    for one in change.put:
        for key, other in peers.items():
            peers[key] = replace(other, allowed=tuple(a for a in other.allowed if a[0] != one.address))
        shaken = peers[one.public_key].handshake_at if one.public_key in peers else 0.0
        peers[one.public_key] = PeerState(one.public_key, one.address, one.port, ((one.address, 32),), shaken)
    own = (public_key, port) if change.rekey else (there.public_key, there.port)
    return DeviceState(*own, peers)


keys = st.sampled_from([bytes([n]) * 32 for n in range(1, 6)])
addresses = st.integers(ADDRESS, ADDRESS + 4)
wanted_peers = st.lists(
    st.builds(TunnelPeer, keys, addresses, st.integers(51820, 51821)),
    max_size=5,
    unique_by=(lambda p: p.public_key, lambda p: p.address),
).map(lambda peers: {p.public_key: p for p in peers})


@given(st.lists(st.tuples(wanted_peers, st.sampled_from([A, B]), st.sets(keys)), min_size=1, max_size=5))
def test_changes_lead_where_the_whole_would(
    steps: list[tuple[dict[bytes, TunnelPeer], bytes, set[bytes]]],
) -> None:
    """Some peers shake hands in between, then from wherever they are: those are left so, where it works."""
    there = DeviceState()
    for wanted, own, shaking in steps:
        there = carried_out(there, change(there, own, 51820, wanted, NOW), own, 51820)
        whole = carried_out(DeviceState(), change(DeviceState(), own, 51820, wanted, NOW), own, 51820)
        found, expected = dict(there.peers or {}), dict(whole.peers or {})
        assert {k: p.allowed for k, p in found.items()} == {k: p.allowed for k, p in expected.items()}
        assert (there.public_key, there.port) == (own, 51820)
        for key, one in found.items():
            assert one.handshake_at or (one.address, one.port) == (expected[key].address, expected[key].port)
        assert not change(there, own, 51820, wanted, NOW)
        for key in shaking & found.keys():
            found[key] = replace(found[key], handshake_at=NOW, address=7)
        there = replace(there, peers=found)


def test_one_end_begins() -> None:
    (ours,) = peers_of(2, OURS, [peer(OLD, NEW)]).values()
    (theirs,) = peers_of(2, ADDRESS, [peer(MeshKey(2, A, 1), address="192.0.2.1")]).values()
    assert (ours.begins, theirs.begins) == (True, False)
    assert (ours.keepalive_s, theirs.keepalive_s) == (10, 0)
    assert peers_of(3, OURS, [peer(OLD, NEW)]) == {}
    assert peers_of(2, OURS, [peer(NEW, address="")]) == {}


def test_epochs_take_turns_at_names_and_ports() -> None:
    assert epochs_of(None) == epochs_of(MeshAssignment()) == ()
    assert epochs_of(MeshAssignment(2, 1)) == (1, 2)
    assert epochs_of(MeshAssignment(2)) == (2,)
    device_names = [names.tunnel_device("abcdefghijklm", e) for e in (1, 2, 3)]
    assert device_names[0] == device_names[2] != device_names[1]
    assert all(len(n) <= 15 for n in device_names)


@pytest.mark.parametrize(
    ("keys", "epoch", "handshake_at", "missed", "word"),
    [
        ((), 0, 0.0, 0, "told no key yet"),
        ((OLD,), 2, 0.0, 0, "no key of the present epoch"),
        ((NEW,), 2, 0.0, 0, "UDP port 51820"),
        ((NEW,), 2, NOW - SESSION_S - 1, 0, "answers no handshake any more"),
        ((NEW,), 2, NOW, MOST_MISSED, "does not answer through the tunnel"),
        ((NEW,), 2, NOW, MOST_MISSED - 1, ""),
    ],
)
def test_it_is_said_what_is_wrong(
    keys: tuple[MeshKey, ...], epoch: int, handshake_at: float, missed: int, word: str
) -> None:
    problem = problem_of(peer(*keys), epoch, handshake_at, missed, NOW)
    assert word in problem
    assert bool(word) == bool(problem)


def test_a_new_tunnel_is_being_made_for_a_while() -> None:
    first = Tunnel("b", 1, told("why", None, NOW), NOW)
    assert first.problem == BEING_MADE
    assert told("why", first, NOW + PATIENCE_S - 0.1) == BEING_MADE
    assert told("why", first, NOW + PATIENCE_S) == "why"
    assert told("", first, NOW + 1) == ""
    assert told("why", Tunnel("b", 1, "", NOW), NOW + 1) == "why"  # it has worked
    assert told("", None, NOW) == ""


def test_a_tunnel_to_a_node_that_has_keys_again_is_new() -> None:
    """It ran nothing on any encrypted network for a while, and held addresses of one."""
    without = Tunnel("b", 0, NO_KEY, NOW)
    assert told(NO_KEY, without, NOW + 1) == NO_KEY
    assert told("why", without, NOW + 100) == BEING_MADE
    assert told("", without, NOW + 100) == ""


def test_a_network_names_the_first_and_counts_the_others() -> None:
    assert sentence("n", []) == ""
    assert sentence("n", [("a", "why")]) == "network n is encrypted, and there is no tunnel to a: why"
    assert sentence("n", [("a", "why"), ("b", "x")]).endswith("to a: why; nor to 1 other")
    assert sentence("n", [("a", "why"), ("b", "x"), ("c", "x")]).endswith("nor to 2 others")


@pytest.mark.parametrize(("at", "says"), [(None, False), ("10.64.0.33", True), ("10.64.0.65", False)])
async def test_nothing_is_missed_of_a_node_that_holds_addresses_and_runs_nothing(at: str | None, says: bool) -> None:
    """It has told no key, and needs none: nobody on it can be reached."""
    endpoints = [EndpointAssignment("net", "t1", "s1", 1, int(IPv4Address(at)))] if at else []
    desired = NetworkState(
        {"net": NetworkAssignment("net", "vault", 100, "10.64.0.0/16", encrypted=True)},
        peers=[PeerAssignment("net", "n2", "192.0.2.2", (1,)), PeerAssignment("net", "n3", "192.0.2.3", (2,))],
        endpoints=endpoints,
        mesh=MeshAssignment(2),
        mesh_peers=[peer()],
    )
    reports: asyncio.Queue[MeshReport] = asyncio.Queue()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)

    async def look() -> Looked:
        return Looked([Way(peer(), 0, 0.0, True)], "", ())

    async def open_echo() -> socket.socket:
        return ours

    watch = TunnelWatch(look, open_echo, reports.put_nowait)
    watch.want(desired)
    with theirs:
        running = asyncio.create_task(watch.run())
        report = await asyncio.wait_for(reports.get(), 10)
        running.cancel()
    assert [t.problem for t in report.tunnels] == [BEING_MADE]
    said = "network vault is encrypted, and there is no tunnel to node2: it is being made"
    assert report.problems == ({"net": said} if says else {})


def test_echoes() -> None:
    request = echo_request(0x1234, 7)
    assert sum(int.from_bytes(request[i : i + 2], "big") for i in range(0, 8, 2)) % 0xFFFF == 0
    header = b"\x45" + bytes(19)
    assert is_reply(header + b"\0" + request[1:], 0x1234)
    assert not is_reply(header + request, 0x1234)
    assert not is_reply(header + b"\0" + request[1:], 0x1235)
    assert not is_reply(b"\x45", 0x1234)


def test_what_wireguard_go_says_is_read() -> None:
    lines = [("listen_port", "51820"), ("public_key", B.hex()), ("endpoint", "192.0.2.2:51820")]
    lines += [
        ("last_handshake_time_sec", "9"),
        ("last_handshake_time_nsec", "500000000"),
        ("allowed_ip", "192.0.2.2/32"),
    ]
    lines += [("public_key", A.hex()), ("errno", "0")]
    assert _state(lines) == DeviceState(
        b"", 51820, {B: PeerState(B, ADDRESS, 51820, ((ADDRESS, 32),), 9.5), A: PeerState(A)}
    )
    assert _state([("errno", "0")]) == DeviceState(b"", 0, {})
