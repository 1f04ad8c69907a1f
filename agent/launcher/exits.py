"""How a process ended: from wait statuses, also of processes that are somebody else's children."""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from typing import Any, Final

#: linux/pidfd.h: PIDFD_GET_INFO = _IOWR(0xFF, 11, struct pidfd_info). The first 64 bytes of the structure are: mask
#: and cgroup id (u64 each), eleven u32 ids, and the exit code (s32), which Linux 6.15 added.
_INFO_BYTES: Final = 64
_EXIT_CODE_OFFSET: Final = 60
_PIDFD_GET_INFO: Final = (3 << 30) | (_INFO_BYTES << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT: Final = 1 << 3


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a container: its code, or the signal that killed it, or neither when nobody could learn it."""

    code: int | None
    signal: int | None
    oom_killed: bool
    finished_at: float

    def as_message(self) -> dict[str, Any]:
        """Return the form that crosses the socket and goes to disk."""
        return {
            "code": self.code,
            "signal": self.signal,
            "oom_killed": self.oom_killed,
            "finished_at": self.finished_at,
        }


def from_status(status: int | None, *, oom_killed: bool, now: float) -> Exit:
    """Return the exit for a wait(2) status; a signal becomes code 128+N, as shells and Docker have it."""
    if status is None:
        return Exit(None, None, oom_killed, now)
    if os.WIFSIGNALED(status):
        return Exit(128 + os.WTERMSIG(status), os.WTERMSIG(status), oom_killed, now)
    return Exit(os.WEXITSTATUS(status), None, oom_killed, now)


def child_status(pidfd: int, *, reap: bool) -> int | None:
    """Return the wait status of an own child that has ended, None when it has not or is not ours."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | (0 if reap else os.WNOWAIT))
    except ChildProcessError:
        return None
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return int(result.si_status) << 8
    return int(result.si_status) | (0x80 if result.si_code == os.CLD_DUMPED else 0)


def foreign_status(pidfd: int) -> int | None:
    """Return the wait status of any ended process, once its parent has reaped it; None before, or before Linux 6.15.

    The pidfd must have been opened while the process lived.
    """
    request = bytearray(_INFO_BYTES)
    struct.pack_into("=Q", request, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, request)
    except OSError:
        return None
    mask, status = struct.unpack_from("=Q", request, 0)[0], struct.unpack_from("=i", request, _EXIT_CODE_OFFSET)[0]
    return int(status) if mask & _PIDFD_INFO_EXIT else None
