"""A term of leadership as the agents see it: their sessions, and what serves them.

Reads the cache's changes and marks the sessions that they concern. A change of a task concerns its node; a change of a
network its feed, and by it the nodes that carry the network.
"""

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from argosy.controller.changes.commit import Changes
from argosy.controller.changes.files import content_of
from argosy.controller.logic.assign import NodeSet, assignments_for, network_pieces, told, told_of_spec
from argosy.controller.secrets.keyring import Keyring
from argosy.controller.session.arrivals import Arrivals
from argosy.controller.session.drains import Drains, is_draining
from argosy.controller.session.endpoints import EndpointIndex, Told
from argosy.controller.session.feeds import Feeds
from argosy.controller.session.heard import HeardNodes
from argosy.controller.session.node_session import Haste, NodeSession
from argosy.controller.session.objects import SnapshotObjects
from argosy.controller.session.status_writer import StatusWriter
from argosy.controller.session.turns import SLICE_S, Turns
from argosy.controller.sparing import Sparing, in_turns
from argosy.controller.store import Cache, Change, ChangeBatch, Leadership, Snapshot, Store
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.assignment import ConfigAssignment, EndpointAssignment, LeaderEpoch, Piece, SecretAssignment
from argosy.core.errors import NoLeaderError, PreconditionError
from argosy.core.fence import Grants
from argosy.core.files import FileVersion
from argosy.core.image import Image
from argosy.core.kinds import StoredObject
from argosy.core.mesh import Mesh
from argosy.core.meta import Cluster
from argosy.core.network import Network, Slice, SliceUse
from argosy.core.node import Node, NodeDescription, NodeState
from argosy.core.service import Service
from argosy.core.task import Task

TERM_OVER = "this controller does not lead any more"
RENEWING_SHARE = 0.25
"""Of the time in which networks are looked at as a whole, at most."""
MARKING_SHARE = 0.25
"""Of the time in which sessions are marked that changes concern, at most."""

_EXPECTED = frozenset({NodeState.UNKNOWN, NodeState.READY})


