"""The image reaper: forgets nameless images that no revision runs any more. Content follows: see `collect`."""

import asyncio
import contextlib

import structlog

from argosy.controller.changes.images import unneeded
from argosy.controller.content.blobs import BlobStore
from argosy.controller.content.manifest import referenced_blobs
from argosy.controller.store import Cache, Fence, Store
from argosy.core.errors import ConflictError, TransientError
from argosy.core.image import Image

log = structlog.get_logger(__name__)

PERIOD_S = 300.0


class ImagesLoop:
    """One for a term of leadership: looks every few minutes, since nothing waits for it."""

    def __init__(self, store: Store, cache: Cache, fence: Fence) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            gone = unneeded(self._cache.snapshot)
            for outcome in await self._store.commit_batched(gone, self._fence) if gone else ():
                if outcome.error is not None and not isinstance(outcome.error, ConflictError):
                    raise outcome.error


async def collect(cache: Cache, blobs: BlobStore) -> None:
    """On every controller: delete content that no image refers to, every few minutes; never returns.

    Fresh content is spared (`BlobStore.gc`): an import uploads before it names.
    """
    while True:
        await asyncio.sleep(PERIOD_S)
        with contextlib.suppress(TransientError):
            gone = await blobs.gc({digest for image in cache.snapshot.all(Image) for digest in referenced_blobs(image)})
            if gone:
                log.info("content deleted", blobs=len(gone))
