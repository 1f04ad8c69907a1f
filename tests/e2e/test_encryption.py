"""Encrypted networks on three hosts: what tasks say to each other is on no wire, whatever becomes of the tunnels.

The capture sees every frame between the hosts, at the switch that they hang on.
"""

import base64
import contextlib
import json
import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from tests.e2e import host_view
from tests.e2e.dev_cluster import wait_until
from tests.e2e.wire import ETH_P_ALL, datagrams, socket_in

STACK = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    networks: [secret]
    deploy: {mode: global}
networks:
  secret:
    driver_opts: {encrypted: "true"}
"""
MARK = b"argosy-inner-bytes"
PORT = 9000
VXLAN_PORT = 14789
TUNNEL_PORTS = (51820, 51821)
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
"""packet(7): how many frames there were, and how many found no room."""


class Wire:
    """Every frame between the hosts while the body runs: kept is what matters, since there are many."""

    def __init__(self, cluster):
        self._socket = socket_in(
            f"/proc/{cluster.holder('switch')}/ns/net", socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        self._socket.settimeout(0.1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.in_clear = []
        """Frames that hold the marker, or are VXLAN."""
        self.tunnelled = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        _, lost = struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()
        assert not lost, f"{lost} frames were not looked at"

    def _run(self):
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                frame = self._socket.recv(65535)
                port = struct.unpack_from("!H", frame, 36)[0] if frame[12:14] == b"\x08\x00" and frame[23] == 17 else 0
                self.tunnelled += port in TUNNEL_PORTS
                if MARK in frame or port == VXLAN_PORT:
                    self.in_clear.append(frame)


class Talk:
    """One task sends numbered datagrams to another, all the time; `heard` are the numbers that have arrived."""

    def __init__(self, cluster, tasks, source, target):
        spaces = {node: f"/proc/{cluster.container_pid(tasks[node])}/ns/net" for node in (source, target)}
        self._to = (tasks[target]["addresses"][0], PORT)
        self._out = socket_in(spaces[source], socket.AF_INET, socket.SOCK_DGRAM)
        self._in = datagrams(spaces[target], ("0.0.0.0", PORT))
        self._in.settimeout(0.05)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._send, self._receive)]
        self.sent = 0
        self.heard = set()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._out.close()
        self._in.close()

    def _send(self):
        while not self._stop.wait(0.01):
            with contextlib.suppress(OSError):  # no way: the next may find one
                self._out.sendto(b"%d " % self.sent + MARK, self._to)
            self.sent += 1

    def _receive(self):
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self.heard.add(int(self._in.recv(2048).split()[0]))

    def wait_heard(self, timeout=30):
        """Wait until something arrives that is sent from now on; return its number."""
        since = self.sent
        wait_until(lambda: max(self.heard, default=-1) > since, timeout, "a datagram arrives")
        return since


@pytest.fixture(scope="module")
def tasks(cluster, tmp_path_factory):
    """The tasks of the stack `e` by node, once all tunnels work."""
    cluster.deploy("e", STACK, tmp_path_factory.mktemp("stack"))
    wait_tunnels(cluster)
    return {t["node"]: t for t in cluster.tasks()}


def tunnels(cluster):
    """Return how each node finds its tunnels: (node, other) to tunnel."""
    (found,) = json.loads(cluster.argosy("network", "inspect", "e_secret"))
    return {(row["node"], t["to"]): t["tunnel"] for row in found["tunnels"] for t in row["tunnels"]}


def wait_tunnels(cluster, epoch=1):
    """Wait until all nodes find their tunnels well, and no task complains."""

    def all_well():
        found = tunnels(cluster)
        well = len(found) == 6 and all(not t["problem"] and t["epoch"] == epoch for t in found.values())
        return well and not any(t["reason"] for t in cluster.tasks())

    wait_until(all_well, 40, lambda: f"tunnels: {tunnels(cluster)}, {cluster.tasks()}")


def tunnel_processes(cluster, node):
    """Return the processes of a host's tunnels."""
    here = os.readlink(f"/proc/{cluster.holder(node)}/ns/net")
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            if b"wireguard-go" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
                found += [pid] if os.readlink(f"/proc/{pid}/ns/net") == here else []
    return found


