"""cgroup v1 (legacy and hybrid hosts): one directory per controller. See `cgroup` for the interface and why."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Final

from .cgroup import Resources, Usage, Writes, limit_refused, read_field, read_file, read_number, remove_dir, write_file
from .errors import rejected

#: Always used when mounted: limits or usage come from them. cpuset and blkio only when a limit asks for them.
_ALWAYS: Final = ("memory", "cpu", "cpuacct", "pids")
_ON_DEMAND: Final = ("cpuset", "blkio")


class V1Host:
    """The mounted v1 hierarchies below one parent path, such as `/argosy/cluster/node`."""

    version = 1

    def __init__(self, controllers: Mapping[str, str], parent: str) -> None:
        wanted = {name: controllers[name] for name in (*_ALWAYS, *_ON_DEMAND) if name in controllers}
        self._parent = parent
        self._mounts = wanted

    def mounts(self) -> Mapping[str, str]:
        """Return what a container sees below /sys/fs/cgroup: directory name -> controllers mounted there."""
        together: dict[str, list[str]] = {}
        for name, point in self._mounts.items():
            if name in _ALWAYS:
                together.setdefault(point, []).append(name)
        return {",".join(names): ",".join(names) for names in together.values()}

    def prepare(self) -> None:
        """Make the parent group in every hierarchy."""
        for name in self._mounts:
            if name in _ALWAYS:
                os.makedirs(self._mounts[name] + self._parent, exist_ok=True)

    def group(self, path: str) -> V1Cgroup:
        """Return the group at a path from the hierarchy's root."""
        return V1Cgroup(self._mounts, path)

    def children(self) -> list[str]:
        """Return the paths of all groups below the parent: the containers' groups, also forgotten ones."""
        names: set[str] = set()
        for mount in self._mounts.values():
            if os.path.isdir(mount + self._parent):
                names.update(entry.name for entry in os.scandir(mount + self._parent) if entry.is_dir())
        return [f"{self._parent}/{name}" for name in sorted(names)]

    def remove_parent(self) -> None:
        """Remove the parent group, and those above it, where they are empty."""
        for mount in self._mounts.values():
            path = self._parent
            while path and path != "/":
                try:
                    os.rmdir(mount + path)
                except OSError:
                    break
                path = os.path.dirname(path)


