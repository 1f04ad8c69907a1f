"""Names asked from inside containers, over UDP and TCP; upstream; and argosy-dns coming and going meanwhile."""

import asyncio
import os
import secrets
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from network_world import DEADLINE_S, Container, Host, Namespace, World, kill, wait_until
from test_reach import OTHER, WEB

from argosy.agent.network.dns_sockets import RECEIVE_BYTES
from argosy.core.assignment import EndpointAssignment, NamesAssignment
from argosy.core.errors import TransientError
from tests.pace import machine_slowness

A, PTR, TXT, AAAA = 1, 12, 16, 28
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


class Reply:
    """A DNS answer, read as simply as can be: by code that is not the project's."""

    def __init__(self, data: bytes) -> None:
        self.number, self.flags, _, answers, authorities, _ = struct.unpack_from("!6H", data)
        self.code = self.flags & 15
        self.cut = bool(self.flags & 0x0200)
        self.authorities = authorities
        self.addresses = set()
        self.pointers = []
        offset = 12
        while data[offset]:
            offset += data[offset] + 1
        offset += 5
        for _ in range(answers):
            kind, _, ttl, length = struct.unpack_from("!2xHHIH", data, offset)
            body = data[offset + 12 : offset + 12 + length]
            assert ttl <= 5 or kind != A or body[:1] == b"\xcb"
            if kind == A:
                self.addresses.add(socket.inet_ntoa(body))
            else:
                self.pointers.append(body)
            offset += 12 + length


def question(name: str, kind: int = A) -> bytes:
    labels = b"".join(bytes((len(p),)) + p.encode() for p in name.split("."))
    return struct.pack("!6H", secrets.randbits(16), 0x0100, 1, 0, 0, 0) + labels + struct.pack("!xHH", kind, 1)


def ask(container: Namespace, name: str, kind: int = A, *, tcp: bool = False, seconds: float = DEADLINE_S) -> Reply:
    """Ask the container's name server."""
    query = question(name, kind)
    with container.open_socket(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as asking:
        asking.settimeout(seconds)
        asking.connect(("169.254.1.1", 53))
        asking.sendall(struct.pack("!H", len(query)) + query if tcp else query)
        if tcp:
            with asking.makefile("rb") as stream:
                (length,) = struct.unpack("!H", stream.read(2))
                answer = stream.read(length)
        else:
            answer = asking.recv(4096)
    reply = Reply(answer)
    assert reply.number == struct.unpack("!H", query[:2])[0]
    return reply


class Upstream:
    """A resolver: answers every name with 203.0.113.7, over UDP and TCP, and remembers what it was asked."""

    def __init__(self, namespace: Namespace, address: str = "192.0.2.254") -> None:
        self.asked: list[str] = []
        self.silent = False
        self._udp = namespace.open_socket(socket.SOCK_DGRAM)
        self._udp.bind((address, 53))
        self._tcp = namespace.listen(address, 53)
        self._udp.settimeout(None)
        self._tcp.settimeout(None)
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def answer(self, query: bytes) -> bytes:
        name, offset = [], 12
        while query[offset]:
            name.append(query[offset + 1 : offset + 1 + query[offset]].decode())
            offset += query[offset] + 1
        self.asked.append(".".join(name))
        record = struct.pack("!3HIH4s", 0xC00C, A, 1, 60, 4, socket.inet_aton("203.0.113.7"))
        return query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + query[12 : offset + 5] + record

    def _serve_udp(self) -> None:
        while True:
            try:
                query, client = self._udp.recvfrom(4096)
            except OSError:
                return
            answer = self.answer(query)
            if not self.silent:
                self._udp.sendto(b"\0" + answer[1:], client)  # a forgery: wrong id
                self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                query = connection.recv(4096)[2:]
                answer = self.answer(query)
                connection.sendall(struct.pack("!H", len(answer)) + answer)

    def close(self) -> None:
        self._udp.close()
        self._tcp.close()


@pytest.fixture
def upstream(wire: World) -> Iterator[Upstream]:
    made = Upstream(wire.outside)
    yield made
    made.close()


def add_asker(wire: World, **settings: Any) -> Container:
    """Add a host and a container on a network where `web` (alias `www`) has three endpoints, `db` one, `idle` none."""
    host = wire.add_host(**settings)
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)})
    wire.extra = {
        "names": [
            NamesAssignment(WEB, "svcweb", ("shop_web", "web", "WWW")),
            NamesAssignment(WEB, "svcdb", ("shop_db", "db")),
            NamesAssignment(WEB, "svcidle", ("idle",)),
        ],
        "endpoints": [
            *(EndpointAssignment(WEB, f"task{n}", "svcweb", n, 0x0A400040 + n) for n in (1, 2, 3)),
            EndpointAssignment(WEB, "task9", "svcdb", 1, 0x0A400050),
        ],
    }
    return host.start_container("taskasker0001", (WEB, "10.64.0.33"))


