"""The network reaper: deletes networks that are being removed, and gives slices of removed nodes back.

A slice or a network goes only when no task record holds an address of it: a record stays until its agent confirmed that
nothing of the task is left, or the operator removed the node. A network that a service joined at the very moment when
its removal began stays until that service leaves. Slices of virtual addresses
are the business of loops/virtual_addresses.py.
"""

from collections import defaultdict

from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.store import Cache, Fence, Op, Snapshot, Store, delete
from argosy.core.addresses import Subnet
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.network import Network, Slice, SliceUse
from argosy.core.node import Node
from argosy.core.service import Service
from argosy.core.task import Task


class NetworksLoop:
    """One for a term of leadership."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, Wake(self._ambient.monotonic)):
            relevant = batch is not None and (
                batch.resync
                or any(c.kind in (Network, Node, Service) or (c.kind is Task and c.new is None) for c in batch.changes)
            )
            if relevant:
                await self._reap()

    async def _reap(self) -> None:
        groups = unneeded(self._cache.snapshot)
        if groups:
            for outcome in await self._store.commit_batched(groups, self._fence):
                if outcome.error is not None and not isinstance(outcome.error, ConflictError):
                    raise outcome.error
            await self._cache.wait_for(await self._store.revision())


def unneeded(snap: Snapshot) -> list[list[Op]]:
    """Return the deletions that are due."""
    removing = [n for n in snap.all(Network) if n.removing]
    leased = [s for s in snap.all(Slice) if s.use is SliceUse.TASKS]
    lost = [s for s in leased if snap.get(Node, s.node_id) is None]
    if not removing and not lost:
        return []
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
    return groups
