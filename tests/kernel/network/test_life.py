"""A plane's lives: restarts change nothing, what is broken is found and put right, what is over leaves nothing."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from failing import fail_once
from network_world import Container, Host, Namespace, World, wait_until
from test_reach import OTHER, WEB, converse

from argosy.agent.network import carried, mesh, nft
from argosy.agent.network import namespace as namespaces
from argosy.agent.network.admission import Admission
from argosy.agent.network.attachments import Attachments
from argosy.agent.network.audit import Scope
from argosy.agent.network.container import ContainerGone
from argosy.agent.network.desired import DriftKind, LocalTask, NetworkState
from argosy.agent.network.namespace import Home
from argosy.agent.network.overlay import Overlay
from argosy.agent.network.problems import Problems
from argosy.agent.network.tables import Tables
from argosy.core.assignment import MeshAssignment, NetworkAssignment, PeerAssignment
from argosy.core.errors import PreconditionError, TransientError
from argosy.core.network import Attachment
from tests.pace import machine_slowness


@pytest.fixture
def ends(wire: World, pair: tuple[Host, Host]):
    """A container on each of two hosts, on one network."""
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2, 5)})
    one = pair[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    pair[1].apply()
    return one, pair[1].start_container("taskbbbbbbbb1", (WEB, "10.64.0.161"))


LINKS = r"ip -o link | sed -E 's/NO-CARRIER,|,LOWER_UP|state [A-Z]+//g'"
"""Lists the devices, without whether they carry already: that takes the kernel a while and is nobody's setting."""
NEIGHBOURS = "ip neigh show nud permanent"


def snapshot(host: Host) -> str:
    """Return everything of a host that a plane could change."""
    commands = f"{LINKS}; ip -4 -o addr; ip route; {NEIGHBOURS}; bridge fdb; nft -s list ruleset"
    settings = "grep . /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/rp_filter"
    mounts = host.in_mounts(lambda: Path("/proc/thread-self/mountinfo").read_text())
    return host.sh(commands) + host.sh(settings) + mounts


def test_a_new_life_changes_nothing(ends) -> None:
    host = ends[0].host
    before = snapshot(host), host.in_network(WEB, f"{LINKS}; ip route; {NEIGHBOURS}; bridge fdb; nft -s list ruleset")
    plane = host.new_life()
    assert host.do(plane.apply(host.state)) == 0
    assert host.do(plane.verify()) == []
    assert host.do(plane.apply(host.state, synced=True)) == 0
    after = snapshot(host), host.in_network(WEB, f"{LINKS}; ip route; {NEIGHBOURS}; bridge fdb; nft -s list ruleset")
    assert after == before
    # An adopted container may be attached again, and its traffic never notices.
    result = host.do(plane.attach(ends[0].id, ends[0].pid, ends[0].attachments))
    assert [(i.name, i.address, i.mtu) for i in result.interfaces] == [("eth0", "10.64.0.33", 1450)]
    assert host.do(plane.verify()) == []
    assert converse(ends[1], ends[0], "10.64.0.33") == "10.64.0.161"


def test_nothing_is_removed_on_an_unsynced_view(wire: World, ends) -> None:
    """A life that has seen less than the one before removes nothing, until it knows that this is all."""
    host, container = ends[0].host, ends[0]
    plane = host.new_life()
    assert host.do(plane.verify()) == [], "what is left alone is no difference"
    less = NetworkState(networks=host.state.networks)
    host.do(plane.apply(less))
    assert host.do(plane.verify()) == []
    assert converse(container, ends[1], "10.64.0.161") == "10.64.0.33"
    host.do(plane.apply(NetworkState()))
    assert host.do(plane.verify()) == []
    assert converse(container, ends[1], "10.64.0.161") == "10.64.0.33"
    assert host.do(plane.apply(NetworkState(), synced=True)) > 0
    assert "au" + WEB not in host.sh("ip link")
    assert not list((host.run_dir / "netns").iterdir())
    assert container.sh("ip -br link").split()[0] == "lo"
    assert "eth0" not in container.sh("ip -br link")


def test_entries_of_a_peer_that_is_gone_are_removed(wire: World, ends) -> None:
    host = ends[0].host
    network, _ = wire.networks[WEB]
    wire.networks[WEB] = (network, {"h1": (1,)})
    host.apply()
    assert "vtep" not in host.in_network(WEB, "ip route; ip neigh")
    assert "dst" not in host.in_network(WEB, "bridge fdb show dev vtep")
    assert host.do(host.plane.verify()) == []


