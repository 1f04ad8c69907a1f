"""The container's file system, built by its own init inside its own user and mount namespace.

The overlay is mounted by the container's root, not by the host's: the kernel then gives the whole file system to the
container's user namespace (no device nodes, no host capability behind a copy-up), and the work runs in parallel
in the children instead of in the single-threaded launcher. Lower layers are one id-mapped mount of the directory
that holds them all. `userxattr` is what a user namespace may use for opaque directories (user.overlay.*); whiteouts are
0/0 device nodes as everywhere. `volatile`: the upper directory never outlives the container, so nothing of it
is synced (an unmount would else sync the host's whole file system).

After `enter_root` every path is resolved inside the container's root, with the container's credentials: whatever links
the image contains, they cannot lead out. Nothing here imports or looks up names.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Final

from . import syscalls as sc
from .errors import rejected
from .spec import Mount
from .stage import DEVICES

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
#: mount(2) takes one page of options; a longer list of layers goes through short links (see `overlay_options`).
MAX_OPTIONS_BYTES: Final = 4000
_DEV_LINKS: Final = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)
_ATTRS: Final = (
    (sc.MS_RDONLY, sc.MOUNT_ATTR_RDONLY),
    (sc.MS_NOSUID, sc.MOUNT_ATTR_NOSUID),
    (sc.MS_NODEV, sc.MOUNT_ATTR_NODEV),
    (sc.MS_NOEXEC, sc.MOUNT_ATTR_NOEXEC),
)


def overlay_options(layers: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the overlay's mount options for layers (base first), and the links to make in the writable directory.

    Without layers there is no overlay and the options are empty. Overlayfs wants the topmost layer first. Link N stands
    for layer N when the names are too long for one page.
    """
    if not layers:
        return "", ()
    lowers = [f"l/{name}" for name in reversed(layers)]
    links: tuple[str, ...] = ()
    tail = ",upperdir=u/upper,workdir=u/work,userxattr,volatile"
    if len(":".join(lowers)) + len(tail) > MAX_OPTIONS_BYTES:
        links = tuple(f"../{lower}" for lower in lowers)
        lowers = [f"u/{number}" for number in range(len(links))]
    return f"lowerdir={':'.join(lowers)}{tail}", links


def check_layer_name(name: str) -> None:
    """Raise LaunchError for a layer path that would leave the layers' directory or break the option string."""
    if not name or name.startswith("/") or ".." in name.split("/") or set(name) & set(":,\\\0"):
        raise rejected(f"layer {name!r}: must be a plain path below the layers' directory", step="mount the layers")


def mount_overlay(layers_fd: int, scratch_fd: int, options: str) -> None:
    """Attach layers and writable directory to the stage and mount the overlay at its `r`."""
    sc.move_mount(layers_fd, b"l")
    sc.move_mount(scratch_fd, b"u")
    os.mkdir("u/upper", 0o755)
    os.mkdir("u/work", 0o755)
    sc.mount(b"overlay", b"r", b"overlay", sc.MS_NODEV, options.encode())


def mount_directory(tree_fd: int) -> None:
    """Attach a plain directory as the root: what the container writes is written there."""
    sc.mount_setattr(tree_fd, add=sc.MOUNT_ATTR_NODEV)
    sc.move_mount(tree_fd, b"r")


def enter_root() -> int:
    """Make `r` the root; return a descriptor of the old root, which stays attached (hidden) until `leave_old_root`.

    It must stay while proc and sysfs are mounted: the kernel wants to see a whole instance in the mount namespace.
    """
    old_root = os.open("/", _DIRECTORY)
    os.chdir("r")
    sc.pivot_root(b".", b".")
    os.chdir("/")
    return old_root


def leave_old_root(old_root: int) -> None:
    """Detach the stage: afterwards no host mount is left in the container's mount namespace."""
    os.fchdir(old_root)
    sc.umount(b".", sc.MNT_DETACH)
    os.chdir("/")
    os.close(old_root)


