"""How long a rolling update of 20 replicas on three hosts takes, and how far that is from the least it could take.

    .venv/bin/python bench/rolling_update.py [--runs 5] [--replicas 20] [--parallelism 5] [--keep]

From just before the process `argosy service update --force` is spawned until an observer that imports nothing of
Argosy sees, in cgroups and /proc, that every old program is gone and as many new ones run. parallelism 5, delay 0,
monitor 0, no health check, the programs end at once on SIGTERM. Both orders, interleaved.

The floor is measured in the same run, by the same observer: batches x (start + ready + drain) of a batch of
`parallelism` tasks. start + ready: from the first sign of the batch in the kernel (a cgroup) until all its programs
run, when a service is scaled up by one batch; drain: from the first program that is gone until all and their
cgroups are, when it is scaled down by one. So deciding, placing, telling hosts and hearing of them is in the update,
and not in the floor.
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
from _observer import Programs  # beside this file

PROJECT = Path(__file__).resolve().parent.parent
ARGOSY = str(PROJECT / ".venv/bin/argosy")
CLUSTER = "rolling"
COMMAND = b"sleep\x00100000"
ORDERS = ("stop-first", "start-first")
PEER = {"stop-first": 8.5, "start-first": 4.0}
"""Docker Swarm, the same update."""
DEADLINE_S = 120.0


def argosy(*args: str) -> str:
    """Run the CLI against the bench's cluster; return its output."""
    done = subprocess.run([ARGOSY, "--context", f"dev/{CLUSTER}", *args], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"argosy {' '.join(args)}: {done.stderr}{done.stdout}")
    return done.stdout


def make_cluster(replicas: int, parallelism: int) -> None:
    """Bring a fresh cluster up with the service that is updated and, scaled to 0, the one that tells the floor."""
    argosy("dev", "down", "--name", CLUSTER)
    print(argosy("dev", "up", "--name", CLUSTER, "--nodes", "3").splitlines()[0])
    with tempfile.TemporaryDirectory() as work:
        tar = Path(work, "image.tar")
        with tar.open("wb") as out:
            subprocess.run([str(PROJECT / "deploy/demo/image.sh"), "1"], stdout=out, check=True)
        argosy("image", "import", "bench:1", str(tar))
    argosy("network", "create", "bench")
    settings = ("--network", "bench", "--init", "--update-parallelism", str(parallelism), "--update-monitor", "0s")
    for name, count in (("web", replicas), ("batch", parallelism)):
        argosy(
            "service",
            "create",
            "--name",
            name,
            "--replicas",
            str(count),
            *settings,
            "bench:1",
            *COMMAND.decode().split("\0"),
        )
    argosy("scale", "batch=0")


def spawn(*args: str) -> "subprocess.Popen[bytes]":
    """Start the CLI without waiting for it."""
    command = [ARGOSY, "--context", f"dev/{CLUSTER}", *args]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def update(programs: Programs, order: str) -> float:
    """Replace all tasks; return the seconds until the kernel shows only new programs, as many as before."""
    old = programs.running()
    began = time.monotonic()
    cli = spawn("service", "update", "--force", "--update-order", order, "web")
    programs.wait(lambda now: len(now) == len(old) and not now & old, DEADLINE_S, "all programs are new")
    took = time.monotonic() - began
    if cli.wait() != 0:
        raise SystemExit("the update failed")
    return took


def batch(programs: Programs, size: int) -> tuple[float, float]:
    """Scale a service from nothing to one batch and back; return how long the kernel saw it start, and stop."""
    others, groups = programs.running(), programs.groups()
    cli = spawn("scale", f"batch={size}")
    programs.wait_groups(lambda now: len(now) > len(groups), DEADLINE_S, "the batch begins")
    began = time.monotonic()
    programs.wait(lambda now: len(now) == len(others) + size, DEADLINE_S, "the batch runs")
    up = time.monotonic() - began
    cli.wait()
    cli = spawn("scale", "batch=0")
    programs.wait(lambda now: len(now) < len(others) + size, DEADLINE_S, "the batch begins to stop")
    began = time.monotonic()
    programs.wait_groups(lambda now: len(now) <= len(groups), DEADLINE_S, "the batch is gone")
    down = time.monotonic() - began
    cli.wait()
    return up, down


def main() -> None:
    """Run and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--parallelism", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    options = parser.parse_args()
    make_cluster(options.replicas, options.parallelism)
    try:
        status = json.loads(Path("/run/argosy/dev", CLUSTER, "processes.json").read_text())
        programs = Programs(CLUSTER, [name for name in status["holders"] if name != "switch"], COMMAND)
        programs.wait(lambda now: len(now) == options.replicas, DEADLINE_S, "the service runs")
        took: dict[str, list[float]] = {order: [] for order in ORDERS}
        starts, drains = [], []
        for run in range(options.runs):
            up, down = batch(programs, options.parallelism)
            starts.append(up)
            drains.append(down)
            for order in ORDERS:
                took[order].append(update(programs, order))
            figures = ", ".join(f"{order} {took[order][-1]:.2f} s" for order in ORDERS)
            print(
                f"run {run + 1}: batch {up:.2f} + {down:.2f} s, {figures}   (load {os.getloadavg()[0]:.1f})", flush=True
            )
        batches = -(-options.replicas // options.parallelism)
        floor = batches * (statistics.median(starts) + statistics.median(drains))
        print(f"floor: {batches} batches of {options.parallelism}: {floor:.2f} s")
        for order in ORDERS:
            median = statistics.median(took[order])
            peer = f"   Docker Swarm {PEER[order]} s: {PEER[order] / median:.1f} times as fast"
            print(f"{order}: median {median:.2f} s, {median / floor:.2f} x the floor{peer}")
    finally:
        if not options.keep:
            argosy("dev", "down", "--name", CLUSTER)


if __name__ == "__main__":
    main()
