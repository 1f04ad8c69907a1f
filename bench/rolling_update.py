"""How long a rolling update of 20 replicas on three hosts takes, and how far that is from the least it could take.

    .venv/bin/python bench/rolling_update.py [--runs 5] [--replicas 20] [--parallelism 5] [--keep]

From just before the process `argosy service update --force` is spawned until an observer that imports nothing of
Argosy sees, in cgroups and /proc, that every old program is gone and as many new ones run. parallelism 5, delay 0,
monitor 0, no health check, the programs end at once on SIGTERM. Both orders, interleaved.

The floor is batches x (start + ready + drain), measured in the same run, in turn with the updates: the same update by
hand (_by_hand.py says what each phase is), with the agent's own network plane and launcher and no control plane at all.
So deciding, storing, placing, telling hosts and hearing of them is in the update and not in the floor, and so is the
command itself; what `argosy service inspect` takes is printed for comparison.
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
from _by_hand import ByHand, Phases  # beside this file
from _observer import Programs

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
    """Bring a fresh cluster up with the service that is updated."""
    argosy("dev", "down", "--name", CLUSTER)
    print(argosy("dev", "up", "--name", CLUSTER, "--nodes", "3").splitlines()[0])
    with tempfile.TemporaryDirectory() as work:
        tar = Path(work, "image.tar")
        with tar.open("wb") as out:
            subprocess.run([str(PROJECT / "deploy/demo/image.sh"), "1"], stdout=out, check=True)
        argosy("image", "import", "bench:1", str(tar))
    argosy("network", "create", "bench")
    settings = ("--network", "bench", "--init", "--update-parallelism", str(parallelism), "--update-monitor", "0s")
    program = COMMAND.decode().split("\0")
    argosy("service", "create", "--name", "web", "--replicas", str(replicas), *settings, "bench:1", *program)


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


def command() -> float:
    """Return how long a command takes that only asks, in seconds."""
    began = time.monotonic()
    argosy("service", "inspect", "web")
    return time.monotonic() - began


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
        with ByHand(options.replicas, options.parallelism) as hand:
            measure(options, hand)
    finally:
        if not options.keep:
            argosy("dev", "down", "--name", CLUSTER)


def measure(options: argparse.Namespace, hand: ByHand) -> None:
    """Run the updates and the floor in turn; print each, and the medians."""
    status = json.loads(Path("/run/argosy/dev", CLUSTER, "processes.json").read_text())
    programs = Programs(CLUSTER, [name for name in status["holders"] if name != "switch"], COMMAND)
    programs.wait(lambda now: len(now) == options.replicas, DEADLINE_S, "the service runs")
    took: dict[str, list[float]] = {order: [] for order in ORDERS}
    floors: list[Phases] = []
    commands = []
    for run in range(options.runs):
        commands.append(command())
        for order in ORDERS:
            floors.append(hand.update())
            took[order].append(update(programs, order))
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
    for order in ORDERS:
        median = statistics.median(took[order])
        peer = f"   Docker Swarm {PEER[order]} s: {PEER[order] / median:.1f} times as fast"
        print(f"{order}: median {median:.2f} s, {median / floor:.2f} x the floor{peer}")


if __name__ == "__main__":
    main()