@pytest.fixture
def asker(wire: World) -> Container:
    return add_asker(wire)


WEB_ADDRESSES = {"10.64.0.65", "10.64.0.66", "10.64.0.67"}


@pytest.mark.parametrize("tcp", [False, True])
def test_names_of_services_tasks_and_slots(tcp: bool, asker: Container) -> None:
    for name in ("web", "WeB", "www", "shop_web", "tasks.web", "web.webnet", "tasks.www.webnet"):
        reply = ask(asker, name, tcp=tcp)
        assert (reply.code, reply.addresses) == (NOERROR, WEB_ADDRESSES), name
    assert ask(asker, "2.web", tcp=tcp).addresses == {"10.64.0.66"}
    assert ask(asker, "1.db.webnet", tcp=tcp).addresses == {"10.64.0.80"}
    assert b"\x012\x08shop_web\x06webnet\0" in ask(asker, "66.0.64.10.in-addr.arpa", PTR, tcp=tcp).pointers


def test_answers_that_say_no_say_which_no(asker: Container, upstream: Upstream) -> None:
    """A name that exists has no data of another kind; a name that does not exist does not; none is asked upstream."""
    for name, kind in (("web", AAAA), ("tasks.web", AAAA), ("2.web", TXT), ("idle", A), ("tasks.idle", A)):
        reply = ask(asker, name, kind)
        assert (reply.code, reply.addresses, reply.authorities) == (NOERROR, set(), 1), name
    assert ask(asker, "200.9.64.10.in-addr.arpa", PTR).code == NXDOMAIN, "of the network, and nobody's"
    for name in ("nosuch", "9.web", "tasks"):
        reply = ask(asker, name)
        assert (reply.code, reply.addresses, reply.authorities) == (NXDOMAIN, set(), 1), name
    assert upstream.asked == []


def test_the_order_changes(asker: Container) -> None:
    with asker.open_socket(socket.SOCK_DGRAM) as asking:
        asking.connect(("169.254.1.1", 53))
        seen = set()
        for _ in range(40):
            asking.send(question("web"))
            seen.add(asking.recv(4096)[-48:][12:16])
    assert len(seen) == 3


@pytest.mark.parametrize("tcp", [False, True])
def test_other_names_are_asked_upstream(tcp: bool, asker: Container, upstream: Upstream) -> None:
    assert ask(asker, "example.org", tcp=tcp).addresses == {"203.0.113.7"}
    assert upstream.asked == ["example.org"]


@pytest.mark.parametrize("tcp", [False, True])
def test_a_resolver_that_only_the_host_itself_reaches_is_asked(tcp: bool, asker: Container) -> None:
    """As systemd-resolved at 127.0.0.53, which in any other namespace is nobody."""
    (asker.host.run_dir / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    own = Upstream(asker.host.namespace, "127.0.0.53")
    try:
        wait_until(lambda: ask(asker, "example.org", tcp=tcp).addresses == {"203.0.113.7"})
        assert set(own.asked) == {"example.org"}
    finally:
        own.close()


def test_a_silent_upstream_is_a_failure_in_time_and_others_do_not_wait(asker: Container, upstream: Upstream) -> None:
    upstream.silent = True
    with asker.open_socket(socket.SOCK_DGRAM) as waiting:
        waiting.settimeout(DEADLINE_S)
        waiting.connect(("169.254.1.1", 53))
        waiting.send(question("example.org"))
        assert ask(asker, "web", seconds=1).addresses == WEB_ADDRESSES
        assert Reply(waiting.recv(4096)).code == SERVFAIL


def test_a_changed_resolv_conf_counts(asker: Container, upstream: Upstream) -> None:
    path = Path(asker.host.run_dir / "resolv.conf")
    path.write_text("nameserver 192.0.2.77\n")
    wait_until(lambda: ask(asker, "example.org").code == SERVFAIL)
    path.write_text("nameserver 169.254.1.1\nnameserver 192.0.2.254\n")
    wait_until(lambda: ask(asker, "example.org").addresses == {"203.0.113.7"})


def test_a_task_on_internal_networks_only_learns_nothing_from_outside(wire: World, upstream: Upstream) -> None:
    host = wire.add_host()
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)}, internal=True)
    wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,)})
    inside = host.start_container("taskinside001", (WEB, "10.64.0.33"))
    both = host.start_container("taskboth00001", (WEB, "10.64.0.34"), (OTHER, "10.65.0.34"))
    assert ask(inside, "secret.example.org").code == NXDOMAIN
    assert upstream.asked == []
    assert ask(both, "example.org").addresses == {"203.0.113.7"}