class Term:
    """Ends by cancelling `run`."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        leadership: Leadership,
        heard: HeardNodes,
        ambient: Ambient = SYSTEM,
        keys: Keyring | None = None,
    ) -> None:
        self.leadership = leadership
        self.heard = heard
        self.grants = Grants(ambient.boot, lambda: leadership.confirmed_at)
        self.sessions: dict[str, NodeSession] = {}
        self.writer = StatusWriter(store, cache, leadership.fence, ambient)
        self.changes = Changes(store, cache)
        self._cache = cache
        self._ambient = ambient
        self._keys = keys or Keyring()
        self._index = EndpointIndex()
        self._drains = Drains(self)
        self.arrivals = Arrivals(self._sent_to_by_all, ambient.monotonic, ambient.processor)
        self._feeds = Feeds(lambda network_id: network_pieces(network_id, self._objects()))
        self._turns: Turns[NodeSession] = Turns(self.give_turn)
        self._stale = asyncio.Event()
        self._known = asyncio.Event()
        self._ended = False

    def open(self, node_id: str) -> NodeSession:
        """Begin a session; it ends an older one of the node. NoLeaderError when the term is over."""
        if self._ended:
            raise NoLeaderError(TERM_OVER)
        if older := self.sessions.get(node_id):
            older.close("a newer session of this node has begun")
            self.closed(older)
        session = NodeSession(node_id, self._ambient.new_id(), self, self._feeds, self._turns)
        self.sessions[node_id] = session
        session.mark_dirty()
        return session

    def closed(self, session: NodeSession) -> None:
        """Forget a session, unless a newer one has taken its place."""
        if self.sessions.get(session.node_id) is session:
            del self.sessions[session.node_id]
            session.close("the stream has ended")
            self._turns.forget(session)
            self._feeds.carry(session.node_id, session.carried, ())
            self.arrivals.heard()

    async def run(self) -> None:
        """Serve sessions until cancelled; then all of them are closed, and no more are opened."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.writer.run())
                group.create_task(self.changes.run())
                group.create_task(self._follow())
                group.create_task(self._renew())
                group.create_task(self._serve())
                group.create_task(self.arrivals.run())
        finally:
            self._ended = True
            for session in self.sessions.values():
                session.close(TERM_OVER)

    # ---- following the cache

    async def _follow(self) -> None:
        marking = Sparing(self._ambient.processor, MARKING_SHARE)
        with self._cache.subscribe(coalesce=True) as changes:
            await self._rebuild(self._cache.snapshot)
            self._known.set()
            async for batch in changes:
                if batch.resync:
                    await self._rebuild(batch.snapshot)
                else:
                    for some in in_turns(batch.changes):
                        with marking.working():
                            self._mark(replace(batch, changes=tuple(some)))
                        await self._drain(some)
                        await asyncio.sleep(0)
                    await marking.rest()

    async def _serve(self) -> None:
        await self._known.wait()  # nobody is told anything before all endpoints are known
        await self._turns.run()

    async def _rebuild(self, snap: Snapshot) -> None:
        index = EndpointIndex()
        for _ in index.fill(snap):
            await asyncio.sleep(0)
        self._index = index
        draining: list[Task] = []
        for some in in_turns(snap.all(Task)):
            draining += filter(is_draining, some)
            await asyncio.sleep(0)
        self._drains.rebuild(draining)
        self._feeds.mark_all_stale()
        self._stale.set()
        for session in self.sessions.values():
            session.mark_dirty()

    def _mark(self, batch: ChangeBatch) -> None:
        nodes: dict[str, None] = {}
        later: dict[str, None] = {}
        for change in batch.changes:
            known = later if _is_over(change) else nodes
            known.update(dict.fromkeys(self._concerned(change, batch.snapshot)))
            self._look_again(_networks_of(change, batch.snapshot))
        nodes.update(dict.fromkeys(self._mark_networks(batch)))
        for concerned, haste in ((nodes, Haste.NOW), (later, Haste.SOMETIME)):
            for node_id in concerned:
                if session := self.sessions.get(node_id):
                    session.mark_dirty(haste=haste)

    async def _drain(self, changes: Iterable[Change]) -> None:
        """Follow the tasks that stop, in turns: each has as many nodes to wait for as carry its networks."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SLICE_S
        for change in changes:
            match change.old, change.new:
                case (Task() as old, Task() | None as new) | (None as old, Task() as new):
                    self._drains.follow(old, new)
                    if new is not None and self._drains.over(new.meta.id) and (s := self.sessions.get(new.node_id)):
                        s.mark_dirty()  # its node may have been told of the task since it was marked
                case (Node() as node, None) | (_, Node() as node) if change.new is None or self._is_silent(node):
                    self.heard_of(node.meta.id)
                    self.arrivals.heard()
                case _:
                    pass
            if loop.time() >= until:
                await asyncio.sleep(0)
                until = loop.time() + SLICE_S

    def _mark_networks(self, batch: ChangeBatch) -> Iterable[str]:
        """Tell of endpoints, names and published ports; return the nodes whose own pieces these concern."""
        before = set(self._index.ingress_networks)
        news = list(self._index.apply(batch.changes, batch.snapshot))
        ingress = set(self._index.ingress_networks)
        self._look_again(before ^ ingress)
        for change in batch.changes:
            self._look_again(_told_of_node(change, ingress, batch.snapshot))
        hastes: dict[str, Haste] = {}
        for one in news:
            haste = self._haste_of(one)
            if self._feeds.put(one.network_id, one.key, one.piece):
                hastes[one.network_id] = min(haste, hastes.get(one.network_id, haste))
        for network_id, haste in hastes.items():
            self._told_of((network_id,), haste)
        return self.sessions if before != ingress else ()

    def _look_again(self, networks: Iterable[str]) -> None:
        for network_id in networks:
            self._feeds.mark_stale(network_id)
            self._stale.set()

    def _concerned(self, change: Change, snap: Snapshot) -> Iterable[str]:
        """Return the nodes whose own pieces may differ now."""
        old, new = change.old, change.new
        match new or old:
            case Task():
                before, after = (one if isinstance(one, Task) else None for one in (old, new))
                if told(before) != told(after):
                    return [task.node_id for task in (before, after) if task is not None]
            case Image():  # that tasks may wait for
                return self.sessions
            case Service() as service if _told(old) != _told(new):
                return [task.node_id for task in snap.tasks_of_service(service.meta.id)]
            case Cluster() if _mesh(old) != _mesh(new):
                return [n for n, session in self.sessions.items() if "mesh" in session.sent.pieces]
            case _:
                pass
        return ()

    async def _renew(self) -> None:
        """Look at the networks that may differ in more than an endpoint, a few at a time."""
        loop = asyncio.get_running_loop()
        renewing = Sparing(self._ambient.processor, RENEWING_SHARE)
        while True:
            await self._stale.wait()
            self._stale.clear()
            with renewing.working():
                until = loop.time() + SLICE_S
                while (network_id := self._feeds.renew_one()) is not None:
                    if network_id:
                        self._told_of((network_id,))
                    if loop.time() >= until:
                        self._stale.set()
                        break
            await renewing.rest()

    def _haste_of(self, news: Told) -> Haste:
        """Return how soon the nodes are to be told of a piece of a network.

        Who is to leave the balancers is told of at once: a task waits for that with its end. That one is gone matters,
        too: who tries again to connect to it is led elsewhere from then on.
        """
        leaves = isinstance(news.piece, EndpointAssignment) and news.piece.withdrawn
        return Haste.NOW if leaves else Haste.SOON

    def _told_of(self, networks: Iterable[str], haste: Haste = Haste.SOON) -> None:
        """Let the nodes be told what is new of these networks."""
        for network_id in networks:
            for node_id in self._feeds.carriers.get(network_id, ()):
                if session := self.sessions.get(node_id):
                    session.mark_dirty(own=False, haste=haste)

    # ---- what nodes have in force

    def acknowledged(self, session: NodeSession, version: int) -> None:
        """Note that a version of a session's assignments is in force on its node."""
        session.acknowledge(version)
        if self.sessions.get(session.node_id) is session:
            self.heard_of(session.node_id)
            self.arrivals.heard()

    def heard_of(self, node_id: str) -> None:
        """Tell the nodes whose tasks waited for no other than this one that they are drained, if it lets them."""
        for waiting in self._drains.heard(node_id):
            if session := self.sessions.get(waiting):
                session.mark_dirty()

    def carriers(self, task: Task) -> Iterable[str]:
        """Return the nodes that may carry a network of a task."""
        snap = self._cache.snapshot
        if any(a.network_id in self._index.ingress_networks for a in task.attachments):
            return {node.meta.id for node in snap.all(Node)}
        networks = [a.network_id for a in task.attachments]
        statics = {t.node_id for i in networks for t in snap.static_holders(i)}
        return {s.node_id for i in networks for s in snap.slices_of_network(i) if s.use is SliceUse.TASKS} | statics

    def may_send_to(self, node_id: str, task: Task) -> bool:
        """Whether a node may still open connections to a task, as far as its session tells.

        One without a session is waited for as long as it is not known to be lost: it is about to open one. One that is
        DOWN has none that is worth anything: its stream breaks only a minute after its link.
        """
        if self._is_down(node_id):
            return False
        session = self.sessions.get(node_id)
        if session is None:
            node = self._cache.snapshot.get(Node, node_id)
            return node is not None and node.status.state in _EXPECTED
        return any(
            session.may_send_to(a.network_id, f"endpoint/{a.network_id}/{task.meta.id}") for a in task.attachments
        )

    def _sent_to_by_all(self, network_id: str, endpoint: str) -> bool:
        """Whether all nodes with sessions that carry a network, and are not DOWN, send to the endpoint of a key."""
        carriers = self._feeds.carriers.get(network_id)
        if not carriers:
            return True
        came = self._feeds.came(network_id, endpoint)
        if came is None:
            return False
        there = (n for n in carriers if n in self.sessions)
        return all(self.sessions[n].has_in_force(network_id, came) or self._is_down(n) for n in there)

    def _is_silent(self, node: Node) -> bool:
        """Whether nothing is to be heard from a node's agent by now."""
        return node.meta.id not in self.sessions or node.status.state is NodeState.DOWN

    def _is_down(self, node_id: str) -> bool:
        node = self._cache.snapshot.get(Node, node_id)
        return node is not None and node.status.state is NodeState.DOWN

    # ---- what sessions ask

    def give_turn(self, session: NodeSession) -> None:
        """Have a session tell its node what differs; LostLeadershipError when this controller must not command."""
        self.leadership.check()
        session.take_turn()

    def wanted(self, node_id: str) -> NodeSet:
        """Return what is to be told to a node alone, and which networks it carries."""
        return assignments_for(node_id, self._objects())

    def filled(self, piece: Piece) -> Piece:
        """Return a piece as it is sent. This is the only place where secrets are opened for nodes."""
        if not isinstance(piece, ConfigAssignment | SecretAssignment):
            return piece
        version = self._cache.snapshot.get(FileVersion, piece.id)
        if version is None:
            return replace(piece, problem="what it held is not there any more")
        try:
            return replace(piece, data=content_of(version, self._keys))
        except PreconditionError as e:
            return replace(piece, problem=str(e))

    def leader_epoch(self) -> LeaderEpoch:
        """Return the fencing token of a message sent now."""
        return LeaderEpoch(self.leadership.epoch, self._cache.snapshot.revision)

    def _objects(self) -> SnapshotObjects:
        return SnapshotObjects(self._cache.snapshot, self._index, self._drains)


