"""Encrypted networks: what hosts say to each other goes through tunnels, or nowhere.

With the kernel's WireGuard where there is one (`make test-vm`), else with wireguard-go. The capture sees the wire
itself, every frame between hosts.
"""

import contextlib
import json
import os
import re
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from ingress_world import CLIENT, SAID, ask
from mesh_world import WEB, Secret, mesh_of
from network_world import Container, Host, Namespace, World, kill, wait_until
from test_reach import converse

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_mesh import DeviceChange
from argosy.agent.network.desired import AuditTiming, NetworkState
from argosy.agent.network.netlink import Netlink
from argosy.agent.network.wireguard import NETLINK_GENERIC, KernelTunnels
from argosy.agent.network.wireguard_go import TunnelProcesses
from argosy.core.assignment import (
    EndpointAssignment,
    PublishedAssignment,
)
from argosy.core.mesh import Mesh
from argosy.core.service import PortSpec
from tests.e2e.wire import ip_udp, vxlan

T = TypeVar("T")

MARK = b"argosy-plaintext-marker"
ETH_MTU = 1500


class Frames:
    """Every frame that a device sees, or all devices of a namespace: on the wire each frame is then seen twice."""

    def __init__(self, namespace: Namespace, device: str = "") -> None:
        self._socket = namespace.open_socket(socket.SOCK_RAW, socket.AF_PACKET, socket.htons(0x0003))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        if device:
            self._socket.bind((device, 3))
        self._socket.setblocking(False)

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def take(self) -> list[bytes]:
        """Return what was seen up to now."""
        return list(drain(self._socket))


@pytest.fixture
def secret(wire: World) -> Secret:
    made = Secret(wire)
    made.exchange()
    return made


@pytest.fixture
def ends(secret: Secret) -> tuple[Container, Container]:
    one, other = secret.start(1), secret.start(2)
    secret.up()
    return one, other


def in_mesh(host: Host, command: str, check: bool = True) -> str:
    with mesh_of(host) as namespace:
        return namespace.sh(command, check)


def processes(host: Host) -> dict[str, int]:
    """Return the processes of a host's tunnels by device; none where the kernel makes them."""
    files = (host.run_dir / "mesh").glob("*.pid")
    return {f.stem: int(f.read_text().split()[0]) for f in files}


