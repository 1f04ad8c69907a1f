"""The guard's loop: read the grant, and once it is over end every task that it names.

A task gets its stop signal at the end of the grant and SIGKILL, to its pid 1 and to its whole control group, when its
grace period is over: the controller waits as long before it replaces the task. What was once told to end is ended, also
if a new grant comes meanwhile; SIGKILL is repeated until nothing is left. A container's pid 1 is known by pid and
start time, so nobody else's process is ever hit, and with it ends everything in its pid namespace (pid_namespaces(7)).
"""

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, Protocol

from argosy.agent.guard.files import Grant, Guarded, mark_fenced, read_grant, write_seen
from argosy.agent.launcher.cgroup import CgroupHost
from argosy.agent.launcher.cgroup_host import find_host
from argosy.agent.launcher.rundir import start_ticks

PERIOD_S: Final = 0.1
"""How often the grant is looked at, and with it how late the guard may be."""


class Kernel(Protocol):
    """What the guard does to containers."""

    def signal(self, task: Guarded, number: int) -> None:
        """Send a signal to a container's pid 1, if that still lives."""

    def kill(self, task_id: str, task: Guarded) -> None:
        """SIGKILL everything in a container."""


class HostKernel:
    """Acts on this host's containers. `cgroups` are the hierarchies below the launcher's parent group."""

    def __init__(self, cgroups: CgroupHost, parent: str) -> None:
        self._cgroups = cgroups
        self._parent = parent

    def signal(self, task: Guarded, number: int) -> None:
        """Send a signal to a container's pid 1, if that still lives."""
        try:
            pidfd = os.pidfd_open(task.pid)
        except ProcessLookupError:
            return
        try:
            if start_ticks(task.pid) == task.start_ticks:
                signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def kill(self, task_id: str, task: Guarded) -> None:
        """SIGKILL pid 1, and the group: what has joined the container is in it, too."""
        self.signal(task, signal.SIGKILL)
        self._cgroups.group(f"{self._parent}/{task_id}").kill()


@dataclass(slots=True)
class Guard:
    """What is being ended. `mark` notes it for the agent before anything is done."""

    kernel: Kernel
    mark: Callable[[str, float], None]
    kill_at: dict[str, float] = field(default_factory=dict)

    def look(self, grant: Grant, now: float) -> None:
        """Act on a grant; `now` is CLOCK_BOOTTIME."""
        for task_id in self.kill_at.keys() - grant.tasks.keys():
            del self.kill_at[task_id]
        for task_id, task in grant.tasks.items():
            if task_id not in self.kill_at:
                if now < grant.until:
                    continue
                self.mark(task_id, now - grant.confirmed_at)
                self.kill_at[task_id] = grant.until + task.grace_s
                if task.grace_s > 0:
                    self.kernel.signal(task, task.signal)
            if now >= self.kill_at[task_id]:
                self.kernel.kill(task_id, task)

    def sleep_s(self, grant: Grant, now: float) -> float:
        """Return how long to sleep before the next look."""
        next_end = min([t for t in self.kill_at.values() if t > now], default=now + PERIOD_S)
        if grant.until > now:
            next_end = min(next_end, grant.until)
        return min(PERIOD_S, max(0.001, next_end - now))


def main(arguments: list[str]) -> NoReturn:
    """Guard until killed; 3 when another guard of this host does."""
    parser = argparse.ArgumentParser(prog="argosy-guard", description="Ends fenced tasks when their grant is over.")
    parser.add_argument("--run-dir", required=True, type=Path, help="Where the agent leaves the grant.")
    parser.add_argument("--cgroup-parent", default="/argosy", help="As the agent's.")
    options = parser.parse_args(arguments)
    options.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(options.run_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(3)
    guard = Guard(
        HostKernel(find_host(options.cgroup_parent), options.cgroup_parent),
        lambda task_id, seconds: mark_fenced(options.run_dir, task_id, seconds),
    )
    _watch(options.run_dir, guard)


def _watch(directory: Path, guard: Guard) -> NoReturn:
    grant, known = Grant(), (0, 0)
    while True:
        # Read anew before anything is ended: a renewal that was written is a renewal that counts.
        if (found := _identity(directory / "grant.json")) != known:
            grant, known = read_grant(directory), found
            write_seen(directory, grant.version)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            guard.look(grant, now)
        except OSError as e:  # a disk or a group that cannot be written now; the next look tries again
            print(f"argosy-guard: {e}", file=sys.stderr, flush=True)
        time.sleep(guard.sleep_s(grant, time.clock_gettime(time.CLOCK_BOOTTIME)))


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return found.st_ino, found.st_mtime_ns
