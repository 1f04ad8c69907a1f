"""The agent as second witness of every container: what a killed launcher would lose, it keeps.

For each container it holds the pidfd and both output pipes. While the launcher lives this does nothing. If the
launcher dies, output stays in the pipes even when the container ends meanwhile, and the exit code is learnt here: the
agent is a child subreaper, so the launcher's orphans become its children; and if it is not above the launcher (it was
restarted itself), the kernel tells the code of a reaped process through the pidfd (Linux 6.15).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from argosy.agent.launcher import exits, rundir
from argosy.agent.launcher import syscalls as sc

#: Called with (id, wait status) when an orphan of a launcher has ended as the agent's child.
OnStatus = Callable[[str, int], None]


@dataclass(slots=True)
class _Held:
    pidfd: int
    pipes: tuple[int, ...]
    status: int | None = None


class Witness:
    """Holds descriptors of all living containers. Touched by the event loop's thread only."""

    def __init__(self, run_dir: str, on_status: OnStatus) -> None:
        self._run_dir = run_dir
        self._on_status = on_status
        self._held: dict[str, _Held] = {}
        sc.prctl(sc.PR_SET_CHILD_SUBREAPER, 1)

    def hold(self, container_id: str, pid: int, start_ticks: int) -> None:
        """Hold a container that the launcher named; does nothing when its pid is already gone or another's."""
        if container_id in self._held or pid <= 0:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        if rundir.start_ticks(pid) != start_ticks:
            os.close(pidfd)
            return
        pipes = []
        for name in ("out", "err"):
            with contextlib.suppress(FileNotFoundError):
                path = f"{self._run_dir}/containers/{container_id}/{name}"
                pipes.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        self._held[container_id] = _Held(pidfd, tuple(pipes))
        asyncio.get_running_loop().add_reader(pidfd, self._on_end, container_id)

    def release(self, container_id: str) -> None:
        """Let go of a container: its exit is recorded, or it is deleted."""
        held = self._held.pop(container_id, None)
        if held is not None:
            asyncio.get_running_loop().remove_reader(held.pidfd)
            exits.child_status(held.pidfd, reap=True)
            for fd in (held.pidfd, *held.pipes):
                os.close(fd)

    def statuses(self) -> dict[str, int]:
        """Return the wait statuses that are known here, by container id."""
        known = {}
        for container_id, held in self._held.items():
            status = held.status if held.status is not None else exits.foreign_status(held.pidfd)
            if status is not None:
                known[container_id] = status
        return known

    def close(self) -> None:
        """Let go of all."""
        for container_id in list(self._held):
            self.release(container_id)

    def _on_end(self, container_id: str) -> None:
        held = self._held[container_id]
        asyncio.get_running_loop().remove_reader(held.pidfd)
        # Reaps it only if it is our child, that is an orphan of a launcher; else the launcher does.
        held.status = exits.child_status(held.pidfd, reap=True)
        if held.status is not None:
            self._on_status(container_id, held.status)


def reap_strays(keep: set[int]) -> None:
    """Reap ended children that nobody waits for: what a killed launcher had cloned besides containers.

    Only children of another session than ours are touched (the launcher made its own), never those in `keep`.
    """
    own = os.getsid(0)
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            for word in file.read().split():
                pid = int(word)
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    if pid not in keep and os.getsid(pid) not in (own, pid):
                        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
