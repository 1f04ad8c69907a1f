"""The loop that gives services their ports on every node: the leader's, and the only one that writes them.

One writer that sees its own writes before it goes on never gives a port twice; a replaced leader cannot write at all.
"""

from dataclasses import replace

from argosy.controller.logic.published_ports import Granted, grants
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.store import Cache, ChangeBatch, Fence, Op, Snapshot, Store, update
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.network import Network
from argosy.core.service import Service


class PublishedPortsLoop:
    """One for a term of leadership."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, Wake(self._ambient.monotonic)):
            if batch is not None and _concerns(batch):
                while await self._settle(self._cache.snapshot):
                    pass

    async def _settle(self, snap: Snapshot) -> bool:
        """Write what is due; tell whether some of it conflicted and is to be decided anew."""
        services = snap.all(Service)
        wanted = grants(services, {n.meta.id: n for n in snap.all(Network)})
        now = self._ambient.wall()
        groups: list[list[Op]] = [
            [
                update(
                    replace(
                        service, ports=due.ports, port_problems=due.problems, meta=replace(service.meta, updated_at=now)
                    )
                )
            ]
            for service in services
            if (due := wanted.get(service.meta.id)) and due != Granted(service.ports, service.port_problems)
        ]
        if not groups:
            return False
        again = False
        for outcome in await self._store.commit_batched(groups, self._fence):
            if isinstance(outcome.error, ConflictError):
                again = True
            elif outcome.error is not None:
                raise outcome.error
        await self._cache.wait_for(await self._store.revision())
        return again


def _concerns(batch: ChangeBatch) -> bool:
    """Whether a change may lead to other ports: of what services want, or have."""
    return batch.resync or any(
        _asked(c.old) != _asked(c.new) for c in batch.changes if isinstance(c.new or c.old, Service)
    )


def _asked(obj: object) -> object:
    if not isinstance(obj, Service):
        return None
    networks = tuple(n.target for n in obj.spec.task.networks)
    wanted = obj.spec.endpoint.ports, obj.spec.task.host_ports, networks, obj.removing, obj.ports, obj.port_problems
    return None if not any(wanted[:2]) and not obj.ports and not obj.port_problems else wanted
