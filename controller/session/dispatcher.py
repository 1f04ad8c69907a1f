"""The Dispatcher service: sessions of agents, for as long as this controller leads.

Takes what agents say: hellos, heartbeats, reports, acknowledgements. What they are told is the term's business
(term.py). A controller that does not lead refuses sessions and names the leader. While nobody leads yet it has them
wait: who is refused comes again only after a delay, which is seconds for agents whose controllers were away for long.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, TypeAlias

import grpc
import structlog

from argosy.controller.changes.commit import change
from argosy.controller.changes.join import described, registered, tunnelled, with_port_problems
from argosy.controller.cluster import ClusterView
from argosy.controller.session.network_reports import NetworkReports
from argosy.controller.session.node_session import NodeSession
from argosy.controller.session.status_writer import Report
from argosy.controller.session.term import Term
from argosy.controller.session.tunnels import Tunnels
from argosy.controller.store import Cache, Store
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.assignment import Succession
from argosy.core.codec import UnknownValueError, decode
from argosy.core.errors import InvalidError, NoLeaderError
from argosy.core.mesh import Tunnel
from argosy.core.node import Node, NodeDescription, NodeSpec, PortProblem
from argosy.core.task import TaskStatus
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc as rpc

log = structlog.get_logger(__name__)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
LogTunnels: TypeAlias = Tunnels[pb.LogTunnelMessage]

LEADER_KEY = "argosy-leader"
ELECTION_S = 3.0
"""How long a session waits for a leader: less than an agent waits for the first answer."""


class NotLeaderError(NoLeaderError):
    """This controller does not lead; carries the address of the one that does, if it is known."""

    def __init__(self, leader: str) -> None:
        super().__init__(f"this controller does not lead{f'; {leader} does' if leader else ''}")
        self.trailing_metadata = ((LEADER_KEY, leader),) if leader else ()


class DispatcherServicer(rpc.DispatcherServicer):
    """Handlers of the Dispatcher service."""

    def __init__(
        self, store: Store, cache: Cache, view: ClusterView, tunnels: LogTunnels, ambient: Ambient = SYSTEM
    ) -> None:
        self._term: Term | None = None
        self._begun = asyncio.Event()
        self._store = store
        self._cache = cache
        self._view = view
        self._tunnels = tunnels
        self.consoles: Tunnels[pb.ConsoleOutput] = Tunnels()
        self._ambient = ambient
        self.network_reports = NetworkReports()

    @property
    def term(self) -> Term | None:
        """The present term, while this controller leads."""
        return self._term

    @term.setter
    def term(self, term: Term | None) -> None:
        self._term = term
        if term:
            self._begun.set()
        else:
            self._begun.clear()

    async def _leading(self) -> Term:
        """Return the present term, if need be after an election; NotLeaderError when this controller does not lead."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ELECTION_S):
                await self._view.led()
                if self._view.leads:
                    await self._begun.wait()
        if self._term is None:
            raise NotLeaderError("" if self._view.leads else self._view.leader_address)
        return self._term

    async def Session(
        self, request_iterator: AsyncIterator[pb.AgentMessage], context: Context
    ) -> AsyncIterator[pb.ControllerMessage]:
        """Hold one agent's session."""
        term = await self._leading()
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("body") != "hello":
            raise InvalidError("a session begins with hello")
        node = await self._register(term, first.hello)
        session = term.open(node.meta.id)  # not before: the term may have ended while the store was asked
        term.heard.hello(node.meta.id)
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
            log.info("session closed", node=node.spec.name, session=session.session_id, why=session.closed)
            term.closed(session)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        raise NoLeaderError(session.closed)

    async def _register(self, term: Term, hello: pb.Hello) -> Node:
        spec = NodeSpec(name=hello.node_name, role=hello.role or "worker", labels=dict(hello.labels))
        description = decode(hello.description, NodeDescription)
        return await term.changes.make(
            lambda snap: registered(snap, hello.node_id, spec, description, hello.beat_key, self._ambient.wall())
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
            case "ports":
                problems = tuple(decode(p, PortProblem) for p in message.ports.problems)
                await change(self._store, self._cache, lambda snap: with_port_problems(snap, node_id, problems))
            case _:
                pass

    def _handle(self, term: Term, session: NodeSession, message: pb.AgentMessage) -> None:
        match message.WhichOneof("body"):
            case "heartbeat":
                answer = pb.HeartbeatAck(
                    sequence=message.heartbeat.sequence,
                    fence_for=term.grants.grant(session.node_id),
                    heartbeat_period=term.heard.period_s(self._cache.snapshot.count(Node)),
                )
                session.send(pb.ControllerMessage(heartbeat_ack=answer))
            case "report":
                sequence, more = message.report.sequence, message.report.more
                statuses = _statuses(session.node_id, message.report.tasks)
                term.writer.submit(
                    Report(
                        node_id=session.node_id,
                        statuses=statuses,
                        successions={
                            t.task_id: decode(t.succession, Succession)
                            for t in message.report.tasks
                            if t.HasField("succession")
                        },
                        acknowledge=lambda: _acknowledge(term, session, sequence, statuses, more=more),
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

    async def Console(  # type: ignore[override]  # it writes its responses to the context
        self, request_iterator: AsyncIterator[pb.ConsoleOutput], context: Context
    ) -> None:
        """Take the stream that an agent opens to a program, for whoever wants to be attached to it."""
        await self.consoles.receive(request_iterator, context.write)

    async def ReportNetworks(self, request: pb.NetworkReport, context: Context) -> pb.ReportNetworksResponse:
        """Take what an agent that was asked for it found out about its networks."""
        self.network_reports.receive(request)
        return pb.ReportNetworksResponse()


def _acknowledge(
    term: Term, session: NodeSession, sequence: int, statuses: Mapping[str, TaskStatus], *, more: bool
) -> None:
    """Take that a report is stored; one of a session that was replaced says nothing of what runs now.

    `more`: not all that runs on the node is told yet.
    """
    if not session.closed:
        term.heard.report(session.node_id, statuses, more=more)
    session.send(pb.ControllerMessage(report_ack=pb.ReportAck(sequence=sequence)))


def _statuses(node_id: str, reported: Iterable[pb.TaskReport]) -> dict[str, TaskStatus]:
    """Return the reported statuses by task, but for those with a state that only a newer agent knows."""
    found: dict[str, TaskStatus] = {}
    for report in reported:
        try:
            found[report.task_id] = decode(report.status, TaskStatus)
        except UnknownValueError as error:
            log.warning("a newer agent's report cannot be read", node=node_id, task=report.task_id, why=str(error))
    return found