def test_a_slice_that_changes_hands_is_never_without_a_route(wire: World, ends) -> None:
    """Slice 5 of host 2 goes to host 3, and host 2 has another first one: replaced in place, old entries gone."""
    host = ends[0].host
    third = wire.add_host(dns=False)
    network, _ = wire.networks[WEB]
    wire.networks[WEB] = (network, {"h1": (1,), "h2": (9,), "h3": (5, 2)})
    host.apply()
    third.apply()
    moved = third.start_container("taskcccccccc1", (WEB, "10.64.0.162"))
    assert converse(ends[0], moved, "10.64.0.162") == "10.64.0.33"
    routes = host.in_network(WEB, "ip route show dev vtep")
    assert "10.64.0.160/27 via 10.64.0.64" in routes
    assert "10.64.1.32/27 via 10.64.1.32" in routes
    assert host.do(host.plane.verify()) == []


def test_detaching_leaves_nothing_and_may_be_repeated(wire: World, ends) -> None:
    host = ends[0].host
    listing = f"{LINKS}; ip route; {NEIGHBOURS}"
    before = host.in_network(WEB, listing)
    names = [f"taskzzzzzzzz{n}" for n in range(8)]
    for n, name in enumerate(names):
        host.start_container(name, (WEB, f"10.64.0.{40 + n}"))

    async def detach_all() -> None:
        await asyncio.gather(*(host.plane.detach(name) for name in names))

    host.do(detach_all())
    assert host.in_network(WEB, listing) == before
    host.do(detach_all())
    host.do(host.plane.detach("neverheardof1"))
    for name in names:
        host.containers.pop(name).end()
    host.apply()
    assert host.do(host.plane.verify()) == []


def test_a_container_that_died_is_forgotten_by_detaching(ends) -> None:
    host = ends[0].host
    host.containers[ends[0].id].process.kill()
    host.stop_container(ends[0].id)
    host.apply()
    wait_until(lambda: "ve" not in host.in_network(WEB, "ip -br link show type veth").replace("uplink", ""))
    assert host.do(host.plane.verify()) == []


@pytest.mark.parametrize("life", ["a new life", "the same life"])
def test_a_container_that_ended_unnoticed_keeps_nothing_from_being_as_wanted(life: str, ends) -> None:
    """Its link went with it, and cannot be made without it: others are attached all the same, and itself anew."""
    host, ended = ends[0].host, ends[0]
    wanted, plane = host.state, host.new_life() if life == "a new life" else host.plane
    host.containers.pop(ended.id).end()
    wait_until(lambda: "ve" + ended.id not in host.in_network(WEB, "ip -br link"))
    if life == "the same life":
        host.do(plane.verify())  # from here on the plane knows that the link is missing

    def applied() -> bool:
        try:
            host.do(plane.apply(wanted))
        except TransientError:
            return False
        return True

    wait_until(applied)
    other = host.start_container("taskcccccccc1", (WEB, "10.64.0.34"))
    assert converse(ends[1], other, "10.64.0.34") == "10.64.0.161"
    again = host.start_container(ended.id, (WEB, "10.64.0.33"))
    assert converse(ends[1], again, "10.64.0.33") == "10.64.0.161"
    assert host.do(plane.verify()) == []


def test_attaching_to_what_is_not_there_is_refused(wire: World, ends) -> None:
    host = ends[0].host
    with pytest.raises(PreconditionError, match="not assigned"):
        host.do(host.plane.attach("taskeeeeeeee1", ends[0].pid, [Attachment("nosuchnet0001", 1)]))
    with pytest.raises(ContainerGone, match="is gone"):
        host.do(host.plane.attach("taskeeeeeeee1", 2**22 - 1, [Attachment(WEB, 0x0A400030)]))
    shared = host.namespace.run(lambda: subprocess.Popen(["sleep", "100"]))
    try:
        with pytest.raises(PreconditionError, match="shares the host's"):
            host.do(host.plane.attach("taskeeeeeeee1", shared.pid, [Attachment(WEB, 0x0A400030)]))
    finally:
        shared.kill()
        shared.wait()
    wire.add_network(OTHER, "10.64.0.0/20", {"h1": (1,), "h2": (2,)})
    host.apply()
    both = [Attachment(WEB, 0x0A400030), Attachment(OTHER, 0x0A400030)]
    with pytest.raises(PreconditionError, match="overlap"):
        host.do(host.plane.attach("taskeeeeeeee1", ends[0].pid, both))
    assert host.do(host.plane.verify()) == []


def test_an_attempt_that_was_cut_short_is_completed(ends) -> None:
    """A pair that was made, and not configured, by a life that ended right then."""
    host, container = ends[0].host, ends[0]
    container.sh("ip addr flush dev eth0; ip link set eth0 down; ip link set lo down")
    plane = host.new_life()
    host.do(plane.apply(host.state))
    host.do(plane.attach(container.id, container.pid, container.attachments))
    assert converse(ends[1], container, "10.64.0.33") == "10.64.0.161"
    assert "LOOPBACK,UP" in container.sh("ip link show lo")


