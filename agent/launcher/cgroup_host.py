"""Which cgroup version this host offers, found from its mounts; the one place that chooses between the two."""

from __future__ import annotations

from .cgroup import CgroupHost, read_file
from .cgroup_v1 import V1Host
from .cgroup_v2 import V2Host
from .errors import rejected


def find_host(parent: str, mountinfo: str | None = None) -> CgroupHost:
    """Return the host's cgroups, v2 when its unified hierarchy has the memory and pids controllers.

    Raises LaunchError when neither version offers the memory and pids controllers.
    """
    unified, controllers = mount_points(mountinfo if mountinfo is not None else _read_mountinfo())
    if unified is not None and {"memory", "pids"} <= set(read_file(f"{unified}/cgroup.controllers").split()):
        return V2Host(unified, parent)
    if {"memory", "pids", "cpu"} <= controllers.keys():
        return V1Host(controllers, parent)
    raise rejected(
        "this host offers the cgroup controllers memory and pids neither under cgroup v2 nor v1: mount cgroup2"
    )


def _read_mountinfo() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return file.read()


def mount_points(mountinfo: str) -> tuple[str | None, dict[str, str]]:
    """Return where cgroup v2 is mounted, and where each v1 controller is, from a mountinfo file's text (proc(5))."""
    unified = None
    controllers: dict[str, str] = {}
    for line in mountinfo.splitlines():
        mount, _, filesystem = line.partition(" - ")
        point = mount.split(" ")[4]
        fstype, _, options = filesystem.split(" ", 2)
        if fstype == "cgroup2" and unified is None:
            unified = point
        elif fstype == "cgroup":
            for option in options.split(","):
                controllers.setdefault(option, point)
    return unified, controllers