def test_nothing_that_tasks_say_is_on_the_wire(cluster, tasks):
    """Also while tunnels go up and down: a process is killed, a host is cut off, an agent begins another life."""
    with Wire(cluster) as wire, Talk(cluster, tasks, "node1", "node2") as talk:
        talk.wait_heard()
        for node in ("node1", "node2"):
            for pid in tunnel_processes(cluster, node):
                cluster.kill_pid(pid)
            talk.wait_heard()
        before = tunnel_processes(cluster, "node1")
        agent = cluster.kill("agent-node1")
        cluster.cut("node2")
        cluster.heal("node2")
        talk.wait_heard()
        cluster.wait_restarted("agent-node1", agent)
        wait_tunnels(cluster)
        assert before
        assert tunnel_processes(cluster, "node1") == before, "the tunnels of a former life are good"
        talk.wait_heard()
    assert wire.tunnelled > 100
    assert wire.in_clear == []


def test_without_a_tunnel_nothing_leaves_and_the_tasks_say_why(cluster, tasks):
    with Wire(cluster) as wire, Talk(cluster, tasks, "node3", "node1") as talk:
        talk.wait_heard()
        with cluster.held_down("agent-node3"):
            for pid in tunnel_processes(cluster, "node3"):
                cluster.kill_pid(pid)
            quiet_since, heard = talk.sent, set(talk.heard)
            said = (
                "network e_secret is encrypted, and there is no tunnel to node3: it does not answer through the tunnel"
            )
            wait_until(
                lambda: all(t["reason"] == said for t in cluster.tasks() if t["node"] != "node3"),
                30,
                lambda: f"the tasks say why: {cluster.tasks()}",
            )
            assert {n for n in talk.heard - heard if n > quiet_since} == set()
            assert all(t["state"] == "RUNNING" for t in cluster.tasks())
            problem = tunnels(cluster)["node1", "node3"]["problem"]
            assert problem == "it does not answer through the tunnel"
        talk.wait_heard()
    assert wire.in_clear == []
    wait_tunnels(cluster)


def test_keys_change_and_no_packet_is_lost(cluster, tasks):
    with Wire(cluster) as wire, Talk(cluster, tasks, "node1", "node3") as talk:
        first = talk.wait_heard()
        keys = {json.dumps(key) for node in nodes(cluster) for key in node["description"]["mesh_keys"]}
        assert cluster.argosy("network", "rotate-keys").strip() == "all nodes have new keys"
        wait_tunnels(cluster, epoch=2)
        last = talk.wait_heard()
    assert sorted(set(range(first + 1, last)) - talk.heard) == []
    assert wire.in_clear == []
    wait_until(
        lambda: all(len(n["description"]["mesh_keys"]) == 1 for n in nodes(cluster)), 20, "old keys are forgotten"
    )
    assert len(keys & {json.dumps(key) for n in nodes(cluster) for key in n["description"]["mesh_keys"]}) == 0


def nodes(cluster):
    return json.loads(cluster.argosy("node", "inspect", *cluster.nodes))


def test_private_keys_are_on_their_own_node_alone(cluster, tasks):
    """Not in etcd, in no other node's state, and in no log: looked for in all files of the cluster."""
    places = (Path("/var/lib/argosy/dev") / cluster.name, cluster.run_dir)
    paths = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    keys = [path for path in paths if path.suffix == ".key" and path.parent.name == "mesh"]
    assert {node for node in cluster.nodes for path in keys if node in path.parts} == set(cluster.nodes)
    contents = {path: path.read_bytes() for path in paths}
    for key in keys:
        private = contents[key]
        assert key.stat().st_mode & 0o777 == 0o600
        forms = (private, private.hex().encode(), base64.b64encode(private))
        assert [path for path, found in contents.items() if any(form in found for form in forms)] == [key]
    public = [bytes.fromhex(k["public_key"]) for n in nodes(cluster) for k in n["description"]["mesh_keys"]]
    assert public
    etcd = [found for path, found in contents.items() if "member" in path.parts]
    assert all(any(key in found for found in etcd) for key in public), "what is known to all is found in this way"


def test_what_cannot_be_encrypted_is_refused(cluster, tasks, tmp_path):
    path = tmp_path / "compose.yaml"
    cluster.deploy("p", STACK.replace("driver_opts", "labels"), tmp_path)
    path.write_text(STACK)
    done = cluster.run("deploy", "-c", str(path), "p")
    assert done.returncode == 1
    assert "network p_secret exists and is not encrypted" in done.stderr
    cluster.argosy("stack", "rm", "p")
    assert "'encrypted'" in cluster.run("network", "create", "--opt", "fast", "x").stderr


def test_it_goes_with_the_last_network(cluster, tasks):
    before = [pid for node in cluster.nodes for pid in tunnel_processes(cluster, node)]
    assert len(before) == 3
    cluster.argosy("stack", "rm", "e")
    wait_until(lambda: not any(host_view.exists(pid) for pid in before), 20, "no tunnel is left")
    wait_until(lambda: not any(n["description"]["mesh_keys"] for n in nodes(cluster)), 20, "no key is left")
