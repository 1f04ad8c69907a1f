"""The network reaper: deletes networks that are being removed, and gives slices of removed nodes back.

A slice or a network goes only when no task holds an address of it: until its agent confirmed that nothing of it
is left (its record may stay, as history), or the operator removed the node. A network that a service joined at the very
moment when its removal began stays until that service leaves. Slices of virtual addresses are the business of
loops/virtual_addresses.py; those of static ones go when nobody asks for an address of them.

Which networks and slices that concerns is kept by change: of a cluster in which nothing is removed nothing is read.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

from argosy.controller.changes.static_addresses import claims
from argosy.controller.logic.static_addresses import claims_of, settled
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.sparing import Sparing
from argosy.controller.store import Cache, Change, Fence, Op, Snapshot, Store, delete, update
from argosy.core.addresses import Subnet
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError, RejectedError
from argosy.core.kinds import StoredObject
from argosy.core.network import Network, Slice, SliceUse, StaticAddress
from argosy.core.node import Node
from argosy.core.service import Service
from argosy.core.task import Task

SHARE = 0.1
"""Of a processor that looking takes, at most."""
SLICES_A_TURN = 2000
"""Slices that are taken in before heartbeats and the like get a turn of the event loop."""


class NetworksLoop:
    """One for a term of leadership."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient
        self._sparing = Sparing(ambient.processor, SHARE)
        self._suspects = Suspects()

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, Wake(self._ambient.monotonic)):
            if batch is None:
                continue
            if batch.resync:
                self._suspects = Suspects()
                for _ in self._suspects.fill(batch.snapshot):
                    await asyncio.sleep(0)
            relevant = batch.resync or self._suspects.follow(batch.changes, batch.snapshot)
            if relevant and self._suspects:
                await self._reap()
                await self._sparing.rest()

    async def _reap(self) -> None:
        groups: list[list[Op]] = []
        steps = unneeded(self._cache.snapshot, self._suspects)
        while True:
            with self._sparing.working():
                some = next(steps, None)
            if some is None:
                break
            groups += some
            await asyncio.sleep(0)
        if groups:
            for outcome in await self._store.commit_batched(groups, self._fence):
                if outcome.error is not None and not isinstance(outcome.error, ConflictError):
                    raise outcome.error
            await self._cache.wait_for(await self._store.revision())


class Suspects:
    """What may have to go: kept by change, so that it is known without a look at everything."""

    def __init__(self) -> None:
        self.removing: set[str] = set()
        """Networks."""
        self.lost: set[str] = set()
        """Slices that are leased to nodes which are gone."""
        self.static: set[str] = set()
        """Slices of static addresses."""
        self.asking: set[str] = set()
        """Services that ask for such."""

    def __bool__(self) -> bool:
        return bool(self.removing or self.lost or self.static or self.asking)

    def fill(self, snap: Snapshot) -> Iterator[None]:
        """Take everything in; yields now and then, so that others get a turn."""
        for network in snap.all(Network):
            self._look_at(network, snap)
        for service in snap.all(Service):
            self._look_at(service, snap)
        yield
        for number, piece in enumerate(snap.all(Slice), 1):
            self._look_at(piece, snap)
            if number % SLICES_A_TURN == 0:
                yield

    def follow(self, changes: Iterable[Change], snap: Snapshot) -> bool:
        """Follow changes; return whether something may be due by them. `snap` has them, and maybe later ones."""
        relevant = False
        for change in changes:
            some = change.new or change.old
            if isinstance(some, Network | Slice | Service):
                if change.new is not None:
                    self._look_at(some, snap)
                else:
                    for known in (self.removing, self.lost, self.static, self.asking):
                        known.discard(some.meta.id)
            elif isinstance(some, Node) and None in (change.old, change.new):
                for piece in snap.slices_on_node(some.meta.id):
                    self._look_at(piece, snap)
            elif not (isinstance(some, Task) and (change.new is None or some.status.released)):
                continue
            relevant = True
        return relevant

    def _look_at(self, obj: StoredObject, snap: Snapshot) -> None:
        match obj:
            case Network():
                _note(self.removing, obj.meta.id, belongs=obj.removing)
            case Service():
                _note(self.asking, obj.meta.id, belongs=any(n.address for n in obj.spec.task.networks))
            case Slice():
                lost = obj.use is SliceUse.TASKS and snap.get(Node, obj.node_id) is None
                _note(self.lost, obj.meta.id, belongs=lost)
                _note(self.static, obj.meta.id, belongs=obj.use is SliceUse.STATIC)
            case _:
                pass


def _note(known: set[str], id: str, *, belongs: bool) -> None:
    (known.add if belongs else known.discard)(id)


def unneeded(snap: Snapshot, suspects: Suspects) -> Iterator[list[list[Op]]]:
    """Yield the deletions that are due, a network at a time; then what is to become of claims of static addresses."""
    lost: dict[str, list[Slice]] = defaultdict(list)
    for slice_id in sorted(suspects.lost):
        if piece := snap.get(Slice, slice_id):
            lost[piece.network_id].append(piece)
    joined = {n.target for s in snap.all(Service) if not s.removing for n in s.spec.task.networks}
    found = False
    for network_id in sorted(suspects.removing | lost.keys()):
        network = snap.get(Network, network_id)
        held = _held(network, snap) if network is not None else frozenset()
        groups: list[list[Op]]
        if network is not None and network.removing and not held and network_id not in joined:
            groups = [[delete(s)] for s in snap.slices_of_network(network_id)]
            groups.append([delete(network)])
        else:
            groups = [[delete(s)] for s in lost[network_id] if s.index not in held]
        found |= bool(groups)
        yield groups
    if not found:
        yield _settled_claims(snap, suspects)


def _held(network: Network, snap: Snapshot) -> frozenset[int]:
    """Return the slices that tasks have addresses of: not those of which nothing is left but a record."""
    subnet, network_id = Subnet.parse(network.subnet), network.meta.id
    holders = (task for task in snap.tasks_on_network(network_id) if not task.status.released)
    attachments = (a for task in holders for a in task.attachments)
    return frozenset(subnet.slice_of(a.address) for a in attachments if a.network_id == network_id)


def _settled_claims(snap: Snapshot, suspects: Suspects) -> list[list[Op]]:
    """Return the changes of static slices.

    Claims of services that no longer ask for the address go. Claims that are missing, since a service went back to an
    earlier revision by itself, are made again; where somebody else has the address by now, the task says so.
    """
    asking: dict[str, dict[StaticAddress, Service]] = defaultdict(dict)
    for service_id in sorted(suspects.asking):
        if service := snap.get(Service, service_id):
            for claim in claims_of(service.meta.id, service.spec):
                asking[claim.network_id][StaticAddress(claim.address, claim.service_id)] = service
    pieces = [piece for slice_id in sorted(suspects.static) if (piece := snap.get(Slice, slice_id))]
    groups: list[list[Op]] = []
    for piece in pieces:
        network = snap.get(Network, piece.network_id)
        if network is None:
            continue
        users = (task for task in snap.tasks_on_network(piece.network_id) if not task.status.released)
        held = (a.address for t in users for a in t.attachments if a.network_id == piece.network_id)
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
