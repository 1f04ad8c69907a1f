"""Looking after etcd, so that nobody has to know it: compaction, defragmentation, alarms. Run by the leader.

etcd keeps every old version of every key until it is told to compact. We keep those of the last minutes, for watches
that resume and for reads at a revision, by remembering which revision was the newest when. Compaction frees space in
the database file; only defragmentation gives it back to the disk, and a member answers nothing meanwhile, so that
is done to one member at a time, the leader last, and only when it is worth it.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass

import structlog

from argosy.controller.store.endpoints import Endpoint
from argosy.controller.store.errors import CompactedError
from argosy.controller.store.etcd import EtcdClient
from argosy.core.errors import ArgosyError
from argosy.proto.etcd import rpc_pb2 as pb

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MaintenanceConfig:
    """`keep_s` of history is kept; a file is defragmented when it wastes at least this much and this share."""

    period_s: float = 60.0
    keep_s: float = 300.0
    defragment_bytes: int = 64 * 1024 * 1024
    defragment_share: float = 0.5


async def keep_room(client: EtcdClient) -> None:
    """Make room whenever etcd has refused a write of this client because its database is full; until cancelled.

    Every controller runs it: with a full etcd there may be no leader, since nobody can be elected.
    """
    while True:
        await client.full.wait()
        log.error("etcd's database is full: making room")
        try:
            await _make_room(client)
        except ArgosyError as error:
            log.error("no room can be made in etcd", error=str(error))
        client.full.clear()
        await asyncio.sleep(FULL_RETRY_S)


async def _make_room(client: EtcdClient) -> None:
    """Free what can be freed: drop all history, defragment every member, clear the alarm.

    etcd raises the alarm again should there be no room all the same. A watch that is behind lists anew.
    """
    response = await client.range(b"\0", limit=1, count_only=True)
    with contextlib.suppress(CompactedError):
        await client.compact(response.header.revision)
    for endpoint in client.endpoints.all:
        await client.defragment(endpoint)
    for alarm in await client.alarms():
        if alarm.alarm == pb.NOSPACE:
            await client.disarm(alarm)


FULL_RETRY_S = 5.0
"""Least time between two tries to make room."""


class Maintenance:
    """The periodic care of an etcd cluster."""

    def __init__(self, client: EtcdClient, config: MaintenanceConfig | None = None) -> None:
        self._client = client
        self._config = config or MaintenanceConfig()
        self._seen: deque[tuple[float, int]] = deque()

    async def run(self) -> None:
        """Take care until cancelled. What fails is logged and tried again in the next round."""
        while True:
            try:
                await self.round(asyncio.get_running_loop().time())
            except ArgosyError as error:
                log.warning("etcd maintenance failed", error=str(error))
            await asyncio.sleep(self._config.period_s)

    async def round(self, now: float) -> None:
        """Do what is due at `now` (seconds of a monotonic clock)."""
        response = await self._client.range(b"\0", limit=1, count_only=True)
        self._seen.append((now, response.header.revision))
        await self._compact(now)
        await self._defragment()
        await self._clear_alarms()

    async def _compact(self, now: float) -> None:
        revision = 0
        while self._seen and self._seen[0][0] <= now - self._config.keep_s:
            revision = self._seen.popleft()[1]
        if not revision:
            return
        try:
            await self._client.compact(revision)
        except CompactedError:
            return  # by a leader before us, or by etcd itself
        log.info("etcd compacted", revision=revision)

    async def _defragment(self) -> None:
        members = [(endpoint, await self._client.status(endpoint)) for endpoint in self._client.endpoints.all]
        wasteful = [(e, s) for e, s in members if self._is_wasteful(s)]
        for endpoint, status in sorted(wasteful, key=lambda m: m[1].leader == m[1].header.member_id):
            await self._client.defragment(endpoint)
            await self._log_size(endpoint, status)

    def _is_wasteful(self, status: pb.StatusResponse) -> bool:
        waste = status.dbSize - status.dbSizeInUse
        return waste >= self._config.defragment_bytes and waste >= status.dbSize * self._config.defragment_share

    async def _log_size(self, endpoint: Endpoint, before: pb.StatusResponse) -> None:
        after = await self._client.status(endpoint)
        log.info("etcd defragmented", endpoint=endpoint.address, bytes_before=before.dbSize, bytes_after=after.dbSize)

    async def _clear_alarms(self) -> None:
        """Say which alarms there are; clear one for space (etcd raises it again should there be none)."""
        for alarm in await self._client.alarms():
            name = pb.AlarmType.Name(alarm.alarm)
            log.error("etcd raises an alarm", alarm=name, member=f"{alarm.memberID:x}")
            if alarm.alarm == pb.NOSPACE:
                await self._client.disarm(alarm)