def shout(sending: Container, address: str) -> None:
    """Send a datagram with the marker; that there is no way is fine."""
    with sending.open_socket(socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
        out.sendto(MARK * 4, (address, 9000))


def test_nothing_of_what_containers_say_is_on_the_wire(wire: World, ends: tuple[Container, Container]) -> None:
    with Frames(wire.outside) as capture:
        assert converse(ends[0], ends[1], "10.64.0.65") == "10.64.0.33"
        with ends[1].open_socket(socket.SOCK_DGRAM) as receiving:
            receiving.bind(("0.0.0.0", 9000))
            shout(ends[0], "10.64.0.65")
            assert receiving.recv(4096) == MARK * 4
        frames = capture.take()
    assert frames
    assert not any(MARK in f or b"ahoy" in f for f in frames)
    assert any(port_of(f) in (51820, 51821) for f in frames)
    assert not any(port_of(f) == 14789 for f in frames)
    assert converse(ends[1], wire.outside, "192.0.2.254") == "192.0.2.2", "the way out is no business of the tunnels"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_published_port_leads_through_the_tunnel_and_back(
    wire: World, secret: Secret, ends: tuple[Container, Container], protocol: str
) -> None:
    """By the node without the task: the client's address arrives, and nothing is in clear between the nodes."""
    entry, target = secret.hosts
    endpoint = EndpointAssignment(WEB, ends[1].id, "web", 1, int.from_bytes(socket.inet_aton("10.64.0.65"), "big"))
    port = PortSpec(protocol=protocol, target=80, published=8080)
    wire.extra = {"endpoints": (endpoint,), "published": (PublishedAssignment(WEB, "web", "web", ports=(port,)),)}
    secret.apply()
    with Frames(target.namespace, "eth0") as capture:
        assert ask(wire.outside, ends[1], entry.address, 8080, protocol=protocol) == CLIENT
        frames = capture.take()
    assert any(port_of(f) in (51820, 51821) for f in frames)
    assert not any(port_of(f) == 14789 or SAID[protocol] in f for f in frames)
    assert ask(wire.outside, ends[1], target.address, 8080, protocol=protocol) == CLIENT
    for host in secret.hosts:
        assert host.do(host.plane.verify()) == []


def port_of(frame: bytes) -> int:
    return struct.unpack_from("!H", frame, 36)[0] if len(frame) > 38 and frame[23] == socket.IPPROTO_UDP else 0


@pytest.mark.parametrize("eth_mtu", [ETH_MTU, ETH_MTU - 40])
def test_the_largest_packet_passes(ends: tuple[Container, Container], eth_mtu: int) -> None:
    """Also where the hosts' links have come to take less."""
    mtu = eth_mtu - 50 - 80
    for end in ends:
        end.host.sh(f"ip link set eth0 mtu {eth_mtu}")
        assert end.host.do(end.host.plane.repair()) == []
    assert f"mtu {mtu}" in ends[0].sh("ip link show eth0")
    with ends[0].open_socket(socket.SOCK_DGRAM) as sending, ends[1].open_socket(socket.SOCK_DGRAM) as receiving:
        receiving.bind(("0.0.0.0", 9000))
        sending.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE: never in fragments
        for size in (mtu, mtu - 7):
            sending.sendto(b"x" * (size - 28), ("10.64.0.65", 9000))
            assert len(receiving.recv(4096)) == size - 28


def test_private_keys_are_the_nodes_own(secret: Secret) -> None:
    reports = [secret.reports[h.name] for h in secret.hosts]
    for host, report in zip(secret.hosts, reports, strict=True):
        (path,) = (host.run_dir / "mesh").glob("*.key")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes() not in repr(report).encode()
        assert path.read_bytes() != report.keys[0].public_key
    assert reports[0].keys[0].public_key != reports[1].keys[0].public_key


def take_away(host: Host) -> None:
    """Take a host's tunnels away: end the processes, or delete the kernel's devices."""
    running = processes(host)
    for pid in running.values():
        kill(pid)
        with contextlib.suppress(ChildProcessError):  # reaped by the plane already
            os.waitpid(pid, 0)
    for name in [] if running else re.findall(r"\baw[^:@\s]+", in_mesh(host, "ip -o link")):
        in_mesh(host, f"ip link delete {name}")


def test_without_a_tunnel_nothing_leaves(wire: World, secret: Secret, ends: tuple[Container, Container]) -> None:
    one = ends[0].host
    take_away(one)
    with Frames(one.namespace, "eth0") as capture:
        for _ in range(20):
            shout(ends[0], "10.64.0.65")
        wait_until(lambda: not secret.is_up(secret.hosts[1]))
        frames = capture.take()
    assert not any(MARK in f or port_of(f) == 14789 for f in frames)


@pytest.mark.parametrize("made", [1, 2])
def test_a_tunnel_that_was_taken_away_is_made_again(wire: World, made: int) -> None:
    """The auditor sees it, by the kernel's notifications and, deaf, in its period."""
    timing = AuditTiming(period=3600) if made == 1 else AuditTiming(period=0.3, events=False)
    secret = Secret(wire, audit=timing)
    secret.exchange()
    one, other = secret.start(1), secret.start(2)
    secret.up()
    with Frames(wire.outside) as capture:
        take_away(one.host)
        heard = wait_until(lambda: answers(one, other))
        frames = capture.take()
    assert heard == MARK * 4
    assert not any(MARK in f or port_of(f) == 14789 for f in frames)
    wait_until(lambda: one.host.plane.drift["mesh"] > 0)
    in_mesh(one.host, "ip route flush table main")
    wait_until(lambda: answers(one, other))


def test_who_has_the_tunnels_port_is_named_and_waited_for(wire: World) -> None:
    secret = Secret(wire)
    host = secret.hosts[0]
    with host.namespace.open_socket(socket.SOCK_DGRAM) as program:
        program.bind(("0.0.0.0", 51821))
        secret.apply()
        wait_until(lambda: host.name in secret.reports and secret.reports[host.name].problems)
        [said] = secret.reports[host.name].problems.values()
        assert "no tunnels: port 51821/udp of the host, which they need, is taken by " in said
        assert f"(pid {os.getpid()})" in said
    secret.exchange()
    ends = secret.start(1), secret.start(2)
    secret.up()
    assert wait_until(lambda: answers(*ends)) == MARK * 4


def forget_peers(host: Host) -> None:
    """Take its peers away from a host's tunnel, by hand."""
    name = names.tunnel_device(f"node-{host.name}", 1)

    def change(tunnels: KernelTunnels | TunnelProcesses) -> None:
        tunnels.set(name, DeviceChange(remove=tuple(tunnels.read(name).peers or ())), b"", 0)

    def in_kernel() -> None:
        tunnels = KernelTunnels(Netlink(NETLINK_GENERIC))
        change(tunnels)
        tunnels.close()

    if processes(host):
        change(TunnelProcesses(host.run_dir / "mesh"))
    else:
        with mesh_of(host) as namespace:
            namespace.run(in_kernel)


BREAKAGES = {
    "address": "ip address flush dev DEVICE",
    "route": "ip route flush table main",
    "link": "ip link set DEVICE down",
    "mtu": "ip link set DEVICE mtu 1300",
    "forwarding": "echo 1 > /proc/sys/net/ipv4/conf/DEVICE/forwarding",
    "peers": "",
    "pin": "",
}


def break_tunnels(host: Host, what: str, command: str) -> None:
    """Do what is among BREAKAGES, or has a command for the namespace of the tunnels."""
    if what == "peers":
        forget_peers(host)
    elif what == "pin":
        host.in_mounts(lambda: subprocess.run(["umount", "-l", host.run_dir / "mesh" / "namespace"], check=True))
    else:
        in_mesh(host, command.replace("DEVICE", names.tunnel_device(f"node-{host.name}", 1)))


@pytest.mark.parametrize("what", BREAKAGES)
def test_what_is_changed_by_hand_is_found_and_put_right(secret: Secret, what: str) -> None:
    one, other = secret.start(1), secret.start(2)
    secret.up()
    host = one.host
    assert host.do(host.plane.verify()) == []
    break_tunnels(host, what, BREAKAGES[what])
    found = host.do(host.plane.repair())
    assert found
    assert {d.network_id for d in found} == {"mesh"}
    assert host.do(host.plane.verify()) == []
    assert wait_until(lambda: answers(one, other)) == MARK * 4


def answers(one: Container, other: Container) -> bytes:
    """Send until something arrives, or for a short while; return what."""
    with other.open_socket(socket.SOCK_DGRAM) as receiving:
        receiving.bind(("0.0.0.0", 9000))
        receiving.settimeout(0.2)
        shout(one, "10.64.0.65")
        try:
            return receiving.recv(4096)
        except TimeoutError:
            return b""


def test_keys_change_and_no_packet_is_lost(secret: Secret, ends: tuple[Container, Container]) -> None:
    before = {h.name: secret.reports[h.name].keys for h in secret.hosts}
    with ends[0].open_socket(socket.SOCK_DGRAM) as out, ends[1].open_socket(socket.SOCK_DGRAM) as receiving:
        receiving.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE
        receiving.bind(("0.0.0.0", 9000))
        sent = 0

        def send() -> None:
            nonlocal sent
            out.sendto(sent.to_bytes(4, "big") + MARK, ("10.64.0.65", 9000))
            sent += 1

        def sending_until(condition) -> None:  # type: ignore[no-untyped-def]
            def step() -> bool:
                send()
                return bool(condition())

            wait_until(step)

        secret.mesh = Mesh(2)
        secret.exchange()
        sending_until(lambda: all(secret.is_up(h) for h in secret.hosts))
        secret.mesh = Mesh(2, settled=True)
        secret.apply()
        for _ in range(50):
            send()
        numbers = {int.from_bytes(receiving.recv(100)[:4], "big") for _ in range(sent)}
    assert numbers == set(range(sent))
    for host in secret.hosts:
        (key,) = secret.reports[host.name].keys if len(secret.reports[host.name].keys) == 1 else wait_keys(secret, host)
        assert key.epoch == 2
        assert key not in before[host.name]
        assert [p.stem for p in (host.run_dir / "mesh").glob("*.key")] == ["2"], "the old private key is gone"
        assert in_mesh(host, "ip -o link").count("aw") == 1
        assert len(processes(host)) <= 1


def wait_keys(secret: Secret, host: Host):  # type: ignore[no-untyped-def]
    return wait_until(lambda: keys if len(keys := secret.reports[host.name].keys) == 1 else None)


def test_another_life_of_the_agent_finds_its_tunnels(secret: Secret, ends: tuple[Container, Container]) -> None:
    host = ends[0].host
    before = processes(host), in_mesh(host, "ip -o link; ip route")
    secret.new_life(host)
    assert converse(ends[1], ends[0], "10.64.0.33") == "10.64.0.65", "before it has been told anything"
    host.do(host.plane.apply(secret.state(host), synced=True))
    assert (processes(host), in_mesh(host, "ip -o link; ip route")) == before
    assert host.do(host.plane.verify()) == []
    secret.up()
    assert converse(ends[0], ends[1], "10.64.0.65") == "10.64.0.33"


@pytest.mark.parametrize("lives", [1, 2])
def test_when_no_encrypted_network_is_left_nothing_is(
    secret: Secret, ends: tuple[Container, Container], lives: int
) -> None:
    host = ends[0].host
    running = processes(host)
    host.do(host.plane.detach(ends[0].id))
    host.containers.pop(ends[0].id).end()
    keys = secret.reports[host.name].keys
    if lives == 2:
        secret.new_life(host)
        del secret.reports[host.name]
    host.do(host.plane.apply(NetworkState()))
    assert host.do(host.plane.mesh_keys()) == keys, "what is not certain is not acted upon"
    host.do(host.plane.apply(NetworkState(), synced=True))
    wait_until(lambda: host.name in secret.reports and not secret.reports[host.name].keys)
    assert not (host.run_dir / "mesh" / "namespace").exists()
    assert not list((host.run_dir / "mesh").glob("*.key"))
    assert not any(Path(f"/proc/{pid}").exists() for pid in running.values())


def test_packets_in_clear_do_not_come_in(wire: World, secret: Secret, ends: tuple[Container, Container]) -> None:
    """Even from the peer's own address, with the network's number: the VTEP does not listen on the wire."""
    target = ends[1].host
    mac = names.vtep_mac(WEB, f"node-{target.name}"), names.vtep_mac(WEB, f"node-{ends[0].host.name}")
    packet = ip_udp("10.64.0.33", "10.64.0.65", MARK)
    with ends[1].open_socket(socket.SOCK_RAW, socket.AF_PACKET, socket.htons(3)) as seeing:
        seeing.settimeout(0.5)
        with ends[0].host.namespace.open_socket(socket.SOCK_DGRAM) as forging:
            for _ in range(10):
                forging.sendto(vxlan(secret.network().vni, *mac, packet), (target.address, 14789))
        assert not any(MARK in f for f in drain(seeing))


def drain(source: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield source.recv(65536)
        except (TimeoutError, BlockingIOError):
            return


def test_a_network_told_off_and_on_again_goes_on(secret: Secret, ends: tuple[Container, Container]) -> None:
    """While a container is still on it: its VTEP's socket must not be left in a mesh that has gone meanwhile."""
    host = ends[0].host
    host.do(host.plane.apply(NetworkState(), synced=True))
    assert converse(ends[0], ends[1], "10.64.0.65") == "10.64.0.33", "as long as it is there"
    secret.exchange()
    secret.up()
    assert wait_until(lambda: answers(ends[0], ends[1])) == MARK * 4
    assert host.do(host.plane.verify()) == []


def test_a_mesh_made_anew_at_once_is_watched(secret: Secret, ends: tuple[Container, Container]) -> None:
    host = ends[0].host
    host.do(host.plane.detach(ends[0].id))

    async def off_and_on() -> None:
        await host.plane.apply(NetworkState(), synced=True)
        await host.plane.apply(secret.state(host))

    host.do(off_and_on())
    wait_until(lambda: secret.reports[host.name].keys != ())
    secret.exchange()
    secret.up()
    host.do(host.plane.attach(ends[0].id, ends[0].pid, ends[0].attachments))
    assert wait_until(lambda: answers(ends[0], ends[1])) == MARK * 4


def test_a_vtep_whose_socket_is_on_the_wire_is_replaced(secret: Secret, ends: tuple[Container, Container]) -> None:
    """It would send in clear what is to be encrypted, and looks like the right one but for that."""
    host = ends[0].host
    like = host.in_network(WEB, "ip -d link show vtep")
    (mac,) = re.findall(r"link/ether (\S+)", like)
    ((vni, local, port),) = re.findall(r"vxlan id (\d+) local (\S+) .*dstport (\d+)", like)
    vxlan_ = f"type vxlan id {vni} local {local} dstport {port} nolearning"
    host.in_network(WEB, "ip link del vtep")
    host.sh(f"ip link add vtep address {mac} mtu {ETH_MTU - 130} {vxlan_}")
    pin = host.run_dir / "netns" / names.pin_name(host.name, WEB)
    fd = host.in_mounts(lambda: os.open(pin, os.O_RDONLY | os.O_CLOEXEC))
    host.sh(f"ip link set vtep netns /proc/{os.getpid()}/fd/{fd}")
    os.close(fd)
    host.in_network(WEB, "ip link set vtep up")
    (drift,) = [d for d in host.do(host.plane.repair()) if "vtep vtep" in d.what]
    assert "its socket in another namespace, not link vtep" in drift.what
    assert host.do(host.plane.verify()) == []
    assert wait_until(lambda: answers(ends[0], ends[1])) == MARK * 4


def test_what_a_vtep_remembers_of_a_tunnel_ends_with_it(wire: World) -> None:
    """For each forwarding entry a VXLAN device remembers the route, on each processor, until routes change.

    The kernel (6.18) counts these changes by namespace, and takes a route whose device has gone to be one of the first
    namespace: so it is taken for valid, and leads nowhere, where both counts happen to be the same, and as long as they
    are. Here entries are used at one count after the other. Where the first namespace has had more changes, or less,
    this shows nothing.
    """
    secret = Secret(wire, audit=None)
    secret.exchange()
    secret.start(1)
    secret.start(2)
    secret.up()
    one, other = secret.hosts
    entries = [(f"10.200.{i // 250}.{i % 250 + 1}", f"02:00:00:01:{i // 250:02x}:{i % 250:02x}") for i in range(500)]
    neighbours = "\n".join(f"neigh add {address} lladdr {mac} dev vtep" for address, mac in entries)
    forwarding = "\n".join(f"fdb add {mac} dev vtep dst {other.address}" for _, mac in entries)
    one.in_network(WEB, f"ip -batch - <<E\nroute add 10.200.0.0/16 dev vtep\n{neighbours}\nE")
    one.in_network(WEB, f"bridge -batch - <<E\n{forwarding}\nE")

    def arrived() -> int:
        return int(json.loads(other.in_network(WEB, "ip -s -j link show vtep"))[0]["stats64"]["rx"]["packets"])

    def send(out: socket.socket, addresses: list[str], *, changes: bool) -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        for address in addresses:
            out.sendto(b"x", (address, 9))
            if changes:
                Path("/proc/sys/net/ipv4/route/flush").write_text("1")

    def all_arrive(out: socket.socket, addresses: list[str]) -> bool:
        before = arrived()
        mesh.run(lambda: send(out, addresses, changes=False))
        with contextlib.suppress(AssertionError):
            wait_until(lambda: arrived() - before >= len(addresses), 1)
            return True
        return False

    with one.network(WEB).open_socket(socket.SOCK_DGRAM) as out, mesh_of(one) as mesh:
        mesh.run(lambda: send(out, [address for address, _ in entries], changes=True))
        secret.mesh = Mesh(2)
        secret.exchange()
        secret.up()
        secret.mesh = Mesh(2, settled=True)
        secret.apply()
        for start in range(0, len(entries), 20):
            some = [address for address, _ in entries[start : start + 20]]
            wait_until(lambda some=some: all_arrive(out, some), 10)
