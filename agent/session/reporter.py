"""Monotone status reports: what changed since the controller last confirmed, resent until it is acknowledged.

One report is under way at a time; what comes meanwhile forms the next one, so that reports grow as load does and
each costs the controller one store write. An acknowledgement means the status is in etcd. States that tasks only pass
through on their way up wait for a moment: mostly the next state is there before they would have been of any use.

A session begins with an account of everything that is known, in several reports where there is much. Each of them but
the last says that there is more: only then does the controller know what runs here.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from argosy.core.assignment import Succession
from argosy.core.codec import encode_into
from argosy.core.task import TaskStatus
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb


class Reporter:
    """Statuses that the controller has not confirmed yet. Used by one event loop."""

    MAX_TASKS = 500
    """Tasks in a report: the controller can write them in a few transactions."""
    GATHER_S = 0.003
    """How long a report waits for company. While one is under way the next gathers anyway."""
    PASSING_S = 0.5
    """How long a state that a task only passes through is held back."""

    def __init__(self) -> None:
        self._pending: dict[str, TaskStatus] = {}
        self._in_flight: dict[str, TaskStatus] = {}
        self._sequence = 0
        self._due: float | None = None  # when to send what is pending, on the loop's clock
        self._untold: set[str] = set()  # what is left of the account of everything
        self._owes_end = False  # there was said to be more of it
        self.successions: Mapping[str, Succession] = {}
        """Tasks of the node's own making: they go in one report with their kin, and are stored together or not."""
        self.on_stored: Callable[[str, TaskStatus], None] = lambda task_id, status: None
        """Told of every status that the controller has confirmed."""
        self._wake = asyncio.Event()

    def put(self, task_id: str, status: TaskStatus, *, passing: bool = False) -> None:
        """Have a task's status reported; `passing`: the next state is expected to follow at once."""
        self._pending[task_id] = status
        self._send_within(self.PASSING_S if passing else self.GATHER_S)

    def drop(self, task_id: str) -> None:
        """Do not report a task any more: the controller has dropped it."""
        self._pending.pop(task_id, None)
        self._untold.discard(task_id)
        if self._owes_end and not self._untold:
            self._send_within(0.0)
        elif not self._pending:
            self._due = None  # else `next` would wait for a moment that has passed, again and again

    def restart(self, known: Mapping[str, TaskStatus]) -> None:
        """Begin a new session: nothing is confirmed, so everything known is reported again."""
        self._pending = dict(known)
        self._in_flight = {}
        self._due = None
        self._untold, self._owes_end = set(known), False
        if self._pending:
            self._send_within(0.0)

    def _send_within(self, seconds: float) -> None:
        due = asyncio.get_running_loop().time() + seconds
        if self._due is None or due < self._due:
            self._due = due
            self._wake.set()

    async def next(self) -> pb.StatusReport:
        """Wait until a report is due and none is under way; return it."""
        while not self._is_due():
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if self._in_flight else self._due):
                    await self._wake.wait()
        self._sequence += 1
        report = pb.StatusReport(sequence=self._sequence)
        for task_id in self._with_kin(list(self._pending)[: self.MAX_TASKS]):
            status = self._in_flight[task_id] = self._pending.pop(task_id)
            entry = report.tasks.add(task_id=task_id)
            encode_into(status, entry.status)
            if succession := self.successions.get(task_id):
                encode_into(succession, entry.succession)
            self._untold.discard(task_id)
        report.more = self._owes_end = bool(self._untold)
        self._due = None
        if self._pending:
            self._send_within(0.0)
        return report

    def _with_kin(self, chosen: list[str]) -> list[str]:
        if not self.successions:
            return chosen
        roots = {self.successions[i].root if i in self.successions else i for i in chosen}
        kin = [i for i, s in self.successions.items() if s.root in roots]
        return [i for i in dict.fromkeys((*chosen, *roots, *kin)) if i in self._pending]

    def _is_due(self) -> bool:
        if self._in_flight or self._due is None or not (self._pending or self._owes_end):
            return False
        return self._due <= asyncio.get_running_loop().time()

    def acknowledge(self, sequence: int) -> None:
        """Note that the report of this number is stored; older numbers are of no interest."""
        if sequence == self._sequence:
            stored, self._in_flight = self._in_flight, {}
            self._wake.set()
            for task_id, status in stored.items():
                self.on_stored(task_id, status)
