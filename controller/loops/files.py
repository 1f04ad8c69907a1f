"""Configs and secrets: moves services to new versions, and forgets versions that nothing needs.

The one mechanism by which `argosy config create` and `secret create` roll services: the decision
(`changes.files.followed`) reads what is stored, so that a leader that dies in the middle is finished by the next. A
deploy moves the services of its own stack in its own write; they are as wanted then, and nothing is done here.
"""

import structlog

from argosy.controller.changes import files, services
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.store import Cache, Fence, Op, Snapshot, Store
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.files import Config, FileVersion, Secret
from argosy.core.service import Revision, Service

log = structlog.get_logger(__name__)

_KINDS = (Config, Secret, FileVersion)
RETRY_S = 0.1


class FilesLoop:
    """One for a term of leadership."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._ambient = ambient

    async def run(self) -> None:
        """Run until cancelled."""
        wake = Wake(self._ambient.monotonic)
        async for batch in batches(self._cache, wake):
            changed = batch is None or batch.resync or any(c.kind in _KINDS for c in batch.changes)
            if changed and not await self._commit(self._moves(self._cache.snapshot)):
                wake.at(self._ambient.monotonic() + RETRY_S)  # a service was changed meanwhile: look again
            if changed or (batch and any(c.kind in (Revision, Service) and c.new is None for c in batch.changes)):
                await self._commit(files.unneeded(self._cache.snapshot))

    def _moves(self, snap: Snapshot) -> list[list[Op]]:
        groups = []
        for service in snap.all(Service):
            spec = files.followed(snap, service) if service.spec.task.container.files else None
            if spec is not None:
                ops, _ = services.updated(snap, service, spec, self._ambient.wall())
                groups.append(ops)
                log.info("service follows a new version of its files", service=service.spec.name)
        return groups

    async def _commit(self, groups: list[list[Op]]) -> bool:
        """Write groups, each on its own; False when one conflicted with somebody else's change."""
        if not groups:
            return True
        calm = True
        for outcome in await self._store.commit_batched(groups, self._fence):
            if isinstance(outcome.error, ConflictError):
                calm = False
            elif outcome.error is not None:
                raise outcome.error
        await self._cache.wait_for(await self._store.revision())
        return calm
