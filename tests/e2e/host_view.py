"""What the kernel says of a dev cluster's containers, seen from the machine; nothing here asks Argosy.

A container is a directory in the cluster's cgroup subtree that has processes; its *program* runs once one of them
shows the program's command line, which is after the launcher's set-up and the exec.
"""

import contextlib
import ipaddress
import os
import threading
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
HIERARCHY = _CGROUPS if (_CGROUPS / "cgroup.controllers").exists() else _CGROUPS / "pids"


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs in a container. `started` (clock ticks since boot) tells apart two with one `pid`."""

    node: str
    pid: int
    started: int


def container_pids(cluster, node):
    """Return the processes of each container of a host, by task; its init is the first."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for group in (HIERARCHY / f"argosy/dev-{cluster}/{node}").iterdir():
            with contextlib.suppress(OSError):
                if pids := [int(pid) for pid in (group / "cgroup.procs").read_text().split()]:
                    found[group.name] = sorted(pids, key=lambda pid: not is_init(pid))
    return found


def is_init(pid):
    """Whether a process is pid 1 where it lives. The lowest number is not enough: numbers begin anew at pid_max."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.split()[-1] == "1"
    return False


def catches(pid, signal):
    """Whether a process has a handler for a signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal - 1) & 1)
    return False


def programs(cluster, nodes, command="sleep"):
    """Return the programs whose command line begins with `command`, by task."""
    found = {}
    for node in nodes:
        for task, pids in container_pids(cluster, node).items():
            for pid in pids:
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(command.encode()):
                        found.setdefault(task, Program(node, pid, started(pid)))
    return found


def started(pid):
    """Return when a process was started, in clock ticks since boot. FileNotFoundError when it is gone."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def is_alive(program):
    """Whether the very same process still runs."""
    try:
        state = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return started(program.pid) == program.started and state not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def addresses_of(pid):
    """Return the IPv4 addresses in a process's network namespace but those of the loopback, from the routing trie."""
    found, last = set(), ""
    try:
        for line in Path(f"/proc/{pid}/net/fib_trie").read_text().splitlines():
            if "|--" in line:
                last = line.split()[-1]
            elif "host LOCAL" in line and not ipaddress.ip_address(last).is_loopback:
                found.add(last)
    except (OSError, ProcessLookupError):
        return set()
    return found


class AddressWatch:
    """Samples which containers hold which addresses, from entry to exit; `twice` are those that two held at once.

    One look at all containers takes a moment, in which an address may rightly pass from one to another: so the first
    holder is looked at once more after the second.
    """

    def __init__(self, cluster, nodes):
        self.samples = 0
        self.held = set()
        self.twice = []
        self._cluster = cluster
        self._nodes = nodes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="addresses", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(0.02):
            holders = {}
            for node in self._nodes:
                for task, pids in container_pids(self._cluster, node).items():
                    for address in addresses_of(pids[0]):
                        self._note(holders, address, (node, task, pids[0]))
            self.samples += 1

    def _note(self, holders, address, holder):
        other = holders.setdefault(address, holder)
        self.held.add(address)
        if other[1] != holder[1] and address in addresses_of(other[2]) and address in addresses_of(holder[2]):
            self.twice.append((address, other, holder))


def exists(pid):
    """Whether there is a process of this id."""
    return os.path.exists(f"/proc/{pid}")


def kill(pid, number):
    """Send a signal to a process."""
    os.kill(pid, number)
