"""How long a rolling update of 20 replicas on three hosts takes, and how far that is from the least it could take.

    .venv/bin/python bench/rolling_update.py [--runs 5] [--replicas 20] [--parallelism 5] [--keep]

From just before the process `argosy service update --force` is spawned until an observer that imports nothing of
Argosy sees, in cgroups and /proc, that every old program is gone and as many new ones run. parallelism 5, delay 0,
monitor 0, no health check, the programs end at once on SIGTERM. Both orders, interleaved.

The floor is batches x (start + ready + drain), measured in the same run, in turn with the updates: the same update by
hand (_by_hand.py says what each phase is), with the agent's own network plane and launcher and no control plane at all.
So deciding, storing, placing, telling hosts and hearing of them is in the update and not in the floor, and so is the
command itself; what `argosy service inspect` takes is printed for comparison. Where a Docker engine is installed,
Docker Swarm's updates of the same kind follow.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _by_hand import ByHand, Phases  # beside this file
from _cluster import IMAGE, DevCluster
from _observer import Programs
from _swarm import CGROUP, is_installed, swarm_of
from _swarm import IMAGE as SWARM_IMAGE
from _swarm import NETWORK as SWARM_NETWORK

CLUSTER = "rolling"
COMMAND = b"sleep\x00100000"
ORDERS = ("stop-first", "start-first")
DEADLINE_S = 120.0


def make_service(cluster: DevCluster, replicas: int, parallelism: int) -> None:
    """Create the service that is updated."""
    cluster.argosy("network", "create", "bench")
    settings = ("--network", "bench", "--init", "--update-parallelism", str(parallelism), "--update-monitor", "0s")
    program = COMMAND.decode().split("\0")
    cluster.argosy("service", "create", "--name", "web", "--replicas", str(replicas), *settings, IMAGE, *program)


def update(spawn: Callable[..., "subprocess.Popen[bytes]"], programs: Programs, order: str) -> float:
    """Replace all tasks; return the seconds until the kernel shows only new programs, as many as before."""
    old = programs.running()
    began = time.monotonic()
    cli = spawn("service", "update", "--force", "--update-order", order, "web")
    programs.wait(lambda now: len(now) == len(old) and not now & old, DEADLINE_S, "all programs are new")
    took = time.monotonic() - began
    if cli.wait() != 0:
        raise SystemExit("the update failed")
    return took


def command(cluster: DevCluster) -> float:
    """Return how long a command takes that only asks, in seconds."""
    began = time.monotonic()
    cluster.argosy("service", "inspect", "web")
    return time.monotonic() - began


def main() -> None:
    """Run and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--parallelism", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of all that cleans up
    with DevCluster(CLUSTER, keep=options.keep) as cluster, ByHand(options.replicas, options.parallelism) as hand:
        make_service(cluster, options.replicas, options.parallelism)
        ours = measure(options, cluster, hand)
    if is_installed():
        for order, figure in measure_swarm(options).items():
            print(f"Docker Swarm, {order}: median {figure:.2f} s, {figure / ours[order]:.1f} times as long")


def measure(options: argparse.Namespace, cluster: DevCluster, hand: ByHand) -> dict[str, float]:
    """Run the updates and the floor in turn; print each, and the medians, which are returned."""
    programs = Programs([f"argosy/dev-{CLUSTER}/{host}" for host in cluster.holders()], COMMAND)
    programs.wait(lambda now: len(now) == options.replicas, DEADLINE_S, "the service runs")
    took: dict[str, list[float]] = {order: [] for order in ORDERS}
    floors: list[Phases] = []
    commands = []
    for run in range(options.runs):
        commands.append(command(cluster))
        for order in ORDERS:
            floors.append(hand.update())
            took[order].append(update(cluster.spawn, programs, order))
        figures = ", ".join(f"{order} {took[order][-1]:.2f} s" for order in ORDERS)
        floor = min(floors[-2:], key=lambda f: f.all).all
        print(f"run {run + 1}: floor {floor:.2f} s, {figures}   (load {os.getloadavg()[0]:.1f})", flush=True)
    batches = -(-options.replicas // options.parallelism)
    start, ready, drain = (
        statistics.median(getattr(f, phase) for f in floors) for phase in ("start", "ready", "drain")
    )
    floor = statistics.median(f.all for f in floors)
    print(
        f"floor: {batches} batches of {options.parallelism}: {floor:.2f} s "
        f"(start {start:.2f}, ready {ready:.2f}, drain {drain:.2f}); a command: {statistics.median(commands):.2f} s"
    )
    medians = {order: statistics.median(figures) for order, figures in took.items()}
    for order, figure in medians.items():
        print(f"{order}: median {figure:.2f} s, {figure / floor:.2f} x the floor")
    return medians


def measure_swarm(options: argparse.Namespace) -> dict[str, float]:
    """Return the medians of the same updates by Docker Swarm, on as many hosts, with the same settings."""
    took: dict[str, list[float]] = {order: [] for order in ORDERS}
    with swarm_of(3) as engines:
        updates = ("--update-parallelism", str(options.parallelism), "--update-monitor", "1ns")
        settings = ("--network", SWARM_NETWORK, "--stop-signal", "KILL", "--endpoint-mode", "dnsrr")  # no IPVS needed
        replicas, program = ("--replicas", str(options.replicas)), COMMAND.decode().split("\0")
        engines[0].docker("service", "create", "--name", "web", *replicas, *settings, *updates, SWARM_IMAGE, *program)
        programs = Programs([CGROUP], COMMAND)
        programs.wait(lambda now: len(now) == options.replicas, DEADLINE_S, "the service of Docker Swarm runs")
        for _ in range(options.runs):
            for order in ORDERS:
                took[order].append(update(engines[0].spawn, programs, order))
        engines[0].docker("service", "rm", "web")
        programs.wait(lambda now: not now, DEADLINE_S, "the service of Docker Swarm has ended")
    return {order: statistics.median(figures) for order, figures in took.items()}


if __name__ == "__main__":
    main()
