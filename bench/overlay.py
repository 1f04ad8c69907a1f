"""What the overlay costs: learning services and peers, following a change, packets between hosts, virtual addresses.

Control plane: processor time of this process, in which a real plane runs, from an assignment message's pieces to the
kernel and argosy-dns (whose own time is not in it). Data plane: hosts are namespaces on a bridge; whatever is compared
is measured in turn, in the same run.

Where a Docker engine is installed, Docker Swarm's overlay is among what is compared.

    overlay.py [--runs N] [--only PART]    needs root; what it makes is in namespaces that end with it
"""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kernel" / "network"))

from _swarm import is_installed, swarm
from _wires import STREAM_BYTES, Stream, floor, make_bare, on_processor, processor, send_each
from mesh_world import Secret, mesh_of
from network_world import Container, Host, Namespace, World, tracked_by, world

from argosy.agent.logic.assignments import Assignments, Update, advance
from argosy.agent.network import conntrack
from argosy.agent.network.desired import AuditTiming
from argosy.agent.tasks.wiring import network_state
from argosy.core.addresses import format_ipv4, parse_ipv4
from argosy.core.assignment import (
    EndpointAssignment,
    LeaderEpoch,
    NamesAssignment,
    PeerAssignment,
    Piece,
    PublishedAssignment,
    key_of,
)
from argosy.core.service import PortSpec

NETWORK = "benchnetwork1"
FEW, MANY = "benchfewpeers", "benchmanypeer"
PARTS = ("changes", "peers", "doors", "throughput", "encrypted", "requests")
DOORS = {5: ("benchfewdoors", "10.144.0.0/12", 7005), 5000: ("benchmanydoor", "10.160.0.0/12", 7500)}
"""By how many nodes a network has: its id, its subnet, and the port that it publishes."""
SERVICES = 1000
ENDPOINTS = 10
CHANGES = 40
AUDITS = 20
TRACKED = 0, 1_000, 10_000
"""Connections of a network on a node."""
FEW_PEERS, MANY_PEERS = 5, 5000
SLICE = 32
"""Addresses of a node on a network."""
TURNS = 10
"""Transfers of each way in a run, one after the other's: a second or so of each."""
ENCRYPTED_TURNS = 1
"""Of transfers that take many times as long."""
CALLS = 2000
BATCH = 25
"""Connections that are set up by one way before the other has its turn."""
PORT = 8000
SWARM = "10.97.0.11", "10.97.0.12"
LISTENING = AuditTiming(period=3600.0, silent=3600.0)
"""To the kernel's notifications, as agents do, and not looking by itself meanwhile."""
STRAIGHT, VIRTUAL = "10.64.0.65", "10.64.0.4"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="of each comparison; medians are printed (default: 10)")
    parser.add_argument("--only", choices=PARTS, help="of what is measured")
    options = parser.parse_args()
    runs, parts = options.runs, (options.only,) if options.only else PARTS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of all that cleans up
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with hosts() as (wire, one, other):
        if "changes" in parts:
            control_plane(one)
        if "peers" in parts:
            many_peers(wire, one, other, runs)
    if "doors" in parts:
        with hosts() as (wire, one, other):
            many_doors(wire, one, other, runs)
    with hosts() as (wire, one, other):
        client, server = containers(wire, one, other)
        if "throughput" in parts:
            throughput(wire, client, server, runs)
        if "requests" in parts:
            virtual_address(client, server, runs)
    if "encrypted" in parts:
        encrypted_throughput(runs)
    print(f"load {os.getloadavg()[0]:.1f} afterwards")


