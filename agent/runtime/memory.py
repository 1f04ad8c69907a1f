"""A directory that is in memory only, for what must never be on a disk.

A ramfs and not a tmpfs: pages of a tmpfs are swapped out to a disk like any other (tmpfs(5)). It holds what the agent
puts there and nothing else writes to it, so it needs no limit of its own. It stays mounted while the host is up: an
agent that is started anew finds what its former life left, and containers go on with what they have of it.
"""

import os
from pathlib import Path

from argosy.agent.launcher import syscalls as sc
from argosy.core.errors import RejectedError


def ensure_memory_directory(path: Path) -> None:
    """Mount a ramfs at `path`, open to root only, unless that was done; RejectedError where it cannot be."""
    if os.path.ismount(path):
        return
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sc.mount(b"argosy", os.fsencode(path), b"ramfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, b"mode=0700")
    except OSError as e:
        raise RejectedError(f"this host cannot keep secrets in memory: no ramfs at {path}: {e.strerror}") from None
