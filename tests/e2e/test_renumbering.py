"""A host that gets another address under running services: its agent follows, and tasks and connections go on."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.e2e.dev_cluster import wait_until
from tests.e2e.test_ports import Server, ask

STACK = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    ports: ["8080:80"]
    networks: [clear, secret]
    deploy: {mode: global}
networks:
  clear: {}
  secret:
    driver_opts: {encrypted: "true"}
"""
PORT = 9000
OLD, NEW = "198.18.1.2", "198.18.1.52"


@pytest.fixture(scope="module")
def tasks(cluster, tmp_path_factory):
    """The tasks of the service by node, once they reach each other."""
    cluster.deploy("r", STACK, tmp_path_factory.mktemp("stack"))
    found = {t["node"]: t for t in cluster.wait_running("r_web", 3)}
    wait_until(lambda: not dead_ways(cluster, found), 60, lambda: f"ways: {dead_ways(cluster, found)}")
    return found


def dead_ways(cluster, tasks):
    """Return the ways from task to task, on every network, by which no echo comes back."""
    ways = [(a, b, address) for a in tasks for b in tasks if a != b for address in tasks[b]["addresses"]]
    ping = ("ping", "-c", "1", "-W", "1")
    return [w for w in ways if cluster.try_inside(tasks[w[0]], *ping, w[2]).returncode]


def renumber(cluster, address):
    """Give node2 another address instead of the one it has."""
    cluster.on_host("node2", "sh", "-c", f"ip address flush dev eth0; ip address add {address}/15 dev eth0")


def node2(cluster):
    return next(n for n in cluster.json("node", "ls") if n["name"] == "node2")


def telling(cluster, reason):
    """Return the nodes whose tasks give a reason that begins so."""
    return {t["node"] for t in cluster.running("r_web") if t["reason"].startswith(reason)}


class Kept:
    """Connections between two tasks, one a network, that are opened once."""

    def __init__(self, tasks, source, target):
        self._stack = contextlib.ExitStack()
        self._pairs = [self._open(tasks, source, target, address) for address in tasks[target]["addresses"]]

    def _open(self, tasks, source, target, address):
        namespaces = [f"/proc/{tasks[node]['pid']}/ns/net" for node in (source, target)]
        with wire.listen(namespaces[1], (address, PORT)) as listening:
            one = self._stack.enter_context(wire.connect(namespaces[0], (address, PORT), timeout=60))
            other = self._stack.enter_context(listening.accept()[0])
            other.settimeout(60)
            return one, other

    def talk(self):
        """Say something in both directions on all of them."""
        for one, other in self._pairs:
            one.sendall(b"ahoy")
            assert other.recv(16) == b"ahoy"
            other.sendall(b"aye")
            assert one.recv(16) == b"aye"

    def close(self):
        self._stack.close()


@pytest.fixture
def kept(tasks):
    """Open connections with node2, from either end."""
    opened = [Kept(tasks, *way) for way in (("node1", "node2"), ("node2", "node3"))]
    yield opened
    for one in opened:
        one.close()


@pytest.mark.parametrize("address", [NEW, OLD], ids=["another", "and back"])
def test_the_agent_follows_and_everything_goes_on(cluster, tasks, kept, address):
    renumber(cluster, address)
    wait_until(lambda: node2(cluster)["address"] == address, 30, lambda: f"{address}: {node2(cluster)}")
    wait_until(lambda: not dead_ways(cluster, tasks), 60, lambda: f"ways: {dead_ways(cluster, tasks)}")
    for connections in kept:
        connections.talk()
    with contextlib.ExitStack() as servers:
        for task in tasks.values():
            servers.enter_context(Server(task, 80))
        switch = f"/proc/{cluster.holder('switch')}/ns/net"
        for entry in (address, "198.18.1.1"):
            wait_until(lambda entry=entry: ask(switch, entry, 8080).startswith("0 198.18.0."), 30, f"{entry}:8080")
    assert {t["node"]: (t["id"], t["pid"], t["addresses"]) for t in cluster.running("r_web")} == {
        node: (t["id"], t["pid"], t["addresses"]) for node, t in tasks.items()
    }
    wait_until(lambda: not any(t["reason"] for t in cluster.running("r_web")), 30, "nothing is said of the tasks")
    assert (node2(cluster)["state"], node2(cluster)["message"]) == ("READY", "")
    cluster.argosy("network", "verify")


def test_an_address_that_was_given_to_the_agent_and_is_gone_is_told_until_it_is_back(cluster, tasks):
    argv = Path(f"/proc/{cluster.pid('agent-node2')}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    argv[argv.index("--advertise") + 1] = OLD
    with cluster.held_down("agent-node2"):
        cluster.wait_node("node2", "AGENT_LOST")  # so that READY is what another life of it has said
        enter = ["nsenter", f"--target={cluster.holder('node2')}", "--net", "--uts", "--mount", "--"]
        with open(cluster.run_dir / "logs" / "agent-node2.log", "ab") as log:
            agent = subprocess.Popen([*enter, *argv], stdout=log, stderr=log)
        try:
            cluster.wait_node("node2", "READY")
            renumber(cluster, NEW)
            told = f"the host has lost its address {OLD}, by which the others reach it"
            wait_until(lambda: node2(cluster)["message"].startswith(told), 30, lambda: str(node2(cluster)))
            wait_until(lambda: telling(cluster, told) == {"node2"}, 30, lambda: str(cluster.running("r_web")))
            renumber(cluster, OLD)
            wait_until(lambda: not node2(cluster)["message"], 30, lambda: str(node2(cluster)))
            wait_until(lambda: not dead_ways(cluster, tasks), 60, lambda: f"ways: {dead_ways(cluster, tasks)}")
        finally:
            agent.terminate()
            agent.wait(timeout=30)
    cluster.wait_node("node2", "READY")
    assert node2(cluster)["address"] == OLD