def renaming(device: str) -> str:
    """Return the command that gives a device another name; before Linux 6.2 none that is up takes one.

    There it may be up again before it has the name, as somebody repairs that; then it is taken down once more. It gets
    the name and is up in one step: it may be gone a moment later.
    """
    down_first = f"for attempt in $(seq 50); do ip link set {device} down && ip link set {device} name lost up && exit"
    return f"{{ ip link set {device} name lost || {{ {down_first}; done; exit 1; }}; }} 2>/dev/null"


def swapping(one: str, other: str) -> str:
    """Return the command that gives two devices each other's name, at once: begun anew where somebody was faster.

    What was begun is repaired then; 10 s are left for that.
    """
    renamed = (f"{one} name lost", f"{other} name {one}", f"lost name {other}")
    steps = "".join(f"link set {step}\\n" for step in (f"{one} down", f"{other} down", *renamed))
    return f"for attempt in $(seq 100); do printf '{steps}' | ip -batch - 2>/dev/null && exit; sleep 0.1; done; exit 1"


GRO_ON = 'from argosy.agent.network.gro import write_gro; write_gro("vtep", "on")'
BREAKAGES = {
    "route removed": ("net", "ip route del 10.64.0.160/27"),
    "unreachable removed": ("net", "ip route del unreachable 10.64.0.0/16"),
    "route changed": ("net", "ip route replace unreachable 10.64.0.160/27"),
    "neighbour removed": ("net", "ip neigh del 10.64.0.64 dev vtep"),
    "neighbour changed": ("net", "ip neigh replace 10.64.0.64 lladdr 02:00:00:00:00:01 dev vtep nud permanent"),
    "fdb flushed": ("net", "bridge fdb show dev vtep | cut -d' ' -f1 | xargs -I@ bridge fdb del @ dev vtep"),
    "VTEP deleted": ("net", "ip link del vtep"),
    "VTEP flapped": ("net", "ip link set vtep down; ip link set vtep up"),
    "VTEP down": ("net", "ip link set vtep down"),
    "VTEP MTU": ("net", "ip link set vtep mtu 1000"),
    "VTEP MAC": ("net", "ip link set vtep address 02:00:00:00:00:77"),
    "uplink deleted": ("net", "ip link del uplink"),
    "router's address removed": ("net", "ip addr del 169.254.1.1/32 dev lo"),
    "container's link deleted": ("net", "ip link del vetaskaaaaaaaa1"),
    "container's link down": ("net", "ip link set vetaskaaaaaaaa1 down"),
    "container's route removed": ("net", "ip route del 10.64.0.33"),
    "source check off": ("net", "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter"),
    "device's source check off": ("net", "echo 0 > /proc/sys/net/ipv4/conf/vtep/rp_filter"),
    "packets put together twice": ("net", f"{sys.executable} -c '{GRO_ON}'"),
    "forwarding off": ("net", "echo 0 > /proc/sys/net/ipv4/ip_forward"),
    "network's table flushed": ("net", "nft flush ruleset"),
    "host's uplink deleted": ("host", f"ip link del au{WEB}"),
    "host's uplink address": ("host", f"ip addr flush dev au{WEB}"),
    "host's tables flushed": ("host", "nft flush ruleset"),
    "host's rule deleted": ("host", "nft flush chain ip $(nft list tables | cut -d' ' -f3 | grep -v /) untrusted"),
    "anyone's tunnels let in": ("host", "nft flush chain ip $(nft list tables | cut -d' ' -f3 | grep /peers) admit"),
    "a peer's tunnel kept out": (
        "host",
        "nft delete element ip $(nft list tables | cut -d' ' -f3 | grep /peers) peers { 192.0.2.2 }",
    ),
    "a stranger's tunnel let in": (
        "host",
        "nft add element ip $(nft list tables | cut -d' ' -f3 | grep /peers) peers { 192.0.2.254 }",
    ),
    "host's forwarding off": ("host", "echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding"),
    "address in the container": ("container", "ip addr flush dev eth0"),
    "default route in the container": ("container", "ip route del default"),
    "router's neighbour in the container": ("container", "ip neigh del 169.254.1.1 dev eth0"),
    "MTU in the container": ("container", "ip link set eth0 mtu 1000"),
    "link down in the container": ("container", "ip link set eth0 down"),
    "foreign route": ("net", "ip route add 10.64.0.200/32 dev vtep"),
    "VTEP renamed": ("net", renaming("vtep")),
    "uplink renamed": ("net", renaming("uplink")),
    "host's uplink renamed": ("host", renaming(f"au{WEB}")),
    "uplink renamed at both ends": ("net", renaming("uplink"), "host", renaming(f"au{WEB}")),
    "container's link renamed": ("net", renaming("vetaskaaaaaaaa1")),
    "container's link renamed at both ends": ("container", renaming("eth0"), "net", renaming("vetaskaaaaaaaa1")),
    "VTEP and uplink swapped": ("net", swapping("vtep", "uplink")),
}


