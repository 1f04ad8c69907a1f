"""Restarts tasks that end while no controller is reachable; agent/logic/succession.py has the rules.

One for an agent. What it made is kept in the tasks' records, so that the agent may be restarted meanwhile, too.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from argosy.agent.logic.succession import settled, succession_of, superfluous
from argosy.agent.tasks.host import Host
from argosy.agent.tasks.tasks import Tasks
from argosy.core.ids import successor_id

log = structlog.get_logger(__name__)

OFFLINE_AFTER_S: Final = 3.0
"""How long there has been no session before this node decides by itself: a failover is over by then."""
LOOK_S: Final = 0.25


class Successors:
    """`renew` makes the agent act on `host.successions` anew. Used by one event loop."""

    def __init__(self, host: Host, tasks: Tasks, renew: Callable[[], Awaitable[None]]) -> None:
        self._host = host
        self._tasks = tasks
        self._renew = renew
        self._offline_since: float | None = None
        self._lost = asyncio.Event()

    def connected(self) -> None:
        """Note that a session stands: the controller decides."""
        self._offline_since = None
        self._lost.clear()

    def disconnected(self) -> None:
        """Note that there is no session; may be told many times over."""
        if self._offline_since is None:
            self._offline_since = asyncio.get_running_loop().time()
            self._lost.set()

    def settle(self) -> None:
        """Leave to the controller what it has taken over. Called with assignments that are about to be applied."""
        for task_id in settled(self._host.assigned, self._host.successions):
            self._drop(task_id)

    async def run(self) -> None:
        """Restart what ends while there is no session; never returns."""
        while True:
            await self._lost.wait()
            await asyncio.sleep(LOOK_S)
            since, now = self._offline_since, asyncio.get_running_loop().time()
            alone_s = now - since if since is not None else 0.0
            if alone_s >= OFFLINE_AFTER_S and self._restart_ended(alone_s):
                await self._renew()

    def _restart_ended(self, alone_s: float) -> bool:
        """Make the successors that are due; whether there were any."""
        host, now = self._host, self._host.ambient.wall()
        ended, newest = self._tasks.ended(), {s.root: task_id for task_id, s in host.successions.items()}
        made = False
        for task_id, one in ended.items():
            own, heir = host.successions.get(task_id), successor_id(task_id)
            root = own.root if own else task_id
            revision = host.assignments.revision_of(one.assigned)
            if revision is None or newest.get(root, root) != task_id or self._tasks.knows(heir):
                continue
            found = succession_of(
                one,
                root,
                revision.spec.restart,
                fenced=revision.fenced,
                dependent=revision.dependent,
                alone_s=alone_s,
                up_s=host.ambient.boot(),
                now=now,
            )
            if found is not None:
                log.info("restarted without a controller", task=task_id, successor=heir, attempts=found.attempts)
                host.successions[heir] = found
                self._tasks.make(heir, found)
                made = True
        if made:
            for task_id in superfluous(host.successions, set(ended)):
                self._drop(task_id)
        return made

    def _drop(self, task_id: str) -> None:
        del self._host.successions[task_id]
        self._tasks.hand_over(task_id)
