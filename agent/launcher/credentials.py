"""From the container's root to the user's program: who it runs as, what it may do, and the exec itself.

Runs inside the container. The image is not trusted: its files are read as plain bytes, bounded, without blocking.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import stat
from collections.abc import Sequence
from typing import Final

from . import syscalls as sc
from .capability import NAMES
from .errors import LaunchError, rejected
from .identity import Identity, UnknownUser, resolve
from .spec import UNLIMITED, Capabilities, Process, Rlimit

_MAX_ACCOUNT_FILE_BYTES: Final = 4 * 2**20
#: Signals that are ignored here, by Python or by whoever started the launcher: a program must not inherit that.
_IGNORED: Final = tuple(number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN)
_NOFILE: Final = resource.getrlimit(resource.RLIMIT_NOFILE)
_NICE: Final = os.getpriority(os.PRIO_PROCESS, 0)
_NICER_BY: Final = 10

#: The exit codes that shells and `docker run` use.
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127


def _read_account_file(path: str) -> bytes:
    """Return a file's bytes, empty when it is missing, not a regular file, or unreadable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        return os.read(fd, _MAX_ACCOUNT_FILE_BYTES)
    finally:
        os.close(fd)


def identify(process: Process) -> Identity:
    """Return who the process runs as; raise LaunchError for a user that the image does not have."""
    user = process.username or f"{process.uid}:{process.gid}"
    try:
        if not process.username and process.uid == 0 and process.gid == 0:
            return Identity(0, 0, tuple(sorted({0, *process.groups})), "/root")
        return resolve(user, _read_account_file("/etc/passwd"), _read_account_file("/etc/group"), process.groups)
    except UnknownUser as error:
        raise rejected(str(error), step="resolve the user") from None


def environment(process: Process, identity: Identity) -> dict[bytes, bytes]:
    """Return the program's environment, with HOME from the image's passwd file unless it is given."""
    env = {}
    for entry in process.env:
        name, _, value = entry.partition("=")
        env[os.fsencode(name)] = os.fsencode(value)
    env.setdefault(b"HOME", os.fsencode(identity.home))
    return env


def candidates(program: str, env: dict[bytes, bytes]) -> list[bytes]:
    """Return the paths to try for a program name, as execvp(3) would."""
    name = os.fsencode(program)
    if b"/" in name:
        return [name]
    path = env.get(b"PATH", b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return [os.path.join(directory or b".", name) for directory in path.split(b":")]


def drop_privileges(capabilities: Capabilities, identity: Identity, last_capability: int) -> None:
    """Become the user: bounding set first (it needs CAP_SETPCAP), ids with capabilities kept, then the final sets."""
    for number in range(last_capability + 1):
        if not capabilities.bounding >> number & 1:
            sc.prctl(sc.PR_CAPBSET_DROP, number)
    sc.prctl(sc.PR_SET_KEEPCAPS, 1)
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    sc.prctl(sc.PR_SET_KEEPCAPS, 0)
    sc.capset(capabilities.effective, capabilities.permitted, capabilities.inheritable)
    for number in range(last_capability + 1):
        if capabilities.ambient >> number & 1:
            sc.prctl(sc.PR_CAP_AMBIENT, sc.PR_CAP_AMBIENT_RAISE, number)


def become(process: Process, identity: Identity, seccomp: bytes, last_capability: int) -> None:
    """Become the process's user for good: out-of-memory score, system call filter, ids, capabilities, directory.

    A filter without no_new_privs needs CAP_SYS_ADMIN and comes first; with it, last, so that it need not allow these.
    """
    if process.oom_score_adj is not None:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, str(process.oom_score_adj).encode())
        os.close(fd)
    if seccomp and not process.no_new_privileges:
        sc.load_seccomp(seccomp)
    drop_privileges(process.capabilities, identity, last_capability)
    os.chdir(process.cwd)
    if process.no_new_privileges:
        sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
        if seccomp:
            sc.load_seccomp(seccomp)


def known_capabilities() -> int:
    """Return the number of the last capability that this kernel has (/proc/sys/kernel/cap_last_cap)."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return min(int(file.read()), len(NAMES) - 1)


def limit(rlimits: Sequence[Rlimit]) -> None:
    """Apply the resource limits: last of all, since an address-space limit would hit our own interpreter."""
    for rlimit in rlimits:
        try:
            resource.setrlimit(rlimit.resource, (rlimit.soft, rlimit.hard))
        except (ValueError, OSError) as error:
            raise rejected(
                f"ulimit {rlimit.name}={rlimit.soft}:{rlimit.hard}: {error}", step="limit resources"
            ) from None


def check_rlimits(rlimits: Sequence[Rlimit]) -> None:
    """Raise LaunchError for a limit above what this host allows; run by the launcher, whose own limits those are."""
    for rlimit in rlimits:
        _, ceiling = resource.getrlimit(rlimit.resource)
        if _exceeds(rlimit.hard, ceiling):
            shown = "unlimited" if rlimit.hard == UNLIMITED else str(rlimit.hard)
            raise rejected(
                f"ulimit {rlimit.name}: {shown} was asked for, this host's hard limit is {ceiling}; "
                "lower it, or raise the limit of the argosy service on the host",
                step="limit resources",
            )
        if _exceeds(rlimit.soft, rlimit.hard):
            raise rejected(f"ulimit {rlimit.name}: soft limit {rlimit.soft} is above the hard limit {rlimit.hard}")


def _exceeds(value: int, ceiling: int) -> bool:
    return ceiling != UNLIMITED and (value == UNLIMITED or value > ceiling)


def raise_own_limits() -> None:
    """Take what the launcher needs and a container must not inherit: descriptors (four a container), and priority.

    Let the launcher and its children go before what is to be started: on a busy host each step would wait.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE - _NICER_BY)


def reset_inherited() -> None:
    """Give the program default signals, an empty mask, normal priority and limits: all of it survives an exec."""
    os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    resource.setrlimit(resource.RLIMIT_NOFILE, _NOFILE)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def execute(argv: Sequence[str], env: dict[bytes, bytes]) -> LaunchError:
    """Replace this process by the user's program; return the error when none of the candidates can be executed."""
    arguments = [os.fsencode(arg) for arg in argv]
    failure: OSError | None = None
    for path in candidates(argv[0], env):
        try:
            os.execve(path, arguments, env)
        except OSError as error:
            if failure is None or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                failure = error
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                break
    assert failure is not None
    if failure.errno in (errno.ENOENT, errno.ENOTDIR):
        where = "does not exist (or its interpreter does not)" if "/" in argv[0] else "not found in the image's PATH"
        return rejected(f"exec {argv[0]!r}: {where}", step="exec", code=NOT_FOUND)
    return rejected(f"exec {argv[0]!r}: {failure.strerror}", step="exec", code=NOT_EXECUTABLE)