def test_a_task_knows_the_names_of_all_its_networks_and_no_others(wire: World) -> None:
    host = wire.add_host()
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)})
    wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,)})
    wire.extra = {
        "names": [NamesAssignment(WEB, "one", ("one", "same")), NamesAssignment(OTHER, "two", ("two", "same"))],
        "endpoints": [
            EndpointAssignment(WEB, "t1", "one", 1, 0x0A400041),
            EndpointAssignment(OTHER, "t2", "two", 1, 0x0A410041),
        ],
    }
    both = host.start_container("taskboth00001", (OTHER, "10.65.0.33"), (WEB, "10.64.0.33"))
    web = host.start_container("taskweb000001", (WEB, "10.64.0.34"))
    assert ask(both, "one").addresses == {"10.64.0.65"}
    assert ask(both, "two").addresses == {"10.65.0.65"}
    assert ask(both, "same").addresses == {"10.65.0.65"}  # the first network that knows it
    assert ask(both, "same.webnet").addresses == {"10.64.0.65"}
    assert ask(web, "one").addresses == {"10.64.0.65"}
    assert ask(web, "two").code == NXDOMAIN


def test_many_endpoints_fit_over_tcp_and_some_over_udp(wire: World, asker: Container) -> None:
    many = [EndpointAssignment(WEB, f"m{n}", "svcdb", n, 0x0A410000 + n) for n in range(1, 501)]
    wire.extra["endpoints"] = many
    asker.host.apply()
    some = ask(asker, "db")
    assert some.cut
    assert 20 < len(some.addresses) < 40
    assert len(ask(asker, "db", tcp=True).addresses) == 500


def test_changes_are_in_force_when_applying_returns(wire: World, asker: Container) -> None:
    for n in range(20):
        wire.extra["endpoints"] = [EndpointAssignment(WEB, f"task{n}", "svcweb", n + 1, 0x0A400100 + n)]
        asker.host.apply()
        assert ask(asker, "web").addresses == {f"10.64.1.{n}"}
    wire.extra["names"] = []
    asker.host.apply()
    assert ask(asker, "web").code == NXDOMAIN


