"""The cache: the whole cluster in memory, kept up to date by a watch.

A list at one revision, then a watch from the next: every event is applied once, in etcd's order, and every revision
makes a new immutable snapshot. When the watch's position was compacted away the cache lists again and works out what
changed meanwhile. Now and then it compares the versions of all objects with etcd's in the background; a difference
is a bug in here or in etcd, is logged and counted as such, and is repaired.

Control loops decide on snapshots only; the API reads its own writes by `wait_for`.
"""

import asyncio
import heapq
import itertools
import weakref
from collections.abc import Iterable
from typing import Any

import structlog

from argosy.controller.store.collector import LARGE, collector_resting, hide_from_collector
from argosy.controller.store.errors import CompactedError, StoreUnavailableError
from argosy.controller.store.history import History, Step
from argosy.controller.store.listing import Comparison, Listing
from argosy.controller.store.records import from_bytes
from argosy.controller.store.snapshot import Change, Snapshot
from argosy.controller.store.store import Store
from argosy.controller.store.subscription import Subscription
from argosy.controller.store.watch import WatchCompacted, WatchEvents, WatchProgress
from argosy.core.errors import TransientError
from argosy.core.kinds import KINDS, StoredObject
from argosy.proto.etcd import rpc_pb2 as pb

log = structlog.get_logger(__name__)

RETRY_S = 0.5
"""Pause before listing again after etcd did not answer for a whole request timeout."""
FIRST_QUESTION_S = 0.02
"""How long to wait for an event before asking etcd how far the watch is."""
SLICE_S = 0.01
"""How long events are applied before other tasks of the event loop get a turn."""


