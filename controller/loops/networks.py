"""The network reaper: deletes networks that are being removed, and gives slices of removed nodes back.

A slice or a network goes only when no task record holds an address of it: a record stays until its agent confirmed that
nothing of the task is left, or the operator removed the node. A network that a service joined at the very moment when
its removal began stays until that service leaves. Slices of virtual addresses are the business of
loops/virtual_addresses.py; those of static ones go when nobody asks for an address of them.
"""

import contextlib
from collections import defaultdict

from argosy.controller.changes.static_addresses import claims
from argosy.controller.logic.static_addresses import claims_of, settled
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.sparing import Sparing
from argosy.controller.store import Cache, Fence, Op, Snapshot, Store, delete, update
from argosy.core.addresses import Subnet
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError, RejectedError
from argosy.core.network import Network, Slice, SliceUse, StaticAddress
from argosy.core.node import Node
from argosy.core.service import Service
from argosy.core.task import Task

SHARE = 0.1
"""Of the time that looking takes, at most: while many tasks come up, slices are leased all the time."""
_RELEVANT = frozenset({Network, Node, Service, Slice})


class NetworksLoop:
    """One for a term of leadership."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient
        self._sparing = Sparing(ambient.monotonic, SHARE)

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, Wake(self._ambient.monotonic)):
            relevant = batch is not None and (
                batch.resync or any(c.kind in _RELEVANT or (c.kind is Task and c.new is None) for c in batch.changes)
            )
            if relevant:
                await self._reap()
                await self._sparing.rest()

    async def _reap(self) -> None:
        with self._sparing.working():
            groups = unneeded(self._cache.snapshot)
        if groups:
            for outcome in await self._store.commit_batched(groups, self._fence):
                if outcome.error is not None and not isinstance(outcome.error, ConflictError):
                    raise outcome.error
            await self._cache.wait_for(await self._store.revision())


def unneeded(snap: Snapshot) -> list[list[Op]]:
    """Return the deletions that are due, and what is to become of claims of static addresses."""
    removing = [n for n in snap.all(Network) if n.removing]
    leased = [s for s in snap.all(Slice) if s.use is SliceUse.TASKS]
    lost = [s for s in leased if snap.get(Node, s.node_id) is None]
    claimed = _settled_claims(snap)
    if not removing and not lost:
        return claimed
    held: dict[str, set[int]] = defaultdict(set)
    subnets = {n.meta.id: Subnet.parse(n.subnet) for n in snap.all(Network)}
    for task in snap.all(Task):
        for attachment in task.attachments:
            if attachment.network_id in subnets:
                held[attachment.network_id].add(subnets[attachment.network_id].slice_of(attachment.address))
    joined = {n.target for s in snap.all(Service) if not s.removing for n in s.spec.task.networks}
    groups: list[list[Op]] = []
    gone = set()
    for network in removing:
        if not held[network.meta.id] and network.meta.id not in joined:
            gone.add(network.meta.id)
            groups += [[delete(s)] for s in snap.slices_of_network(network.meta.id)]
            groups.append([delete(network)])
    groups += [[delete(s)] for s in lost if s.network_id not in gone and s.index not in held[s.network_id]]
    return groups or claimed


def _settled_claims(snap: Snapshot) -> list[list[Op]]:
    """Return the changes of static slices.

    Claims of services that no longer ask for the address go. Claims that are missing, since a service went back to an
    earlier revision by itself, are made again; where somebody else has the address by now, the task says so.
    """
    asking: dict[str, dict[StaticAddress, Service]] = defaultdict(dict)
    for service in snap.all(Service):
        if any(n.address for n in service.spec.task.networks):
            for claim in claims_of(service.meta.id, service.spec):
                asking[claim.network_id][StaticAddress(claim.address, claim.service_id)] = service
    pieces = [s for s in snap.all(Slice) if s.use is SliceUse.STATIC]
    groups: list[list[Op]] = []
    for piece in pieces:
        network = snap.get(Network, piece.network_id)
        if network is None:
            continue
        held = (a.address for t in snap.all(Task) for a in t.attachments if a.network_id == piece.network_id)
        left = settled(piece, Subnet.parse(network.subnet), asking[piece.network_id].keys(), held)
        if left != piece:
            groups.append([delete(piece) if left is None else update(left)])
    claimed = {(piece.network_id, holder) for piece in pieces for holder in piece.holders}
    for network_id, wanted in asking.items():
        for holder, service in wanted.items():
            if (network_id, holder) not in claimed and not service.removing:
                with contextlib.suppress(RejectedError):
                    groups.append(claims(snap, [(service.meta.id, service.spec)], {}, service.meta.updated_at))
    return groups
