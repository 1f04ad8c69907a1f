"""Starts processes of their own sessions, which outlive the agent, and inherit no descriptor that they are not given.

By posix_spawn, never by a fork of a process that holds gRPC's threads: glibc's shares the agent's memory until the
exec, so nothing is copied and no Python code runs in between.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

_starting = threading.Lock()


def spawn(command: list[str], environment: Mapping[str, str], file_actions: Sequence[Any]) -> int:
    """Start a program, which PATH finds, and return its pid; `file_actions` as of os.posix_spawn. Raises OSError."""
    with _starting:
        return os.posix_spawnp(command[0], command, environment, file_actions=file_actions, setsid=True)


@contextmanager
def uninherited() -> Iterator[None]:
    """Have no program inherit what a library opens in the block, though it forgets O_CLOEXEC: none starts meanwhile."""
    with _starting:
        before = _inheritable()
        try:
            yield
        finally:
            for fd in _inheritable() - before:
                with suppress(OSError):
                    os.set_inheritable(fd, False)


def _inheritable() -> set[int]:
    found = set()
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # closed since: that of the listing itself is
            if os.get_inheritable(fd):
                found.add(fd)
    return found