class Cache:
    """Snapshots of one cluster. `run` must be running for it to follow; one event loop only."""

    def __init__(
        self,
        store: Store,
        *,
        relist_period_s: float = 600.0,
        max_history: int = 20_000,
        max_pending: int = 20_000,
    ) -> None:
        """`max_history`, `max_pending`: changes kept for `subscribe(after=...)`, and for a slow subscriber."""
        self._store = store
        self._relist_period_s = relist_period_s
        self._max_pending = max_pending
        self._snapshot = Snapshot()
        self._history = History(0, max_history)
        self._ready = asyncio.Event()
        self._subscriptions: weakref.WeakValueDictionary[int, Subscription] = weakref.WeakValueDictionary()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = itertools.count()
        self._must_list = asyncio.Event()
        self.lists = 0
        self.differences = 0

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot. Empty, at revision 0, until `ready`."""
        return self._snapshot

    @property
    def oldest_resumable(self) -> int:
        """The lowest revision that `subscribe(after=...)` takes."""
        return self._history.floor

    async def ready(self) -> None:
        """Wait until the first list is in."""
        await self._ready.wait()

    def subscribe(self, *, after: int | None = None, coalesce: bool = False) -> Subscription:
        """Return the changes from now on, or all after a revision that was seen.

        Registered at once: there is no gap to a `snapshot` taken before the next await. Raises VersionTooOldError
        when `after` lies before what is kept.
        """
        backlog = self._history.after(after) if after is not None else []
        subscription = Subscription(
            lambda: self._snapshot, backlog, coalesce=coalesce, max_pending=self._max_pending, after=after or 0
        )
        self._subscriptions[next(self._tickets)] = subscription
        return subscription

    async def wait_for(self, revision: int, timeout: float = 5.0) -> None:
        """Return once the snapshot is at this revision or later.

        StoreUnavailableError when it has not moved for `timeout` seconds; one that is behind, but moves, is waited for.
        """
        if self._snapshot.revision >= revision:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._waiters, (revision, next(self._tickets), future))
        at, until = self._snapshot.revision, loop.time() + timeout
        # Writes of others in the same etcd make no event here: then ask how far we are.
        patience = min(FIRST_QUESTION_S, timeout)
        while not (await asyncio.wait([future], timeout=patience))[0]:
            if self._snapshot.revision > at:
                at, until = self._snapshot.revision, loop.time() + timeout
            elif loop.time() >= until:
                future.cancel()
                raise StoreUnavailableError(
                    f"the controller's view stays at version {at} and did not reach {revision}: it has not moved for "
                    f"{timeout:g} s: etcd is slow or cut off"
                )
            await self._store.client.request_progress()
            patience = min(patience * 2, 0.2)

    # ---- following

    async def run(self) -> None:
        """Follow etcd until cancelled. Raises UnreadableError when there is an object this program cannot read."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._verify_periodically(), name="cache-verify")
                await self._list_and_follow()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _list_and_follow(self) -> None:
        while True:
            try:
                await self._list()
                self._ready.set()
                await self._follow()
            except TransientError as error:
                log.warning("the cache cannot list", error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        """Apply events until the position is compacted away or a new list is wanted."""
        self._must_list.clear()
        watch = self._store.client.watch(self._store.keys.prefix, self._snapshot.revision + 1)
        closer = asyncio.create_task(self._close_on_demand(watch), name="cache-relist")
        loop = asyncio.get_running_loop()
        turn = loop.time()
        try:
            async for item in watch:
                match item:
                    case WatchEvents(_, events):
                        self._apply(events)
                    case WatchProgress(revision):
                        self._publish(Step(revision, ()))
                    case WatchCompacted(oldest):
                        log.warning("the watch was compacted away", at=self._snapshot.revision, oldest=oldest)
                if loop.time() - turn > SLICE_S:
                    await asyncio.sleep(0)
                    turn = loop.time()
        finally:
            closer.cancel()
            watch.close()

    async def _close_on_demand(self, watch: Any) -> None:
        await self._must_list.wait()
        watch.close()

    def _apply(self, events: Iterable[pb.Event]) -> None:
        """Apply whole revisions, one snapshot each."""
        for revision, group in itertools.groupby(events, key=lambda e: e.kv.mod_revision):
            changes = [c for e in group if (c := self._change_of(e)) is not None]
            self._publish(Step(revision, tuple(changes)))

    def _change_of(self, event: pb.Event) -> Change | None:
        at = self._store.keys.parse(event.kv.key)
        if at is None:
            return None
        old: StoredObject | None = self._snapshot.get(at.kind.domain, at.id, at.project)
        new = from_bytes(at.kind, event.kv.value, event.kv.mod_revision) if event.type == pb.Event.PUT else None
        if old is None and new is None:
            return None
        return Change(at.kind.domain, at.id, old, new)

    def _publish(self, step: Step, snapshot: Snapshot | None = None) -> None:
        """Make `snapshot`, or the present one with the step applied, the newest, and tell everybody."""
        self._snapshot = snapshot or self._snapshot.apply(step.revision, step.changes)
        if step.changes:
            self._history.add(step)
            for subscription in list(self._subscriptions.values()):
                subscription.publish(step)
        while self._waiters and self._waiters[0][0] <= step.revision:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    # ---- listing

    async def _list(self) -> None:
        """Read everything and apply what differs from the snapshot."""
        listing = Listing(self._snapshot, self._store.keys)
        with collector_resting():
            async for page in self._store.list_pages():
                await listing.add(page)
        step, snapshot = listing.finish()
        self.lists += 1
        if step.revision < self._snapshot.revision:
            log.error("etcd went back in time: was it restored?", was=self._snapshot.revision, now=step.revision)
            for subscription in list(self._subscriptions.values()):
                subscription.demand_resync()
        # What lies between the two revisions is not known step by step: nobody can resume from within it.
        self._publish(step, snapshot)
        self._history.reset(step.revision)
        log.info("listed", at=step.revision, changes=len(step.changes), **self._counts())

    def _counts(self) -> dict[str, int]:
        return {k.name: self._snapshot.count(k.domain) for k in KINDS}

    async def _verify_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._relist_period_s)
            await self._ready.wait()
            if self._must_list.is_set():
                continue  # the last check's repair is still under way
            try:
                await self.verify()
                if self._snapshot.total() > LARGE:
                    hide_from_collector()
            except TransientError as error:
                log.warning("the cache could not be checked", error=str(error))

    async def verify(self) -> int:
        """Compare the versions of all objects with etcd's at the same revision; return the number of differences.

        Differences are repaired by listing again.
        """
        await self.wait_for(await self._store.revision())
        snapshot = self._snapshot
        comparison = Comparison(snapshot, self._store.keys)
        try:
            async for page in self._store.list_pages(revision=snapshot.revision, keys_only=True):
                await comparison.add(page)
        except CompactedError as error:
            # A snapshot as new as etcd itself is always there, unless etcd was set back to a backup.
            log.error("the cache's revision is not in etcd", revision=snapshot.revision, error=str(error))
        if different := comparison.differences():
            self.differences += different
            log.error("the cache differed from etcd; listing again", revision=snapshot.revision, objects=different)
            self._must_list.set()
        return different