def break_it(container: Container, breakage: str, known: Mapping[str, tuple[str, ...]] = BREAKAGES) -> None:
    """Break something of a container's host, of its network there, or inside of it; or of several of these."""
    steps = iter(known[breakage])
    for where, command in zip(steps, steps, strict=True):
        if where == "container":
            container.sh(command)
        elif where == "net":
            container.host.in_network(WEB, command)
        else:
            container.host.sh(command)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_is_broken_by_hand_is_found_and_repaired(breakage: str, wire: World, ends) -> None:
    host = ends[0].host
    assert host.do(host.plane.verify()) == []
    break_it(ends[0], breakage)
    drift = host.do(host.plane.repair())
    assert drift
    assert all(d.network_id in ("", WEB) and d.kind in DriftKind and d.what for d in drift)
    assert host.do(host.plane.verify()) == []
    assert host.apply() == 0
    assert converse(ends[1], ends[0], "10.64.0.33") == "10.64.0.161"
    assert converse(ends[0], wire.outside, "192.0.2.254") == "192.0.2.1"


@pytest.mark.parametrize("breakage", [name for name in BREAKAGES if name.endswith(("renamed", "swapped", "both ends"))])
def test_what_is_renamed_while_there_is_no_agent_is_in_nobodys_way(breakage: str, wire: World, ends) -> None:
    """On a view, too, that is not whole yet, on which leftovers stay: else nothing would start on the node."""
    host = ends[0].host
    host.do(host.plane.close())
    break_it(ends[0], breakage)
    host.plane = host._new_plane()
    host.do(host.plane.start())
    host.apply()
    host.do(host.plane.attach(ends[0].id, ends[0].pid, ends[0].attachments))
    assert host.do(host.plane.verify()) == []
    assert "lost" not in host.sh("ip link") + host.in_network(WEB, "ip link")
    assert converse(ends[1], ends[0], "10.64.0.33") == "10.64.0.161"
    assert converse(ends[0], wire.outside, "192.0.2.254") == "192.0.2.1"


def test_what_the_kernel_learned_of_a_path_is_no_route_of_somebody(ends) -> None:
    """Of a path that takes less than the links the kernel keeps an exception, which is listed as a route is."""
    host = ends[0].host
    host.sh("ip link set eth0 mtu 1300")
    with ends[0].open_socket(socket.SOCK_DGRAM) as sending:
        sending.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: never fragment

        def is_learned() -> bool:
            with suppress(OSError):  # too long, as the container has been told by then
                sending.sendto(b"x" * 1400, ("10.64.0.161", 9000))
            return "mtu 1250" in host.in_network(WEB, "ip route show cache")

        wait_until(is_learned)
    assert host.do(host.plane.verify()) == []


def test_a_container_on_several_networks_is_as_it_was_again(wire: World, pair: tuple[Host, Host]) -> None:
    for number, network in enumerate((WEB, OTHER)):
        wire.add_network(network, f"10.{64 + number}.0.0/16", {"h1": (1,), "h2": (2,)})
    both = pair[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"), (OTHER, "10.65.0.33"))
    far = pair[1].start_container("taskbbbbbbbb1", (OTHER, "10.65.0.65"))
    both.sh("ip rule del table 1001; ip route flush table 1001; ip link set lo down")
    found = pair[0].do(pair[0].plane.repair())
    assert {d.kind for d in found} == {DriftKind.MISSING, DriftKind.DIFFERENT}
    assert all("taskaaaaaaaa1" in d.what for d in found)
    assert pair[0].do(pair[0].plane.verify()) == []
    assert converse(far, both, "10.65.0.33") == "10.65.0.65"


def test_a_container_that_may_change_its_network_is_left_to_it(wire: World, pair: tuple[Host, Host]) -> None:
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
    container = pair[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"), admin=True)
    container.sh("ip link set eth0 mtu 1300; ip route replace default via 169.254.1.1 dev eth0 onlink mtu 1200")
    assert pair[0].do(pair[0].plane.repair()) == []
    assert "mtu 1300" in container.sh("ip link show eth0")


def test_what_a_failed_repair_put_right_is_told_by_the_next(wire: World, ends) -> None:
    """Two networks are broken, and in the way of one repair there is a device that somebody made."""
    host = ends[0].host
    other = wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,), "h2": (2,)})
    host.apply()
    host.in_network(OTHER, "ip link del vtep")
    host.sh(f"ip link add strange type vxlan id {other.vni} dstport 14789")
    host.in_network(WEB, "ip route del 10.64.0.160/27")
    with pytest.raises(TransientError):
        host.do(host.plane.repair())
    assert converse(ends[0], ends[1], "10.64.0.161") == "10.64.0.33"
    host.sh("ip link del strange")
    found = host.do(host.plane.repair())
    assert {d.network_id for d in found} == {WEB, OTHER}
    assert len(found) == len(set(found))
    assert host.do(host.plane.repair()) == []


