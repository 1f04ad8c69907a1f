"""cgroup v2: one directory, and clone3 puts the child straight into it. See `cgroup` for the interface and why."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Final

from .cgroup import (
    Resources,
    Usage,
    Writes,
    checked_unified,
    limit_refused,
    read_field,
    read_file,
    read_number,
    remove_dir,
    write_file,
)
from .errors import rejected

#: Handed down to the containers' groups where the host has them.
_CONTROLLERS: Final = ("cpu", "memory", "pids", "cpuset", "io")
_REQUIRED: Final = ("memory", "pids")


class V2Host:
    """The unified hierarchy below one parent path, such as `/argosy/cluster/node`."""

    version = 2

    def __init__(self, mount: str, parent: str) -> None:
        self._mount = mount
        self._parent = parent

    def mounts(self) -> Mapping[str, str]:
        """Return the single unnamed entry that means: the unified hierarchy itself."""
        return {"": ""}

    def prepare(self) -> None:
        """Make the parent group and hand the controllers down to it, level by level from the root."""
        path = self._mount
        for part in ["", *self._parent.strip("/").split("/")]:
            path = f"{path}/{part}" if part else path
            os.makedirs(path, exist_ok=True)
            available = read_file(f"{path}/cgroup.controllers").split()
            enabled = read_file(f"{path}/cgroup.subtree_control").split()
            for name in _CONTROLLERS:
                if name in available and name not in enabled:
                    _hand_down(path, name)

    def group(self, path: str) -> V2Cgroup:
        """Return the group at a path from the hierarchy's root."""
        return V2Cgroup(self._mount, path)

    def children(self) -> list[str]:
        """Return the paths of all groups below the parent: the containers' groups, also forgotten ones."""
        directory = self._mount + self._parent
        if not os.path.isdir(directory):
            return []
        return sorted(f"{self._parent}/{entry.name}" for entry in os.scandir(directory) if entry.is_dir())

    def remove_parent(self) -> None:
        """Remove the parent group, and those above it, where they are empty."""
        path = self._parent
        while path and path != "/":
            try:
                os.rmdir(self._mount + path)
            except OSError:
                return
            path = os.path.dirname(path)


def _hand_down(path: str, controller: str) -> None:
    """Enable one controller for a group's children. Without the optional ones, limits that need them are refused."""
    try:
        write_file(f"{path}/cgroup.subtree_control", f"+{controller}")
    except OSError as error:
        if controller in _REQUIRED:
            reason = f"cgroup controller {controller} cannot be handed down from {path}: {error.strerror}"
            raise rejected(f"{reason}; processes must not be in a group above the containers'") from None


class V2Cgroup:
    """One container's group."""

    def __init__(self, mount: str, path: str) -> None:
        self.path = path
        self._directory = mount + path
        self._fd = -1

    def create(self, resources: Resources) -> None:
        """Make the directory and write the limits."""
        try:
            os.mkdir(self._directory)
        except FileNotFoundError:
            os.makedirs(self._directory)
        except FileExistsError:
            pass
        for _, file, value in limit_writes(resources):
            try:
                write_file(f"{self._directory}/{file}", value)
            except OSError as error:
                raise limit_refused(file, value, error) from None
        self.open_entry()

    def open_entry(self) -> None:
        """Open the group for a process to be cloned into."""
        self._fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def clone_fd(self) -> int:
        """Return the descriptor for CLONE_INTO_CGROUP."""
        return self._fd

    def entry_fds(self) -> tuple[int, ...]:
        """Return nothing: the child is born inside."""
        return ()

    def close_fds(self) -> None:
        """Close the group's descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def usage(self) -> Usage:
        """Read back what the container uses."""
        return Usage(
            cpu_s=read_field(f"{self._directory}/cpu.stat", "usage_usec") / 1e6,
            memory_bytes=read_number(f"{self._directory}/memory.current"),
            memory_peak_bytes=read_number(f"{self._directory}/memory.peak"),
            pids=read_number(f"{self._directory}/pids.current"),
            oom_kills=self.oom_kills(),
        )

    def oom_kills(self) -> int:
        """Return how many processes the memory limit has killed."""
        return read_field(f"{self._directory}/memory.events", "oom_kill")

    def kill(self) -> None:
        """Kill every process in the group at once (cgroup.kill, Linux 5.14)."""
        try:
            write_file(f"{self._directory}/cgroup.kill", "1")
        except FileNotFoundError:
            for pid in read_file(f"{self._directory}/cgroup.procs").split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def remove(self) -> bool:
        """Remove the directory (and groups that the container made inside it); return whether it is gone."""
        self.close_fds()
        if remove_dir(self._directory):
            return True
        return all(remove_dir(path) for path, _, _ in os.walk(self._directory, topdown=False))


def limit_writes(resources: Resources) -> Writes:
    """Return the control files to write for OCI resources on cgroup v2.

    `cpu.shares` becomes a weight by the kernel documentation's mapping of 2..262144 onto 1..10000; OCI's `swap` is
    memory plus swap, v2's is swap alone.
    """
    memory = resources.get("memory") or {}
    cpu = resources.get("cpu") or {}
    pids = resources.get("pids") or {}
    writes: Writes = []
    if (limit := memory.get("limit")) is not None:
        writes.append(("memory", "memory.max", _or_max(limit)))
    if (swap := memory.get("swap")) is not None:
        alone = swap - (limit or 0) if swap > 0 else swap
        writes.append(("memory", "memory.swap.max", _or_max(alone)))
    if (reservation := memory.get("reservation")) is not None:
        writes.append(("memory", "memory.low", str(reservation)))
    if (shares := cpu.get("shares")) is not None:
        writes.append(("cpu", "cpu.weight", str(1 + ((max(shares, 2) - 2) * 9999) // 262142)))
    if (quota := cpu.get("quota")) is not None:
        writes.append(("cpu", "cpu.max", f"{_or_max(quota)} {cpu.get('period', 100_000)}"))
    if cpus := cpu.get("cpus"):
        writes.append(("cpuset", "cpuset.cpus", cpus))
    if mems := cpu.get("mems"):
        writes.append(("cpuset", "cpuset.mems", mems))
    if (limit := pids.get("limit")) is not None:
        writes.append(("pids", "pids.max", _or_max(limit)))
    if weight := (resources.get("blockIO") or {}).get("weight"):
        writes.append(("io", "io.bfq.weight", str(weight)))
    for name, value in checked_unified(resources).items():
        writes.append((name.partition(".")[0], name, value))
    return writes


def _or_max(value: int) -> str:
    return str(value) if value > 0 else "max"
