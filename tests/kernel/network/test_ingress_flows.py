"""Flows by published ports: datagrams that go on when their endpoint goes, and clients by all nodes at once."""

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from failing import fail_once
from ingress_world import CLIENT, WEB, Published
from network_world import Container, Namespace, World

from argosy.agent.network.host import HostNamespace
from argosy.core.assignment import EndpointAssignment, PublishedAssignment
from argosy.core.errors import TransientError
from argosy.core.service import PortSpec

ENTRIES = pytest.mark.parametrize("entry", [0, 1, 2], ids=["its-own-node", "the-next-ones-node", "a-third-node"])
UDP = PortSpec(protocol="udp", target=53, published=5300)
KEPT = PortSpec(protocol="udp", target=53, published=5301)
OTHER = "othernet00002"
CLIENTS = 50
FIRST_PORT = 6000


def datagrams_at(server: Namespace, port: int = 53) -> socket.socket:
    opened = server.open_socket(socket.SOCK_DGRAM)
    opened.bind(("0.0.0.0", port))
    return opened


class Flow:
    """One client's datagrams from one port to one address, as of a program that never stops asking."""

    def __init__(self, client: Namespace, address: tuple[str, int]) -> None:
        self._socket = datagrams_at(client, FIRST_PORT + address[1])
        self._socket.connect(address)

    def reaches(self, servers: Iterable[socket.socket]) -> socket.socket | None:
        """Ask once, and return who got the question and whose answer came back; None: nobody."""
        servers = list(servers)
        with contextlib.suppress(ConnectionRefusedError):
            self._socket.send(b"question")
        for server in servers:
            server.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                _, who = server.recvfrom(100)
                server.sendto(b"answer", who)
                assert self._socket.recv(100) == b"answer"
                return server
        return None

    def is_refused(self) -> bool:
        """Ask once, and tell whether somebody says that nobody is there."""
        with contextlib.suppress(ConnectionRefusedError):
            self._socket.send(b"question")
            self._socket.recv(100)
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@contextmanager
def flow(client: Namespace, address: str, port: int = 5300) -> Iterator[Flow]:
    made = Flow(client, (address, port))
    try:
        yield made
    finally:
        made.close()


def withdraw(web: Published, task: str) -> None:
    web.endpoints[task] = replace(web.endpoints[task], withdrawn=True)
    web.apply()


def go(web: Published, task: str) -> None:
    del web.endpoints[task]
    web.apply()


@pytest.mark.parametrize("leave", [withdraw, go])
@ENTRIES
def test_datagrams_find_another_endpoint(
    wire: World, web: Published, entry: int, leave: Callable[[Published, str], None]
) -> None:
    """With every datagram sent from the same port: the kernel remembers where the last one went."""
    tasks = {"taskaaaaaaaa1": "10.64.0.33", "taskbbbbbbbb1": "10.64.0.65"}
    containers = [web.add(wire.hosts[i], task, address) for i, (task, address) in enumerate(tasks.items())]
    web.ports = (UDP,)
    web.apply()
    with ExitStack() as open_, flow(wire.outside, wire.hosts[entry].address) as asking:
        servers = [open_.enter_context(datagrams_at(container)) for container in containers]
        first = asking.reaches(servers)
        assert first is not None
        assert all(asking.reaches(servers) is first for _ in range(3))
        place = servers.index(first)
        leave(web, list(tasks)[place])
        assert all(asking.reaches(servers) is servers[1 - place] for _ in range(3))
        web.endpoints.clear()
        web.apply()
        assert asking.is_refused()
        web.endpoints["taskaaaaaaaa1"] = EndpointAssignment(WEB, "taskaaaaaaaa1", "web", 1, 0x0A400021)
        web.apply()
        assert asking.reaches(servers) is servers[0]


@pytest.mark.parametrize("entry", [0, 2], ids=["its-own-node", "a-third-node"])
@pytest.mark.parametrize(
    "moved", ["to another service", "while no agent ran", "to another network", "to another port", "nowhere"]
)
def test_datagrams_find_where_the_port_leads_now(wire: World, web: Published, entry: int, moved: str) -> None:
    """While the former endpoint is still there, and has the port that they went to."""
    wire.add_network(OTHER, "10.64.0.0/16", {"h1": (1,), "h2": (2,), "h3": (3,)})
    one = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (UDP, KEPT)
    web.apply()
    network = OTHER if moved == "to another network" else WEB
    two = wire.hosts[1].start_container("taskcccccccc1", (network, "10.64.0.65"))
    endpoint = EndpointAssignment(network, "taskcccccccc1", "other", 1, 0x0A400041)
    address = wire.hosts[entry].address
    with ExitStack() as open_, flow(wire.outside, address) as asking, flow(wire.outside, address, 5301) as going_on:
        before, after, elsewhere = (open_.enter_context(datagrams_at(*at)) for at in ((one, 53), (two, 53), (one, 54)))
        servers = [before, after, elsewhere]
        assert asking.reaches(servers) is before
        assert going_on.reaches(servers) is before
        ports = (replace(UDP, target=54), KEPT) if moved == "to another port" else (KEPT,)
        published = [PublishedAssignment(WEB, "web", "web", ports=ports)]
        if moved in ("to another service", "to another network", "while no agent ran"):
            published.append(PublishedAssignment(network, "other", "other", ports=(UDP,)))
        wire.extra = {"endpoints": (*web.endpoints.values(), endpoint), "published": tuple(published)}
        for host in wire.hosts:
            if moved == "while no agent ran":
                host.new_life()
            host.apply()
        if moved == "nowhere":
            assert asking.is_refused()
        else:
            assert asking.reaches(servers) is (elsewhere if moved == "to another port" else after)
        assert going_on.reaches(servers) is before


