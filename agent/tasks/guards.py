"""Sees that a guard runs on this host, whoever started it: it outlives the agent, and may be one of systemd's."""

import contextlib
import fcntl
import os
import sys
from pathlib import Path

import structlog

from argosy.agent.spawn import spawn

log = structlog.get_logger(__name__)


class GuardProcess:
    """One for an agent. `directory` is where guard and agent leave word for each other."""

    def __init__(self, directory: Path, cgroup_parent: str) -> None:
        self._directory = directory
        self._cgroup_parent = cgroup_parent
        self._spawned: set[int] = set()

    def ensure(self) -> None:
        """Start a guard unless there is one."""
        self._reap()
        if not self._spawned and not self._is_guarded():
            pid = _spawn(self._directory, self._cgroup_parent)
            self._spawned.add(pid)
            log.info("guard started", pid=pid)

    def _is_guarded(self) -> bool:
        """Whether some guard holds the lock."""
        fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def _reap(self) -> None:
        for pid in list(self._spawned):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._spawned.discard(pid)


def _spawn(directory: Path, cgroup_parent: str) -> int:
    """Start a guard."""
    command = [sys.executable, "-I", "-m", "argosy.agent.guard"]
    log_file = str(directory / "guard.log")
    return spawn(
        [*command, "--run-dir", str(directory), "--cgroup-parent", cgroup_parent],
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
