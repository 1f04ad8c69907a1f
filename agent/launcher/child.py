"""A container's init from its clone to the exec of the user's program: a linear list of named steps.

Runs in the new namespaces, as a copy of the launcher's process. Rules that hold for all of this file:
- nothing is imported and no name is looked up (the launcher empties `sys.meta_path` before its first clone), no
  traceback is formatted, and the only ways out are `execve` and `os._exit`;
- the process is not dumpable (inherited from the launcher), so nothing in the container can trace it;
- a step that fails is reported to the launcher with its name and ends the child; nothing is tried twice.

The control socket (SOCK_SEQPACKET) speaks: launcher → MAPPED with descriptors; child → TERMINAL with the master of its
terminal, if it has one; child → READY or an error as JSON; launcher → GO; child → an error as JSON, or end of file by
the exec itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from . import credentials, rights, rootfs
from . import syscalls as sc
from .errors import LaunchError, from_os_error, rejected
from .identity import Identity
from .kept import Kept
from .spec import LaunchSpec

MAPPED: Final = b"mapped"
READY: Final = b"ready"
GO: Final = b"go"
TERMINAL: Final = b"terminal"

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1
_IFREQ: Final = struct.Struct("16sH22x")
#: ioctl_tty(2)
_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTPEER: Final = 0x5441
_TIOCSCTTY: Final = 0x540E
_UNLOCKED: Final = struct.pack("i", 0)


class Abandoned(Exception):
    """The launcher is gone or gave up: end without a word."""


@dataclass(slots=True)
class Setup:
    """What the launcher prepared for one child. The descriptors were opened before the clone, unless said otherwise."""

    spec: LaunchSpec
    hostname: str
    control: socket.socket
    #: The overlay's options; empty for a root that is a plain directory.
    overlay: str
    scratch_fd: int
    #: -1: nothing, /dev/null.
    stdin_fd: int
    stdout_fd: int
    stderr_fd: int
    entry_fds: tuple[int, ...]
    kept: Kept
    #: cgroup v1: directory name -> controllers; v2: a single entry with an empty name.
    cgroups: Mapping[str, str]
    seccomp: bytes
    last_capability: int
    #: Indices of the mounts that are binds; their trees arrive in this order with MAPPED.
    binds: tuple[int, ...]
    layers_fd: int = -1
    terminal_fd: int = -1
    trees: dict[int, int] = field(default_factory=dict)
    old_root: int = -1
    identity: Identity = Identity(0, 0, (), "/")
    env: dict[bytes, bytes] = field(default_factory=dict)


def enter_cgroup(setup: Setup) -> None:
    """First, so that all that follows is counted and limited. "0" is the writer itself (see `cgroup`)."""
    for fd in setup.entry_fds:
        os.write(fd, b"0")
        os.close(fd)


def let_go(setup: Setup) -> None:
    """Of what the launcher keeps for the agent: it may be dropped while this process waits for its start."""
    setup.kept.close()


def await_id_map(setup: Setup) -> None:
    """Until the launcher has written the id map, this process has no identity that could own anything."""
    message, fds = rights.receive(setup.control, 64, 2 + len(setup.binds))
    if message != MAPPED:
        raise Abandoned
    setup.layers_fd = fds[0]
    setup.trees = dict(zip(setup.binds, fds[1:], strict=True))


def become_root(setup: Setup) -> None:
    """Root of the user namespace: an unprivileged id of the host. Groups of the host are dropped with it."""
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setsid()
    sc.join_new_session_keyring()


def enter_cgroup_namespace(setup: Setup) -> None:
    """After entering the group, which becomes the namespace's root: with clone3 it would be the launcher's group."""
    if setup.spec.clone_flags & sc.CLONE_NEWCGROUP:
        sc.unshare(sc.CLONE_NEWCGROUP)


def set_hostname(setup: Setup) -> None:
    """Before the user's capabilities are gone."""
    if setup.spec.clone_flags & sc.CLONE_NEWUTS:
        sc.sethostname(os.fsencode(setup.hostname))


def raise_loopback(setup: Setup) -> None:
    """A new network namespace has its loopback device down; programs expect 127.0.0.1 also without any network."""
    if setup.spec.own_network:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            request = fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
            flags = _IFREQ.unpack(request)[1]
            fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def mount_root(setup: Setup) -> None:
    """While the working directory is the stage, whose l, u and r take the parts."""
    if setup.overlay:
        rootfs.mount_overlay(setup.layers_fd, setup.scratch_fd, setup.overlay)
    else:
        rootfs.mount_directory(setup.layers_fd)


def enter_root(setup: Setup) -> None:
    """Before any other mount: from here on every path is the container's own, and links cannot lead out."""
    setup.old_root = rootfs.enter_root()


def apply_mounts(setup: Setup) -> None:
    """In the config's order: /dev before /dev/pts, volumes after the file systems they lie in."""
    for number, mount in enumerate(setup.spec.mounts):
        rootfs.apply_mount(
            mount,
            setup.trees.get(number),
            setup.old_root,
            own_network=setup.spec.own_network,
            cgroups=setup.cgroups,
        )


def make_devices(setup: Setup) -> None:
    """After the mounts, one of which is the tmpfs at /dev; needs the old root, where the nodes are."""
    rootfs.make_devices(setup.old_root)


def open_terminal(setup: Setup) -> None:
    """In the container's own devpts, so that the terminal has a name inside; its other end goes to the launcher.

    The session that was begun with becoming root takes it for its controlling terminal.
    """
    if not setup.spec.process.terminal:
        return
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, _UNLOCKED)
    setup.terminal_fd = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(setup.terminal_fd, _TIOCSCTTY, 0)
    socket.send_fds(setup.control, [TERMINAL], [master])
    os.close(master)


