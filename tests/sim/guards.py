"""The guard of a simulated host: the real guard's rules, carried out on the host's containers.

Like the real one it is started by an agent, learns by files what is granted, and goes on when the agent is killed.
"""

import os
from pathlib import Path

from argosy.agent.guard.files import Grant, Guarded, mark_fenced, read_grant, write_seen
from argosy.agent.guard.guard import Guard
from tests.sim.kernel import Container, Host


class HostGuard:
    """One for a host. `ensure` is what an agent calls; the guard is gone when the host loses power."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._host = host
        self._directory = directory
        self._guard: Guard | None = None
        self._grant, self._known = Grant(), (0, 0)

    def ensure(self) -> None:
        """Start a guard unless there is one."""
        if self._guard is None:
            self._guard = Guard(self, lambda task_id, seconds: mark_fenced(self._directory, task_id, seconds))
            self._host.judge.note(f"{self._host.name}: a guard starts")
            self._later(0.05)

    def power_off(self) -> None:
        """End with the host."""
        self._guard = None
        self._grant, self._known = Grant(), (0, 0)

    def _later(self, delay_s: float) -> None:
        self._host.loop.later(delay_s, self._look, self._guard)

    def _look(self, guard: Guard) -> None:
        if guard is not self._guard:
            return
        if (found := self._identity()) != self._known:
            self._grant, self._known = read_grant(self._directory), found
            write_seen(self._directory, self._grant.version)
        guard.look(self._grant, self._host.uptime())
        self._later(guard.sleep_s(self._grant, self._host.uptime()))

    def _identity(self) -> tuple[int, int]:
        """Return what is another when the agent has written a grant."""
        try:
            found = os.stat(self._directory / "grant.json")
        except FileNotFoundError:
            return (0, 0)
        return found.st_ino, found.st_mtime_ns

    # ---- what the guard does to containers (argosy.agent.guard.guard.Kernel)

    def signal(self, task: Guarded, number: int) -> None:
        """Send a signal to a container's program."""
        for container in list(self._host.containers.values()):
            if container.pid == task.pid:
                self._end(container, number)

    def kill(self, task_id: str, task: Guarded) -> None:
        """End all of a container."""
        self.signal(task, 9)

    def _end(self, container: Container, number: int) -> None:
        if container.status == "running":
            self._host.judge.note(f"{self._host.name}: the guard sends {container.id} signal {number}")
            self._host.take_signal(container, number)


def in_memory(path: Path) -> None:
    """Stand in for a directory in memory: the simulator's own are."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
