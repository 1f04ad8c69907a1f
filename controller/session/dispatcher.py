"""The Dispatcher service: sessions of agents, for as long as this controller leads.

Owns the sessions by node. Reads the cache's changes, marks the sessions that they concern, takes heartbeats and
reports. A controller that does not lead refuses sessions and names the leader.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import grpc
import structlog

from argosy.controller.changes.commit import change
from argosy.controller.changes.files import content_of
from argosy.controller.changes.join import described, registered, tunnelled
from argosy.controller.cluster import ClusterView
from argosy.controller.logic.assign import assignments_for
from argosy.controller.secrets.keyring import Keyring
from argosy.controller.session.drains import Drains
from argosy.controller.session.endpoints import EndpointIndex
from argosy.controller.session.heard import HeardNodes
from argosy.controller.session.network_reports import NetworkReports
from argosy.controller.session.node_session import NodeSession
from argosy.controller.session.objects import SnapshotObjects
from argosy.controller.session.status_writer import Report, StatusWriter
from argosy.controller.session.tunnels import Tunnels
from argosy.controller.store import Cache, ChangeBatch, Leadership, Snapshot, Store
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.assignment import ConfigAssignment, LeaderEpoch, Piece, SecretAssignment, Succession
from argosy.core.codec import UnknownValueError, decode
from argosy.core.errors import InvalidError, NoLeaderError, PreconditionError
from argosy.core.fence import Grants
from argosy.core.files import FileVersion
from argosy.core.image import Image
from argosy.core.kinds import StoredObject
from argosy.core.mesh import Mesh, Tunnel
from argosy.core.meta import Cluster
from argosy.core.network import Network, Slice, SliceUse
from argosy.core.node import Node, NodeDescription, NodeSpec, NodeState
from argosy.core.service import Disconnect, Service
from argosy.core.task import Task, TaskStatus
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc as rpc

log = structlog.get_logger(__name__)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

LEADER_KEY = "argosy-leader"
TERM_OVER = "this controller does not lead any more"

_EXPECTED = frozenset({NodeState.UNKNOWN, NodeState.READY})


class NotLeaderError(NoLeaderError):
    """This controller does not lead; carries the address of the one that does, if it is known."""

    def __init__(self, leader: str) -> None:
        super().__init__(f"this controller does not lead{f'; {leader} does' if leader else ''}")
        self.trailing_metadata = ((LEADER_KEY, leader),) if leader else ()


class Term:
    """A term of leadership: the sessions and what serves them. Ends by cancelling `run`."""

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
        self._cache = cache
        self._ambient = ambient
        self._keys = keys or Keyring()
        self._index = EndpointIndex()
        self._drains = Drains(self)
        self._ended = False

    def open(self, node_id: str) -> NodeSession:
        """Begin a session; it ends an older one of the node. NoLeaderError when the term is over."""
        if self._ended:
            raise NoLeaderError(TERM_OVER)
        session = NodeSession(
            node_id, self._ambient.new_id(), lambda: self.compute(node_id), self.leader_epoch, self._filled
        )
        if older := self.sessions.get(node_id):
            older.close("a newer session of this node has begun")
        self.sessions[node_id] = session
        return session

    async def run(self) -> None:
        """Serve sessions until cancelled; then all of them are closed, and no more are opened."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.writer.run())
                group.create_task(self._follow())
        finally:
            self._ended = True
            for session in self.sessions.values():
                session.close(TERM_OVER)

    async def _follow(self) -> None:
        with self._cache.subscribe(coalesce=True) as changes:
            self._rebuild(self._cache.snapshot)
            async for batch in changes:
                if batch.resync:
                    self._rebuild(batch.snapshot)
                else:
                    self._mark(batch)

    def _rebuild(self, snap: Snapshot) -> None:
        self._index.rebuild(snap)
        self._drains.rebuild(snap.all(Task))
        for session in self.sessions.values():
            session.mark_dirty()

    def _mark(self, batch: ChangeBatch) -> None:
        networks = self._index.apply(batch.changes, batch.snapshot)
        nodes: set[str] = set()
        for one in batch.changes:
            for obj in (one.old, one.new):
                match obj:
                    case Task():
                        nodes.add(obj.node_id)
                    case Slice():
                        networks.add(obj.network_id)
                    case Network():
                        networks.add(obj.meta.id)
                    case Image():  # that tasks may wait for
                        nodes.update(self.sessions)
                    case Service() if _told(one.old) != _told(one.new):
                        nodes.update(t.node_id for t in batch.snapshot.tasks_of_service(obj.meta.id))
                    case Node() if _description(one.old) != _description(one.new):
                        networks.update(s.network_id for s in batch.snapshot.slices_on_node(obj.meta.id))
                    case Cluster() if _mesh(one.old) != _mesh(one.new):
                        nodes.update(n for n, session in self.sessions.items() if "mesh" in session.sent)
                    case _:
                        pass
        for session in self.sessions.values():
            if session.node_id in nodes or any(f"network/{n}" in session.sent for n in networks):
                session.mark_dirty()
        for one in batch.changes:
            match one.old, one.new:
                case (Task() as old, Task() | None as new) | (None as old, Task() as new):
                    self._drains.follow(old, new)
                case _, Node() as node if node.meta.id not in self.sessions:
                    self.heard_of(node.meta.id)
                case _:
                    pass

    def acknowledged(self, session: NodeSession, version: int) -> None:
        """Note that a version of a session's assignments is in force on its node."""
        session.acknowledge(version)
        if self.sessions.get(session.node_id) is session:
            self.heard_of(session.node_id)

    def heard_of(self, node_id: str) -> None:
        """Tell the nodes whose tasks waited for no other than this one that they are drained, if it lets them."""
        for waiting in self._drains.heard(node_id):
            if session := self.sessions.get(waiting):
                session.mark_dirty()

    def carriers(self, task: Task) -> Iterable[str]:
        """Return the nodes that may carry a network of a task."""
        snap = self._cache.snapshot
        slices = (s for a in task.attachments for s in snap.slices_of_network(a.network_id))
        return {s.node_id for s in slices if s.use is SliceUse.TASKS}

    def may_send_to(self, node_id: str, task: Task) -> bool:
        """Whether a node may still open connections to a task, as far as its session tells.

        One without a session is waited for as long as it is not known to be lost: it is about to open one.
        """
        session = self.sessions.get(node_id)
        if session is None:
            node = self._cache.snapshot.get(Node, node_id)
            return node is not None and node.status.state in _EXPECTED
        return any(session.may_send_to(f"endpoint/{a.network_id}/{task.meta.id}") for a in task.attachments)

    def compute(self, node_id: str) -> Mapping[str, Piece]:
        """Return what a node should have now."""
        self.leadership.check()
        return assignments_for(node_id, SnapshotObjects(self._cache.snapshot, self._index, self._drains))

    def _filled(self, piece: Piece) -> Piece:
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


