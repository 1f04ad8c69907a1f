"""What load balancing costs a node: learning services, following a change, and calling through a virtual address.

Control plane: processor time of this process, in which a real plane runs, from an assignment message's pieces to the
kernel and argosy-dns (whose own time is not in it). Data plane: two hosts on a wire; the same client calls the same
server straight and through its service's address, in turn.
"""

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kernel" / "network"))

from network_world import Container, Host, world

from argosy.agent.logic.assignments import Assignments, Update, advance
from argosy.agent.tasks.wiring import network_state
from argosy.core.addresses import parse_ipv4
from argosy.core.assignment import EndpointAssignment, LeaderEpoch, NamesAssignment, Piece, key_of

NETWORK = "benchnetwork1"
SERVICES = 1000
ENDPOINTS = 10
CHANGES = 40
CALLS = 400
ROUNDS = 10
PORT = 8000


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as directory, world(Path(directory)) as wire:
        hosts = wire.add_host(), wire.add_host(dns=False)
        wire.add_network(NETWORK, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
        for host in hosts:
            host.apply()
        learn_s, changes_s = control_plane(hosts[0])
        print(f"{SERVICES} services with {ENDPOINTS} endpoints each: {learn_s * 1e3:.0f} ms of processor time")
        print(
            f"one endpoint changes: median {median(changes_s) * 1e3:.2f} ms of processor time, "
            f"p90 {quantiles(changes_s, n=10)[-1] * 1e3:.2f} ms"
        )
        data_plane(*hosts)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


# ---------------------------------------------------------------- control plane


def control_plane(host: Host) -> tuple[float, list[float]]:
    """Return the processor time of learning all services, and of each of some changes, in seconds."""
    networks = [piece for piece, _ in host.world.networks.values()]
    here = advance(Assignments(), Update(LeaderEpoch(1, 1), True, 1, 0, tuple(networks), ()))
    apply(host, here)
    pieces: list[Piece] = [piece for number in range(SERVICES) for piece in service(number)]
    began = time.process_time()
    here = advance(here, Update(LeaderEpoch(1, 1), False, 2, 1, tuple(pieces), ()))
    apply(host, here)
    learn_s = time.process_time() - began
    changes = []
    for number in range(CHANGES):
        endpoint = service(number)[1]
        assert isinstance(endpoint, EndpointAssignment)
        changed = replace(endpoint, withdrawn=True)
        began = time.process_time()
        here = advance(here, Update(LeaderEpoch(1, 1), False, number + 3, number + 2, (changed,), ()))
        apply(host, here)
        changes.append(time.process_time() - began)
    gone = tuple(key_of(piece) for piece in pieces)
    apply(host, advance(here, Update(LeaderEpoch(1, 1), False, here.version + 1, here.version, (), gone)))
    return learn_s, changes


def apply(host: Host, assignments: Assignments) -> None:
    host.do(host.plane.apply(network_state(assignments, {})))


def service(number: int) -> list[Piece]:
    """Return the names of a service, and its endpoints."""
    service_id = f"svc{number:010}"
    names = NamesAssignment(NETWORK, service_id, (f"service{number}",), parse_ipv4("10.64.240.0") + number)
    return [
        names,
        *(
            EndpointAssignment(
                NETWORK, f"t{number:06}{slot:06}", service_id, slot, parse_ipv4("10.64.16.0") + number * 16 + slot
            )
            for slot in range(1, ENDPOINTS + 1)
        ),
    ]


# ---------------------------------------------------------------- data plane


def data_plane(one: Host, other: Host) -> None:
    """Print latency and connection rate through the virtual address, and straight, and their ratios."""
    client = one.start_container("benchclient01", (NETWORK, "10.64.0.33"))
    server = other.start_container("benchserver01", (NETWORK, "10.64.0.65"))
    one.world.extra["names"] = (NamesAssignment(NETWORK, "svcbench00001", ("bench",), parse_ipv4("10.64.0.4")),)
    one.world.extra["endpoints"] = (
        EndpointAssignment(NETWORK, server.id, "svcbench00001", 1, parse_ipv4("10.64.0.65")),
    )
    one.apply()
    with server.listen("0.0.0.0", PORT) as listening:
        listening.settimeout(None)
        listening.listen(1024)
        threading.Thread(target=echo_each, args=(listening,), daemon=True).start()
        ways = {"straight": "10.64.0.65", "virtual": "10.64.0.4"}
        latency: dict[str, list[float]] = {way: [] for way in ways}
        rate: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, address in ways.items():
                latency[way] += asked(client, address)
                rate[way].append(connected(client, address))
        listening.shutdown(socket.SHUT_RDWR)
    for what, of in (("p50", median), ("p99", lambda times: quantiles(times, n=100)[-1])):
        figures = {way: of(times) * 1e6 for way, times in latency.items()}
        print(compare(f"a request, {what}, µs", figures))
    print(compare("connections a second", {way: median(rates) for way, rates in rate.items()}))


def compare(what: str, figures: dict[str, float]) -> str:
    ratio = figures["virtual"] / figures["straight"]
    return f"{what}: straight {figures['straight']:.0f}, virtual {figures['virtual']:.0f} (ratio {ratio:.2f})"


def asked(client: Container, address: str) -> list[float]:
    """Return how long each request over one connection took, in seconds."""
    with client.open_socket() as calling:
        calling.connect((address, PORT))
        calling.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return [timed(lambda: (calling.sendall(b"x" * 64), calling.recv(64))) for _ in range(CALLS)]


def connected(client: Container, address: str) -> float:
    """Return how many connections a second can be set up, one after the other."""

    def connect_all() -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            with socket.socket() as calling:
                calling.connect((address, PORT))
        return CALLS / (time.perf_counter() - began)

    return client.run(connect_all)


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def echo_each(listening: socket.socket) -> None:
    """Give back what comes, one connection after the other."""
    while True:
        try:
            answering, _ = listening.accept()
        except OSError:
            return
        with answering, suppress(OSError):
            answering.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while said := answering.recv(64):
                answering.sendall(said)


if __name__ == "__main__":
    main()
