"""Leader election: one key, held under a lease.

    campaign   txn: if nobody has the leader key, put it under my lease. Its create_revision is the epoch.
    lead       renew the lease, in a thread (lease.py); what is written compares the key's create_revision (the fence).
    lose       etcd deletes the key with the lease; *before* that can happen this controller has stopped to believe
               in it: `held` ends `margin_s` before the last confirmed renewal plus the time to live.
    follow     watch the key; when it goes, campaign again.

Epochs only grow, since revisions do. A lock that does not fence is no lock: `held` keeps a late leader from commanding
agents, the fence keeps it from writing, and agents refuse an epoch lower than one they know.

To wait for a dead leader's lease costs seconds. Followers that see its stream reset probe it, and if it is gone
`revoke_leader` ends its lease at once. To revoke a leader that lives is safe (it is fenced), and only disturbs.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgspec
import structlog

from argosy.controller.store.errors import AmbiguousError
from argosy.controller.store.etcd import EtcdClient
from argosy.controller.store.keys import Keyspace
from argosy.controller.store.lease import Lease, Renew, grant, keep_alive
from argosy.controller.store.ops import Fence
from argosy.controller.store.watch import WatchEvents
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import LostLeadershipError, TransientError
from argosy.proto.etcd import rpc_pb2 as pb

log = structlog.get_logger(__name__)

DEFAULT_TTL_S = 3.0
DEFAULT_MARGIN_S = 0.5
RETRY_S = 0.2


class Candidate(msgspec.Struct, frozen=True):
    """A controller that may lead, and where the others reach it; stored in the leader key."""

    id: str
    address: str


@dataclass(frozen=True, slots=True)
class LeaderRecord:
    """Who leads, as etcd has it."""

    id: str
    address: str
    epoch: int
    lease_id: int


class Leadership:
    """One term of this controller as the leader."""

    def __init__(self, fence: Fence, lease: Lease, margin_s: float) -> None:
        self.fence = fence
        self.lost = asyncio.Event()
        self._lease = lease
        self._margin_s = margin_s

    @property
    def epoch(self) -> int:
        """The term's number: greater than any before."""
        return self.fence.create_revision

    @property
    def confirmed_at(self) -> float:
        """When the last renewal that etcd confirmed was sent (CLOCK_BOOTTIME, seconds)."""
        return self._lease.confirmed_at

    def remaining(self) -> float:
        """Return for how many seconds this controller may still believe that it leads, if nothing is confirmed."""
        return 0.0 if self.lost.is_set() else self._lease.remaining() - self._margin_s

    def held(self) -> bool:
        """Whether this controller leads at this moment. False always comes before etcd can let another lead."""
        return self.remaining() > 0

    def check(self) -> None:
        """Raise LostLeadershipError unless `held`; for use right before something is commanded."""
        if not self.held():
            raise LostLeadershipError(f"this controller does not lead any more (epoch {self.epoch})")


