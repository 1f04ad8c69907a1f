"""How long `argosy ps --format json` takes, as a whole process, on a running cluster.

    .venv/bin/python bench/ps.py [--runs 15] [--replicas 30]

Brings a cluster of three hosts up for it. Beside it, in turn, the floor: a Python that imports grpc and ends.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _cluster import DevCluster  # beside this file
from scale_out import CLUSTER, deploy

FLOOR = [sys.executable, "-c", "import grpc"]


def milliseconds(command: list[str]) -> float:
    """Run a command; return how long the process lived."""
    began = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return (time.monotonic() - began) * 1000


def main() -> None:
    """Run and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--replicas", type=int, default=30)
    options = parser.parse_args()
    with DevCluster(CLUSTER) as cluster:
        deploy(cluster)
        cluster.argosy("scale", f"bench_echo={options.replicas}")
        ps = cluster.command("ps", "--format", "json")
        ours, floor = [], []
        for _ in range(options.runs):
            ours.append(milliseconds(ps))
            floor.append(milliseconds(FLOOR))
        median, least = statistics.median(ours), statistics.median(floor)
        print(
            f"argosy ps --format json, {options.replicas + 3} tasks: median {median:.0f} ms "
            f"(best {min(ours):.0f}, worst {max(ours):.0f}); python -c 'import grpc': {least:.0f} ms; "
            f"ratio {median / least:.2f}; load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
