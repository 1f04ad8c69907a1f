"""The store: typed objects in etcd, written in fenced, compared, batched transactions.

Who writes: the API and the control loops of the leader, always with the leader's fence, so that a controller that
does not lead any more cannot. Who reads: hardly anyone; control loops read the cache. A commit is one round trip.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from argosy.controller.store.errors import AmbiguousError, StoreUnavailableError
from argosy.controller.store.etcd import EtcdClient
from argosy.controller.store.keys import Keyspace
from argosy.controller.store.ops import Fence, Op
from argosy.controller.store.records import K, from_bytes
from argosy.controller.store.settle import Verdict, can_settle, settle
from argosy.controller.store.txn import Group, Prepared, conflict, found_in, lost_fence, pack, request
from argosy.core.errors import ArgosyError, NotFoundError, TransientError
from argosy.core.kinds import BY_TYPE
from argosy.proto.etcd import rpc_pb2 as pb

CONCURRENT_TXNS = 4
"""Transactions of one batch under way at a time: enough to keep etcd busy, few enough to leave room for others."""
SETTLE_TIMEOUT_S = 5.0
YIELD_EVERY = 200
"""Groups prepared before other tasks of the event loop get a turn: a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a group of `commit_batched`: the revision of its write, or the error that kept it from being."""

    revision: int = 0
    error: ArgosyError | None = None

    @property
    def ok(self) -> bool:
        """Whether it was applied."""
        return self.error is None


class Store:
    """The objects of one cluster."""

    def __init__(self, client: EtcdClient, cluster: str) -> None:
        self.client = client
        self.keys = Keyspace(cluster)
        self.contended = asyncio.Lock()
        """Held by who tries a change again after a conflict, so that of many who change one object each has a turn."""

    # ---- writing

    async def commit(self, ops: Iterable[Op], fence: Fence | None = None) -> int:
        """Apply all operations, or none, in one transaction. Returns its revision.

        Raises ConflictError, ExistsError (a claimed name), LostLeadershipError, TooLargeError (more than 128
        operations with the fence, or 1.5 MiB), StoreUnavailableError (not applied) or AmbiguousError (unknown).
        """
        group = Group.of(0, ops, self.keys)
        group.check_fits(fence)
        if not group.parts:
            raise ValueError("nothing to commit")
        (outcome,) = await self._apply([group], fence)
        if outcome.error is not None:
            raise outcome.error
        return outcome.revision

    async def commit_batched(self, groups: Sequence[Iterable[Op]], fence: Fence | None = None) -> list[Outcome]:
        """Apply each group all or none, as many as possible in one transaction. Returns one outcome a group, in order.

        A group that conflicts fails alone; groups that touch the same keys are applied one after the other. What
        goes wrong is in the outcomes, never raised.
        """
        outcomes = [Outcome() for _ in groups]
        todo: list[Group] = []
        for index, ops in enumerate(groups):
            group = Group.of(index, ops, self.keys)
            try:
                group.check_fits(fence)
            except ArgosyError as error:
                outcomes[index] = Outcome(error=error)
            else:
                if group.parts:
                    todo.append(group)
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)  # lease renewals and agents' sessions must not wait for a large batch
        limit = asyncio.Semaphore(CONCURRENT_TXNS)

        async def run(txn: list[Group]) -> None:
            async with limit:
                for group, outcome in zip(txn, await self._apply(txn, fence), strict=True):
                    outcomes[group.index] = outcome

        while todo:
            packed, todo = pack(todo, fence)
            if len(packed) == 1:
                await run(packed[0])
            else:
                async with asyncio.TaskGroup() as tasks:
                    for txn in packed:
                        tasks.create_task(run(txn))
        return outcomes

    async def _apply(self, groups: list[Group], fence: Fence | None) -> list[Outcome]:
        """Run groups in one transaction; those that conflict fall out, and the others are tried again without them."""
        results: dict[int, Outcome] = {}
        left = groups
        while left:
            parts = [p for g in left for p in g.parts]
            try:
                revision, found = await self._run(parts, fence)
            except ArgosyError as error:
                results |= {g.index: Outcome(error=error) for g in left}
                break
            if found is None:
                results |= {g.index: Outcome(revision) for g in left}
                break
            lost = lost_fence(fence, found)
            failed = {g.index: Outcome(error=lost or conflict(g.parts, found)) for g in left}
            failed = {index: outcome for index, outcome in failed.items() if not outcome.ok}
            if not failed:
                raise RuntimeError("etcd refused a transaction whose comparisons all hold")
            results |= failed
            left = [g for g in left if g.index not in failed]
        return [results[g.index] for g in groups]

    async def _run(self, parts: list[Prepared], fence: Fence | None) -> tuple[int, dict[bytes, pb.KeyValue] | None]:
        """Run one transaction and settle it if need be.

        Returns its revision and None when it was applied, else what its failure branch read.
        """
        try:
            response = await self.client.txn(request(parts, fence))
        except AmbiguousError as error:
            if not can_settle(parts):
                raise
            return await self._settle(parts, fence, error)
        return response.header.revision, None if response.succeeded else found_in(response)

    async def _settle(
        self, parts: list[Prepared], fence: Fence | None, first: AmbiguousError
    ) -> tuple[int, dict[bytes, pb.KeyValue] | None]:
        again = request(parts, fence, settling=True)
        deadline = asyncio.get_running_loop().time() + SETTLE_TIMEOUT_S
        while True:
            try:
                response = await self.client.txn(again)
                break
            except (AmbiguousError, StoreUnavailableError) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise first from error
                await asyncio.sleep(0.05)
            except TransientError as error:
                raise first from error
        if response.succeeded:
            return response.header.revision, None
        found = found_in(response)
        settled = settle(parts, found)
        match settled.verdict:
            case Verdict.APPLIED:
                return settled.revision or response.header.revision, None
            case Verdict.NOT_APPLIED:
                return response.header.revision, found
        raise first

    # ---- reading

    async def get(self, kind: type[K], project: str, id: str) -> K:
        """Read an object from etcd itself (linearizable). NotFoundError when there is none."""
        response = await self.client.range(self.keys.object(kind, project, id))
        if not response.kvs:
            raise NotFoundError(f"there is no {BY_TYPE[kind].name} {id}")
        (kv,) = response.kvs
        obj = from_bytes(BY_TYPE[kind], kv.value, kv.mod_revision)
        assert isinstance(obj, kind)
        return obj

    async def name_owner(self, kind: type[K], project: str, name: str) -> str | None:
        """Return the id of the object that holds a name."""
        response = await self.client.range(self.keys.name(kind, project, name))
        return response.kvs[0].value.decode() if response.kvs else None

    async def revision(self) -> int:
        """Return the newest revision of etcd."""
        response = await self.client.range(self.keys.leader, keys_only=True)
        return response.header.revision

    def list_pages(self, *, revision: int = 0, keys_only: bool = False) -> AsyncIterator[pb.RangeResponse]:
        """Read everything of the cluster at one revision, page by page, for the cache."""
        return self.client.pages(self.keys.prefix, revision=revision, keys_only=keys_only)