def dns_pid(host: Host) -> int:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(host.run_dir / "network" / "dns.sock"))
        return struct.unpack("i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4))[0]


def state_of(pid: int) -> str:
    """Return the letter of a process's state; Z for one that is gone altogether."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return "Z"


@contextmanager
def questions_wait(asker: Container) -> Iterator[int]:
    """Stop argosy-dns, ask, and yield its pid; each question is answered after the body, which is to see to that."""
    host = asker.host

    def waiting() -> bool:
        rows = host.in_network(WEB, "tail -n +2 /proc/net/udp").splitlines()
        return any(int(row.split()[4].partition(":")[2], 16) for row in rows)

    with ThreadPoolExecutor(8) as asking:
        pid = dns_pid(host)
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: state_of(pid) == "T")
        replies = [asking.submit(ask, asker, "web", tcp=n % 2 == 0) for n in range(8)]
        wait_until(waiting)
        yield pid
        assert [(r.result().code, r.result().addresses) for r in replies] == [(NOERROR, WEB_ADDRESSES)] * 8


def test_no_query_is_lost_while_argosy_dns_restarts(asker: Container) -> None:
    """It is killed while questions wait in its sockets, and each of them is answered by its successor."""
    for _ in range(3):
        with questions_wait(asker) as pid:
            kill(pid)
        assert dns_pid(asker.host) != pid


LARGEST = 1232
"""Bytes of the largest question that is let through."""


def waiting_bytes(host: Host) -> int:
    """Return how much of argosy-dns's socket is taken up by what waits in it (proc(5), /proc/net/udp)."""
    lines = host.in_network(WEB, "cat /proc/net/udp").splitlines()[1:]
    (queues,) = (line.split()[4] for line in lines if line.split()[1].endswith(":0035"))
    return int(queues.partition(":")[2], 16)


def one_by_one(flooding: socket.socket, held: int) -> None:
    one = question("web")
    for _ in range(held + held // 10):
        flooding.send(one)


def many_in_a_piece(flooding: socket.socket, held: int) -> None:
    """Handed over together, and told apart by the kernel where they are received (udp(7), UDP_SEGMENT)."""
    flooding.setsockopt(socket.IPPROTO_UDP, 103, len(question("web")))
    many = LARGEST // len(question("web"))
    for _ in range((held + held // 10) // many):
        flooding.send(question("web") * many)


def largest(flooding: socket.socket, held: int) -> None:
    one = question("web").ljust(LARGEST, b"x")
    for _ in range(held + held // 10):
        flooding.send(one)


def large(flooding: socket.socket, held: int) -> None:
    """Within the number that one address may send at once; smaller ones take up what is left."""
    for size in (60_000, 1400, 0):
        for _ in range(300):
            flooding.send(question("web").ljust(size, b"x"))


def test_each_of_many_in_a_piece_is_answered(asker: Container) -> None:
    with asker.open_socket(socket.SOCK_DGRAM) as asking:
        asking.connect(("169.254.1.1", 53))
        asking.setsockopt(socket.IPPROTO_UDP, 103, len(question("web")))
        asked = [question("web") for _ in range(5)]
        asking.send(b"".join(asked))
        assert {asking.recv(4096)[:2] for _ in asked} == {one[:2] for one in asked}
        asking.send(b"")  # and an empty one does no harm
        asking.send(asked[0])
        assert Reply(asking.recv(4096)).addresses == WEB_ADDRESSES


def test_many_in_a_piece_take_no_time_from_the_questions_of_others(asker: Container) -> None:
    """One container sends as many as the firewall lets through, each of which would be sent on; others are patient."""
    greedy = asker.host.start_container("taskgreedy001", (WEB, "10.64.0.34"))
    one, ended = question("a.b"), threading.Event()
    patience = 5 * machine_slowness()

    def flood() -> None:
        with greedy.open_socket(socket.SOCK_DGRAM) as flooding:
            flooding.connect(("169.254.1.1", 53))
            flooding.setsockopt(socket.IPPROTO_UDP, 103, len(one))
            while not ended.is_set():
                with suppress(OSError):
                    flooding.send(one * (LARGEST // len(one)))

    with ThreadPoolExecutor(1) as flooding:
        flood_over = flooding.submit(flood)
        try:
            until = time.monotonic() + 6
            while time.monotonic() < until:
                assert ask(asker, "web", seconds=patience).addresses == WEB_ADDRESSES
        finally:
            ended.set()
        flood_over.result()


@pytest.mark.parametrize("size", [0, 512, LARGEST])
def test_what_one_address_may_send_leaves_room_for_as_long_as_argosy_dns_may_be_away(
    size: int, asker: Container
) -> None:
    pid = dns_pid(asker.host)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state_of(pid) == "T")
        with asker.open_socket(socket.SOCK_DGRAM) as asking:
            asking.connect(("169.254.1.1", 53))
            asking.send(question("web").ljust(size, b"x"))
            wait_until(lambda: waiting_bytes(asker.host))
        assert (1000 + 2000 * 3) * waiting_bytes(asker.host) < 2 * RECEIVE_BYTES
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("flood", [one_by_one, many_in_a_piece, large, largest])
def test_a_container_that_floods_leaves_room_for_the_questions_of_others(
    asker: Container, flood: Callable[[socket.socket, int], None]
) -> None:
    """More than the socket holds comes from one address while nothing is taken out: that of another is in it, too."""
    greedy = asker.host.start_container("taskgreedy001", (WEB, "10.64.0.34"))
    pid = dns_pid(asker.host)

    def is_answered_in_a_flood() -> bool:
        """Return False where the flood, on a slow machine, took so long that its share alone fills the socket."""
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: state_of(pid) == "T")
            with greedy.open_socket(socket.SOCK_DGRAM) as flooding, asker.open_socket(socket.SOCK_DGRAM) as asking:
                for one in (flooding, asking):
                    one.connect(("169.254.1.1", 53))
                began = time.monotonic()
                flooding.send(question("web").ljust(LARGEST if flood is largest else 0, b"x"))
                held = 2 * RECEIVE_BYTES // waiting_bytes(asker.host)
                flood(flooding, held)
                asking.send(question("web"))
                if 1000 + 2000 * (time.monotonic() - began) > 0.95 * held:  # which is its share
                    return False
                os.kill(pid, signal.SIGCONT)
                for one in (asking, flooding):
                    assert Reply(one.recv(4096)).addresses == WEB_ADDRESSES
                return True
        finally:
            os.kill(pid, signal.SIGCONT)

    wait_until(is_answered_in_a_flood)
    assert asker.host.do(asker.host.plane.verify()) == []


def test_names_are_answered_while_the_agent_is_away(asker: Container, upstream: Upstream) -> None:
    host = asker.host
    pid = host.plane._dns._pid
    host.do(host.plane.close())
    assert ask(asker, "web").addresses == WEB_ADDRESSES
    assert ask(asker, "web", tcp=True).addresses == WEB_ADDRESSES
    assert ask(asker, "example.org").addresses == {"203.0.113.7"}
    host.plane = host._new_plane()
    host.do(host.plane.start())
    assert ask(asker, "web").addresses == WEB_ADDRESSES
    assert host.apply() == 0
    assert host.plane._dns._pid == pid  # adopted, sockets and all
    assert ask(asker, "web").addresses == WEB_ADDRESSES


def test_it_is_started_anew_by_a_life_that_has_seen_nothing_yet(asker: Container) -> None:
    """The agent restarts, has no assignments yet, and argosy-dns ends: names are answered from what was known."""
    host = asker.host
    host.new_life()
    before = dns_pid(host)
    saved = host.run_dir / "network" / "dns-records.json"
    wait_until(lambda: saved.exists() and "task/taskasker0001" in saved.read_text())
    kill(before)
    reply = ask(asker, "web")
    assert (reply.code, reply.addresses) == (NOERROR, WEB_ADDRESSES)
    assert dns_pid(host) != before


def test_purging_ends_it(wire: World) -> None:
    host = wire.add_host()
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)})
    host.apply()
    pid = host.plane._dns._pid
    assert "argosy.agent.dns" in Path(f"/proc/{pid}/cmdline").read_text()
    host.do(host.plane.purge())
    wait_until(lambda: state_of(pid) == "Z")
    assert not (host.run_dir / "network" / "dns.sock").exists()


def test_purging_ends_it_also_while_it_is_started_anew(wire: World) -> None:
    """It has just ended, and what is to start another goes on in the plane's threads when nobody waits for it."""
    host = wire.add_host()
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,)})
    host.apply()
    plane, held = host.plane, threading.Event()
    plane._kernel_thread.submit(held.wait)
    kill(dns_pid(host))
    wait_until(plane._applying.locked)
    purging = asyncio.run_coroutine_threadsafe(plane.purge(), host._loop)
    wait_until(lambda: not plane._supervisors)
    held.set()
    purging.result(60)
    assert not (host.run_dir / "network" / "dns.sock").exists()


def test_a_network_whose_names_cannot_be_answered_holds_up_no_other(asker: Container) -> None:
    """Somebody of the host took the port in its namespace; they are answered once it is free."""
    host, wire = asker.host, asker.host.world
    wire.add_network(OTHER, "10.65.0.0/16", {"h1": (1,)})
    host.apply()
    host.do(host.plane.close())
    pid = dns_pid(host)
    kill(pid)
    wait_until(lambda: state_of(pid) == "Z")
    taken = host.network(OTHER).listen("169.254.1.1", 53)
    host.plane = host._new_plane()
    host.do(host.plane.start())
    with pytest.raises(TransientError, match=f"cannot answer names on network {OTHER}: .*in use"):
        host.apply()
    assert ask(asker, "web").addresses == WEB_ADDRESSES
    taken.close()
    host.apply()
