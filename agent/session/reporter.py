"""Monotone status reports: what changed since the controller last confirmed, resent until it is acknowledged.

One report is under way at a time; what comes meanwhile forms the next one, so that reports grow as load does and
each costs the controller one store write. An acknowledgement means the status is in etcd.
"""

import asyncio
from collections.abc import Mapping

from argosy.core.codec import encode_into
from argosy.core.task import TaskStatus
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb


class Reporter:
    """Statuses that the controller has not confirmed yet. Used by one event loop."""

    MAX_TASKS = 500
    """Tasks in a report: the controller can write them in a few transactions."""

    def __init__(self) -> None:
        self._pending: dict[str, TaskStatus] = {}
        self._in_flight: dict[str, TaskStatus] = {}
        self._sequence = 0
        self._wake = asyncio.Event()

    def put(self, task_id: str, status: TaskStatus) -> None:
        """Have a task's status reported."""
        self._pending[task_id] = status
        self._wake.set()

    def drop(self, task_id: str) -> None:
        """Do not report a task any more: the controller has dropped it."""
        self._pending.pop(task_id, None)

    def restart(self, known: Mapping[str, TaskStatus]) -> None:
        """Begin a new session: nothing is confirmed, so everything known is reported again."""
        self._pending = dict(known)
        self._in_flight = {}
        if self._pending:
            self._wake.set()

    async def next(self) -> pb.StatusReport:
        """Wait until there is something to report and no report is under way; return the next report."""
        while not self._pending or self._in_flight:
            self._wake.clear()
            await self._wake.wait()
        self._sequence += 1
        report = pb.StatusReport(sequence=self._sequence)
        for task_id in list(self._pending)[: self.MAX_TASKS]:
            status = self._in_flight[task_id] = self._pending.pop(task_id)
            encode_into(status, report.tasks.add(task_id=task_id).status)
        return report

    def acknowledge(self, sequence: int) -> None:
        """Note that the report of this number is stored; older numbers are of no interest."""
        if sequence == self._sequence:
            self._in_flight = {}
            self._wake.set()
