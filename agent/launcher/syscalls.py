"""System calls that Python 3.11 lacks, through ctypes: each raises OSError with the call's name as `filename`.

`PyDLL` and not `CDLL`: the interpreter lock is kept over the call, so that a child made by `clone3` holds it, and
nothing is released and taken again around calls of a microsecond. Everything is looked up at import: nothing here
resolves a symbol later, inside a container.
Sources: clone3(2), open_tree(2), move_mount(2), mount_setattr(2), fsopen(2), pivot_root(2), openat2(2), capset(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any, Final

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

# Numbers of calls without a wrapper in glibc 2.36; those from 424 on are the same on every architecture.
_IS_X86: Final = platform.machine() == "x86_64"
_NR_PIVOT_ROOT: Final = 155 if _IS_X86 else 41
_NR_KEYCTL: Final = 250 if _IS_X86 else 219
_NR_OPEN_TREE: Final = 428
_NR_MOVE_MOUNT: Final = 429
_NR_CLONE3: Final = 435
_NR_CLOSE_RANGE: Final = 436
_NR_OPENAT2: Final = 437
_NR_MOUNT_SETATTR: Final = 442

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
AT_SYMLINK_NOFOLLOW: Final = 0x100

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
_CLONE_PIDFD: Final = 0x1000
_CLONE_INTO_CGROUP: Final = 0x200000000

OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_IDMAP: Final = 0x00100000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_SYNCHRONOUS: Final = 0x10
MS_DIRSYNC: Final = 0x80
MS_NOATIME: Final = 0x400
MS_NODIRATIME: Final = 0x800
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_STRICTATIME: Final = 1 << 24
MS_RELATIME: Final = 1 << 21
MNT_DETACH: Final = 2

RESOLVE_IN_ROOT: Final = 0x10
RESOLVE_NO_MAGICLINKS: Final = 0x02

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_RAISE: Final = 2
SECCOMP_MODE_FILTER: Final = 2

_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
_CLOSE_RANGE_CLOEXEC: Final = 4
_SPLICE_F_NONBLOCK: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522


_CLONE_ARGS: Final = """
flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup
"""


class _CloneArgs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in _CLONE_ARGS.split()]


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


class _BpfProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


# Variadic C calls get their arguments as they are: c_int for descriptors, pointers for the rest.
_mount = _libc.mount
_mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = _libc.umount2
_umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_setns = _libc.setns
_unshare = _libc.unshare
_capset = _libc.capset
_sethostname = _libc.sethostname
_sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
_tee = _libc.tee
_tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
_tee.restype = ctypes.c_ssize_t


def _check(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), call)
    return result


def clone3(flags: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """Clone this process, into a cgroup v2 if one is given; return (pid, pidfd), and (0, -1) in the child."""
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(flags=flags | _CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=17)
    if cgroup_fd >= 0:
        args.flags |= _CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    pid = _check(_syscall(_NR_CLONE3, ctypes.byref(args), ctypes.sizeof(args)), "clone3")
    return pid, (pidfd.value if pid else -1)


def unshare(flags: int) -> None:
    """Leave the named namespaces for new ones."""
    _check(_unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kinds: int) -> None:
    """Join the namespace, or with a pidfd all the named namespaces of that process."""
    _check(_setns(ctypes.c_int(fd), ctypes.c_int(kinds)), "setns")


def mount(source: bytes, target: bytes, fstype: bytes | None, flags: int, data: bytes | None = None) -> None:
    """Call mount(2)."""
    if _mount(source, target, fstype, flags, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), b"mount " + (fstype or b"") + b" at " + target)


def umount(target: bytes, flags: int = MNT_DETACH) -> None:
    """Call umount2(2)."""
    _check(_umount2(target, flags), "umount")


def open_tree(path: bytes, *, dirfd: int = AT_FDCWD, recursive: bool = False, follow: bool = True) -> int:
    """Return a detached copy of the mount (tree) at a path."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    flags |= (0 if follow else AT_SYMLINK_NOFOLLOW) | (0 if path else AT_EMPTY_PATH)
    result = _syscall(_NR_OPEN_TREE, ctypes.c_int(dirfd), ctypes.c_char_p(path), ctypes.c_uint(flags))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return int(result)


def move_mount(fd: int, target: bytes) -> None:
    """Attach a detached mount at a path of the caller's mount namespace."""
    result = _syscall(
        _NR_MOVE_MOUNT,
        ctypes.c_int(fd),
        ctypes.c_char_p(b""),
        ctypes.c_int(AT_FDCWD),
        ctypes.c_char_p(target),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def mount_setattr(fd: int, *, add: int = 0, userns_fd: int = 0, path: bytes = b"", recursive: bool = False) -> None:
    """Add attributes to a mount; with MOUNT_ATTR_IDMAP, present it through the id map of a user namespace."""
    attr = _MountAttr(attr_set=add, userns_fd=userns_fd)
    flags = (0 if path else AT_EMPTY_PATH) | (AT_RECURSIVE if recursive else 0)
    _check(
        _syscall(
            _NR_MOUNT_SETATTR,
            ctypes.c_int(fd),
            ctypes.c_char_p(path),
            ctypes.c_uint(flags),
            ctypes.byref(attr),
            ctypes.c_size_t(ctypes.sizeof(attr)),
        ),
        "mount_setattr",
    )


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """Make a mount the root of this mount namespace."""
    _check(_syscall(_NR_PIVOT_ROOT, ctypes.c_char_p(new_root), ctypes.c_char_p(put_old)), "pivot_root")


def openat2(dirfd: int, path: bytes, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open a path under resolve rules, for example never leaving the directory `dirfd`."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    result = _syscall(
        _NR_OPENAT2, ctypes.c_int(dirfd), ctypes.c_char_p(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return int(result)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Call prctl(2)."""
    return _check(_prctl(option, arg2, arg3, arg4, arg5), "prctl")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capability sets, given as bit masks."""
    low, high = 0xFFFFFFFF, 32
    data = (_CapData * 2)(
        _CapData(effective & low, permitted & low, inheritable & low),
        _CapData(effective >> high, permitted >> high, inheritable >> high),
    )
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    _check(_capset(ctypes.byref(header), ctypes.byref(data)), "capset")


def load_seccomp(program: bytes) -> None:
    """Install a compiled BPF filter for this thread; the bytes are `struct sock_filter`s."""
    loaded = _BpfProgram(len(program) // 8, program)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(loaded))


def sethostname(name: bytes) -> None:
    """Set the host name of this UTS namespace."""
    _check(_sethostname(name, len(name)), "sethostname")


def join_new_session_keyring() -> None:
    """Leave the inherited session keyring for an empty, anonymous one."""
    _check(_syscall(_NR_KEYCTL, ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING), ctypes.c_void_p(None)), "keyctl")


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from `first` on close-on-exec."""
    call = (_NR_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(_CLOSE_RANGE_CLOEXEC))
    _check(_syscall(*call), "close_range")


def tee(source: int, target: int, length: int) -> int:
    """Copy what is in one pipe into another without consuming it; raise BlockingIOError when there is nothing."""
    return _check(_tee(source, target, length, _SPLICE_F_NONBLOCK), "tee")


def preload() -> Any:
    """Make errno storage and error texts ready, so that a first failure inside a container allocates nothing new."""
    return os.strerror(1), ctypes.get_errno()