@pytest.mark.parametrize(
    ("where", "damage"),
    [
        ("", "nft flush set ip $(nft list tables | cut -d' ' -f3 | grep /peers) peers"),
        (WEB, "nft flush set ip argosy-balance own"),
    ],
)
def test_tables_that_a_failed_repair_left_as_they_were_are_found_again(
    where: str, damage: str, ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, converge, failures = ends[0].host, Overlay.converge, [TransientError("not now")]

    def fail_or_converge(overlay: Overlay, problems: Problems) -> int:
        if failures:
            raise failures.pop()
        return converge(overlay, problems)

    look = "nft -s list ruleset"
    before = host.in_network(where, look) if where else host.sh(look)
    host.in_network(where, damage) if where else host.sh(damage)
    monkeypatch.setattr(Overlay, "converge", fail_or_converge)
    with pytest.raises(TransientError, match="not now"):
        host.do(host.plane.repair())
    assert len(host.do(host.plane.repair())) == 1
    assert (host.in_network(where, look) if where else host.sh(look)) == before


def test_a_table_of_peers_that_somebody_made_goes_where_none_is_wanted(wire: World) -> None:
    host = wire.add_host(dns=False)
    foreign = f"nft 'add table ip argosy-{host.name}/peers; add chain ip argosy-{host.name}/peers admit'"
    host.sh(foreign)
    host.do(host.new_life().apply(host.state))
    assert "peers" not in host.sh("nft list tables")
    host.sh(foreign)
    assert [d.kind for d in host.do(host.plane.repair())] == [DriftKind.DIFFERENT]
    assert "peers" not in host.sh("nft list tables")
    assert host.do(host.plane.repair()) == []


def test_what_goes_with_a_container_that_ends_is_no_drift(wire: World, pair: tuple[Host, Host]) -> None:
    """It is looked at while the kernel takes links down, settings and routes first: one look in a hundred sees it."""
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
    host = pair[0]
    for number in range(60):
        ending = [host.start_container(f"task{number:08}{n}", (WEB, f"10.64.0.{33 + n}")) for n in range(3)]
        for container in ending:
            container.end()
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            assert host.do(host.plane.verify()) == []
        for container in ending:
            host.stop_container(container.id)


def test_a_namespace_deleted_by_hand_is_pinned_again(ends) -> None:
    host = ends[0].host
    pin = host.run_dir / "netns" / f"{host.name}.{WEB}"
    host.in_mounts(lambda: os.system(f"umount {pin} && rm {pin}"))
    drift = host.do(host.plane.repair())
    assert [d.kind for d in drift] == [DriftKind.MISSING]
    assert host.do(host.new_life().apply(host.state)) == 0
    assert converse(ends[0], ends[1], "10.64.0.161") == "10.64.0.33"


def test_a_namespace_lost_with_its_agent_is_made_anew(ends) -> None:
    """When the run directory was emptied between two lives the network is made again, and nothing is in its way."""
    host = ends[0].host
    pin = host.run_dir / "netns" / f"{host.name}.{WEB}"
    host.in_mounts(lambda: os.system(f"umount {pin} && rm -r {host.run_dir}/netns {host.run_dir}/network"))
    host.containers[ends[0].id].end()
    plane = host.new_life()
    wait_until(lambda: "au" + WEB not in host.sh("ip link"))
    host.do(plane.apply(host.state))
    assert host.do(plane.verify()) == []


STEPS: dict[str, tuple[Any, str]] = {
    "made": (Home, "make"),
    "pinned": (namespaces, "pin"),
    "noted": (Tables, "forget"),
    "opened": (carried, "KernelNamespace"),
    "filtered": (nft, "Netlink"),
}
"""Of making a network's namespace: where each is to be found."""


def descriptors() -> list[str]:
    """Return what this process has open, as far as namespaces and sockets go."""
    found = []
    for entry in os.scandir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(entry.path).partition(":")[0])
    return sorted(kind for kind in found if kind in ("net", "socket"))


def refuse(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "no room for more")


@pytest.mark.parametrize("step", STEPS)
def test_a_network_that_cannot_be_made_holds_up_no_other(
    wire: World, ends, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, (owner, function) = ends[0].host, STEPS[step]
    network, _ = wire.networks[WEB]
    wire.networks[WEB] = (network, {"h1": (1,), "h2": (2, 7)})
    wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,), "h2": (2,)})
    before = descriptors()
    with monkeypatch.context() as broken:
        broken.setattr(owner, function, refuse)
        for _ in range(3):
            with pytest.raises(TransientError, match=f"namespace of network {OTHER}: .*no room for more"):
                host.apply()
        assert descriptors() == before
        assert [p.name for p in (host.run_dir / "netns").iterdir()] == [f"{host.name}.{WEB}"]
        assert "10.64.0.224/27 via" in host.in_network(WEB, "ip route show dev vtep")
        assert [(d.network_id, d.kind) for d in host.do(host.plane.verify())] == [(OTHER, DriftKind.MISSING)]
        host.in_network(WEB, "ip route del 10.64.0.224/27")
        audited = host.do(host.plane.audit())
        assert OTHER in audited.problem
        assert {d.network_id for d in audited.found} == {OTHER}
        assert "10.64.0.224/27 via" in host.in_network(WEB, "ip route show dev vtep")
        assert host.do(host.plane.repair(Scope(frozenset({WEB}), frozenset()))) != []
    host.apply()
    assert host.do(host.plane.verify()) == []
    assert host.do(host.plane.repair()) == []
    one = host.start_container("taskother0001", (OTHER, "10.65.0.33"))
    two = wire.hosts[1].start_container("taskother0002", (OTHER, "10.65.0.65"))
    assert converse(one, two, "10.65.0.65") == "10.65.0.33"


