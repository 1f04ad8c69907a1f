"""Virtual addresses in real namespaces: spreading, leaving, refusing, coming back to oneself, remembering clients."""

import errno
import socket
import struct
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from failing import fail_once
from network_world import Container, Host, World, tracked_by, wait_until

from argosy.agent.network import conntrack
from argosy.agent.network.attachments import Attachments
from argosy.agent.network.carried import CarriedNetwork
from argosy.agent.network.desired import DriftKind
from argosy.agent.network.host import HostNamespace
from argosy.core.addresses import format_ipv4, parse_ipv4
from argosy.core.assignment import EndpointAssignment, NamesAssignment
from argosy.core.errors import TransientError

WEB = "webnet0000001"
OTHER = "othernet00002"
VIRTUAL = "10.64.0.4"
PORT = 8000
CHANGES = 500
"""Of which some meet a packet."""


class Service:
    """A service of three containers that answer who they are, over TCP and UDP, and a client on the other host."""

    def __init__(self, wire: World, pair: tuple[Host, Host]) -> None:
        self.wire = wire
        self.hosts = pair
        self.stack = ExitStack()
        wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
        for host in pair:
            host.apply()
        self.client = pair[0].start_container("clientaaaaaa1", (WEB, "10.64.0.40"))
        self.servers = {
            "a": self._server(pair[1], "servera000001", "10.64.0.65"),
            "b": self._server(pair[1], "serverb000001", "10.64.0.66"),
            "c": self._server(pair[0], "serverc000001", "10.64.0.33"),
        }
        self.affinity = False
        self.weights = dict.fromkeys("abc", 0)
        self.set("abc")

    def _server(self, host: Host, container_id: str, address: str) -> Container:
        container = host.start_container(container_id, (WEB, address))
        listening = self.stack.enter_context(container.listen("0.0.0.0", PORT))
        listening.settimeout(None)
        datagrams = self.stack.enter_context(container.open_socket(socket.SOCK_DGRAM))
        datagrams.settimeout(None)
        datagrams.bind(("0.0.0.0", PORT))
        name = container_id[6].encode()
        threading.Thread(target=_answer_streams, args=(listening, name), daemon=True).start()
        threading.Thread(target=_answer_datagrams, args=(datagrams, name), daemon=True).start()
        self.stack.callback(listening.shutdown, socket.SHUT_RDWR)
        self.stack.callback(_wake, datagrams)
        return container

    def set(self, active: str, withdrawn: str = "") -> None:
        """Have these endpoints, in force on all hosts."""
        address = parse_ipv4(VIRTUAL)
        self.wire.extra["names"] = (NamesAssignment(WEB, "websvc0000001", ("web",), address, self.affinity),)
        self.wire.extra["endpoints"] = tuple(
            EndpointAssignment(
                WEB,
                self.servers[name].id,
                "websvc0000001",
                slot,
                self.servers[name].attachments[0].address,
                self.weights[name],
                name in withdrawn,
            )
            for slot, name in enumerate("abc", 1)
            if name in active + withdrawn
        )
        for host in self.hosts:
            host.apply()

    def ask(self, client: Container | None = None) -> tuple[str, str]:
        """Open a connection to the virtual address; return who answers, and the address that it sees."""
        with (client or self.client).open_socket() as calling:
            calling.connect((VIRTUAL, PORT))
            return _said(calling.recv(64))

    def counts(self, times: int) -> Counter[str]:
        return Counter(self.ask()[0] for _ in range(times))


def _said(answer: bytes) -> tuple[str, str]:
    name, _, seen = answer.decode().partition(" ")
    return name, seen


def _answer_streams(listening: socket.socket, name: bytes) -> None:
    """Say who one is, then give back what comes, until "bye"."""

    def converse(answering: socket.socket) -> None:
        with answering:
            try:
                while (said := answering.recv(64)) not in (b"", b"bye"):
                    answering.sendall(said)
            except OSError:
                return

    while True:
        try:
            answering, (seen, _) = listening.accept()
        except OSError:
            return
        answering.sendall(name + b" " + seen.encode())
        threading.Thread(target=converse, args=(answering,), daemon=True).start()


def _answer_datagrams(datagrams: socket.socket, name: bytes) -> None:
    while True:
        try:
            said, client = datagrams.recvfrom(64)
        except OSError:
            return
        if said == b"end":
            return
        datagrams.sendto(name + b" " + client[0].encode(), client)


def _wake(datagrams: socket.socket) -> None:
    address = ("127.0.0.1", datagrams.getsockname()[1])
    datagrams.sendto(b"end", address)


