"""Names asked from containers on two hosts while argosy-dns, agents and the controller are killed: no query is lost.

Ten thousand queries, over UDP and TCP, each with one try and a time to answer in. A resolver whose TCP connection ends
before its answer came has to ask again (RFC 7766, 6.2.4), as these do, within the same time.
"""

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import socket
import struct
import threading
import time

import pytest

from tests.e2e.dev_cluster import wait_until
from tests.e2e.leftovers import on_host, sockets_elsewhere
from tests.e2e.wire import CLONE_NEWNET

COMPOSE = """
services:
  web: &service
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    networks: {net: {aliases: [shop]}}
    deploy: {replicas: 4}
  plain: {<<: *service, networks: [net], deploy: {replicas: 3, endpoint_mode: dnsrr}}
  client: {<<: *service, networks: [net], deploy: {mode: global}}
networks:
  net: {}
"""
QUERIES = 10_000
PATIENCE_S = 5.0
"""As long as most resolvers wait."""
AGENT_STARTS_S = 40.0
"""What waits for an agent's start may take longer: the next one comes later and later after many kills."""
ASKING = 8
"""Queries that a client has under way at once, of each kind."""
NXDOMAIN = 3
ROUNDS = 2
ASKERS = "node1", "node2"
_libc = ctypes.CDLL(None)


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    """The stack runs; what each name means: addresses, or None where there is no such name."""
    cluster.deploy("n", COMPOSE, tmp_path_factory.mktemp("stack"))
    web = {t["slot"]: t["addresses"][0] for t in cluster.wait_running("n_web", 4)}
    plain = {t["addresses"][0] for t in cluster.wait_running("n_plain", 3)}
    (virtual,) = cluster.json("service", "inspect", "n_web")[0]["virtual_addresses"]
    return {
        "web": {virtual["address"]},
        "shop": {virtual["address"]},
        "tasks.web": set(web.values()),
        "2.web": {web[2]},
        "plain": plain,
        "plain.n_net": plain,
        "nobody": None,
    }


class Resolver:
    """Asks from a container's namespace, in a thread, until told to stop; `wrong` says what was not as it should be."""

    def __init__(self, task, meanings, patience):
        self._patience = patience
        self.answered = 0
        self.again = 0
        self.slowest_s = 0.0
        self.wrong = []
        self._namespace = f"/proc/{task['pid']}/ns/net"
        self._meanings = meanings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resolver", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        with open(self._namespace) as file:
            assert _libc.setns(file.fileno(), CLONE_NEWNET) == 0
        asyncio.run(self._ask_on())

    async def _ask_on(self):
        async with asyncio.TaskGroup() as group:
            for way in (self._by_udp, self._by_tcp):
                for number in range(ASKING):
                    group.create_task(self._ask_in_turn(way, random.Random(number)))

    async def _ask_in_turn(self, way, rng):
        while not self._stop.is_set():
            name = rng.choice(list(self._meanings))
            number = rng.getrandbits(16)
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._patience):
                    said = meaning(await way(question(name, number)), number)
            except (OSError, TimeoutError, ValueError) as error:
                self.wrong.append(f"{way.__name__} {name}: {error!r}")
                continue
            if said != self._meanings[name]:
                self.wrong.append(f"{way.__name__} {name}: {said}")
            self.answered += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(0.005)  # else over TCP nobody else has a turn

    async def _by_udp(self, query):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("169.254.1.1", 53))
            await loop.sock_sendall(sock, query)
            return await loop.sock_recv(sock, 4096)

    async def _by_tcp(self, query):
        while True:
            try:
                reader, writer = await asyncio.open_connection("169.254.1.1", 53)
                try:
                    writer.write(struct.pack("!H", len(query)) + query)
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    return await reader.readexactly(length)
                finally:
                    writer.close()
            except (ConnectionError, asyncio.IncompleteReadError):
                self.again += 1


