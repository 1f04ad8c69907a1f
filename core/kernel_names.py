"""Names that the kernel gives meaning to and that a service may ask for: capabilities, ulimits, sysctls, tmpfs options.

The launcher has its own tables, since it imports nothing of ours; tests/unit/core/test_kernel_names.py compares them.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Final

_CAPABILITIES: Final = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES: Final = frozenset(_CAPABILITIES.split())
"""capabilities(7), up to Linux 5.9; none came since."""
EVERY_CAPABILITY: Final = "ALL"

_ULIMITS: Final = """
as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
"""
ULIMITS: Final = frozenset(_ULIMITS.split())
"""RLIMIT_* of setrlimit(2), by their Compose names."""

_IPC_SYSCTL: Final = re.compile(r"kernel\.(shm[a-z_]+|msg(max|mnb|mni)|sem)|fs\.mqueue\.[a-z_]+")
_NET_SYSCTL: Final = re.compile(r"net(\.[A-Za-z0-9_/-]+)+")

_TMPFS_FLAGS: Final = (
    "ro rw suid nosuid dev nodev exec noexec sync async dirsync noatime relatime strictatime nodiratime"
)
TMPFS_FLAGS: Final = frozenset(_TMPFS_FLAGS.split())
TMPFS_VALUES: Final = frozenset(("uid", "gid", "nr_inodes"))


def capability_name(text: str) -> str:
    """Return a capability as in CAPABILITIES: "cap_net_raw" is NET_RAW."""
    return text.upper().removeprefix("CAP_")


def capability_problem(text: str) -> str | None:
    """Say why `text` names no capability, or None."""
    name = capability_name(text)
    if name in CAPABILITIES or name == EVERY_CAPABILITY:
        return None
    return f'there is no capability "{text}"{_nearest(name, CAPABILITIES)}'


def ulimit_problem(text: str) -> str | None:
    """Say why `text` names no resource limit, or None."""
    if text in ULIMITS:
        return None
    plain = text.lower().removeprefix("rlimit_")
    return f'there is no ulimit "{text}"{_nearest(plain, ULIMITS)}'


def sysctl_problem(text: str) -> str | None:
    """Say why a container may not set the kernel parameter `text`, or None.

    Only what belongs to the container's own network or IPC namespace is its own (namespaces(7)).
    """
    if _NET_SYSCTL.fullmatch(text) or _IPC_SYSCTL.fullmatch(text):
        return None
    if text in ("kernel.hostname", "kernel.domainname"):
        return f'"{text}" cannot be set as a sysctl: use "hostname"'
    if "/" in text and not text.startswith("net."):
        return f'"{text}" has slashes: write it with dots, "{text.strip("/").replace("/", ".")}"'
    return (
        f'"{text}" belongs to the whole host: a container may set net.*, fs.mqueue.*, kernel.shm*, kernel.msgmax, '
        "kernel.msgmnb, kernel.msgmni and kernel.sem; set others on the host itself"
    )


def tmpfs_option_problem(text: str) -> str | None:
    """Say why `text` is no further option of a tmpfs mount, or None."""
    name, equals, value = text.partition("=")
    if text in TMPFS_FLAGS or (name in TMPFS_VALUES and equals and value.isascii() and value.isdigit()):
        return None
    if name in ("size", "mode"):
        return f'"{text}" cannot stand among the options: size and mode have fields of their own'
    if name in TMPFS_VALUES:
        return f'"{text}": {name} needs a number, such as {name}=1000'
    return f'tmpfs has no option "{text}"{_nearest(name, TMPFS_FLAGS | TMPFS_VALUES)}'


def _nearest(text: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(text, known, 1, 0.7)
    return f': did you mean "{near[0]}"?' if near else f": there are {', '.join(sorted(known))}"