@pytest.fixture
def service(wire: World, pair: tuple[Host, Host]):
    made = Service(wire, pair)
    with made.stack:
        yield made


@pytest.fixture(params=["picked out", "listed"])
def forgotten(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How connections are found that are to be forgotten; all are listed where many endpoints leave at once."""
    if request.param == "listed":
        monkeypatch.setattr(conntrack, "FEW", 0)
    return str(request.param)


def test_connections_are_spread_evenly_and_see_the_client(service: Service) -> None:
    assert service.counts(9) == {"a": 3, "b": 3, "c": 3}
    assert service.ask()[1] == "10.64.0.40"
    for host in service.hosts:
        assert host.do(host.plane.verify()) == []


def test_datagrams_are_spread_and_answered_from_the_address_that_was_asked(service: Service) -> None:
    found = set()
    for _ in range(6):
        with service.client.open_socket(socket.SOCK_DGRAM) as asking:
            asking.connect((VIRTUAL, PORT))  # takes answers from that address alone
            asking.send(b"who?")
            found.add(_said(asking.recv(64))[0])
    assert found == {"a", "b", "c"}


def test_weights_are_shares(service: Service) -> None:
    service.weights = {"a": 4, "b": 2, "c": 2}
    service.set("abc")
    assert service.counts(8) == {"a": 4, "b": 2, "c": 2}


def test_a_ping_is_answered(service: Service) -> None:
    question = struct.pack("!BBHHH", 8, 0, 0xF7FD, 1, 1)  # echo request, checksum, identifier 1, sequence 1
    with service.client.open_socket(socket.SOCK_RAW, protocol=socket.IPPROTO_ICMP) as asking:
        asking.sendto(question, (VIRTUAL, 0))
        answer, (source, _) = asking.recvfrom(64)
    assert (answer[20], source) == (0, VIRTUAL)


@pytest.mark.usefixtures("forgotten")
def test_what_is_withdrawn_gets_nothing_new_and_keeps_what_it_has(service: Service) -> None:
    service.set("a")
    with service.client.open_socket() as held, service.client.open_socket(socket.SOCK_DGRAM) as datagrams:
        held.connect((VIRTUAL, PORT))
        assert _said(held.recv(64))[0] == "a"
        datagrams.connect((VIRTUAL, PORT))
        datagrams.send(b"who?")
        assert _said(datagrams.recv(64))[0] == "a"
        service.set("bc", withdrawn="a")
        assert set(service.counts(4)) == {"b", "c"}
        held.sendall(b"still there?")
        assert held.recv(64) == b"still there?"
        # A datagram's sender knows of no connection: it goes to another at once.
        datagrams.send(b"who?")
        assert _said(datagrams.recv(64))[0] in "bc"


@pytest.mark.usefixtures("forgotten")
def test_a_connection_to_one_that_is_gone_ends_instead_of_hanging(service: Service) -> None:
    service.set("a")
    with service.client.open_socket() as held:
        held.connect((VIRTUAL, PORT))
        assert _said(held.recv(64))[0] == "a"
        service.hosts[1].sh("ip link set eth0 down")  # nobody there can say that it ends
        service.set("c")
        held.sendall(b"anybody?")
        with pytest.raises(ConnectionResetError):
            held.recv(64)


def test_a_new_connection_on_the_port_of_one_that_has_ended_is_not_forgotten_with_it(
    service: Service, forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may begin between the moment when the balancer has changed, or connections are listed, and the forgetting."""
    step = "forget" if forgotten == "listed" else "forget_translated"
    forget = getattr(conntrack, step)
    begun: list[socket.socket] = []

    def call() -> socket.socket:
        calling = service.client.open_socket()
        calling.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        calling.bind(("10.64.0.40", 40_000))
        calling.connect((VIRTUAL, PORT))
        return calling

    def forget_late(*which: Any) -> Any:
        if not begun:
            begun.append(call())
        return forget(*which)

    service.set("a")
    with call() as first:
        assert _said(first.recv(64))[0] == "a"
        first.sendall(b"bye")
        assert first.recv(64) == b""
    monkeypatch.setattr(conntrack, step, forget_late)
    service.set("b")
    with begun[0] as second:
        assert _said(second.recv(64))[0] == "b"
        second.sendall(b"still there?")
        assert second.recv(64) == b"still there?"


def test_no_connection_is_led_nowhere_while_endpoints_change(service: Service) -> None:
    """A packet that is half-way through a service's rule as it is replaced finds nothing in the map of the old one."""
    over = threading.Event()
    failed: list[OSError] = []

    def call() -> None:
        while not over.is_set():
            try:
                service.ask()
            except OSError as error:
                failed.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    address, host = parse_ipv4(VIRTUAL), service.hosts[0]
    names = (NamesAssignment(WEB, "websvc0000001", ("web",), address),)
    servers = [service.servers[name].attachments[0].address for name in "abc"]
    for change in range(CHANGES):
        service.wire.extra["names"] = names
        service.wire.extra["endpoints"] = tuple(
            EndpointAssignment(WEB, f"task{n}", "websvc0000001", n, servers[n % 3]) for n in range(20 + change % 2)
        )
        host.apply()
    over.set()
    for caller in callers:
        caller.join()
    assert failed == []


def test_without_endpoints_it_refuses(service: Service) -> None:
    """Every time: the kernel's limit would let a client that asks again within the second wait in vain."""
    service.set("")
    with service.client.open_socket() as calling:
        assert calling.connect_ex((VIRTUAL, PORT)) == errno.ECONNREFUSED
    with service.client.open_socket(socket.SOCK_DGRAM) as asking:
        asking.connect((VIRTUAL, PORT))
        asking.settimeout(1)
        for _ in range(20):
            asking.send(b"who?")
            with pytest.raises(ConnectionRefusedError):
                asking.recv(64)
    service.set("b")
    assert service.ask()[0] == "b"


def test_a_container_reaches_itself_through_its_service(service: Service) -> None:
    service.set("c")
    assert service.ask(service.servers["c"]) == ("c", "169.254.1.1")
    service.set("abc")
    assert {service.ask(service.servers["c"])[0] for _ in range(3)} == {"a", "b", "c"}


def test_a_client_keeps_its_endpoint_while_that_is_there(service: Service) -> None:
    service.affinity = True
    service.set("abc")
    first = service.ask()[0]
    other = service.hosts[0].start_container("clientbbbbbb1", (WEB, "10.64.0.41"))
    assert service.counts(5) == {first: 5}
    assert service.ask(other)[0] != first  # the next one in turn
    left = "abc".replace(first, "")
    service.set(left, withdrawn=first)
    second = service.ask()[0]
    assert second in left
    service.set("abc")  # whoever came back does not get its clients back
    assert service.counts(5) == {second: 5}
    for host in service.hosts:
        assert host.do(host.plane.verify()) == []


def test_open_connections_are_counted(service: Service) -> None:
    service.set("a")
    server = service.hosts[1]
    address = {(WEB, parse_ipv4("10.64.0.65"))}
    assert server.do(server.plane.connections("servera000001")) == 0
    with service.client.open_socket() as held, service.servers["b"].open_socket() as straight:
        held.connect((VIRTUAL, PORT))
        held.recv(64)
        straight.connect(("10.64.0.65", PORT))
        straight.recv(64)
        assert server.do(server.plane.connections("servera000001")) == 2, address
        assert server.do(server.plane.connections("serverb000001")) == 0  # it has opened one, and answers none
    wait_until(lambda: server.do(server.plane.connections("servera000001")) == 0)


def test_a_new_life_finds_the_balancer_as_it_was(service: Service) -> None:
    host = service.hosts[0]
    host.new_life()
    assert host.apply() == 0
    assert service.counts(3) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("step", ["read", "converge"])
def test_a_failure_in_the_first_pass_of_a_new_life_costs_no_service(
    service: Service, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = service.hosts[0]
    host.new_life()
    fail_once(monkeypatch, CarriedNetwork, step)
    with pytest.raises(TransientError, match="not now"):
        host.apply()
    assert service.counts(3) == {"a": 1, "b": 1, "c": 1}
    host.apply()
    assert service.counts(3) == {"a": 1, "b": 1, "c": 1}
    assert host.do(host.plane.verify()) == []
    service.set("b")
    assert service.counts(2) == {"b": 2}


@pytest.mark.parametrize("retried", [False, True], ids=["at once", "by the next pass"])
def test_a_failure_in_one_network_costs_another_no_change(
    service: Service, retried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is told once: the one that fails comes before it."""
    host, wire = service.hosts[0], service.wire
    first = wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,)})
    wire.networks = {OTHER: wire.networks[OTHER], **wire.networks}
    host.apply()
    wire.networks[OTHER] = (replace(first, mtu=1300), {"h1": (1,)})
    fail_once(monkeypatch, Attachments, "refresh")
    with pytest.raises(TransientError, match="not now"):
        service.set("b")
    if retried:
        host.apply()
    assert service.counts(2) == {"b": 2}
    assert not [d for d in host.do(host.plane.verify()) if d.network_id == WEB]


def test_what_changes_while_a_network_is_not_assigned_is_in_force_once_it_is_again(service: Service) -> None:
    """It waits for its containers, and then is not removed: services that went meanwhile are gone."""
    host, wire = service.hosts[0], service.wire
    networks, wire.networks = wire.networks, {}
    service.set("")
    wire.extra.clear()
    host.apply()
    wire.networks = networks
    host.apply()
    assert "websvc" not in host.in_network(WEB, "nft list ruleset")
    assert host.do(host.plane.verify()) == []


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush chain ip argosy-balance s-websvc0000001",
        "nft delete table ip argosy-balance",
        "nft flush map ip argosy-balance services",
        "nft flush set ip argosy-balance own",
        "nft insert rule ip argosy-balance choose counter drop",
        "nft add rule ip argosy-balance s-websvc0000001 drop",
    ],
)
def test_what_somebody_changed_is_found_and_put_right(service: Service, damage: str) -> None:
    host = service.hosts[0]
    host.in_network(WEB, damage)
    assert [d.kind for d in host.do(host.plane.repair())] == [DriftKind.DIFFERENT]
    assert host.do(host.plane.verify()) == []
    assert service.counts(3) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.usefixtures("forgotten")
def test_nothing_is_forgotten_but_what_goes_through_the_virtual_address_to_an_endpoint_that_left(
    service: Service,
) -> None:
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    a, b = "10.64.0.65", "10.64.0.66"
    service.set("ab")
    with ExitStack() as stack:
        netlink = stack.enter_context(tracked_by(service.hosts[0], WEB))
        for kind in (stream, datagram):
            for address in (VIRTUAL, VIRTUAL, a):  # in turn: to each
                asking = stack.enter_context(service.client.open_socket(kind))
                asking.connect((address, PORT))
                asking.send(b"who?")
                asking.recv(64)

        def tracked() -> set[tuple[int, str, str]]:
            found = conntrack.served_by(netlink, {parse_ipv4(a), parse_ipv4(b)})
            return {(c.protocol, format_ipv4(c.dialled), format_ipv4(c.served_by)) for c in found}

        tcp, udp = socket.IPPROTO_TCP, socket.IPPROTO_UDP
        staying = {(tcp, VIRTUAL, b), (tcp, a, a), (udp, VIRTUAL, b), (udp, a, a)}
        assert tracked() == staying | {(tcp, VIRTUAL, a), (udp, VIRTUAL, a)}
        service.set("b", withdrawn="a")
        assert tracked() == staying | {(tcp, VIRTUAL, a)}
        service.set("b")
        assert tracked() == staying


FAILURES: dict[str, tuple[type, str]] = {
    "the look": (CarriedNetwork, "read"),
    "the network": (CarriedNetwork, "converge"),
    "the host": (HostNamespace, "converge"),
    "the forgetting": (CarriedNetwork, "forget_stale_connections"),
}


@pytest.mark.parametrize("failing", ["nothing", *FAILURES])
def test_connections_through_an_endpoint_that_left_unseen_are_forgotten(
    service: Service, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though something fails at the first attempt."""
    service.set("a")
    host = service.hosts[0]
    with service.client.open_socket(socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((VIRTUAL, PORT))
        datagrams.send(b"who?")
        assert _said(datagrams.recv(64))[0] == "a"
        host.do(host.plane.close())
        host.plane = host._new_plane()
        host.do(host.plane.start())
        if failing in FAILURES:
            fail_once(monkeypatch, *FAILURES[failing])
            with pytest.raises(TransientError, match="not now"):
                service.set("b")
        service.set("b")
        with tracked_by(host, WEB) as netlink:
            assert conntrack.served_by(netlink, {parse_ipv4("10.64.0.65")}) == []
        datagrams.send(b"who?")
        assert _said(datagrams.recv(64))[0] == "b"


def test_a_connection_that_was_never_answered_counts_only_while_it_may_still_be(service: Service) -> None:
    service.set("a")
    server, deaf = service.hosts[1], service.servers["a"]
    deaf.sh("nft 'add table ip deaf; add chain ip deaf in { type filter hook input priority 0; tcp dport 9999 drop; }'")
    with service.client.open_socket() as calling:
        calling.setblocking(False)
        assert calling.connect_ex(("10.64.0.65", 9999)) == errno.EINPROGRESS
        wait_until(lambda: server.do(server.plane.connections("servera000001")) == 1)
    wait_until(lambda: server.do(server.plane.connections("servera000001")) == 0, 30)
