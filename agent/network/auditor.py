"""The self-audit: looks at the kernel when it says that somebody changed something, and all over now and then.

An event only says where to look; the look compares the whole of that namespace with what is intended, and repairs it.
What no event tells (most settings under /proc/sys, a pin that was taken away) is looked at every other second.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from argosy.agent.network.audit import EVERYTHING, Scope
from argosy.agent.network.desired import AuditTiming, Drift, Repaired
from argosy.agent.network.events import KernelEvents
from argosy.core.errors import TransientError

log = structlog.get_logger(__name__)

RECENT: Final = 20
"""How many of the latest repairs are remembered for `network verify`."""


class Auditor:
    """One for a plane, on its event loop. `events` tells it of changes; without them it looks every period."""

    def __init__(
        self,
        repair: Callable[[Scope], Awaitable[list[Drift]]],
        silent_changes: Callable[[], Awaitable[list[str]]],
        timing: AuditTiming,
    ) -> None:
        self.events = KernelEvents(self._changed)
        self.drift: Counter[str] = Counter()
        self.recent: deque[Repaired] = deque(maxlen=RECENT)
        self._repair = repair
        self._silent_changes = silent_changes
        self._timing = timing
        self._entries: set[str] = set()
        self._tables: set[str] = set()
        self._reason = asyncio.Event()

    async def run(self) -> None:
        """Audit until cancelled, whatever goes wrong with it."""
        loop = asyncio.get_running_loop()
        everything_at = loop.time() + self._timing.period
        while True:
            await self._wait(min(self._timing.silent, max(0.0, everything_at - loop.time())))
            try:
                if loop.time() >= everything_at:
                    looked = await self._look(EVERYTHING)
                    everything_at = loop.time() + (self._timing.period if looked else 0.0)
                elif scope := await self._scope():
                    await self._look(scope)
            except Exception:
                log.exception("the network could not be audited: a bug")
                await asyncio.sleep(self._timing.retry)
                everything_at = loop.time()

    async def _wait(self, timeout: float) -> None:
        """Wait for an event, and a moment longer for what comes with it."""
        try:
            async with asyncio.timeout(timeout):
                await self._reason.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._timing.settle)

    async def _scope(self) -> Scope | None:
        try:
            silent = await self._silent_changes()
        except TransientError:
            silent = []
        if not (self._entries or self._tables or silent):
            return None
        return Scope(frozenset({*self._entries, *silent}), frozenset(self._tables))

    async def _look(self, scope: Scope) -> bool:
        """Look and repair; False, after a while, where that failed: then it is to be done again."""
        self._reason.clear()
        self._entries.clear()
        self._tables.clear()
        try:
            found = await self._repair(scope)
        except TransientError as error:
            log.warning("the network could not be repaired", why=str(error))
            await asyncio.sleep(self._timing.retry)
            self._entries |= scope.entries_of or set()
            self._tables |= scope.tables_of or set()
            self._reason.set()
            return False
        self.note(found)
        return True

    def note(self, found: Sequence[Drift]) -> None:
        """Count what was found and put right, and log it."""
        if found:
            self.drift.update(d.network_id for d in found)
            by_network: dict[str, list[Drift]] = {}
            for drift in found:
                by_network.setdefault(drift.network_id, []).append(drift)
            self.recent.extend(Repaired(some[0], time.time(), len(some) - 1) for some in by_network.values())
            what = [f"{d.kind} {d.what}" for d in found[:5]]
            log.warning("somebody changed the network: repaired", differences=len(found), what=what)

    def _changed(self, scope: str, tables: bool) -> None:
        (self._tables if tables else self._entries).add(scope)
        self._reason.set()
