"""The agent's side of fencing: takes grants from the controller to the guard, and sees that there is a guard.

A fenced task is started only while a grant is in force and a guard has read that the task is to be guarded. From then
on its end at the end of the grant does not depend on this process any more. core/fence.py has the rules.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from argosy.agent.guard import files
from argosy.agent.guard.files import Guarded
from argosy.core.ambient import Ambient

LOOK_S: Final = 0.5
"""How often it is looked whether the guard lives, while there is anything to guard."""


class Fence:
    """One for an agent. `directory` is on a tmpfs; used by one event loop. `ensure_guard`: see guards.py."""

    def __init__(self, directory: Path, ambient: Ambient, ensure_guard: Callable[[], None]) -> None:
        self._directory = directory
        self._ensure_guard = ensure_guard
        self._boot = ambient.boot
        self._sent: dict[int, float] = {}
        self._waiting: dict[str, Guarded] = {}
        self._grant = files.read_grant(directory)
        self._needed = asyncio.Event()
        if self._grant.tasks:
            self._needed.set()

    def new_session(self) -> None:
        """Forget heartbeats of an earlier session: their numbers begin anew."""
        self._sent.clear()

    def beat_sent(self, sequence: int) -> None:
        """Note that a heartbeat is about to be sent: what comes of it counts from now."""
        self._sent[sequence] = self._boot()

    def granted(self, sequence: int, seconds: float) -> None:
        """Take the answer to a heartbeat; 0 seconds: nothing new."""
        sent = self._sent.pop(sequence, None)
        if sent is None:
            return
        for older in [s for s in self._sent if s < sequence]:
            del self._sent[older]
        if seconds > 0 and sent + seconds > self._grant.until:
            self._grant = replace(self._grant, until=sent + seconds, confirmed_at=sent)
            if self._waiting:
                self._take_waiting()
            elif self._grant.tasks:
                self._tell()

    def admits(self, task_id: str, guarded: Callable[[], Guarded]) -> bool:
        """Whether a task may start now; if not, asking again soon is all there is to do."""
        self.keep(task_id, guarded)
        return (
            task_id in self._grant.tasks and self._holds() and files.read_seen(self._directory) >= self._grant.version
        )

    def keep(self, task_id: str, guarded: Callable[[], Guarded] | None) -> None:
        """Have a task guarded, with the next grant where none holds now; None: not any more. Repeating it is cheap."""
        if guarded is None:
            self._drop(task_id)
        elif task_id not in self._grant.tasks:
            self._waiting[task_id] = guarded()
            if self._holds():
                self._take_waiting()

    def _holds(self) -> bool:
        return self._boot() < self._grant.until

    def _take_waiting(self) -> None:
        # Not before there is a grant: a guard ends at once what it finds guarded and not granted.
        self._grant = replace(self._grant, tasks={**self._grant.tasks, **self._waiting})
        self._waiting.clear()
        self._tell()
        self._needed.set()

    def _drop(self, task_id: str) -> None:
        self._waiting.pop(task_id, None)
        if task_id in self._grant.tasks:
            self._grant = replace(self._grant, tasks={k: v for k, v in self._grant.tasks.items() if k != task_id})
            self._tell()

    def unconfirmed_s(self, task_id: str) -> float | None:
        """Return for how long nobody had confirmed this node when the guard ended a task; None: it did not."""
        return files.unconfirmed_s(self._directory, task_id)

    def release(self, task_id: str) -> None:
        """Guard a task no more: nothing is left of it."""
        self._drop(task_id)
        files.unmark(self._directory, task_id)

    async def run(self) -> None:
        """Keep a guard running as long as there is something to guard, also one of systemd's; never returns."""
        while True:
            await self._needed.wait()
            if not self._grant.tasks:
                self._needed.clear()
                continue
            self._ensure_guard()
            await asyncio.sleep(LOOK_S)

    def _tell(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._grant = replace(self._grant, boot_id=files.boot_id(), version=self._grant.version + 1)
        files.write_grant(self._directory, self._grant)


def reason_of(unconfirmed_s: float) -> str:
    """Say why the guard ended a task."""
    return f"fenced: no controller confirmed it for {unconfirmed_s:.0f} s"
