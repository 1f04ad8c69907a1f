"""Starts the launcher."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import argosy.agent.launcher
from argosy.agent.spawn import spawn

_LAUNCHER: Final = str(Path(argosy.agent.launcher.__file__).resolve().parent)


def launcher_command(socket_path: str, run_dir: str, state_dir: str, cgroup_parent: str) -> list[str]:
    """Return the command line; also what a systemd unit of its own would run."""
    # The base interpreter: the launcher needs no environment, and must not depend on one being replaced.
    python = getattr(sys, "_base_executable", "") or sys.executable
    return [
        *(python, "-I", "-S", _LAUNCHER),
        *("--socket", socket_path),
        *("--run-dir", run_dir),
        *("--state-dir", state_dir),
        *("--cgroup-parent", cgroup_parent),
    ]


def spawn_launcher(command: list[str], log_path: str) -> int:
    """Start the launcher and return its pid; what it has to say about its own failures goes to `log_path`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return spawn(
        command,
        {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log_path, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
