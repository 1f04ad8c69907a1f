"""A service of several hosts that publishes ports, and talking to it."""

import socket
from ipaddress import IPv4Address

from network_world import Container, Host, Namespace, World

from argosy.core.assignment import EndpointAssignment, PublishedAssignment
from argosy.core.service import HostPort, PortSpec

WEB = "webnet0000001"
CLIENT = "192.0.2.254"
SAID = {"tcp": b"x" * 100, "udp": b"question"}
"""What can be found in what a client says to a server."""


class Published:
    """A network on all hosts, a service with endpoints on it, and its published ports."""

    def __init__(self, wire: World) -> None:
        self.wire = wire
        wire.add_network(WEB, "10.64.0.0/16", {f"h{i}": (i,) for i in range(1, len(wire.hosts) + 1)})
        self.endpoints: dict[str, EndpointAssignment] = {}
        self.ports: tuple[PortSpec, ...] = ()
        self.affinity = False

    def add(self, host: Host, task_id: str, address: str, service: str = "web") -> Container:
        container = host.start_container(task_id, (WEB, address))
        number = int(IPv4Address(address))
        self.endpoints[task_id] = EndpointAssignment(WEB, task_id, service, 1, number)
        return container

    def tell(self) -> None:
        """Have the hosts be told with their next set."""
        published = (PublishedAssignment(WEB, "web", "web", self.affinity, self.ports),) if self.ports else ()
        self.wire.extra = {"endpoints": tuple(self.endpoints.values()), "published": published}

    def apply(self) -> None:
        self.tell()
        for host in self.wire.hosts:
            host.apply()

    def publish(self, mode: str, protocol: str) -> list[Host]:
        """Lead port 8080 to port 80 of the tasks, and return the hosts that have it: all, or those of the tasks."""
        if mode == "ingress":
            self.ports = (PortSpec(protocol=protocol, target=80, published=8080),)
            entries = self.wire.hosts
        else:
            entries = [h for h in self.wire.hosts if self._serving(h)]
            for host in entries:
                host.host_ports = (HostPort(protocol, 8080, 80),)
        self.apply()
        return entries

    def _serving(self, host: Host) -> bool:
        return any(self.endpoints[task].service_id == "web" for task in host.containers)


def ask(
    client: Namespace,
    server: Namespace,
    address: str,
    port: int,
    own: tuple[str, int] | None = None,
    *,
    protocol: str = "tcp",
) -> str:
    """Have a client talk to a server at its port 80, and return the client that the server saw."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with client.open_socket(kind) as calling:
        if own:
            calling.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            calling.bind(own)
        return (_converse if protocol == "tcp" else _ask_and_answer)(calling, server, (address, port))


def _converse(calling: socket.socket, server: Namespace, address: tuple[str, int]) -> str:
    with server.listen("0.0.0.0", 80) as listening:
        calling.connect(address)
        answering, (seen, _) = listening.accept()
        with answering:
            calling.sendall(b"x" * 100_000)
            left = 100_000
            while left:
                left -= len(answering.recv(left))
            answering.sendall(b"y" * 100_000)
            left = 100_000
            while left:
                left -= len(calling.recv(left))
        return seen


def _ask_and_answer(calling: socket.socket, server: Namespace, address: tuple[str, int]) -> str:
    with server.open_socket(socket.SOCK_DGRAM) as answering:
        answering.bind(("0.0.0.0", 80))
        calling.connect(address)  # so only what that address says is heard
        for number in range(3):
            question = f"question {number}".encode()
            calling.send(question)
            said, who = answering.recvfrom(100)
            assert said == question
            answering.sendto(b"answer", who)
            assert calling.recv(100) == b"answer"
        return who[0]
