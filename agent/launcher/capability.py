"""The kernel's capability names and numbers (capabilities(7), linux/capability.h) as bit masks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_TABLE: Final = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
NAMES: Final = tuple(_TABLE.split())
NUMBERS: Final = {name: number for number, name in enumerate(NAMES)}


def plain_name(name: str) -> str:
    """Return a capability's name without its `CAP_` prefix, in capitals."""
    return name.upper().removeprefix("CAP_")


def mask_of(names: Iterable[str]) -> int:
    """Return the bit mask of named capabilities; raise KeyError for a name the kernel does not have."""
    mask = 0
    for name in names:
        mask |= 1 << NUMBERS[plain_name(name)]
    return mask
