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
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from argosy.agent.launcher import exits, rundir
from argosy.agent.launcher import syscalls as sc

#: Called with (id, wait status) when an orphan of a launcher has ended as the agent's child.
OnStatus = Callable[[str, int], None]
_LOOK_AGAIN_S: Final = 0.1


@dataclass(slots=True)
class _Held:
    pid: int
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
        self._held[container_id] = _Held(pid, pidfd, tuple(pipes))
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
            if held.status is None:
                # It may have become our child since its end was seen, and with it ours to reap.
                held.status = exits.child_status(held.pidfd, reap=True)
            if held.status is None:
                held.status = exits.foreign_status(held.pidfd)
            if held.status is not None:
                known[container_id] = held.status
        return known

    def close(self) -> None:
        """Let go of all."""
        for container_id in list(self._held):
            self.release(container_id)

    def _on_end(self, container_id: str) -> None:
        held = self._held.get(container_id)
        if held is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(held.pidfd)
        # Reaps it only if it is our child, that is an orphan of a launcher; else the launcher does. While it is held
        # it may still become ours: the launcher may be dying at this very moment.
        held.status = exits.child_status(held.pidfd, reap=True)
        if held.status is not None:
            self._on_status(container_id, held.status)
        else:
            loop.call_later(_LOOK_AGAIN_S, self._on_end, container_id)

    def pidfd(self, container_id: str) -> int | None:
        """Return a descriptor of a container that is held, for the caller to close."""
        held = self._held.get(container_id)
        return os.dup(held.pidfd) if held is not None else None

    def pids(self) -> set[int]:
        """Return the pids of the containers that are held."""
        return {held.pid for held in self._held.values()}


def reap_strays(launchers: Collection[int], keep: Collection[int]) -> None:
    """Reap what killed launchers had cloned besides containers: removers of directories, processes that joined one.

    Unreaped, the latter would keep their container's init from ending: a pid namespace waits for all its processes.
    They became our children when it died. They are told from children of our own making by being of a launcher's
    session or in another pid namespace; those in `keep` have a status that somebody wants.
    """
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            for word in file.read().split():
                pid = int(word)
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    if pid not in keep and (os.getsid(pid) in launchers or _in_other_pid_namespace(pid)):
                        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _in_other_pid_namespace(pid: int) -> bool:
    """Tell by the process's list of pids, one per nested namespace: it can be read of a zombie too."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return any(line.startswith(b"NSpid:") and len(line.split()) > 2 for line in file)
    except FileNotFoundError:
        return False
