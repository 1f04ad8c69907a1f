"""How fast output comes: lines a second of `argosy logs` and of `argosy run`, as whole processes, on a running cluster.

    .venv/bin/python bench/logs.py [--runs 5] [--lines 200000] [--name benchlogs]

`logs` prints what a task has written before, `run` what a program writes now, with its container's start and end.
Beside them, in turn, the floors: `cat` of the same log files into a file, and `run` of a program that writes nothing.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _cluster import IMAGE, DevCluster  # beside this file


def seconds(command: list[str], output: Path) -> float:
    """Run a command, its standard output into a file; return how long it lived."""
    began = time.monotonic()
    with output.open("wb") as out:
        subprocess.run(command, stdout=out, check=True)
    return time.monotonic() - began


def log_files(cluster: str, end: bytes) -> list[Path]:
    """Return the files of the log of the cluster that ends so, the oldest first."""
    for log in Path("/var/lib/argosy/dev", cluster).glob("hosts/**/logs/*/log"):
        if log.read_bytes().endswith(end):
            return sorted(log.parent.iterdir(), key=lambda file: file.stat().st_mtime)
    raise SystemExit(f"no log ends with {end!r}")


def main() -> None:
    """Run and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--name", default="benchlogs", help="of the dev cluster")
    options = parser.parse_args()
    program = ["seq", "1", str(options.lines)]
    expected = b"".join(b"%d\n" % number for number in range(1, options.lines + 1))
    took: dict[str, list[float]] = defaultdict(list)
    with DevCluster(options.name) as cluster, tempfile.TemporaryDirectory() as work:
        out = Path(work, "out")
        cluster.argosy("run", "--no-rm", "--name", "written", IMAGE, *program)
        files = log_files(options.name, b" %d\n" % options.lines)
        for _ in range(options.runs):
            took["logs"].append(seconds(cluster.command("logs", "--no-prefix", "written"), out))
            assert out.read_bytes() == expected
            took["logs, prefix"].append(seconds(cluster.command("logs", "written"), out))
            took["cat LOG"].append(seconds(["cat", *map(str, files)], out))
            took["run"].append(seconds(cluster.command("run", IMAGE, *program), out))
            assert out.read_bytes() == expected
            took["run true"].append(seconds(cluster.command("run", IMAGE, "true"), out))
    for name, floor in (("logs", "cat LOG"), ("logs, prefix", "cat LOG"), ("run", "run true")):
        median, least = statistics.median(took[name]), statistics.median(took[floor])
        print(
            f"{name:13} {options.lines / median:>9,.0f} lines/s: median {median:.2f} s "
            f"(best {min(took[name]):.2f}, worst {max(took[name]):.2f}); {floor}: {least * 1000:.0f} ms, "
            f"ratio {median / least:.1f}; load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