@pytest.mark.parametrize("step", ["forget_datagrams", "converge"])
def test_datagrams_that_could_not_be_led_anew_are_by_the_next_pass(
    wire: World, web: Published, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = wire.hosts[0]
    server = web.add(host, "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (UDP,)
    web.apply()
    with ExitStack() as open_, flow(wire.outside, host.address) as asking:
        servers = [open_.enter_context(datagrams_at(server, port)) for port in (53, 54)]
        assert asking.reaches(servers) is servers[0]
        web.ports = (replace(UDP, target=54),)
        web.tell()
        fail_once(monkeypatch, HostNamespace, step)
        with pytest.raises(TransientError, match="not now"):
            host.apply()
        host.apply()
        assert asking.reaches(servers) is servers[1]


def test_datagrams_to_a_port_that_closed_end_though_a_repair_comes_in_between(
    wire: World, web: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which does not take for done what could not be done when it closed."""
    host = wire.hosts[0]
    server = web.add(host, "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (UDP,)
    web.apply()
    with datagrams_at(server) as answering, flow(wire.outside, host.address) as asking:
        assert asking.reaches([answering]) is answering
        web.ports = ()
        web.tell()
        fail_once(monkeypatch, HostNamespace, "forget_datagrams")
        with pytest.raises(TransientError, match="not now"):
            host.apply()
        host.sh("nft flush ruleset")
        host.do(host.plane.repair())
        assert asking.reaches([answering]) is None


@pytest.fixture
def crowd(wire: World, web: Published) -> tuple[Container, list[tuple[int, str]]]:
    """An endpoint on a fourth node, and who comes to it: the same ports of one client by each of the other three."""
    host = wire.add_host(dns=False)
    slices = {f"h{i}": (i,) for i in range(1, 5)}
    wire.networks[WEB] = (wire.networks[WEB][0], slices)
    server = web.add(host, "taskdddddddd1", "10.64.0.129")
    web.ports = (PortSpec(target=80, published=8080), UDP)
    web.apply()
    return server, [(FIRST_PORT + n, entry.address) for n in range(CLIENTS) for entry in wire.hosts[:3]]


def own_port(client: Namespace, kind: int, port: int) -> socket.socket:
    """Open a socket at a port that others have as well: what comes is told apart by whom it comes from."""
    opened = client.open_socket(kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((CLIENT, port))
    return opened


def test_many_clients_behind_one_address_come_in_by_all_nodes_at_once(
    wire: World, crowd: tuple[Container, list[tuple[int, str]]]
) -> None:
    """As behind a proxy or a translator: the same ports by each node. All are open before the first is answered."""
    server, clients = crowd
    with ExitStack() as open_, server.listen("0.0.0.0", 80) as listening:
        connections = {}
        for port, entry in clients:
            calling = open_.enter_context(own_port(wire.outside, socket.SOCK_STREAM, port))
            calling.connect((entry, 8080))
            answering, (seen, _) = listening.accept()
            assert seen == CLIENT
            connections[port, entry] = calling, open_.enter_context(answering)
        for (port, entry), (calling, _) in connections.items():
            calling.sendall(f"{port} by {entry}".encode())
        for _, answering in reversed(connections.values()):
            answering.sendall(b"you are " + answering.recv(100))
        for (port, entry), (calling, _) in connections.items():
            assert calling.recv(100).decode() == f"you are {port} by {entry}"


def test_datagrams_of_many_clients_behind_one_address_come_in_by_all_nodes_at_once(
    wire: World, crowd: tuple[Container, list[tuple[int, str]]]
) -> None:
    server, clients = crowd
    with ExitStack() as open_, datagrams_at(server) as answering:
        flows = {}
        for port, entry in clients:
            asking = flows[port, entry] = open_.enter_context(own_port(wire.outside, socket.SOCK_DGRAM, port))
            asking.connect((entry, 5300))
            asking.send(f"{port} by {entry}".encode())
        came = [answering.recvfrom(100) for _ in clients]
        assert {who[0] for _, who in came} == {CLIENT}
        assert len({who for _, who in came}) == len(clients)
        for said, who in reversed(came):
            answering.sendto(b"you are " + said, who)
        for (port, entry), asking in flows.items():
            assert asking.recv(100).decode() == f"you are {port} by {entry}"