class Election:
    """A candidate's part in the election of one cluster's leader."""

    def __init__(
        self,
        client: EtcdClient,
        cluster: str,
        candidate: Candidate,
        *,
        ttl_s: float = DEFAULT_TTL_S,
        margin_s: float = DEFAULT_MARGIN_S,
        ambient: Ambient = SYSTEM,
        renew: Renew = keep_alive,
    ) -> None:
        """`ttl_s`: of the lease, which etcd may raise; `margin_s`: how much earlier leadership ends in here.

        `renew` is another one only where time is not the machine's (tests/sim).
        """
        self._client = client
        self._key = Keyspace(cluster).leader
        self._candidate = candidate
        self._ttl_s = ttl_s
        self._margin_s = margin_s
        self._ambient = ambient
        self._renew = renew

    async def run(self, term: Callable[[Leadership], Awaitable[None]]) -> None:
        """Campaign and lead, term after term, until cancelled.

        `term` is cancelled as soon as leadership is lost. When it returns, or this is cancelled, the lease is revoked,
        so that another can lead at once. What `term` raises goes through.
        """
        while True:
            async with self.lead() as leadership:
                await _run_while_held(term, leadership)
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))

    @contextlib.asynccontextmanager
    async def lead(self) -> AsyncIterator[Leadership]:
        """Wait until elected; the body is the term. Resigns at its end. The body must heed `lost`."""
        leadership, lease, renewal = await self._campaign()
        guard = asyncio.create_task(self._guard(leadership, lease, renewal), name="leadership")
        log.info("leading", epoch=leadership.epoch, candidate=self._candidate.id)
        try:
            yield leadership
        finally:
            leadership.lost.set()
            guard.cancel()
            await asyncio.wait([guard])
            await self._resign(lease)
            log.info("not leading any more", epoch=leadership.epoch, candidate=self._candidate.id)
            if not guard.cancelled():
                guard.result()

    async def leader(self) -> LeaderRecord | None:
        """Return who leads, by etcd."""
        response = await self._client.range(self._key)
        return _record(response.kvs[0]) if response.kvs else None

    async def observe(self) -> AsyncGenerator[LeaderRecord | None, None]:
        """Yield who leads, then each change of it; None while nobody does."""
        while True:
            try:
                response = await self._client.range(self._key)
            except TransientError as error:
                log.warning("cannot read who leads", error=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            yield _record(response.kvs[0]) if response.kvs else None
            watch = self._client.watch(self._key, response.header.revision + 1, single_key=True)
            try:
                async for item in watch:
                    if isinstance(item, WatchEvents):
                        last = item.events[-1]
                        yield _record(last.kv) if last.type == pb.Event.PUT else None
            finally:
                watch.close()

    async def revoke_leader(self, record: LeaderRecord) -> None:
        """End the lease of a leader that is found dead, so that another can lead at once. Safe if it lives."""
        log.warning("revoking the leader's lease", leader=record.id, epoch=record.epoch)
        await self._client.lease_revoke(record.lease_id)

    # ---- campaigning

    async def _campaign(self) -> tuple[Leadership, Lease, asyncio.Task[None]]:
        """Return once elected, with the lease and the task that renews it."""
        while True:
            lease: Lease | None = None
            renewal: asyncio.Task[None] | None = None
            try:
                await self._wait_until_vacant()
                lease = await grant(self._client, self._ttl_s, self._ambient.boot)
                renewal = asyncio.create_task(self._renew(self._client, lease), name="lease")
                epoch = await self._try(lease)
                if epoch is not None:
                    return Leadership(Fence(self._key, epoch), lease, self._margin_s), lease, renewal
                await self._abandon(lease, renewal)
            except TransientError as error:
                log.warning("cannot campaign", error=str(error))
                await self._abandon(lease, renewal)
                await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))
            except BaseException:
                await self._abandon(lease, renewal)
                raise

    async def _try(self, lease: Lease) -> int | None:
        """Take the key if nobody has it; return the epoch."""
        txn = pb.TxnRequest()
        vacant = txn.compare.add(key=self._key, target=pb.Compare.CREATE)
        vacant.create_revision = 0
        put = txn.success.add().request_put
        put.key, put.value, put.lease = self._key, msgspec.json.encode(self._candidate), lease.id
        try:
            response = await self._client.txn(txn)
        except AmbiguousError:
            # The lease is this attempt's own: whether the key carries it says whether the attempt succeeded. Should
            # it succeed only after this look, the lease that is abandoned now takes the key with it.
            found = (await self._client.range(self._key)).kvs
            return found[0].create_revision if found and found[0].lease == lease.id else None
        return response.header.revision if response.succeeded else None

    async def _wait_until_vacant(self) -> None:
        async with contextlib.aclosing(self.observe()) as leaders:
            async for record in leaders:
                if record is None:
                    return

    async def _abandon(self, lease: Lease | None, renewal: asyncio.Task[None] | None) -> None:
        if renewal is not None:
            renewal.cancel()
            await asyncio.wait([renewal])
        if lease is not None:
            await self._resign(lease)

    async def _resign(self, lease: Lease) -> None:
        """Revoke the lease if etcd answers; else it expires by itself."""
        with contextlib.suppress(TransientError):
            await self._client.lease_revoke(lease.id)

    # ---- leading

    async def _guard(self, leadership: Leadership, lease: Lease, renewal: asyncio.Task[None]) -> None:
        """Set `lost` once: the lease is gone, the key is not ours, or nothing was confirmed for too long."""
        deposed = asyncio.create_task(self._until_deposed(leadership.epoch), name="leader-key")
        done: set[asyncio.Task[None]] = set()
        try:
            while (left := leadership.remaining()) > 0:
                done, _ = await asyncio.wait([renewal, deposed], timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    break
            log.warning(
                "leadership lost", epoch=leadership.epoch, unconfirmed_s=round(lease.clock() - lease.confirmed_at, 2)
            )
            leadership.lost.set()
            for task in done:
                task.result()
        finally:
            renewal.cancel()
            deposed.cancel()
            await asyncio.wait([renewal, deposed])

    async def _until_deposed(self, epoch: int) -> None:
        async with contextlib.aclosing(self.observe()) as leaders:
            async for record in leaders:
                if record is None or record.epoch != epoch:
                    return


async def _run_while_held(term: Callable[[Leadership], Awaitable[None]], leadership: Leadership) -> None:
    """Run `term`; cancel it when leadership is lost. Raises what it raises, but not our own cancelling.

    `lost` is set first: a term that swallows its cancellation, as a failing task group does, finds it there.
    """
    work = asyncio.ensure_future(term(leadership))
    lost = asyncio.create_task(leadership.lost.wait())
    try:
        await asyncio.wait([work, lost], return_when=asyncio.FIRST_COMPLETED)
    finally:
        lost.cancel()
        leadership.lost.set()
        if not work.done():
            work.cancel()
        await asyncio.wait([work])
    if not work.cancelled():
        work.result()


def _record(kv: pb.KeyValue) -> LeaderRecord:
    candidate = msgspec.json.decode(kv.value, type=Candidate)
    return LeaderRecord(candidate.id, candidate.address, kv.create_revision, kv.lease)
