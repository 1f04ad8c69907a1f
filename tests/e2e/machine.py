"""A machine of our own to look at as a whole: namespaces in which nobody else makes or ends anything.

On a shared machine processes and mounts come and go all the time, so that states before and after cannot be compared.
In here they can, and strictly: processes, mounts, devices and rules are private; `/run` and `/var/lib/argosy` are
empty at first. Only cgroups are the machine's; of those we look at the ones that are called after dev clusters.
"""

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

from argosy.cli.dev import directories
from tests.e2e.dev_cluster import ARGOSY, wait_until
from tests.e2e.host_view import HIERARCHY

INIT = "/usr/bin/tini-static"
NAMESPACES = ("--pid", "--mount", "--net", "--uts", "--ipc")


class Machine:
    """Use as a context manager. `clusters` are the names of the dev clusters that may be made in it."""

    def __init__(self, directory, *clusters):
        self.clusters = clusters
        self._state = directory / "state"
        # Keeps the directory that we mount on from being empty: who removes it elsewhere takes the mount away.
        self._keep = Path("/var/lib/argosy") / f"machine-{os.getpid()}"
        self._process = None
        self.init = 0

    def __enter__(self):
        self._state.mkdir()
        directories.make(self._keep)
        prepare = f"mount -t tmpfs tmpfs /run && mount --bind {self._state} /var/lib/argosy && ip link set lo up"
        shell = f"{prepare} && touch /run/ready && exec {INIT} -g -- sleep infinity"
        flags = ["--fork", "--kill-child", "--mount-proc", "--propagation=private", *NAMESPACES]
        self._process = subprocess.Popen(["unshare", *flags, "sh", "-c", shell])
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self.init = int(wait_until(lambda: children.read_text().split(), 10, "the machine's first process")[0])
        wait_until(lambda: Path(f"/proc/{self.init}/root/run/ready").exists(), 10, "the machine is ready")
        wait_until(lambda: b"sleep" in self._cmdlines(), 10, "the machine's processes run")
        return self

    def __exit__(self, *_):
        for name in self.clusters:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.argosy("dev", "down", "--name", name)
        self._process.kill()
        self._process.wait()
        self._keep.rmdir()
        with contextlib.suppress(OSError):
            self._keep.parent.rmdir()

    def enter(self, *command):
        """Return the command line that runs a command in here."""
        return ["nsenter", f"--target={self.init}", *NAMESPACES, "--wd=/", "--", *command]

    def start(self, *args, **options):
        """Start `argosy ARGS` in here, in a process group of its own."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")}
        return subprocess.Popen(
            self.enter(ARGOSY, *args),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )

    def argosy(self, *args, timeout=120):
        """Run `argosy ARGS` in here; return exit status and output."""
        process = self.start(*args)
        said, _ = process.communicate(timeout=timeout)
        return process.returncode, said

    def run(self, *command):
        """Run a command in here, which must succeed; return what it printed."""
        return subprocess.run(self.enter(*command), check=True, capture_output=True, text=True, timeout=30).stdout

    # ---------------------------------------------------------------- what there is

    def path(self, path):
        """Return how a path in here is reached from outside."""
        return Path(f"/proc/{self.init}/root{path}")

    def processes(self):
        """Return the processes in here by their id outside, with their command lines."""
        here = os.readlink(f"/proc/{self.init}/ns/pid")
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if here in _pid_namespaces(pid):
                    found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def _cmdlines(self):
        return b"".join(line.split()[0].encode() for line in self.processes().values() if line)

    def state(self):
        """Return all that there is in here."""
        processes = self.processes()
        return {
            "processes": processes,
            "namespaces": _namespaces(processes),
            "mounts": sorted(
                line.split(" ", 2)[2] for line in Path(f"/proc/{self.init}/mountinfo").read_text().splitlines()
            ),
            "mounts of the machine": [
                line
                for line in Path("/proc/self/mountinfo").read_text().splitlines()
                if any(f"/{name}" in line for name in self.clusters)
            ],
            "devices": sorted(link["ifname"] for link in json.loads(self.run("ip", "-j", "link"))),
            "addresses": self.run("ip", "-o", "address"),
            "routes": self.run("ip", "route", "show", "table", "all"),
            "rules": self.run("ip", "rule"),
            "nft": self.run("nft", "list", "ruleset"),
            "forwarding": self.run("cat", "/proc/sys/net/ipv4/ip_forward"),
            "host name": self.run("hostname"),
            "files": sorted(str(p) for top in ("/run", "/var/lib/argosy") for p in self.path(top).rglob("*")),
            "cgroups": self.cgroups(),
            "sockets": self.run("cat", "/proc/net/unix").count("argosy"),
        }

    def cgroups(self):
        """Return the directories of the dev clusters in all hierarchies."""
        tops = [HIERARCHY, *(p for p in Path("/sys/fs/cgroup").iterdir() if p.is_dir() and p != HIERARCHY)]
        return [str(found) for top in tops for name in self.clusters for found in top.glob(f"argosy/dev-{name}*")]

    def cluster_processes(self, name):
        """Return the processes of a dev cluster, by id outside: those of its cgroup subtree."""
        found = []
        for path in (HIERARCHY / f"argosy/dev-{name}").rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found += map(int, path.read_text().split())
        return found

    def kill_all(self, name):
        """kill -9 every process of a dev cluster, containers and all."""
        while pids := self.cluster_processes(name):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _pid_namespaces(pid):
    """Return the pid namespace of a process and the one above it: containers have one of their own."""
    status = Path(f"/proc/{pid}/status").read_text()
    levels = next(len(line.split()) - 1 for line in status.splitlines() if line.startswith("NSpid:"))
    own = os.readlink(f"/proc/{pid}/ns/pid")
    return {own} if levels <= 2 else {own, *_above(pid)}


def _above(pid):
    """Return the pid namespaces of the processes above a process."""
    above = set()
    while int(pid) > 1:
        pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        with contextlib.suppress(OSError):
            above.add(os.readlink(f"/proc/{pid}/ns/pid"))
    return above


def _namespaces(pids):
    """Return all namespaces that processes, their threads and their children's pids are in."""
    found = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/ns/*"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(path))
    return sorted(found)
