"""A term of leadership: everything that only the leader does, started together and ended together."""

import asyncio

import structlog

from argosy.controller.loops.files import FilesLoop
from argosy.controller.loops.images import ImagesLoop
from argosy.controller.loops.mesh_keys import MeshKeysLoop
from argosy.controller.loops.networks import NetworksLoop
from argosy.controller.loops.nodes import NodesLoop
from argosy.controller.loops.published_ports import PublishedPortsLoop
from argosy.controller.loops.scheduler import SchedulerLoop
from argosy.controller.loops.services import ServicesLoop
from argosy.controller.loops.virtual_addresses import VirtualAddressesLoop
from argosy.controller.secrets.keyring import Keyring
from argosy.controller.session.dispatcher import DispatcherServicer
from argosy.controller.session.heard import BeatProtocol, HeardNodes
from argosy.controller.session.term import Term
from argosy.controller.store import Cache, EtcdClient, Leadership, Maintenance, Store
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import LostLeadershipError, TransientError, first_of
from argosy.core.node import BeatKey

log = structlog.get_logger(__name__)


class Leader:
    """Runs terms for one controller process."""

    def __init__(
        self,
        client: EtcdClient,
        store: Store,
        cache: Cache,
        dispatcher: DispatcherServicer,
        beats: BeatProtocol,
        ambient: Ambient = SYSTEM,
        keys: Keyring | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._cache = cache
        self._dispatcher = dispatcher
        self._beats = beats
        self._ambient = ambient
        self._keys = keys or Keyring()

    async def run(self, leadership: Leadership) -> None:
        """Lead until cancelled or until leadership is lost. A store that is away for a while starts the loops anew."""
        lost = False
        # A task group that fails already swallows a cancellation: whether that came is to be seen of the leadership.
        while leadership.held() and not lost:
            try:
                await self._lead(leadership)
            except* LostLeadershipError:
                lost = True
            except* TransientError as group:
                log.warning("the store is away: starting over", why=str(first_of(group)))
                await asyncio.sleep(0.2)
        log.warning("leadership lost", epoch=leadership.epoch)

    async def _lead(self, leadership: Leadership) -> None:
        # What was written before, by another or with an unknown outcome, has to be seen before anything is decided.
        await self._cache.wait_for(await self._store.revision())
        log.info("leading", epoch=leadership.epoch)
        heard = HeardNodes(self._beat_key, self._ambient)
        term = Term(self._store, self._cache, leadership, heard, self._ambient, self._keys)
        store, cache, fence, ambient = self._store, self._cache, leadership.fence, self._ambient
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(term.run(), name="sessions")
                services = ServicesLoop(store, cache, fence, term.grants, term.arrivals, ambient)
                group.create_task(services.run(), name="services")
                group.create_task(SchedulerLoop(store, cache, fence, heard, ambient).run(), name="scheduler")
                group.create_task(NodesLoop(store, cache, fence, heard, ambient).run(), name="nodes")
                group.create_task(NetworksLoop(store, cache, fence, ambient).run(), name="networks")
                group.create_task(PublishedPortsLoop(store, cache, fence, ambient).run(), name="published ports")
                group.create_task(VirtualAddressesLoop(store, cache, fence, ambient).run(), name="virtual addresses")
                group.create_task(MeshKeysLoop(store, cache, fence, ambient).run(), name="mesh keys")
                group.create_task(FilesLoop(store, cache, fence, ambient).run(), name="files")
                group.create_task(ImagesLoop(store, cache, fence).run(), name="images")
                group.create_task(Maintenance(self._client).run(), name="maintenance")
                self._dispatcher.term, self._beats.heard = term, heard
        finally:
            self._dispatcher.term, self._beats.heard = None, None

    def _beat_key(self, node_id: str) -> bytes:
        stored = self._cache.snapshot.get(BeatKey, node_id)
        return stored.key if stored is not None else b""