@pytest.mark.parametrize("step", ["pinned", "opened"])
def test_a_mesh_that_cannot_be_made_holds_up_encrypted_networks_alone(
    wire: World, ends, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, pin = ends[0].host, namespaces.pin
    network = wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,), "h2": (2,)})
    wire.networks[OTHER] = (replace(network, encrypted=True), wire.networks[OTHER][1])
    wire.networks[WEB] = (wire.networks[WEB][0], {"h1": (1,), "h2": (2, 7)})
    wanted = replace(wire.state_for(host), mesh=MeshAssignment(1))
    wire.networks[WEB] = (wire.networks[WEB][0], {"h1": (1,), "h2": (2, 9)})
    later = replace(wire.state_for(host), mesh=MeshAssignment(1))

    def pin_others(fd: int, path: Path) -> None:
        refuse() if path.parent.name == "mesh" else pin(fd, path)

    with monkeypatch.context() as broken:
        if step == "pinned":
            broken.setattr(namespaces, "pin", pin_others)
        else:
            broken.setattr(mesh, "KernelNamespace", refuse)
        before: list[str] = []
        for state in (wanted, later):
            with pytest.raises(TransientError, match=r"namespace of the tunnels: .*no room.*network othernet"):
                host.do(host.plane.apply(state))
            before = before or descriptors()
        assert descriptors() == before
        assert not (host.run_dir / "mesh" / "namespace").exists()
        assert "10.64.1.32/27 via" in host.in_network(WEB, "ip route show dev vtep")
    host.do(host.plane.apply(later))
    assert [d for d in host.do(host.plane.verify()) if d.network_id != "mesh"] == []


def test_containers_that_could_not_be_fitted_to_a_changed_network_are_by_the_next_pass(
    wire: World, ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ends[0].host
    fail_once(monkeypatch, Attachments, "refresh")
    network, slices = wire.networks[WEB]
    wire.networks[WEB] = (replace(network, mtu=1300), slices)
    with pytest.raises(TransientError, match="not now"):
        host.apply()
    host.apply()
    assert "mtu 1300" in ends[0].sh("ip link show eth0")
    assert host.do(host.plane.verify()) == []


def test_no_network_opens_to_anyone_where_its_peers_cannot_be_told_apart(
    wire: World, pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _ = pair
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
    fail_once(monkeypatch, Admission, "converge")
    with pytest.raises(TransientError, match=r"the table of peers: .*not now"):
        host.apply()
    assert "vtep" not in host.in_network(WEB, "ip link")
    host.apply()
    assert "vtep" in host.in_network(WEB, "ip link")
    assert host.do(host.plane.verify()) == []


def test_a_network_that_could_not_be_removed_is_by_the_next_pass(
    wire: World, ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, (network, slices) = ends[0].host, wire.networks[WEB]
    wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,), "h2": (2,)}, vni=300)
    host.apply()
    other = wire.networks.pop(OTHER)
    wire.networks[WEB] = (network, {**slices, "h2": (2, 7)})
    before = descriptors()
    with monkeypatch.context() as broken:
        broken.setattr(namespaces, "unpin", refuse)
        with pytest.raises(TransientError, match=f"cannot remove network {OTHER}: .*no room"):
            host.apply()
    assert "10.64.0.224/27 via" in host.in_network(WEB, "ip route show dev vtep")
    wire.networks[OTHER] = other  # half of it is gone
    host.apply()
    assert host.do(host.plane.verify()) == []
    del wire.networks[OTHER]
    host.apply()
    assert [p.name for p in (host.run_dir / "netns").iterdir()] == [f"{host.name}.{WEB}"]
    assert len(descriptors()) < len(before)


def test_a_network_goes_when_it_is_assigned_no_more(wire: World, ends) -> None:
    host = ends[0].host
    wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,), "h2": (2,)})
    host.apply()
    assert "au" + OTHER in host.sh("ip link")
    del wire.networks[OTHER]
    host.apply()
    assert "au" + OTHER not in host.sh("ip link")
    assert [p.name for p in (host.run_dir / "netns").iterdir()] == [f"{host.name}.{WEB}"]
    # One with containers on it waits for the last of them.
    wire.networks.clear()
    host.apply()
    assert [p.name for p in (host.run_dir / "netns").iterdir()] == [f"{host.name}.{WEB}"]
    host.stop_container(ends[0].id)
    assert not list((host.run_dir / "netns").iterdir())


