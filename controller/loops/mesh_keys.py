"""The loop that has the nodes change the keys of their tunnels: the leader's."""

from dataclasses import replace

import structlog

from argosy.controller.changes.mesh import carriers
from argosy.controller.changes.networks import CLUSTER_ID
from argosy.controller.logic.mesh_keys import advanced, is_behind, look_again_at
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.store import Cache, Fence, Put, Snapshot, Store
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.mesh import Mesh
from argosy.core.meta import Cluster
from argosy.core.node import Node

log = structlog.get_logger(__name__)

LONGEST_SLEEP_S = 3600.0
"""The wall clock may be set meanwhile."""


class MeshKeysLoop:
    """One for a term of leadership."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient
        self._wake = Wake(ambient.monotonic)
        self._epoch = 0
        self._moved: dict[str, int] = {}
        """The nodes that are over the epoch before, by the version at which they were found to be."""

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, self._wake):
            if batch is None or batch.resync or any(c.kind in (Node, Cluster) for c in batch.changes):
                await self._look(self._cache.snapshot)

    async def _look(self, snap: Snapshot) -> None:
        cluster, now = snap.get(Cluster, CLUSTER_ID), self._ambient.wall()
        if cluster is None or not cluster.mesh.epoch:
            return
        if now < look_again_at(cluster.mesh):
            self._sleep(cluster, now)
            return
        mesh = advanced(cluster.mesh, self._waited_for(cluster.mesh, snap), now)
        if mesh == cluster.mesh:
            return
        log.info("the tunnels' keys", epoch=mesh.epoch, settled=mesh.settled)
        changed = replace(cluster, mesh=mesh, meta=replace(cluster.meta, updated_at=now))
        for outcome in await self._store.commit_batched([[Put(changed, expect=cluster.meta.version)]], self._fence):
            if outcome.error is not None and not isinstance(outcome.error, ConflictError):
                raise outcome.error
        await self._cache.wait_for(await self._store.revision())
        self._sleep(changed, now)

    def _waited_for(self, mesh: Mesh, snap: Snapshot) -> list[Node]:
        """Return the nodes whose keys count; while they change, only those that are behind.

        Each node tells of as many tunnels as there are nodes: so who has not changed since is not looked at again.
        """
        there = carriers(snap)
        if mesh.settled:
            return there
        if mesh.epoch != self._epoch:
            self._epoch, self._moved = mesh.epoch, {}
        behind: list[Node] = []
        for node in there:
            if self._moved.get(node.meta.id) != node.meta.version:
                if is_behind(mesh, node):
                    behind.append(node)
                else:
                    self._moved[node.meta.id] = node.meta.version
        return behind

    def _sleep(self, cluster: Cluster, now: float) -> None:
        """Look again when time alone may have changed something; until then changes alone are looked at."""
        wait_s = min(max(look_again_at(cluster.mesh) - now, 0.1), LONGEST_SLEEP_S)
        self._wake.at(self._ambient.monotonic() + wait_s)
