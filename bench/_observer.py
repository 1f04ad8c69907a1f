"""Watches a dev cluster from outside, for the benchmarks: standard library only, nothing of Argosy is imported.

As a program, `_observer.py answers PORT SECONDS OWN_HOST` with addresses on standard input: run inside a probe
container's network namespace, it prints a line for each address that answers from another host. As a module, `Kernel`:
pids, cgroups and veths of a dev cluster's containers, read from /proc and /sys.
"""

import ctypes
import errno
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNET = 0x40000000
PAUSE_S = 0.05


def answers(addresses: list[str], port: int, seconds: float, own_host: str) -> None:
    """Connect to every address until it answers with another host's name; print "ADDRESS NANOSECONDS HOST" for each.

    Ends after `seconds`. Connections that are refused, or have no answer within 200 ms, are tried again.
    """
    deadline = time.monotonic() + seconds
    left = set(addresses)
    while left and time.monotonic() < deadline:
        for address, host in _sweep(left, port):
            if host and host != own_host:
                print(address, time.monotonic_ns(), host, flush=True)
            left.discard(address)
        time.sleep(PAUSE_S)


def _sweep(addresses: set[str], port: int) -> list[tuple[str, str]]:
    """Try all addresses at once; return those that answered, with what they said."""
    selector = selectors.DefaultSelector()
    opened = []
    for address in addresses:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = sock.connect_ex((address, port))
        if code in (0, errno.EINPROGRESS):
            selector.register(sock, selectors.EVENT_READ, address)
            opened.append(sock)
        else:
            sock.close()
    found = []
    end = time.monotonic() + 0.2
    while selector.get_map() and time.monotonic() < end:
        for key, _ in selector.select(max(0.0, end - time.monotonic())):
            try:
                said = key.fileobj.recv(256).decode(errors="replace").strip()  # type: ignore[union-attr]
            except OSError:
                said = ""
            selector.unregister(key.fileobj)
            if said:
                found.append((key.data, said))
    for sock in opened:
        sock.close()
    selector.close()
    return found


class Kernel:
    """What the kernel has of a dev cluster's containers."""

    def __init__(self, cluster: str, holders: dict[str, int]) -> None:
        self._hierarchies = [p for p in Path("/sys/fs/cgroup").iterdir() if p.is_dir() and p.name != "unified"]
        if Path("/sys/fs/cgroup/cgroup.controllers").exists():
            self._hierarchies = [Path("/sys/fs/cgroup")]
        self._top = f"argosy/dev-{cluster}"
        self._holders = {n: p for n, p in holders.items() if n != "switch"}

    def cgroups(self) -> set[str]:
        """Return the directories of all containers, in every hierarchy."""
        found = set()
        for root in self._hierarchies:
            for node in self._holders:
                parent = root / self._top / node
                if parent.is_dir():
                    found |= {str(p) for p in parent.iterdir() if p.is_dir()}
        return found

    def pids(self) -> set[int]:
        """Return the processes of all containers."""
        found = set()
        for group in self.cgroups():
            try:
                found |= {int(pid) for pid in Path(group, "cgroup.procs").read_text().split()}
            except OSError:
                continue
        return found

    def veths(self) -> set[tuple[str, str]]:
        """Return (host, device) of all container links in the hosts' network namespaces."""
        found: set[tuple[str, str]] = set()
        for host, holder in self._holders.items():
            for pin in Path(f"/proc/{holder}/root/run/argosy/netns").glob("*"):
                found |= {(host, device) for device in _devices(pin)}
        return found


class Programs:
    """The programs with one command line in containers, by process; cheap enough to look all the time.

    It looks in one cgroup hierarchy only. `parents`: the paths there of the groups that the containers' groups are in.
    `command`: how the command line begins, arguments separated by zero bytes.
    """

    def __init__(self, parents: list[str], command: bytes) -> None:
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        root = Path("/sys/fs/cgroup") if unified else Path("/sys/fs/cgroup/pids")
        self._parents = [root / parent for parent in parents]
        self._command = command
        self._known: dict[tuple[str, str], bool] = {}

    def groups(self) -> set[str]:
        """Return the cgroups of all containers."""
        found = set()
        for parent in self._parents:
            try:
                found |= {entry.path for entry in os.scandir(parent) if entry.is_dir()}
            except OSError:
                continue
        return found

    def running(self) -> frozenset[tuple[str, str]]:
        """Return the programs that run, as (cgroup, process)."""
        found = set()
        for group in self.groups():
            try:
                pids = Path(group, "cgroup.procs").read_text().split()
            except OSError:
                continue
            found |= {(group, pid) for pid in pids if self._is_one(group, pid)}
        return frozenset(found)

    def _is_one(self, group: str, pid: str) -> bool:
        if not self._known.get((group, pid)):
            try:
                line = Path("/proc", pid, "cmdline").read_bytes()
            except OSError:
                return False
            self._known[group, pid] = line.startswith(self._command)
        return self._known[group, pid]

    def wait(self, holds: "Callable[[frozenset[tuple[str, str]]], bool]", seconds: float, what: str) -> None:
        """Look until a condition of the running programs holds."""
        _wait(lambda: holds(self.running()), seconds, what)

    def wait_groups(self, holds: "Callable[[set[str]], bool]", seconds: float, what: str) -> None:
        """Look until a condition of the containers' cgroups holds."""
        _wait(lambda: holds(self.groups()), seconds, what)


def _wait(holds: "Callable[[], bool]", seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)


def _devices(pin: Path) -> list[str]:
    """Return the devices of a network namespace, read by a thread that joined it."""
    result: list[str] = []

    def read() -> None:
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
                return
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
            result.extend(line.partition(":")[0].strip() for line in lines)
        finally:
            os.close(fd)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    return result


def main() -> None:
    """Entry for `answers`: the addresses come on standard input."""
    port, seconds, own_host = int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    answers(sys.stdin.read().split(), port, seconds, own_host)


if __name__ == "__main__":
    main()