def question(name, number):
    """Return a query for the addresses of a name (RFC 1035, 4.1)."""
    labels = b"".join(bytes((len(part),)) + part.encode() for part in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def meaning(answer, number):
    """Return the addresses in an answer; None where it says that there is no such name. ValueError for another one."""
    there, flags, _, count, _, _ = struct.unpack_from("!6H", answer)
    if there != number or flags & 0x8200 != 0x8000 or flags & 15 not in (0, NXDOMAIN):
        raise ValueError(f"not the answer: {answer[:12].hex()}")
    if flags & 15 == NXDOMAIN:
        return None
    offset = 12
    while answer[offset]:
        offset += answer[offset] + 1
    offset += 5
    return {socket.inet_ntoa(answer[at + 12 : at + 16]) for at in range(offset, offset + 16 * count, 16)}


def dns_pid(cluster, node):
    """Return the process that answers names on a host."""
    path = f"/proc/{cluster.holder(node)}/root/run/argosy/network/dns.pid"
    return wait_until(lambda: os.path.exists(path) and int(open(path).read() or 0), 20, "argosy-dns runs")


def kill_dns(cluster, node):
    """Kill argosy-dns of a host; return when another runs."""
    old = dns_pid(cluster, node)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: dns_pid(cluster, node) != old, 30, "another argosy-dns")


def kill_agent_and_dns(cluster, node):
    """Kill both of a host at one moment: the agent cannot start another argosy-dns before it ends itself."""
    agent, old = f"agent-{node}", dns_pid(cluster, node)
    cluster.kill(agent, signal.SIGSTOP)
    os.kill(old, signal.SIGKILL)
    cluster.wait_restarted(agent, cluster.kill(agent), timeout=40)
    wait_until(lambda: dns_pid(cluster, node) != old, 30, "another argosy-dns")


def kill_process(cluster, name):
    """Kill an agent or a controller; return when another runs."""
    cluster.wait_restarted(name, cluster.kill(name), timeout=40)


def keep_asking_while_killing(cluster, stack, victims, queries, patience):
    """Ask from two hosts while victims are killed, one after the other; no query goes without its answer."""
    clients = {t["node"]: t for t in cluster.wait_running("n_client", 3)}
    with contextlib.ExitStack() as stack_of:
        resolvers = [stack_of.enter_context(Resolver(clients[host], stack, patience)) for host in ASKERS]

        def answered():
            return sum(resolver.answered for resolver in resolvers)

        for number, (kill, victim) in enumerate(victims, 1):
            kill(cluster, victim)
            goal = queries * number // len(victims)
            wait_until(lambda goal=goal: answered() >= goal, 60, lambda: f"more than {answered()} answers")
    for resolver in resolvers:
        assert resolver.wrong == []
    slowest = max(resolver.slowest_s for resolver in resolvers)
    again = [resolver.again for resolver in resolvers]
    print(f"{answered()} answered, the slowest after {slowest:.1f} s; asked again over TCP: {again}")


def test_no_query_is_lost_while_everything_that_answers_is_killed(cluster, stack):
    victims = [
        *((kill_dns, host) for host in ASKERS),
        *((kill_process, f"agent-{host}") for host in ASKERS),
        (kill_process, "controller-1"),
    ]
    keep_asking_while_killing(cluster, stack, victims * ROUNDS, QUERIES, PATIENCE_S)


def test_no_query_is_lost_with_an_agent_and_its_argosy_dns_at_once(cluster, stack):
    victims = [(kill_agent_and_dns, host) for host in ASKERS]
    keep_asking_while_killing(cluster, stack, victims, QUERIES // 5, AGENT_STARTS_S)


def test_nothing_holds_a_network_that_goes_while_its_agent_is_away(cluster, stack):
    """Only the launcher holds what names were answered on, when argosy-dns has ended as well."""
    with cluster.held_down("agent-node1"):
        os.kill(dns_pid(cluster, "node1"), signal.SIGKILL)
        assert sockets_elsewhere(cluster.launcher_pid("node1"))
        cluster.argosy("stack", "rm", "-d", "n")
    for host in cluster.nodes:
        wait_until(lambda h=host: not on_host(cluster, h), 60, lambda h=host: on_host(cluster, h))