def _description(obj: StoredObject | None) -> NodeDescription | None:
    return obj.description if isinstance(obj, Node) else None


def _mesh(obj: StoredObject | None) -> Mesh | None:
    return obj.mesh if isinstance(obj, Cluster) else None


def _told(obj: StoredObject | None) -> tuple[Mapping[str, str], Disconnect] | None:
    """Return what of a service's present spec its tasks' nodes are told."""
    return (obj.spec.labels, obj.spec.disconnect) if isinstance(obj, Service) else None


class DispatcherServicer(rpc.DispatcherServicer):
    """Handlers of the Dispatcher service. `term` is set while this controller leads."""

    def __init__(
        self, store: Store, cache: Cache, view: ClusterView, tunnels: Tunnels, ambient: Ambient = SYSTEM
    ) -> None:
        self.term: Term | None = None
        self._store = store
        self._cache = cache
        self._view = view
        self._tunnels = tunnels
        self._ambient = ambient
        self.network_reports = NetworkReports()

    def leading(self) -> Term:
        """Return the present term; NotLeaderError when this controller does not lead."""
        if self.term is None:
            raise NotLeaderError("" if self._view.leads else self._view.leader_address)
        return self.term

    async def Session(
        self, request_iterator: AsyncIterator[pb.AgentMessage], context: Context
    ) -> AsyncIterator[pb.ControllerMessage]:
        """Hold one agent's session."""
        term = self.leading()
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("body") != "hello":
            raise InvalidError("a session begins with hello")
        node = await self._register(first.hello)
        session = term.open(node.meta.id)  # not before: the term may have ended while the store was asked
        term.heard.agent(node.meta.id, first.hello.beat_key)
        log.info("session opened", node=node.spec.name, session=session.session_id)
        reader = asyncio.create_task(self._read(term, session, request_iterator))
        try:
            period_s = term.heard.period_s(self._cache.snapshot.count(Node))
            started = pb.SessionStarted(
                session_id=session.session_id, cluster_id=self._view.cluster, heartbeat_period=period_s
            )
            session.send(pb.ControllerMessage(started=started))
            async for message in session.messages():
                yield message
            if reader.done():
                reader.result()  # what it stumbled over, if it did
        finally:
            # First what needs no waiting: gRPC may cancel a handler a second time.
            if term.sessions.get(session.node_id) is session:
                del term.sessions[session.node_id]
            log.info("session closed", node=node.spec.name, session=session.session_id, why=session.closed)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        raise NoLeaderError(session.closed)

    async def _register(self, hello: pb.Hello) -> Node:
        spec = NodeSpec(name=hello.node_name, role=hello.role or "worker", labels=dict(hello.labels))
        description = decode(hello.description, NodeDescription)
        return await change(
            self._store,
            self._cache,
            lambda snap: registered(snap, hello.node_id, spec, description, self._ambient.wall()),
        )

    async def _read(self, term: Term, session: NodeSession, requests: AsyncIterator[pb.AgentMessage]) -> None:
        try:
            async for message in requests:
                term.heard.agent(session.node_id)
                self._handle(term, session, message)
                await self._note_changes(session.node_id, message)
        finally:
            session.close("the agent ended the stream")

    async def _note_changes(self, node_id: str, message: pb.AgentMessage) -> None:
        """Store what a node says of itself when that has changed."""
        match message.WhichOneof("body"):
            case "description":
                description = decode(message.description, NodeDescription)
                await change(
                    self._store, self._cache, lambda snap: described(snap, node_id, description, self._ambient.wall())
                )
            case "tunnels":
                tunnels = tuple(decode(t, Tunnel) for t in message.tunnels.tunnels)
                await change(self._store, self._cache, lambda snap: tunnelled(snap, node_id, tunnels))
            case _:
                pass

    def _handle(self, term: Term, session: NodeSession, message: pb.AgentMessage) -> None:
        match message.WhichOneof("body"):
            case "heartbeat":
                granted_s = term.grants.grant(session.node_id)
                answer = pb.HeartbeatAck(sequence=message.heartbeat.sequence, fence_for=granted_s)
                session.send(pb.ControllerMessage(heartbeat_ack=answer))
            case "report":
                sequence = message.report.sequence
                term.writer.submit(
                    Report(
                        node_id=session.node_id,
                        statuses=_statuses(session.node_id, message.report.tasks),
                        successions={
                            t.task_id: decode(t.succession, Succession)
                            for t in message.report.tasks
                            if t.HasField("succession")
                        },
                        acknowledge=lambda: session.send(
                            pb.ControllerMessage(report_ack=pb.ReportAck(sequence=sequence))
                        ),
                    )
                )
            case "ack":
                term.acknowledged(session, message.ack.version)
            case _:
                pass  # of a newer agent

    async def LogTunnel(
        self, request_iterator: AsyncIterator[pb.LogTunnelMessage], context: Context
    ) -> pb.LogTunnelResponse:
        """Take the output that an agent sends into the tunnel it was asked to open."""
        await self._tunnels.receive(request_iterator)
        return pb.LogTunnelResponse()

    async def ReportNetworks(self, request: pb.NetworkReport, context: Context) -> pb.ReportNetworksResponse:
        """Take what an agent that was asked for it found out about its networks."""
        self.network_reports.receive(request)
        return pb.ReportNetworksResponse()


def _statuses(node_id: str, reported: Iterable[pb.TaskReport]) -> dict[str, TaskStatus]:
    """Return the reported statuses by task, but for those with a state that only a newer agent knows."""
    found: dict[str, TaskStatus] = {}
    for report in reported:
        try:
            found[report.task_id] = decode(report.status, TaskStatus)
        except UnknownValueError as error:
            log.warning("a newer agent's report cannot be read", node=node_id, task=report.task_id, why=str(error))
    return found
