"""The two mount namespaces of the launcher, and what a new container starts from.

*home* is a private copy of the host's mounts: here the launcher resolves layers, volumes and state. Mounts that the
host makes later propagate in; nothing that is done here is seen by the host.
*stage* is what the launcher switches to for the instant of a clone, so that a container's first mount namespace is a
copy of four mounts and not of the host's whole table (cheaper to copy and to detach, and no host path is ever visible
to a child). It holds an empty tree with:
    /l /u /r      where a child attaches its layers, its writable directory and its root
    /proc /sys    whole instances: the kernel lets a user namespace mount its own only where one is visible already
    /dev          the six device nodes that every container gets
"""

from __future__ import annotations

import os
import stat
from typing import Final

from . import syscalls as sc

DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")


class Stage:
    """Descriptors of both namespaces. The launcher is in *home* except inside `clone`."""

    def __init__(self, scratch_dir: str) -> None:
        """Enter new mount namespaces; `scratch_dir` is an existing directory to mount over for a moment."""
        sc.unshare(sc.CLONE_NEWNS)
        sc.mount(b"none", b"/", None, sc.MS_REC | sc.MS_SLAVE)
        self.home_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        sc.unshare(sc.CLONE_NEWNS)
        try:
            _build(scratch_dir)
            self.stage_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            self.go_home()

    def enter(self) -> None:
        """Switch to the stage; root and working directory become its root."""
        sc.setns(self.stage_fd, sc.CLONE_NEWNS)

    def go_home(self) -> None:
        """Switch back to the host's mounts."""
        sc.setns(self.home_fd, sc.CLONE_NEWNS)


def _build(scratch_dir: str) -> None:
    sc.mount(b"none", b"/", None, sc.MS_REC | sc.MS_PRIVATE)
    devices = {name: sc.open_tree(f"/dev/{name}".encode()) for name in DEVICES}
    target = scratch_dir.encode()
    sc.mount(b"argosy-stage", target, b"tmpfs", sc.MS_NOSUID, b"mode=755,size=64k")
    os.chdir(scratch_dir)
    for name in ("l", "u", "r", "proc", "sys", "dev"):
        os.mkdir(name, 0o755)
    sc.mount(b"proc", b"proc", b"proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    sc.mount(b"sysfs", b"sys", b"sysfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    for name, fd in devices.items():
        if not stat.S_ISCHR(os.fstat(fd).st_mode):
            raise OSError(f"/dev/{name} of the host is not a device")
        os.close(os.open(f"dev/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        sc.move_mount(fd, f"dev/{name}".encode())
        os.close(fd)
    sc.pivot_root(b".", b".")
    sc.umount(b".", sc.MNT_DETACH)
    os.chdir("/")