class V1Cgroup:
    """One container's groups in all hierarchies."""

    def __init__(self, mounts: Mapping[str, str], path: str) -> None:
        self.path = path
        self._mounts = mounts
        self._entry: tuple[int, ...] = ()

    def _directory(self, controller: str) -> str:
        return self._mounts[controller] + self.path

    def create(self, resources: Resources) -> None:
        """Make the directories, write the limits and open each `tasks` file for the child to enter by."""
        writes = limit_writes(resources)
        for controller, file, _ in writes:
            if controller not in self._mounts:
                raise rejected(f"limit resources: {file}: this host has no cgroup v1 controller {controller!r}")
        used = {name for name in _ALWAYS if name in self._mounts} | {controller for controller, _, _ in writes}
        entry = []
        for controller in sorted(used):
            directory = self._directory(controller)
            try:
                os.mkdir(directory)
            except FileNotFoundError:
                os.makedirs(directory)
            except FileExistsError:
                pass
            if controller == "cpuset":
                self._inherit_cpuset()
            entry.append(os.open(directory + "/tasks", os.O_WRONLY | os.O_CLOEXEC))
        self._entry = tuple(entry)
        for controller, file, value in writes:
            try:
                write_file(f"{self._directory(controller)}/{file}", value)
            except OSError as error:
                raise limit_refused(file, value, error) from None

    def _inherit_cpuset(self) -> None:
        """Copy cpus and mems down from the first ancestor that has them: v1 starts a group with neither."""
        mount = self._mounts["cpuset"]
        parts = self.path.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            directory = f"{mount}/{'/'.join(parts[:depth])}"
            for file in ("cpuset.cpus", "cpuset.mems"):
                if not read_file(f"{directory}/{file}").strip():
                    write_file(f"{directory}/{file}", read_file(f"{os.path.dirname(directory)}/{file}").strip())

    def clone_fd(self) -> int:
        """Return -1: v1 has no clone into a group."""
        return -1

    def entry_fds(self) -> tuple[int, ...]:
        """Return the descriptors into which the child writes "0" to enter."""
        return self._entry

    def open_entry(self) -> None:
        """Open the entry descriptors of a group that exists already, for a process that joins."""
        self._entry = tuple(
            os.open(self._directory(name) + "/tasks", os.O_WRONLY | os.O_CLOEXEC)
            for name in self._mounts
            if os.path.isdir(self._directory(name))
        )

    def close_fds(self) -> None:
        """Close the launcher's copies of the entry descriptors."""
        for fd in self._entry:
            os.close(fd)
        self._entry = ()

    def usage(self) -> Usage:
        """Read back what the container uses."""
        memory = self._directory("memory")
        accounted = self._mounts.get("cpuacct")
        return Usage(
            cpu_s=read_number(f"{accounted}{self.path}/cpuacct.usage") / 1e9 if accounted else 0.0,
            memory_bytes=read_number(f"{memory}/memory.usage_in_bytes"),
            memory_peak_bytes=read_number(f"{memory}/memory.max_usage_in_bytes"),
            pids=read_number(f"{self._directory('pids')}/pids.current"),
            oom_kills=self.oom_kills(),
        )

    def oom_kills(self) -> int:
        """Return how many processes the memory limit has killed."""
        return read_field(f"{self._directory('memory')}/memory.oom_control", "oom_kill")

    def kill(self) -> None:
        """Send SIGKILL to every process in the group, until a pass finds none that forks away (bounded)."""
        for _ in range(100):
            pids = read_file(f"{self._directory('pids')}/cgroup.procs").split()
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def remove(self) -> bool:
        """Remove the directories; return whether all are gone."""
        self.close_fds()
        # A list first: all of them are tried, also when one is still busy.
        gone = [remove_dir(self._directory(name)) for name in self._mounts]
        return all(gone)


def limit_writes(resources: Resources) -> Writes:
    """Return the control files to write for OCI resources on cgroup v1, in an order that the kernel accepts."""
    memory = resources.get("memory") or {}
    cpu = resources.get("cpu") or {}
    pids = resources.get("pids") or {}
    writes: Writes = []
    if (limit := memory.get("limit")) is not None:
        writes.append(("memory", "memory.limit_in_bytes", str(limit)))
    if (swap := memory.get("swap")) is not None:
        writes.append(("memory", "memory.memsw.limit_in_bytes", str(swap)))
    # v1 has no `high`: its soft limit is the nearest thing to a gradient below the hard one.
    unified = resources.get("unified") or {}
    if (soft := memory.get("reservation", unified.get("memory.high"))) is not None:
        writes.append(("memory", "memory.soft_limit_in_bytes", str(soft)))
    for file in unified:
        if file != "memory.high":
            raise rejected(f"resources.unified: {file} needs cgroup v2, this host has v1")
    if (shares := cpu.get("shares")) is not None:
        writes.append(("cpu", "cpu.shares", str(shares)))
    if (quota := cpu.get("quota")) is not None:
        writes.append(("cpu", "cpu.cfs_period_us", str(cpu.get("period", 100_000))))
        writes.append(("cpu", "cpu.cfs_quota_us", str(quota)))
    if cpus := cpu.get("cpus"):
        writes.append(("cpuset", "cpuset.cpus", cpus))
    if mems := cpu.get("mems"):
        writes.append(("cpuset", "cpuset.mems", mems))
    if (limit := pids.get("limit")) is not None:
        writes.append(("pids", "pids.max", str(limit) if limit > 0 else "max"))
    if weight := (resources.get("blockIO") or {}).get("weight"):
        writes.append(("blkio", "blkio.bfq.weight", str(weight)))
    return writes
