"""Who reaches whom: containers of one network on different hosts, the outside, and nobody else."""

import errno
import json
import socket
import struct
import threading

import pytest
from network_world import Container, Host, Namespace, World, wait_until

from tests.e2e.wire import ip_udp, vxlan

WEB = "webnet0000001"
OTHER = "othernet00002"


def converse(client: Namespace, server: Namespace, address: str, port: int = 8000) -> str:
    """Have a client say something to a server over TCP, and return the address that the server saw."""
    with server.listen("0.0.0.0", port) as listening, client.open_socket() as calling:
        calling.connect((address, port))
        answering, (seen, _) = listening.accept()
        with answering:
            calling.sendall(b"ahoy")
            assert answering.recv(16) == b"ahoy"
            answering.sendall(b"aye")
            assert calling.recv(16) == b"aye"
        return seen


def refusal(client: Namespace, address: str, port: int = 8000) -> int:
    """Return the error that connecting gives."""
    with client.open_socket() as calling:
        return calling.connect_ex((address, port))


@pytest.fixture
def ends(wire: World, pair: tuple[Host, Host]) -> tuple[Container, Container]:
    """A container on each of two hosts, on one network."""
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2, 5)})
    one = pair[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    pair[1].apply()
    return one, pair[1].start_container("taskbbbbbbbb1", (WEB, "10.64.0.161"))


def test_containers_on_different_hosts_reach_each_other(ends: tuple[Container, Container]) -> None:
    assert converse(ends[0], ends[1], "10.64.0.161") == "10.64.0.33"
    assert converse(ends[1], ends[0], "10.64.0.33") == "10.64.0.161"


def test_containers_on_one_host_reach_each_other(ends: tuple[Container, Container]) -> None:
    neighbour = ends[0].host.start_container("taskaaaaaaaa2", (WEB, "10.64.0.34"))
    assert converse(ends[0], neighbour, "10.64.0.34") == "10.64.0.33"
    assert converse(ends[1], neighbour, "10.64.0.34") == "10.64.0.161"


def test_the_largest_packet_passes_and_none_larger(ends: tuple[Container, Container]) -> None:
    mtu = 1450
    with ends[0].open_socket(socket.SOCK_DGRAM) as sending, ends[1].open_socket(socket.SOCK_DGRAM) as receiving:
        receiving.bind(("0.0.0.0", 9000))
        sending.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: never fragment
        sending.sendto(b"x" * (mtu - 28), ("10.64.0.161", 9000))
        assert len(receiving.recv(9000)) == mtu - 28
        with pytest.raises(OSError, match="too long"):
            sending.sendto(b"x" * (mtu - 27), ("10.64.0.161", 9000))


def test_links_follow_an_mtu_that_shrinks(wire: World, ends: tuple[Container, Container]) -> None:
    network, slices = wire.networks[WEB]
    wire.networks[WEB] = (type(network)(WEB, network.name, network.vni, network.subnet, mtu=1300), slices)
    for end in ends:
        end.host.apply()
        assert "mtu 1300" in end.sh("ip link show eth0")
        assert "mtu 1300" in end.host.in_network(WEB, "ip link show vtep")
        assert end.host.do(end.host.plane.verify()) == []
    assert converse(ends[0], ends[1], "10.64.0.161") == "10.64.0.33"


def test_a_forged_source_address_is_dropped(ends: tuple[Container, Container]) -> None:
    """A datagram from an address that is not the container's arrives nowhere; an honest one after it does."""
    one, other = ends
    one.sh("ip addr add 10.64.0.35/32 dev eth0; ip addr add 10.64.0.162/32 dev eth0; ip addr add 8.8.8.8/32 dev eth0")
    with other.open_socket(socket.SOCK_DGRAM) as receiving:
        receiving.bind(("0.0.0.0", 9000))
        for source in ("10.64.0.35", "10.64.0.162", "8.8.8.8", "10.64.0.33"):
            with one.open_socket(socket.SOCK_DGRAM) as sending:
                sending.bind((source, 0))
                sending.sendto(source.encode(), ("10.64.0.161", 9000))
        assert receiving.recv(100) == b"10.64.0.33"


def test_networks_with_the_same_addresses_do_not_meet(wire: World, ends: tuple[Container, Container]) -> None:
    """The same subnet, slices and even container addresses: each network sees its own."""
    wire.add_network(OTHER, "10.64.0.0/16", {"h1": (1,), "h2": (2, 5)})
    first, second = ends[0].host, ends[1].host
    alone = first.start_container("taskccccccccc", (OTHER, "10.64.0.33"))
    second.apply()
    assert refusal(alone, "10.64.0.161") == errno.EHOSTUNREACH
    twin = second.start_container("taskddddddddd", (OTHER, "10.64.0.161"))
    with ends[1].listen("0.0.0.0", 8000) as theirs:
        assert converse(alone, twin, "10.64.0.161") == "10.64.0.33"
        theirs.settimeout(0)
        with pytest.raises(BlockingIOError):
            theirs.accept()
    assert converse(ends[0], ends[1], "10.64.0.161") == "10.64.0.33"


def test_an_address_nobody_has_is_unreachable_and_never_leaves(wire: World, ends: tuple[Container, Container]) -> None:
    with Capture(wire.outside, "br0") as capture:
        assert refusal(ends[0], "10.64.0.40") == errno.EHOSTUNREACH  # in the own slice
        assert refusal(ends[0], "10.64.77.1") == errno.EHOSTUNREACH  # in nobody's
        assert converse(ends[0], wire.outside, "192.0.2.254") == "192.0.2.1"
        seen = capture.until(lambda p: p.tcp_port == 8000)
    assert not [p for p in seen if p.destination.startswith("10.64.")]


def test_the_outside_sees_the_host(wire: World, ends: tuple[Container, Container]) -> None:
    assert converse(ends[0], wire.outside, "192.0.2.254") == "192.0.2.1"
    assert converse(ends[1], wire.outside, "192.0.2.254") == "192.0.2.2"


def test_nobody_outside_gets_in(wire: World, ends: tuple[Container, Container]) -> None:
    """A neighbour on the wire that routes our subnets and uplinks over the host is not let through."""
    wire.outside.sh("ip route add 10.64.0.0/16 via 192.0.2.1; ip route add 169.254.64.0/18 via 192.0.2.1")
    host = ends[0].host
    host.sh("ip route add 10.64.0.0/16 via 169.254.64.201")  # even if the host itself were told the way
    with ends[0].listen("0.0.0.0", 8000), wire.outside.open_socket() as calling:
        calling.settimeout(0.3)
        with pytest.raises(TimeoutError):
            calling.connect(("10.64.0.33", 8000))
    assert host.sh("cat /proc/sys/net/ipv4/ip_forward").strip() == "0"


def test_an_internal_network_has_no_way_out(wire: World, pair: tuple[Host, Host]) -> None:
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)}, internal=True)
    one = pair[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    other = pair[1].start_container("taskbbbbbbbb1", (WEB, "10.64.0.65"))
    assert converse(one, other, "10.64.0.65") == "10.64.0.33"
    assert refusal(one, "192.0.2.254") == errno.ENETUNREACH
    # Also for a container that gives itself a default route.
    one.sh("ip route add default via 169.254.1.1 dev eth0 onlink")
    assert refusal(one, "192.0.2.254") == errno.ENETUNREACH
    assert "uplink" not in pair[0].in_network(WEB, "ip link")
    assert "au" + WEB not in pair[0].sh("ip link")


def test_a_task_on_several_networks_answers_by_the_way_it_was_asked(wire: World, pair: tuple[Host, Host]) -> None:
    wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,), "h2": (2,)}, internal=True)
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
    both = pair[0].start_container("taskaaaaaaaa1", (OTHER, "10.65.0.33"), (WEB, "10.64.0.33"))
    web = pair[1].start_container("taskbbbbbbbb1", (WEB, "10.64.0.65"))
    other = pair[1].start_container("taskbbbbbbbb2", (OTHER, "10.65.0.65"))
    assert converse(web, both, "10.64.0.33") == "10.64.0.65"
    assert converse(other, both, "10.65.0.33") == "10.65.0.65"
    assert converse(both, web, "10.64.0.65") == "10.64.0.33"
    assert converse(both, other, "10.65.0.65") == "10.65.0.33"
    # The way out is that of the first network that has one, not of the first network.
    assert converse(both, wire.outside, "192.0.2.254") == "192.0.2.1"
    assert refusal(other, "10.64.0.33") == errno.ENETUNREACH


