"""One container's control group, behind one interface for cgroup v2 and for v1 (hybrid) hosts.

The launcher makes the group before it clones, and the container's init enters it before it does anything else:
  v2  clone3(CLONE_INTO_CGROUP): the child is born inside, nothing migrates;
  v1  the *child itself* writes "0" to each controller's `tasks` through a descriptor that the launcher opened.
      Moving the current thread takes 10 to 70 µs; any other way (`cgroup.procs`, or by another process) takes the
      kernel's global thread-group lock and with it an RCU grace period: 5 to 10 ms here.
No devices controller: a container cannot make device nodes (mknod needs the initial user namespace), every file
system that it can see belongs to its user namespace and is therefore mounted without devices by the kernel itself
(SB_I_NODEV), and the six nodes of its /dev are bound in one by one.
Limits come as the `resources` object of the OCI runtime-spec. Writing none costs nothing: only what is asked for is
written. Nothing here needs CAP_SYS_RESOURCE.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .errors import LaunchError, rejected

Resources = Mapping[str, Any]
#: What must be written: (controller, file, value).
Writes = list[tuple[str, str, str]]

_STEP: Final = "limit resources"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses: CPU seconds since its start, bytes and processes now, and kills by its memory limit."""

    cpu_s: float
    memory_bytes: int
    memory_peak_bytes: int
    pids: int
    oom_kills: int

    def as_message(self) -> dict[str, float | int]:
        """Return the form that crosses the socket."""
        return {name: getattr(self, name) for name in self.__slots__}


class Cgroup(Protocol):
    """One container's group. All calls are quick; `remove` and `kill` are idempotent."""

    @property
    def path(self) -> str: ...
    def create(self, resources: Resources) -> None: ...
    def open_entry(self) -> None: ...
    def clone_fd(self) -> int: ...
    def entry_fds(self) -> tuple[int, ...]: ...
    def close_fds(self) -> None: ...
    def usage(self) -> Usage: ...
    def oom_kills(self) -> int: ...
    def kill(self) -> None: ...
    def remove(self) -> bool: ...


class CgroupHost(Protocol):
    """The host's hierarchies, below the launcher's parent group."""

    version: int

    def mounts(self) -> Mapping[str, str]: ...
    def prepare(self) -> None: ...
    def group(self, path: str) -> Cgroup: ...
    def children(self) -> list[str]: ...
    def remove_parent(self) -> None: ...


def write_file(path: str, value: str) -> None:
    """Write a control file in one call."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_file(path: str) -> str:
    """Return a control file's content, "" when the file or the group is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return ""
        raise
    try:
        return os.read(fd, 65536).decode()
    except OSError as error:
        if error.errno == errno.ENODEV:
            return ""
        raise
    finally:
        os.close(fd)


def read_number(path: str) -> int:
    """Return the number in a control file, 0 when it is not there."""
    text = read_file(path).strip()
    return int(text) if text.isdigit() else 0


def read_field(path: str, field: str) -> int:
    """Return one value of a `name value` file such as memory.events, 0 when it is not there."""
    for line in read_file(path).splitlines():
        name, _, value = line.partition(" ")
        if name == field:
            return int(value)
    return 0


def remove_dir(path: str) -> bool:
    """Remove a group; return whether it is gone now. A group is busy until its last process is reaped."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def limit_refused(file: str, value: str, error: OSError) -> LaunchError:
    """Return the error for a limit that the kernel does not take."""
    return rejected(f"{_STEP}: {file} = {value}: {error.strerror}; check the value against the host", step=_STEP)


def checked_unified(resources: Resources) -> dict[str, str]:
    """Return the raw cgroup v2 files of `resources.unified`; raise for names that leave the group."""
    unified = dict(resources.get("unified") or {})
    for name in unified:
        if "/" in name or name.startswith("cgroup.") or "." not in name:
            raise rejected(f"resources.unified: {name!r} is not a controller's file", step=_STEP)
    return unified
