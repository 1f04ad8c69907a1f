"""How long a change of a service's endpoints takes to be in force on every node that carries the network.

    .venv/bin/python bench/propagation.py [--nodes 5] [--changes 100]

A dev cluster; a service with two tasks a node. Nothing here asks Argosy for the time of anything: nftables tells when a
node's table was changed (a notification of the kernel), and a listing which addresses it has since.

    lost     a container is killed: from the signal until no node's balancer leads to it. In it are the launcher and the
             agent that notice, the report, its way into etcd, the leader, every node's agent, nftables.
    gained   its successor: from the start of its program (known to 10 ms) until every node's balancer leads to it.
    drained  a task is asked to leave (one replica less): from the first node's change until its program is told to
             stop. In it: the slowest node, all acknowledgements, the leader, the task's agent.

Figures are of a change: the median over all nodes, and the slowest node. Busy machines measure themselves.
"""

import argparse
import ctypes
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _cluster import IMAGE, DevCluster  # beside this file

CLUSTER = "propagation"
SERVICE = "web"
COMMAND = b"sleep\x00100000"
DEADLINE_S = 30.0
CHAIN = re.compile(r"\tchain s-\S+ \{\n(.*?)\n\t\}", re.DOTALL)
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
NETFILTER, NFT_GROUP, CLONE_NEWNET = 12, 7, 0x40000000


class Node:
    """A node's balancer: since when it leads to which addresses."""

    def __init__(self, name: str, pin: Path) -> None:
        self.name = name
        self._pin = pin
        self._fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
        self.addresses = self._listed()
        self.changed: dict[tuple[str, bool], float] = {}
        """(address, whether it is there) -> when that came about, on time.monotonic."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        assert ctypes.CDLL(None).setns(self._fd, CLONE_NEWNET) == 0
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as events:
            events.bind((0, 0))
            events.setsockopt(270, 1, NFT_GROUP)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
            while True:
                events.recv(1 << 20)
                at = time.monotonic()
                now = self._listed()
                if select.select([events], [], [], 0)[0]:
                    at = (
                        time.monotonic()
                    )  # changed again meanwhile: what is listed may be of that, so this is the latest
                for address in now ^ self.addresses:
                    self.changed[address, address in now] = at
                self.addresses = now

    def _listed(self) -> set[str]:
        command = ["nsenter", f"--net={self._pin}", "nft", "list", "table", "ip", "argosy-balance"]
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return {address for chain in CHAIN.findall(listing) for address in ADDRESS.findall(chain)}


def wait(condition, what: str):  # type: ignore[no-untyped-def]
    """Wait for a condition and return what it said."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {DEADLINE_S:g} s: {what}")
        time.sleep(0.001)
    return found


def tasks(cluster: DevCluster, count: int) -> dict[str, tuple[int, str]]:
    """Wait until so many tasks run; return process and address by task."""

    def running() -> dict[str, tuple[int, str]]:
        rows = json.loads(cluster.argosy("ps", SERVICE, "--format", "json"))
        found = {t["id"]: (t["pid"], t["addresses"][0]) for t in rows if t["state"] == t["desired_state"] == "RUNNING"}
        return found if len(found) == count else {}

    return wait(running, f"{count} tasks run")


def ended(running: dict[str, tuple[int, str]]) -> str:
    """Return the address of a task whose program has ended, "" while there is none."""
    return next((address for pid, address in running.values() if not Path(f"/proc/{pid}").exists()), "")


def started_at(pid: int) -> float:
    """Return when a process was started, on time.monotonic."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK") - time.clock_gettime(time.CLOCK_BOOTTIME) + time.monotonic()


def everywhere(nodes: list[Node], address: str, there: bool, since: float) -> list[float]:
    """Wait until every node's balancer leads to an address, or no more; return how long each took."""
    key = address, there
    wait(lambda: all(n.changed.get(key, 0.0) > since - 0.02 for n in nodes), f"{address} {'in' if there else 'out'}")
    return [n.changed[key] - since for n in nodes]


def tell(what: str, changes: list[list[float]]) -> None:
    """Print a line."""
    slowest = [max(times) for times in changes]
    p99 = quantiles(slowest, n=100)[-1] if len(slowest) > 1 else slowest[0]
    print(
        f"{what:8} {len(changes)} changes: median of all nodes {median(t for c in changes for t in c) * 1e3:.0f} ms; "
        f"slowest node: median {median(slowest) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--changes", type=int, default=100)
    options = parser.parse_args()
    with DevCluster(CLUSTER, options.nodes) as cluster:
        measure(cluster, options.nodes, options.changes)


def measure(cluster: DevCluster, count: int, changes: int) -> None:
    """Carry the changes out."""
    cluster.argosy("network", "create", "bench")
    replicas = 2 * count
    settings = ("--replicas", str(replicas), "--network", "bench", "--init", "--restart-delay", "0s")
    cluster.argosy("service", "create", "--name", SERVICE, *settings, IMAGE, *COMMAND.decode().split("\0"))
    running = tasks(cluster, replicas)
    nodes = [
        Node(name, next(Path(f"/proc/{pid}/root/run/argosy/netns").iterdir()))
        for name, pid in sorted(cluster.holders().items())
    ]
    addresses = {address for _, address in running.values()}
    wait(lambda: all(n.addresses == addresses for n in nodes), "every node leads to every task")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")

    lost, gained, drained = [], [], []
    for _ in range(changes):
        pid, address = next(iter(running.values()))
        began = time.monotonic()
        os.kill(pid, 9)
        lost.append(everywhere(nodes, address, False, began))
        after = tasks(cluster, replicas)
        ((new_pid, new_address),) = [after[t] for t in after.keys() - running.keys()]
        gained.append(everywhere(nodes, new_address, True, started_at(new_pid)))
        running = after
    for _ in range(max(2, changes // 10)):
        stopping = cluster.spawn("scale", f"{SERVICE}={replicas - 1}")
        address = wait(lambda now=running: ended(now), "a program has ended")
        at = time.monotonic()
        wait(lambda gone=(address, False): all(gone in n.changed for n in nodes), "every node has let it go")
        drained.append([at - min(n.changed[address, False] for n in nodes)])
        stopping.wait()
        cluster.argosy("scale", f"{SERVICE}={replicas}")
        running = tasks(cluster, replicas)
        wait(lambda: all(len(n.addresses) == replicas for n in nodes), "every node leads to every task")
    for what, times in (("lost", lost), ("gained", gained), ("drained", drained)):
        tell(what, times)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(main())