def write_sysctls(setup: Setup) -> None:
    """While /proc/sys is writable. The names were checked to be the container's own."""
    for name, value in setup.spec.sysctls:
        try:
            fd = os.open("/proc/sys/" + name.replace(".", "/"), os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise rejected(_no_such_sysctl(name), step="set kernel parameters") from None
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{name} = {value}") from None
        finally:
            os.close(fd)


def _no_such_sysctl(name: str) -> str:
    """Say why a parameter is not there. Kernels before 6.8 hide net.core.* from all but the host's own namespaces."""
    reason = f"sysctl {name}: this host's kernel ({os.uname().release}) has no such parameter in a container's network"
    if name.startswith("net.core."):
        reason += "; it takes Linux 6.8 or later, or the host's network: set it on the host and use its network mode"
    return reason


def mask_paths(setup: Setup) -> None:
    """After all mounts, so that no volume covers a mask; before the old root with its /dev/null is gone."""
    rootfs.mask_paths(setup.spec.masked_paths, setup.old_root)
    rootfs.make_read_only(setup.spec.read_only_paths)


def leave_old_root(setup: Setup) -> None:
    """After the last mount of proc or sysfs. Nothing of the user's choice has run yet, so nobody has seen it."""
    rootfs.leave_old_root(setup.old_root)


def identify(setup: Setup) -> None:
    """In the image's own passwd and group files, hence after entering the root."""
    setup.identity = credentials.identify(setup.spec.process)
    setup.env = credentials.environment(setup.spec.process, setup.identity)


def make_working_directory(setup: Setup) -> None:
    """As the container's root and while the root is writable: an image may name a directory that is not in it."""
    if not os.path.isdir(setup.spec.process.cwd):
        os.makedirs(setup.spec.process.cwd, mode=0o755, exist_ok=True)


def make_root_read_only(setup: Setup) -> None:
    """After every mount point and the working directory were made."""
    if setup.spec.read_only:
        rootfs.make_root_read_only()


def connect_streams(setup: Setup) -> None:
    """A terminal is all three; else two pipes, which the user owns so that /dev/stdout can be opened, and the input."""
    if setup.terminal_fd >= 0:
        streams = (setup.terminal_fd,) * 3
    else:
        streams = (setup.stdin_fd, setup.stdout_fd, setup.stderr_fd)
    for number, fd in enumerate(streams):
        if fd < 0:
            fd = os.open("/dev/null", os.O_RDONLY)
        else:
            # A terminal stays its group's (tty), as login(1) has it.
            os.fchown(fd, setup.identity.uid, -1 if setup.terminal_fd >= 0 else setup.identity.gid)
        os.dup2(fd, number)
    sc.close_on_exec_from(3)
    os.umask(0o022)


def drop_privileges(setup: Setup) -> None:
    """Last of all: everything before needed the root's capabilities."""
    credentials.become(setup.spec.process, setup.identity, setup.seccomp, setup.last_capability)


Step = tuple[str, Callable[[Setup], None]]

#: The order is explained by each step's docstring.
CREATE_STEPS: Final[tuple[Step, ...]] = (
    ("enter the cgroup", enter_cgroup),
    ("let go of what the launcher keeps", let_go),
    ("wait for the id map", await_id_map),
    ("become root of the user namespace", become_root),
    ("enter a cgroup namespace", enter_cgroup_namespace),
    ("set the host name", set_hostname),
    ("raise the loopback device", raise_loopback),
    ("mount the image's layers", mount_root),
    ("enter the root file system", enter_root),
    ("mount the config's file systems", apply_mounts),
    ("make the devices", make_devices),
    ("open the terminal", open_terminal),
    ("set kernel parameters", write_sysctls),
    ("mask paths", mask_paths),
    ("resolve the user", identify),
    ("make the working directory", make_working_directory),
    ("make the root read-only", make_root_read_only),
)
#: Done while the launcher tells the agent and that comes back with the start: detaching mounts waits for an RCU grace
#: period, 0.1 ms on an idle host and several on a busy one. What fails here fails the start.
START_STEPS: Final[tuple[Step, ...]] = (
    ("leave the host's file systems", leave_old_root),
    ("connect input and output", connect_streams),
    ("drop privileges", drop_privileges),
)


def await_go(setup: Setup) -> None:
    """Between create and start: the agent wires the network from outside meanwhile."""
    if setup.control.recv(64) != GO:
        raise Abandoned


def run(setup: Setup) -> None:
    """Do all steps and execute the user's program. Never returns."""
    status = 1
    step = "start"
    try:
        for step, action in CREATE_STEPS:  # noqa: B007 - the name of the failed step is reported below
            action(setup)
        setup.control.send(READY)
        for step, action in START_STEPS:  # noqa: B007
            action(setup)
        step = "wait for the start"
        await_go(setup)
        step = "exec"
        credentials.reset_inherited()
        credentials.limit(setup.spec.process.rlimits)
        error = credentials.execute(setup.spec.process.argv, setup.env)
        status = error.code or 1
        _report(setup.control, error)
    except Abandoned:
        pass
    except LaunchError as error:
        _report(setup.control, error)
    except OSError as error:
        _report(setup.control, from_os_error(error, step))
    except BaseException as error:
        _report(setup.control, LaunchError("bug", f"{step}: {type(error).__name__}: {error}", step=step))
    finally:
        os._exit(status)


def _report(control: socket.socket, error: LaunchError) -> None:
    message = error.as_message()
    message["step"] = message["step"] or "exec"
    try:
        control.send(json.dumps(message).encode())
    except OSError:
        os._exit(1)