def test_a_network_made_internal_loses_its_uplink_and_back(wire: World, ends) -> None:
    host = ends[0].host
    network, slices = wire.networks[WEB]
    wire.networks[WEB] = (NetworkAssignment(WEB, network.name, network.vni, network.subnet, internal=True), slices)
    host.apply()
    assert "au" + WEB not in host.sh("ip link")
    assert host.do(host.plane.verify()) == []
    wire.networks[WEB] = (network, slices)
    host.apply()
    assert converse(ends[0], wire.outside, "192.0.2.254") == "192.0.2.1"
    assert host.do(host.plane.verify()) == []


def test_purging_leaves_the_host_as_it_was(wire: World) -> None:
    host = wire.add_host(dns=False)
    before = snapshot(host)
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)})
    wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,)}, internal=True)
    container = host.start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"), (OTHER, "10.65.0.33"))
    assert snapshot(host) != before
    host.do(host.plane.purge())
    assert snapshot(host) == before
    assert "eth" not in container.sh("ip -br link")
    # And by a life that knows nothing, as after a kill -9 of everything.
    host.apply()
    assert snapshot(host) != before
    host.do(host.plane.close())
    host.plane = host._new_plane()
    host.do(host.plane.purge())
    assert snapshot(host) == before


def test_devices_of_others_whose_names_begin_as_ours_do_are_left_alone(wire: World) -> None:
    """A VPN may have such a name; the last one's is of just the form that an uplink's has."""
    host = wire.add_host(dns=False)
    host.sh(
        "ip link add au-x type veth peer name x; ip addr add 198.51.100.1/24 dev au-x; ip link set au-x up;"
        "ip neigh add 198.51.100.2 lladdr 02:00:00:00:00:01 dev au-x nud permanent; ip link set x up;"
        "ip tuntap add au-syd-vpn-001 mode tun;"
        "ip link add au1 type vxlan id 9 dstport 4790; ip link add auvxlannet00001 type vxlan id 10 dstport 4790"
    )
    wait_until(lambda: "state UP" in host.sh("ip link show au-x"))
    before = snapshot(host)

    def missing() -> list[str]:
        now = snapshot(host).splitlines()
        return [line for line in before.splitlines() if line not in now]

    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)})
    host.start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    forwarding = ["/proc/sys/net/ipv4/conf/eth0/forwarding:0"]
    assert missing() == forwarding
    host.apply(synced=True)
    assert host.do(host.plane.repair()) == []
    assert host.do(host.new_life().apply(host.state, synced=True)) == 0
    assert host.do(host.plane.repair()) == []
    assert missing() == forwarding
    host.do(host.plane.purge())
    assert snapshot(host) == before


def test_a_network_that_comes_to_a_host_that_had_none_left_leads_out_at_once(wire: World, ends) -> None:
    """The host's settings were put back when the last one went."""
    host = ends[0].host
    host.do(host.plane.detach(ends[0].id))
    host.do(host.plane.apply(NetworkState(), synced=True))
    assert host.sh("cat /proc/sys/net/ipv4/conf/eth0/forwarding").strip() == "0"
    host.apply()
    host.do(host.plane.attach(ends[0].id, ends[0].pid, ends[0].attachments))
    assert host.do(host.plane.verify()) == []
    assert converse(ends[0], wire.outside, "192.0.2.254") == "192.0.2.1"


def test_a_node_learns_many_peers_quickly(wire: World) -> None:
    """In processor time, which is the same however busy the machine is, and measured against what it can do."""
    slowness = machine_slowness()
    host = wire.add_host(dns=False)
    wire.add_network(WEB, "10.64.0.0/12", {"h1": (1,)})
    host.apply()
    peers = [PeerAssignment(WEB, f"peer{n}", f"192.0.2.{n % 250 + 3}", (n + 10, n + 3000)) for n in range(500)]
    state = NetworkState(host.state.networks, peers)
    began = time.process_time()
    assert host.do(host.plane.apply(state)) == 500 * 4 + 1, "what leads to each, and all let in at once"
    assert time.process_time() - began < 1.0 * slowness
    assert host.in_network(WEB, "ip route show dev vtep").count("via") == 1000
    began = time.process_time()
    assert host.do(host.plane.apply(NetworkState(host.state.networks, peers[1:]))) == 4
    assert time.process_time() - began < 0.25 * slowness
    assert host.do(host.plane.verify()) == []