def test_a_forged_vxlan_packet_arrives_nowhere(wire: World, ends: tuple[Container, Container]) -> None:
    """A container sends what looks like the tunnel's packets to other hosts, the own one, and cloud metadata."""
    one, host = ends[0], ends[0].host
    targets = [("192.0.2.2", 14789), ("192.0.2.1", 14789), ("169.254.64.200", 14789), ("192.0.2.2", 51820)]
    with Capture(ends[1].host.namespace, "eth0") as capture, one.open_socket(socket.SOCK_DGRAM) as forging:
        for target in targets:
            forging.sendto(vxlan_frame(100), target)
        forging.sendto(b"innocent", ("192.0.2.2", 5555))
        seen = capture.until(lambda p: p.udp_port == 5555)
    assert not [p for p in seen if p.udp_port in (14789, 51820)]
    dropped = host.sh(f"nft list chain ip argosy-{host.name} untrusted | grep 'udp dport'")
    assert "packets 2 " in dropped
    assert "packets 2 " in host.sh(f"nft list chain ip argosy-{host.name}/peers admit")  # to the host itself
    # In fragments the ports are only in the first: they are put together before they are judged.
    with Capture(ends[1].host.namespace, "eth0") as capture, one.open_socket(socket.SOCK_DGRAM) as forging:
        forging.sendto(vxlan_frame(100) + bytes(4000), ("192.0.2.2", 14789))
        forging.sendto(b"innocent", ("192.0.2.2", 5555))
        seen = capture.until(lambda p: p.udp_port == 5555)
    assert [p.udp_port for p in seen if p.udp_port or p.fragment] == [5555]
    # Without the table it would have arrived: the test can see it.
    host.sh(f"nft delete table ip argosy-{host.name}")
    with Capture(ends[1].host.namespace, "eth0") as capture, one.open_socket(socket.SOCK_DGRAM) as forging:
        forging.sendto(vxlan_frame(100), ("192.0.2.2", 14789))
        capture.until(lambda p: p.udp_port == 14789)