def _networks_of(change: Change, snap: Snapshot) -> Iterator[str]:
    """Yield the networks on which a change may concern more than an endpoint or a name."""
    for obj in (change.old, change.new):
        match obj:
            case Task():
                yield from (a.network_id for a in obj.attachments if a.fixed)
            case Slice():
                yield obj.network_id
            case Network():
                yield obj.meta.id
            case Node():
                leases = (s.network_id for s in snap.slices_on_node(obj.meta.id))
                fixed = (a.network_id for t in snap.tasks_on_node(obj.meta.id) for a in t.attachments if a.fixed)
                yield from _told_of_node(change, itertools.chain(leases, fixed), snap)
            case _:
                pass


def _told_of_node(change: Change, networks: Iterable[str], snap: Snapshot) -> Iterable[str]:
    """Return those of a node's networks whose other nodes are told something else of it now.

    Of a node that comes, goes, or has other addresses or keys these are all of them; whether it is DOWN concerns those
    that have tunnels to it.
    """
    if not isinstance(change.new or change.old, Node) or _seen(change.old) == _seen(change.new):
        return ()
    if _description(change.old) != _description(change.new):
        return networks
    return [i for i in networks if (network := snap.get(Network, i)) and network.spec.encrypted]


def _is_over(change: Change) -> bool:
    """Whether a change is of a task that holds nothing on its node any more: the node only has to forget it."""
    task = change.new or change.old
    return isinstance(task, Task) and (change.new is None or task.status.released)


def _description(obj: StoredObject | None) -> NodeDescription | None:
    return obj.description if isinstance(obj, Node) else None


def _seen(obj: StoredObject | None) -> tuple[NodeDescription, bool] | None:
    """Return what others are told of a node."""
    return (obj.description, obj.status.state is NodeState.DOWN) if isinstance(obj, Node) else None


def _mesh(obj: StoredObject | None) -> Mesh | None:
    return obj.mesh if isinstance(obj, Cluster) else None


def _told(obj: StoredObject | None) -> tuple[object, ...] | None:
    """Return what of a service's present spec its tasks' nodes are told."""
    return told_of_spec(obj.spec) if isinstance(obj, Service) else None