def test_uplinks_of_networks_that_want_the_same_address_do_not_collide(wire: World) -> None:
    """VNIs 100 and 100 + 8192 both ask for the same pair of a /18."""
    host = wire.add_host(dns=False)
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)}, vni=100)
    wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,)}, vni=100 + 8192)
    one = host.start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    other = host.start_container("taskbbbbbbbb1", (OTHER, "10.65.0.33"))
    host.new_life()
    assert host.apply() == 0
    for container in (one, other):
        assert converse(container, wire.outside, "192.0.2.254") == "192.0.2.1"
    assert len({a.split()[3] for a in host.sh("ip -o -4 addr | grep ' au'").splitlines()}) == 2


def test_a_container_without_networks_gets_its_loopback(pair: tuple[Host, Host]) -> None:
    container = Container(pair[0], "taskalone0001")
    pair[0].containers[container.id] = container
    result = pair[0].do(pair[0].plane.attach(container.id, container.pid, ()))
    assert result.interfaces == ()
    assert container.sh("ip -br link").split()[:2] == ["lo", "UNKNOWN"]
    pair[0].do(pair[0].plane.detach(container.id))


def test_a_device_of_the_host_that_comes_later_leads_out_too(wire: World, ends) -> None:
    """The host gets a second way out: found by the audit, and taken back with everything else."""
    host = ends[0].host
    other = Namespace.new()
    try:
        other.sh(f"ip link add eth0 type veth peer name wan1 netns /proc/{os.getpid()}/fd/{host.namespace.fd}")
        other.sh("ip link set lo up; ip addr add 198.51.100.1/24 dev eth0; ip link set eth0 up")
        host.sh("ip addr add 198.51.100.2/24 dev wan1; ip link set wan1 up")
        assert [d.what.split()[1] for d in host.do(host.plane.repair())] == ["net.ipv4.conf.wan1.forwarding"]
        assert converse(ends[0], other, "198.51.100.1") == "198.51.100.2"
        host.do(host.plane.purge())
        assert host.sh("cat /proc/sys/net/ipv4/conf/wan1/forwarding").strip() == "0"
    finally:
        other.close()


def repeated_connects() -> int:
    """Return how often TCP had to ask again for a connection, in this namespace: what a lost packet leaves behind."""
    names, values = [
        line.split()
        for line in Path("/proc/thread-self/net/netstat").read_text().splitlines()
        if line.startswith("TcpExt:")
    ]
    return int(values[names.index("TCPSynRetrans")])


def test_tasks_wait_for_nothing_but_their_own_attachment(wire: World, ends) -> None:
    """Twenty containers attached at once, and each reaches the other host at its first try."""
    host = ends[0].host
    containers = [Container(host, f"taskmany{n:05}") for n in range(20)]
    for n, container in enumerate(containers):
        container.attachments = (Attachment(WEB, 0x0A400028 + n),)
        host.containers[container.id] = container
    tasks = [LocalTask(c.id, c.attachments) for c in containers]
    host.do(host.plane.apply(NetworkState(host.state.networks, host.state.peers, tasks=tasks)))

    async def attach_all() -> None:
        await asyncio.gather(*(host.plane.attach(c.id, c.pid, c.attachments) for c in containers))

    host.do(attach_all())
    for n, container in enumerate(containers):
        assert converse(container, ends[1], "10.64.0.161") == f"10.64.0.{40 + n}"
        assert container.run(repeated_connects) == 0


def test_the_machine_itself_is_untouched(ends) -> None:
    """Nothing of all this is seen outside of the namespaces that the tests made."""
    root = Namespace(os.open("/proc/self/ns/net", os.O_RDONLY))
    try:
        assert "argosy" not in root.sh("nft list tables; ip link")
        assert WEB not in root.sh("ip link; cat /proc/self/mountinfo")
    finally:
        root.close()


@pytest.mark.parametrize(
    "damage", ["true", "nft flush chain ip TABLE admit"], ids=["as it was made", "changed by hand"]
)
def test_no_table_of_peers_is_left_of_a_former_life(wire: World, pair: tuple[Host, Host], damage: str) -> None:
    """Whose last network went while no agent ran."""
    host, _ = pair
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
    host.apply()
    table = f"argosy-{host.name}/peers"
    host.sh(damage.replace("TABLE", table))
    host.new_life()
    host.do(host.plane.apply(NetworkState()))
    assert table in host.sh("nft list tables"), "what is not certain is not acted upon"
    host.do(host.plane.apply(NetworkState(), synced=True))
    assert table not in host.sh("nft list tables")


def test_no_table_of_the_host_is_left_of_a_former_life(ends) -> None:
    """Also where somebody changed it, and an audit looked at it, before this life was told anything."""
    host = ends[0].host
    host.stop_container(ends[0].id)
    host.new_life()
    host.do(host.plane.apply(NetworkState()))
    host.sh(f"nft flush chain ip argosy-{host.name} input")
    host.do(host.plane.repair())
    host.do(host.plane.apply(NetworkState(), synced=True))
    assert host.sh("nft list tables") == ""