@contextmanager
def hosts() -> Iterator[tuple[World, Host, Host]]:
    """Yield a wire with two hosts that carry a network."""
    with tempfile.TemporaryDirectory() as directory, world(Path(directory)) as wire:
        pair = wire.add_host(audit=LISTENING), wire.add_host(dns=False)
        wire.add_network(NETWORK, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
        for host in pair:
            host.apply()
        yield wire, *pair


def compare(what: str, figures: Mapping[str, Sequence[float]], base: str, digits: int = 2) -> None:
    """Print the medians of some ways, and the median of each run's ratio to one of them."""
    ratios = {way: median(a / b for a, b in zip(found, figures[base], strict=True)) for way, found in figures.items()}
    said = (
        f"{way} {median(found):,.{digits}f}" + (f" ({ratios[way]:.3f} x)" if way != base else "")
        for way, found in figures.items()
    )
    print(f"{what}: {', '.join(said)}")


# ---------------------------------------------------------------- control plane


def control_plane(host: Host) -> None:
    """Print the processor time of learning many services, and of changes of one beside so many connections."""
    client = host.start_container("benchclient00", (NETWORK, "10.64.0.33"))
    server = host.start_container("benchserver00", (NETWORK, "10.64.0.34"))
    here, pieces = assigned(host), [piece for number in range(SERVICES) for piece in service(number)]
    began = time.process_time()
    here = advance(here, Update(LeaderEpoch(1, 1), False, 2, 1, tuple(pieces), ()))
    apply(host, here)
    learn_s = time.process_time() - began
    print(f"{SERVICES} services with {ENDPOINTS} endpoints each: {learn_s * 1e3:.0f} ms of processor time")
    after_change, *others = [audited(host) for _ in range(1 + AUDITS)]
    print(
        f"an audit of all of it: {after_change * 1e3:.0f} ms after a change, else {spread(others)} ms of processor time"
    )
    beside = (
        NamesAssignment(NETWORK, "svcbench00000", ("beside",), parse_ipv4(VIRTUAL)),
        EndpointAssignment(NETWORK, server.id, "svcbench00000", 1, parse_ipv4("10.64.0.34")),
    )
    here = advance(here, Update(LeaderEpoch(1, 1), False, 3, 2, beside, ()))
    apply(host, here)
    endpoints = iter([piece for piece in pieces if isinstance(piece, EndpointAssignment) and piece.slot == 1])
    with answering_datagrams(server, PORT), tracked_by(host, NETWORK) as netlink:
        for count in TRACKED:
            ask_from_each_port(client, range(30_000, 30_000 + count))
            withdrawn, gone, walk = list[float](), list[float](), list[float]()
            for endpoint, _ in zip(endpoints, range(CHANGES), strict=False):
                here = take_away(host, here, endpoint, withdrawn, gone)
                began = time.process_time()
                conntrack.forget_translated(netlink, (endpoint.address,), ())
                walk.append(time.process_time() - began)
            held = int(host.in_network(NETWORK, "cat /proc/sys/net/netfilter/nf_conntrack_count"))
            assert held >= count, f"{held} connections"
            print(
                f"one endpoint changes, {count:,} connections, ms of processor time: withdrawn {spread(withdrawn)}, "
                f"gone {spread(gone)}, the kernel's walk alone {spread(walk)}"
            )
    gone_keys = tuple(key_of(piece) for piece in (*pieces, *beside))
    apply(host, advance(here, Update(LeaderEpoch(1, 1), False, here.version + 1, here.version, (), gone_keys)))
    for container in (client, server):
        host.stop_container(container.id)


def audited(host: Host) -> float:
    """Return the processor time of comparing all that is intended with the kernel."""
    began = time.process_time()
    assert not host.do(host.plane.verify())
    return time.process_time() - began


def take_away(
    host: Host, here: Assignments, endpoint: EndpointAssignment, withdrawn: list[float], gone: list[float]
) -> Assignments:
    """Have an endpoint withdrawn, then gone; note the processor time of both, and return what is left."""
    key = (key_of(endpoint),)
    for changed, removed, times in (((replace(endpoint, withdrawn=True),), (), withdrawn), ((), key, gone)):
        began = time.process_time()
        here = advance(here, Update(LeaderEpoch(1, 1), False, here.version + 1, here.version, changed, removed))
        apply(host, here)
        times.append(time.process_time() - began)
    return here


def spread(times: Sequence[float]) -> str:
    return f"{median(times) * 1e3:.2f} (p90 {quantiles(times, n=10)[-1] * 1e3:.2f})"


def ask_from_each_port(client: Container, ports: Sequence[int]) -> None:
    """Have a connection tracked for each port: a datagram through a virtual address, and its answer."""

    def ask() -> None:
        for port in ports:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(5)
                asking.bind(("0.0.0.0", port))
                asking.connect((VIRTUAL, PORT))
                asking.send(b"?")
                asking.recv(64)

    client.run(ask)


def assigned(host: Host) -> Assignments:
    """Return the first full set of assignments, applied: the networks alone."""
    networks = tuple(piece for piece, _ in host.world.networks.values())
    here = advance(Assignments(), Update(LeaderEpoch(1, 1), True, 1, 0, networks, ()))
    apply(host, here)
    return here


def apply(host: Host, assignments: Assignments) -> None:
    host.do(host.plane.apply(network_state(f"node-{host.name}", assignments, {}), synced=True))


def service(number: int, network_id: str = NETWORK, endpoints: int = ENDPOINTS) -> list[Piece]:
    """Return the names of a service on a network, and its endpoints."""
    service_id = f"svc{number:010}"
    names = NamesAssignment(network_id, service_id, (f"service{number}",), parse_ipv4("10.64.240.0") + number)
    return [
        names,
        *(
            EndpointAssignment(
                network_id, f"t{number:06}{slot:06}", service_id, slot, parse_ipv4("10.64.16.0") + number * 16 + slot
            )
            for slot in range(1, endpoints + 1)
        ),
    ]


def many_peers(wire: World, one: Host, other: Host, runs: int) -> None:
    """Print what learning many peers takes, and what a datagram to any of many costs beside one to any of a few.

    All peers are at the other host, which drops what comes: it is not on these networks. Either way there are as many
    connections.
    """
    networks = {FEW: FEW_PEERS, MANY: MANY_PEERS}
    for network_id in networks:
        wire.add_network(network_id, "10.128.0.0/12", {"h1": (1,)})
    clients = {n: one.start_container(f"to{n[5:]}", (n, "10.128.0.33")) for n in networks}
    here = assigned(one)
    for version, (network_id, count) in enumerate(networks.items(), 2):
        pieces = tuple(
            PeerAssignment(network_id, f"node{peer:09}", other.address, (2 + peer,)) for peer in range(count)
        )
        began = time.process_time()
        here = advance(here, Update(LeaderEpoch(1, 1), False, version, version - 1, pieces, ()))
        apply(one, here)
        learn_s = time.process_time() - began
    print(f"{MANY_PEERS:,} peers: learned in {learn_s:.2f} s of processor time")
    pieces = service(0, MANY, CHANGES)
    here = advance(here, Update(LeaderEpoch(1, 1), False, here.version + 1, here.version, tuple(pieces), ()))
    apply(one, here)
    withdrawn, gone = list[float](), list[float]()
    for endpoint in pieces:
        if isinstance(endpoint, EndpointAssignment):
            here = take_away(one, here, endpoint, withdrawn, gone)
    print(
        f"one endpoint changes beside {MANY_PEERS:,} peers, ms of processor time: withdrawn {spread(withdrawn)}, "
        f"gone {spread(gone)}"
    )
    last = {network_id: address_of(count - 1) for network_id, count in networks.items()}
    each = {network_id: [address_of(peer) for peer in range(count)] for network_id, count in networks.items()}
    to_one, to_all = ({f"of {count:,}": list[float]() for count in networks.values()} for _ in range(2))
    for run in range(runs + 1):
        for network_id, count in networks.items():
            client = clients[network_id]
            one_s = send_each(client, [last[network_id]], MANY_PEERS) / MANY_PEERS
            all_s = send_each(client, each[network_id], MANY_PEERS // count) / MANY_PEERS
            if run:  # the first one begins the connections
                to_one[f"of {count:,}"].append(one_s * 1e6)
                to_all[f"of {count:,}"].append(all_s * 1e6)
    compare("a datagram to one peer, µs of processor time", to_one, f"of {FEW_PEERS:,}")
    compare("a datagram to any peer in no order, µs of processor time", to_all, f"of {FEW_PEERS:,}")
    for client in clients.values():
        one.stop_container(client.id)


def address_of(peer: int) -> str:
    """Return an address at one of many peers."""
    return format_ipv4(parse_ipv4("10.128.0.0") + SLICE * (2 + peer) + 1)


def many_doors(wire: World, one: Host, other: Host, runs: int) -> None:
    """Print what a datagram from outside and its answer cost by a port that every node publishes, of few and of many.

    It comes in by one node and goes to a task on the other, which has to find back to the node that it came by.
    """
    servers, endpoints, published, fakes = {}, [], [], []
    for count, (network_id, subnet, port) in DOORS.items():
        base = parse_ipv4(subnet.partition("/")[0])
        wire.add_network(network_id, subnet, {"h1": (1,), "h2": (2,)})
        address = base + 2 * SLICE + 1
        servers[count] = other.start_container(f"task{network_id[5:]}1", (network_id, format_ipv4(address)))
        service_id = f"svc{network_id[5:]}"
        endpoints.append(EndpointAssignment(network_id, servers[count].id, service_id, 1, address))
        ports = (PortSpec(protocol="udp", target=PORT, published=port),)
        published.append(PublishedAssignment(network_id, service_id, network_id, False, ports))
        fakes += [
            PeerAssignment(network_id, f"node{peer:09}", format_ipv4(parse_ipv4("100.64.0.0") + peer), (3 + peer,))
            for peer in range(count - 2)
        ]
    wire.extra = {"endpoints": tuple(endpoints), "published": tuple(published)}
    for host in (one, other):
        state = wire.state_for(host)
        host.do(host.plane.apply(replace(state, peers=[*state.peers, *fakes])))
    took = {f"of {count:,}": list[float]() for count in DOORS}
    with ExitStack() as stack:
        for server in servers.values():
            stack.enter_context(answering_datagrams(server, PORT))
        for run in range(runs + 1):
            for count, (_, _, port) in DOORS.items():
                took_s = ask_repeatedly(wire.outside, (one.address, port), CALLS)
                if run:
                    took[f"of {count:,}"].append(took_s / CALLS * 1e6)
    compare("a datagram by the port of another node, and back, µs of processor time", took, f"of {min(DOORS):,}")
    wire.extra = {}
    for server in servers.values():
        other.stop_container(server.id)


@contextmanager
def answering_datagrams(server: Container, port: int) -> Iterator[None]:
    """Send back what comes to a port of a container."""
    ended = threading.Event()
    with server.open_socket(socket.SOCK_DGRAM) as answering:
        answering.bind(("0.0.0.0", port))
        answering.settimeout(0.1)

        def answer() -> None:
            while not ended.is_set():
                with suppress(TimeoutError):
                    said, client = answering.recvfrom(64)
                    answering.sendto(said, client)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def ask_repeatedly(client: Namespace, place: tuple[str, int], times: int) -> float:
    """Return the seconds of processor time of both ends, and of the kernel in between, to be answered so often."""
    with client.open_socket(socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect(place)
        asking.send(b"?")
        asking.recv(64)
        began = time.process_time()
        for _ in range(times):
            asking.send(b"?")
            asking.recv(64)
        return time.process_time() - began


# ---------------------------------------------------------------- data plane


def containers(wire: World, one: Host, other: Host) -> tuple[Container, Container]:
    """Return a client, and a server on the other host that is the only endpoint of a service."""
    client = one.start_container("benchclient01", (NETWORK, "10.64.0.33"))
    server = other.start_container("benchserver01", (NETWORK, STRAIGHT))
    address = parse_ipv4(VIRTUAL)
    wire.extra["names"] = (NamesAssignment(NETWORK, "svcbench00001", ("bench",), address),)
    wire.extra["endpoints"] = (EndpointAssignment(NETWORK, server.id, "svcbench00001", 1, parse_ipv4(STRAIGHT)),)
    one.apply()
    return client, server


def throughput(wire: World, client: Container, server: Container, runs: int) -> None:
    """Print the throughput of one TCP connection between containers, and over what it is compared with."""
    with ExitStack() as stack:
        plain = wire.add_host(dns=False), wire.add_host(dns=False)
        far = stack.enter_context(floor(plain))
        ways = {
            "bare VXLAN": (plain[0].namespace, plain[1].namespace, make_bare(plain)),
            "floor": far,
            "overlay": (client, server, STRAIGHT),
            "by the virtual address": (client, server, VIRTUAL),
        }
        if is_installed():
            engines = stack.enter_context(swarm([wire.add_host(dns=False), wire.add_host(dns=False)]))
            one, other = (
                stack.enter_context(engine.container(f"end{address[-1]}", address))
                for engine, address in zip(engines, SWARM, strict=True)
            )
            ways["Docker Swarm"] = one, other, SWARM[1]
        rate, cost = transfers(ways, runs, TURNS)
    compare("throughput, Gbit/s", rate, "floor")
    compare("of that to bare VXLAN", {way: rate[way] for way in ("bare VXLAN", "overlay")}, "bare VXLAN")
    compare("the sender's processor time, ms a GB", cost, "floor", 0)


def encrypted_throughput(runs: int) -> None:
    """Print the throughput of an encrypted network, and of the tunnel that it goes through alone."""
    with tempfile.TemporaryDirectory() as directory, world(Path(directory)) as wire:
        secret = Secret(wire)
        secret.exchange()
        client, server = secret.start(1), secret.start(2)
        secret.up()
        one, other = secret.hosts
        with mesh_of(one) as here, mesh_of(other) as there:
            ways = {"tunnel alone": (here, there, other.address), "encrypted": (client, server, STRAIGHT)}
            rate, _ = transfers(ways, runs, ENCRYPTED_TURNS)
            by = one.plane.tunnels_by[0]
    compare(f"throughput of an encrypted network, tunnels by {by}, Gbit/s", rate, "tunnel alone")


def transfers(
    ways: Mapping[str, tuple[Namespace, Namespace, str]], runs: int, turns: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return each run's Gbit/s each way, from one namespace to an address of another, and the sender's ms a GB."""
    rate, cost = ({way: list[float]() for way in ways} for _ in range(2))
    with ExitStack() as stack:
        streams = {way: Stream(*ends) for way, ends in ways.items()}
        for stream in streams.values():
            stack.callback(stream.close)
            stream.transfer()
        for _ in range(runs):
            took, used = (dict.fromkeys(ways, 0.0) for _ in range(2))
            for way, stream in [*streams.items()] * turns:
                took_s, used_s = stream.transfer()
                took[way] += took_s
                used[way] += used_s
            gigabytes = turns * STREAM_BYTES / 1e9
            for way in ways:
                rate[way].append(gigabytes * 8 / took[way])
                cost[way].append(used[way] * 1e3 / gigabytes)
    return rate, cost


def virtual_address(client: Container, server: Container, runs: int) -> None:
    """Print latency and connection rate through the virtual address, and straight."""
    ways = {"straight": STRAIGHT, "virtual": VIRTUAL}
    p50, p99, rate = ({way: list[float]() for way in ways} for _ in range(3))
    with answering(server), on_processor(0):
        for run in range(-1, runs):  # the first one warms up
            for way, times in requests(client, ways).items():
                if run >= 0:
                    p50[way].append(median(times) * 1e6)
                    p99[way].append(quantiles(times, n=100)[-1] * 1e6)
            for way, found in connections(client, ways).items():
                if run >= 0:
                    rate[way].append(found)
    compare("a request, p50, µs", p50, "straight", 1)
    compare("a request, p99, µs", p99, "straight", 1)
    compare("connections a second", rate, "straight", 0)


def requests(client: Container, ways: Mapping[str, str]) -> dict[str, list[float]]:
    """Return how long requests took over one connection each way, in seconds; the ways have turns."""
    with ExitStack() as stack:
        calling = {way: stack.enter_context(client.open_socket()) for way in ways}
        for way, address in ways.items():
            calling[way].connect((address, PORT))
            calling[way].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(CALLS):
            for way, connection in calling.items():
                began = time.perf_counter()
                connection.sendall(b"x" * 64)
                connection.recv(64)
                times[way].append(time.perf_counter() - began)
        return times


def connections(client: Container, ways: Mapping[str, str]) -> dict[str, float]:
    """Return how many connections a second can be set up each way, one after the other; the ways have turns."""

    def connect_all() -> dict[str, float]:
        taken = dict.fromkeys(ways, 0.0)
        for _ in range(CALLS // BATCH):
            for way, address in ways.items():
                began = time.perf_counter()
                for _ in range(BATCH):
                    with socket.socket() as calling:
                        calling.connect((address, PORT + 1))
                taken[way] += time.perf_counter() - began
        return {way: CALLS / seconds for way, seconds in taken.items()}

    return client.run(connect_all)


@contextmanager
def answering(server: Namespace) -> Iterator[None]:
    """Have a process answer in a namespace, on a processor of its own if there are several."""
    enter = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{server.fd}", sys.executable]
    program = [str(Path(__file__).with_name("_answer.py")), str(PORT), *map(str, processor(1))]
    with subprocess.Popen([*enter, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as answering:
        said, until = answering.stdout, answering.stdin
        assert said is not None
        assert until is not None
        said.readline()
        yield
        until.close()


if __name__ == "__main__":
    main()