def ensure_target(path: str, *, directory: bool) -> None:
    """Make the directory or empty file that something is to be mounted on, with its parents."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        _make_target(path, directory=directory)
        return
    if stat.S_ISDIR(mode) != directory:
        code = errno.ENOTDIR if directory else errno.EISDIR
        raise OSError(code, os.strerror(code), path)


def _make_target(path: str, *, directory: bool) -> None:
    os.makedirs(path if directory else os.path.dirname(path), mode=0o755, exist_ok=True)
    if not directory:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def apply_mount(
    mount: Mount, tree_fd: int | None, old_root: int, *, own_network: bool, cgroups: Mapping[str, str]
) -> None:
    """Make one mount of the config. `tree_fd` is the detached tree of a bind, opened by the launcher outside.

    Links of the image in the target are followed here and not by the kernel: it would take ".." at the root for the
    old root, which still lies on top of it.
    """
    target = os.path.realpath(mount.target)
    if mount.fstype == "bind":
        assert tree_fd is not None
        _attach(tree_fd, mount, target)
        return
    ensure_target(target, directory=True)
    if mount.fstype == "sysfs" and not own_network:
        # sysfs shows a network namespace's devices and may only be mounted by its owner: show the host's, read-only.
        fd = sc.open_tree(b"sys", dirfd=old_root, recursive=True)
        sc.mount_setattr(fd, add=sc.MOUNT_ATTR_RDONLY, recursive=True)
        sc.move_mount(fd, target.encode())
        os.close(fd)
    elif mount.fstype == "cgroup":
        _mount_cgroups(mount, target, cgroups)
    else:
        flags = mount.flags & ~sc.MS_REC
        fstype = mount.fstype.encode()
        sc.mount(fstype, target.encode(), fstype, flags, mount.data.encode() or None)


def _attach(tree_fd: int, mount: Mount, target: str) -> None:
    ensure_target(target, directory=stat.S_ISDIR(os.fstat(tree_fd).st_mode))
    if attributes := sum(attr for flag, attr in _ATTRS if mount.flags & flag):
        sc.mount_setattr(tree_fd, add=attributes, recursive=mount.recursive)
    sc.move_mount(tree_fd, target.encode())
    os.close(tree_fd)


def _mount_cgroups(mount: Mount, path: str, cgroups: Mapping[str, str]) -> None:
    """Show the container its own cgroup: the unified tree, or on v1 a directory per controller, as programs expect."""
    target = path.encode()
    if "" in cgroups:
        sc.mount(b"cgroup", target, b"cgroup2", mount.flags, None)
        return
    sc.mount(b"tmpfs", target, b"tmpfs", mount.flags & ~sc.MS_RDONLY, b"mode=755,size=64k")
    for name, controllers in cgroups.items():
        os.mkdir(f"{path}/{name}", 0o755)
        sc.mount(b"cgroup", target + b"/" + name.encode(), b"cgroup", mount.flags, controllers.encode())


def make_devices(old_root: int) -> None:
    """Bind the six standard device nodes into /dev (a user namespace can make none) and make the usual links."""
    for name in DEVICES:
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        fd = sc.open_tree(f"dev/{name}".encode(), dirfd=old_root)
        sc.move_mount(fd, f"/dev/{name}".encode())
        os.close(fd)
    for target, link in _DEV_LINKS:
        try:
            os.symlink(target, link)
        except FileExistsError:
            continue


def mask_paths(paths: Sequence[str], old_root: int) -> None:
    """Cover files with /dev/null and directories with an empty read-only tmpfs; what is not there needs no mask."""
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISDIR(mode):
            sc.mount(b"tmpfs", path.encode(), b"tmpfs", sc.MS_RDONLY, b"size=0k,nr_inodes=2")
        else:
            fd = sc.open_tree(b"dev/null", dirfd=old_root)
            sc.move_mount(fd, path.encode())
            os.close(fd)


def make_read_only(paths: Sequence[str]) -> None:
    """Cover paths with read-only views of themselves; what is not there needs none."""
    for path in paths:
        try:
            fd = sc.open_tree(path.encode(), recursive=True)
        except (FileNotFoundError, NotADirectoryError):
            continue
        sc.mount_setattr(fd, add=sc.MOUNT_ATTR_RDONLY, recursive=True)
        sc.move_mount(fd, path.encode())
        os.close(fd)


def make_root_read_only() -> None:
    """Make the root mount alone read-only: tmpfs and binds below keep their own mode."""
    sc.mount_setattr(sc.AT_FDCWD, add=sc.MOUNT_ATTR_RDONLY, path=b"/")
