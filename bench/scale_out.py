"""How long it takes to scale a service on three hosts from 0 to 60 tasks and back, seen from outside.

    .venv/bin/python bench/scale_out.py [--runs 5] [--replicas 60] [--keep]

Up: from just before the process `argosy scale` is spawned until an observer that imports nothing of Argosy has had a
TCP answer, from a container on another host, at each of the addresses. Down: from just before the spawn until none of
the tasks' processes, veths and cgroups is left. Default isolation, overlay network, etcd with fsync, nothing made
beforehand; the image was used once before. Peer (docs/peers): Docker Swarm, 3 workers, overlay: 10.9 s and 7.7 s.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _cluster import DevCluster  # beside this file
from _observer import Kernel

CLUSTER = "bench"
PORT = 7
COMPOSE = """
services:
  probe:
    image: bench:1
    init: true
    command: sleep 100000
    deploy: {mode: global}
  echo:
    image: bench:1
    init: true
    hostname: "{{.Node.Hostname}}"
    command: nc -ll -p 7 -e hostname
    deploy: {replicas: 1}
"""


def deploy(cluster: DevCluster) -> None:
    """Deploy the bench's stack; its image is used once on every host."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as compose:
        compose.write(COMPOSE)
        compose.flush()
        cluster.argosy("deploy", "-c", compose.name, "bench")
    cluster.argosy("scale", "bench_echo=3")
    cluster.argosy("scale", "bench_echo=0")


def probes(cluster: DevCluster) -> dict[str, int]:
    """Return the pid of the probe container of every host."""
    tasks = json.loads(cluster.argosy("ps", "bench_probe", "--format", "json"))
    return {t["node"]: t["pid"] for t in tasks if t["state"] == "RUNNING"}


def observe(pids: dict[str, int], addresses: list[str], seconds: float) -> list[subprocess.Popen[str]]:
    """Start an observer in each probe's network namespace."""
    observers = []
    script = str(Path(__file__).resolve().parent / "_observer.py")
    for host, pid in pids.items():
        command = ["nsenter", f"--target={pid}", "--net", "--", sys.executable, "-I", "-S", script]
        child = subprocess.Popen(
            [*command, "answers", str(PORT), str(seconds), host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin
        child.stdin.write("\n".join(addresses))
        child.stdin.close()
        observers.append(child)
    return observers


def first_answers(observers: list[subprocess.Popen[str]], wanted: int, deadline: float) -> dict[str, int]:
    """Read the observers' lines until `wanted` addresses have answered; return when each did, in nanoseconds."""
    import selectors

    seen: dict[str, int] = {}
    selector = selectors.DefaultSelector()
    for child in observers:
        assert child.stdout
        os.set_blocking(child.stdout.fileno(), False)
        selector.register(child.stdout.fileno(), selectors.EVENT_READ)
    buffers: dict[int, bytes] = {}
    while len(seen) < wanted and time.monotonic() < deadline:
        for key, _ in selector.select(0.05):
            data = os.read(key.fd, 65536)
            if not data:
                selector.unregister(key.fd)
                continue
            *lines, buffers[key.fd] = (buffers.get(key.fd, b"") + data).split(b"\n")
            for line in lines:
                address, at, _host = line.decode().split()
                seen[address] = min(int(at), seen.get(address, sys.maxsize))
    return seen


def candidates(cluster: DevCluster, network: str) -> list[str]:
    """Return the addresses of the slices that the hosts may lease: where tasks can come up."""
    import ipaddress

    inspected = json.loads(cluster.argosy("network", "inspect", network))[0]
    subnet = ipaddress.ip_network(inspected["network"]["subnet"])
    leased = max((s["index"] for s in inspected["slices"]), default=3)
    base = int(subnet.network_address)
    return [str(ipaddress.ip_address(base + i)) for i in range(32, 32 * (leased + 1))]


def scale_up(cluster: DevCluster, replicas: int, pids: dict[str, int]) -> float:
    """Scale up and wait for answers; return the seconds."""
    observers = observe(pids, candidates(cluster, "bench_default"), 60)
    time.sleep(0.3)  # the observers' own start is not what is measured
    began = time.monotonic_ns()
    cli = cluster.spawn("scale", f"bench_echo={replicas}")
    seen = first_answers(observers, replicas, time.monotonic() + 60)
    for child in observers:
        child.kill()
        child.wait()
    if len(seen) < replicas:
        raise SystemExit(f"only {len(seen)} of {replicas} addresses answered within 60 s")
    cli.wait()
    return (max(seen.values()) - began) / 1e9


def scale_down(cluster: DevCluster, kernel: Kernel, before: tuple[set[int], set[str], set[tuple[str, str]]]) -> float:
    """Scale to 0 and wait until nothing of the tasks is left in the kernel; return the seconds."""
    pids, groups, veths = (now - then for now, then in zip(state(kernel), before, strict=True))
    began = time.monotonic_ns()
    cli = cluster.spawn("scale", "bench_echo=0")
    deadline = time.monotonic() + 60
    while True:
        pids = {p for p in pids if os.path.exists(f"/proc/{p}")}
        if not pids:
            groups = {g for g in groups if os.path.exists(g)}
            if not groups and not (veths & kernel.veths()):
                break
        if time.monotonic() > deadline:
            raise SystemExit(f"left after 60 s: {len(pids)} processes, {len(groups)} cgroups")
        time.sleep(0.01)
    took = (time.monotonic_ns() - began) / 1e9
    cli.wait()
    return took


def state(kernel: Kernel) -> tuple[set[int], set[str], set[tuple[str, str]]]:
    """Return the containers' processes, cgroups and veths of now."""
    return kernel.pids(), kernel.cgroups(), kernel.veths()


def main() -> None:
    """Run and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=60)
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    options = parser.parse_args()
    with DevCluster(CLUSTER, keep=options.keep) as cluster:
        deploy(cluster)
        kernel = Kernel(CLUSTER, cluster.holders())
        pids = probes(cluster)
        up, down = [], []
        for run in range(options.runs):
            before = state(kernel)
            up.append(scale_up(cluster, options.replicas, pids))
            down.append(scale_down(cluster, kernel, before))
            load = os.getloadavg()[0]
            print(f"run {run + 1}: up {up[-1]:.2f} s, down {down[-1]:.2f} s   (load {load:.1f})", flush=True)
        print(
            f"0 -> {options.replicas}: median {statistics.median(up):.2f} s   Docker Swarm 10.9 s: "
            f"{10.9 / statistics.median(up):.1f} times as fast"
        )
        print(
            f"{options.replicas} -> 0: median {statistics.median(down):.2f} s   Docker Swarm  7.7 s: "
            f"{7.7 / statistics.median(down):.1f} times as fast"
        )


if __name__ == "__main__":
    main()
