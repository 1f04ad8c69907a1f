"""The loop that gives services their virtual addresses: the leader's, and the only one that writes them.

One writer that sees its own writes before it goes on never gives an address twice; a replaced leader cannot write at
all (fence). Slices of virtual addresses are taken and given back here, too, for the same reason.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from argosy.controller.logic.virtual_addresses import Readdressed, VirtualPool, is_settled, readdress
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.sparing import Sparing
from argosy.controller.store import Cache, ChangeBatch, Fence, Op, Snapshot, Store, check, create, delete, update
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.network import Network, Slice, SliceUse
from argosy.core.service import Service

SHARE = 0.2
"""Of the time that looking takes, at most: while many services are made, there is always one without an address."""


class VirtualAddressesLoop:
    """One for a term of leadership."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient
        self._sparing = Sparing(ambient.processor, SHARE)
        self._unsettled: set[str] = set()
        self._taken: dict[str, Slice] = {}  # those of virtual addresses, by id
        self._last_given: dict[str, int] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, Wake(self._ambient.monotonic)):
            if batch is None or not self._take(batch):
                continue
            while await self._settle():
                pass
            await self._sparing.rest()

    def _take(self, batch: ChangeBatch) -> bool:
        """Follow changes; return whether there may be something to do."""
        if batch.resync:
            self._unsettled = {s.meta.id for s in batch.snapshot.all(Service) if not is_settled(s)}
            self._taken = {s.meta.id: s for s in batch.snapshot.all(Slice) if s.use is SliceUse.SERVICES}
            return True
        for change in batch.changes:
            match change.old, change.new:
                case _, Slice() as piece if piece.use is SliceUse.SERVICES:
                    self._taken[piece.meta.id] = piece
                case Slice() as piece, _:
                    self._taken.pop(piece.meta.id, None)
                case _:
                    pass
        fresh = {c.new.meta.id for c in batch.changes if isinstance(c.new, Service) and not is_settled(c.new)}
        self._unsettled |= fresh
        freed = any(_held(c.old) != _held(c.new) for c in batch.changes)
        helps = any(c.kind in (Network, Slice) for c in batch.changes)
        return bool(fresh) or freed or (helps and bool(self._unsettled))

    async def _settle(self) -> bool:
        """Write what is due; tell whether some of it conflicted and is to be decided anew."""
        snap = self._cache.snapshot
        services = [s for i in sorted(self._unsettled) if (s := snap.get(Service, i)) and not is_settled(s)]
        self._unsettled = {s.meta.id for s in services}
        pools = await self._pools(snap)
        with self._sparing.working():
            plans = [readdress(service, pools) for service in services]
            # Slices first, alone: an address in one that a node got meanwhile must never be stored.
            groups: list[list[Op]] = [[create(piece)] for plan in plans for piece in plan.new_slices]
            again = bool(groups)
            if not groups:
                groups = self._addresses(snap, plans)
                unused = {(n, i) for n, pool in pools.items() for i in pool.unused()}
                groups += [[delete(p)] for p in self._taken.values() if (p.network_id, p.index) in unused]
        if not groups:
            return False
        for outcome in await self._store.commit_batched(groups, self._fence):
            if isinstance(outcome.error, ConflictError):
                again = True
            elif outcome.error is not None:
                raise outcome.error
        self._last_given |= {network_id: pool.last_given for network_id, pool in pools.items()}
        await self._cache.wait_for(await self._store.revision())
        return again

    async def _pools(self, snap: Snapshot) -> dict[str, VirtualPool]:
        """Return the pools of the networks that are concerned, one in a turn of the event loop."""
        wanted = {n.target for i in self._unsettled if (s := snap.get(Service, i)) for n in s.spec.task.networks}
        wanted |= {p.network_id for p in self._taken.values()}
        networks = [n for i in wanted if (n := snap.get(Network, i)) and not n.removing]
        if not networks:
            return {}
        owners: defaultdict[str, list[Service]] = defaultdict(list)
        for service in snap.all(Service):
            for address in service.virtual_addresses:
                owners[address.network_id].append(service)
        pools: dict[str, VirtualPool] = {}
        for network in networks:
            i = network.meta.id
            with self._sparing.working():
                slices, users = snap.slices_of_network(i), snap.tasks_on_network(i)
                pools[i] = VirtualPool.build(network, slices, owners[i], users, self._last_given.get(i, 0))
            await asyncio.sleep(0)
        return pools

    def _addresses(self, snap: Snapshot, plans: Iterable[Readdressed]) -> list[list[Op]]:
        now = self._ambient.wall()
        groups: list[list[Op]] = []
        for plan in plans:
            service = plan.service
            if service == snap.get(Service, service.meta.id):
                continue
            networks = [n for i in plan.networks if (n := snap.get(Network, i))]
            changed = replace(service, meta=replace(service.meta, updated_at=now))
            groups.append([update(changed), *map(check, networks)])
        return groups


def _held(obj: object) -> object:
    return obj.virtual_addresses if isinstance(obj, Service) else ()