@pytest.mark.parametrize("internal", [False, True])
def test_a_tunnel_of_a_stranger_on_the_wire_leads_nowhere(internal: bool, wire: World, pair: tuple[Host, Host]) -> None:
    """A machine that is no node sends what a peer would send; the very same packet of the peer arrives."""
    network = wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)}, internal=internal)
    victim = pair[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    pair[1].apply()
    macs = [bytes.fromhex(vtep_mac(host).replace(":", "")) for host in pair]

    def forged(text: bytes) -> bytes:
        return vxlan(network.vni, macs[0], macs[1], ip_udp("10.64.0.65", "10.64.0.33", text))

    with victim.open_socket(socket.SOCK_DGRAM) as receiving:
        receiving.bind(("0.0.0.0", 9999))
        for sender, text in ((wire.outside, b"forged"), (wire.outside, bytes(4000)), (pair[1].namespace, b"genuine")):
            with sender.open_socket(socket.SOCK_DGRAM) as sending:
                sending.sendto(forged(text), ("192.0.2.1", 14789))
        assert receiving.recv(9000) == b"genuine"
    guard = pair[0].sh(f"nft list chain ip argosy-{pair[0].name}/peers admit")
    assert "packets 2 " in guard
    # A peer that comes is let in, and one that goes is not any more.
    wire.networks[WEB] = (network, {"h1": (1,)})
    pair[0].apply(synced=True)
    assert "192.0.2.2" not in pair[0].sh("nft list ruleset")
    wire.networks.clear()
    pair[0].stop_container(victim.id)
    pair[0].apply()
    assert "peers" not in pair[0].sh("nft list tables")


def vtep_mac(host: Host) -> str:
    (link,) = json.loads(host.in_network(WEB, "ip -j link show vtep"))
    return str(link["address"])


@pytest.mark.parametrize("target", [("192.0.2.2", 2379), ("192.0.2.1", 2379), ("169.254.169.254", 80)])
def test_the_clusters_own_ports_are_out_of_reach(target: tuple[str, int], ends: tuple[Container, Container]) -> None:
    for host in (ends[0].host, ends[1].host):
        host.sh("ip addr add 169.254.169.254/32 dev lo")
    with (
        ends[0].host.namespace.listen("0.0.0.0", target[1]),
        ends[1].host.namespace.listen("0.0.0.0", target[1]),
        ends[0].open_socket() as calling,
    ):
        calling.settimeout(0.3)
        with pytest.raises(TimeoutError):
            calling.connect(target)


def test_a_peer_does_not_leave_by_this_nodes_uplink(wire: World, ends: tuple[Container, Container]) -> None:
    """What comes out of the tunnel for the outside is not carried there: the node is nobody's exit."""
    ends[1].host.in_network(WEB, "ip route replace 198.51.100.0/24 via 10.64.0.32 dev vtep onlink")
    wire.outside.sh("ip addr add 198.51.100.1/32 dev lo; ip route add 10.64.0.0/16 via 192.0.2.1")
    with wire.outside.listen("198.51.100.1", 8000), ends[1].open_socket() as calling:
        calling.settimeout(0.3)
        with pytest.raises(TimeoutError):
            calling.connect(("198.51.100.1", 8000))
    counters = ends[0].host.in_network(WEB, "nft list chain ip argosy postrouting | grep vtep")
    assert "packets 0 " not in counters
    # What belongs to no connection keeps its address, with which the host takes nothing from the uplink.
    reset = struct.pack("!HHIIBBHHH", 9, 8000, 0, 0, 0x50, 0x04, 0, 0, 0)
    host = ends[0].host

    def refused() -> int:
        names, values = (line.split() for line in host.sh("grep ^TcpExt /proc/net/netstat").splitlines())
        return int(values[names.index("IPReversePathFilter")])

    before = refused()
    with (
        Capture(wire.outside, "br0") as capture,
        ends[1].open_socket(socket.SOCK_RAW, protocol=socket.IPPROTO_TCP) as sending,
        ends[0].open_socket(socket.SOCK_DGRAM) as innocent,
    ):
        sending.sendto(reset, ("198.51.100.1", 8000))
        wait_until(lambda: refused() > before)
        innocent.sendto(b"innocent", ("192.0.2.254", 5555))
        seen = capture.until(lambda p: p.udp_port == 5555)
    assert "198.51.100.1" not in {p.destination for p in seen}


def vxlan_frame(vni: int) -> bytes:
    """Return a VXLAN header and an inner frame."""
    return struct.pack("!II", 0x08000000, vni << 8) + bytes(60)


class Packet:
    """An IPv4 packet as far as the tests look."""

    def __init__(self, frame: bytes) -> None:
        header = frame[14:]
        self.destination = socket.inet_ntoa(header[16:20])
        offset = struct.unpack_from("!H", header, 6)[0]
        self.fragment = bool(offset & 0x3FFF)
        first = offset & 0x1FFF == 0 and len(header) >= 24
        port = struct.unpack_from("!H", header, (header[0] & 15) * 4 + 2)[0] if first else 0
        self.udp_port = port if header[9] == 17 else 0
        self.tcp_port = port if header[9] == 6 else 0


class Capture:
    """Everything that a device sees, in order."""

    def __init__(self, namespace: Namespace, device: str) -> None:
        self._socket = namespace.open_socket(socket.SOCK_RAW, socket.AF_PACKET, socket.htons(0x0003))
        self._socket.bind((device, 3))
        self._socket.settimeout(0.05)
        self._seen: list[Packet] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def until(self, wanted) -> list[Packet]:  # type: ignore[no-untyped-def]
        """Wait for a packet, and return all that were seen up to then."""

        def arrived() -> bool:
            try:
                frame = self._socket.recv(65535)
            except TimeoutError:
                return False
            if frame[12:14] == b"\x08\x00":
                self._seen.append(Packet(frame))
                return bool(wanted(self._seen[-1]))
            return False

        wait_until(arrived)
        return self._seen
