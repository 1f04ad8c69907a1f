"""The agent's session with the leading controller: one stream, opened by the agent, kept alive and reopened.

Owns the connection only. What comes in is handed to a `SessionEvents`; what goes out is heartbeats, reports of the
Reporter and acknowledgements. Any failure ends the stream; the next controller is tried after a jittered backoff.
A controller that does not lead refuses and names the leader, which is then tried first.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError

from argosy.agent.logic.assignments import BrokenChainError, StaleLeaderError
from argosy.agent.session.backoff import Backoff
from argosy.agent.session.reporter import Reporter
from argosy.core.assignment import LeaderEpoch
from argosy.core.wire import Joined
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc as rpc

log = structlog.get_logger(__name__)

LEADER_KEY = "argosy-leader"
"""Trailing metadata in which a controller that does not lead names the one that does."""
FOLLOW_HINT_S = 0.05
HELLO_S = 5.0
"""How long a controller may take to be connected to, and to answer a hello; then the next one is tried."""
RETRY_S = 3.0
"""How long it takes at most between two tries: so soon after a controller is back its agents are."""
MISSED_ANSWERS = 3
"""Heartbeats without an answer after which the connection counts as dead."""


Connect: TypeAlias = "Callable[[str], grpc.aio.Channel]"
"""Makes the channel to the controller at an address."""


def connect(address: str) -> grpc.aio.Channel:
    """Make a channel over TCP or a unix socket, with a connection of its own.

    After a time without network the kernel waits for as long again until it repeats what a connection has lost. A new
    session on the old connection, which some call may still hold open, would have to wait with it.
    """
    options = [
        ("grpc.max_receive_message_length", 64 * 2**20),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.insecure_channel(address, options=options)


class SessionEvents(Protocol):
    """What a session tells its owner."""

    def hello(self) -> pb.Hello:
        """Return what this node says of itself now."""

    def check_leader(self, leader: LeaderEpoch) -> None:
        """Raise StaleLeaderError for a message of a leader that was replaced."""

    def started(self, message: pb.SessionStarted, channel: grpc.aio.Channel) -> None:
        """Note that a session stands; `channel` may be used for other calls until `ended`."""

    def ended(self) -> None:
        """Note that the session is over."""

    async def assigned(self, message: pb.ControllerMessage) -> int:
        """Apply an assignment message; return its version (persisted)."""

    async def in_force(self) -> None:
        """Wait until what was assigned last is in force in the kernel, too."""

    def beat_sent(self, sequence: int) -> None:
        """Note that a heartbeat is about to be sent."""

    def beat_answered(self, sequence: int, fence_for_s: float) -> None:
        """Take the answer to a heartbeat and what it grants."""

    async def news(self) -> pb.AgentMessage:
        """Return what the node has to say of itself that this session has not heard, as soon as there is something."""

    def open_tunnel(self, request: pb.OpenTunnel, channel: grpc.aio.Channel) -> None:
        """Open a tunnel for the output of tasks."""

    def open_console(self, request: pb.OpenConsole, channel: grpc.aio.Channel) -> None:
        """Open a tunnel for the input and output of an interactive task."""

    def verify_networks(self, request: pb.VerifyNetworks, channel: grpc.aio.Channel) -> None:
        """Look at the node's networks, and report what there is."""


_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.AgentMessage, pb.ControllerMessage]"


@dataclass(slots=True)
class _Liveness:
    """When the controller was last heard, on the loop's clock."""

    last_heard: float
    period_s: float = 5.0


class Session:
    """Keeps a session open for as long as `run` runs. One owner; not shared between loops."""

    def __init__(
        self, controllers: tuple[str, ...], events: SessionEvents, reporter: Reporter, connect: Connect = connect
    ) -> None:
        self._controllers = list(controllers)
        self._events = events
        self._reporter = reporter
        self._connect = connect
        self._hint: str | None = None

    async def run(self) -> None:
        """Connect, talk, reconnect; never returns."""
        backoff = Backoff(cap_s=RETRY_S)
        while True:
            target = self._next_target()
            try:
                await self._talk(target, backoff)
            except grpc.aio.AioRpcError as e:
                self._note_leader(e)
                log.info("session ended", controller=target, code=e.code().name, details=e.details())
            except (TimeoutError, StaleLeaderError, BrokenChainError) as e:
                log.warning("session dropped", controller=target, why=str(e) or "no answer")
            # A hint is followed soon, but not at once: two controllers may each take the other for the leader.
            await asyncio.sleep(backoff.next() if self._hint is None else FOLLOW_HINT_S)

    def _next_target(self) -> str:
        """Return the leader that was named, else the next controller in turn."""
        if self._hint is not None:
            hint, self._hint = self._hint, None
            return hint
        self._controllers.append(self._controllers.pop(0))
        return self._controllers[-1]

    def _note_leader(self, error: grpc.aio.AioRpcError) -> None:
        for key, value in error.trailing_metadata() or ():
            if key == LEADER_KEY and isinstance(value, str) and value:
                self._hint = value

    async def _talk(self, target: str, backoff: Backoff) -> None:
        async with self._connect(target) as channel:
            call = rpc.DispatcherStub(channel).Session(wait_for_ready=False)
            try:
                async with asyncio.timeout(HELLO_S):  # which is written only once there is a connection
                    await call.write(pb.AgentMessage(hello=self._events.hello()))
                    first = await call.read()
                if not isinstance(first, pb.ControllerMessage):
                    raise await _ended(call)
                if first.WhichOneof("body") != "started":
                    raise BrokenChainError("a session does not begin so: is this a controller of another version?")
                self._events.check_leader(_leader(first))
                self._events.started(first.started, channel)
                log.info("session started", controller=target, session=first.started.session_id)
                backoff.reset()
                await self._converse(call, channel, first.started.heartbeat_period)
            finally:
                self._events.ended()
                call.cancel()

    async def _converse(
        self,
        call: _Call,
        channel: grpc.aio.Channel,
        period_s: float,
    ) -> None:
        alive = _Liveness(asyncio.get_running_loop().time(), period_s or 5.0)
        outgoing: asyncio.Queue[pb.AgentMessage] = asyncio.Queue()
        assigned: asyncio.Queue[int] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._read(call, channel, assigned, alive)),
            asyncio.create_task(self._acknowledge(assigned, outgoing)),
            asyncio.create_task(self._write(call, outgoing)),
            asyncio.create_task(self._beat(outgoing, alive)),
            asyncio.create_task(self._report(outgoing)),
            asyncio.create_task(self._tell(outgoing)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(
        self,
        call: _Call,
        channel: grpc.aio.Channel,
        assigned: "asyncio.Queue[int]",
        alive: _Liveness,
    ) -> None:
        joined = Joined()
        while True:
            message = await call.read()
            if not isinstance(message, pb.ControllerMessage):
                raise await _ended(call)
            alive.last_heard = asyncio.get_running_loop().time()
            self._events.check_leader(_leader(message))
            match message.WhichOneof("body"):
                case "assignments":
                    if (whole := _whole(joined, message)) is not None:
                        assigned.put_nowait(await self._events.assigned(whole))
                case "report_ack":
                    self._reporter.acknowledge(message.report_ack.sequence)
                case "open_tunnel":
                    self._events.open_tunnel(message.open_tunnel, channel)
                case "open_console":
                    self._events.open_console(message.open_console, channel)
                case "verify_networks":
                    self._events.verify_networks(message.verify_networks, channel)
                case "heartbeat_ack":
                    alive.period_s = message.heartbeat_ack.heartbeat_period or alive.period_s
                    self._events.beat_answered(message.heartbeat_ack.sequence, message.heartbeat_ack.fence_for)
                case _:
                    pass  # a kind of a newer controller

    async def _acknowledge(self, assigned: "asyncio.Queue[int]", outgoing: "asyncio.Queue[pb.AgentMessage]") -> None:
        """Confirm versions once they are in force; the newest stands for those before it."""
        while True:
            version = await assigned.get()
            while not assigned.empty():
                version = assigned.get_nowait()
            await self._events.in_force()
            outgoing.put_nowait(pb.AgentMessage(ack=pb.AssignmentAck(version=version)))

    async def _write(
        self,
        call: _Call,
        outgoing: "asyncio.Queue[pb.AgentMessage]",
    ) -> None:
        while True:
            message = await outgoing.get()
            if call.done():  # while the reader was applying something: grpc calls a write then a misuse
                raise await _ended(call)
            await call.write(message)

    async def _beat(self, outgoing: "asyncio.Queue[pb.AgentMessage]", alive: _Liveness) -> None:
        loop, sequence = asyncio.get_running_loop(), 0
        while True:  # the first at once: fenced tasks wait for the answer
            if sequence:
                await asyncio.sleep(alive.period_s * random.uniform(0.9, 1.1))
            silent_s = loop.time() - alive.last_heard
            if silent_s > alive.period_s * MISSED_ANSWERS:
                raise TimeoutError(f"no answer for {silent_s:.1f} s")
            sequence += 1
            self._events.beat_sent(sequence)
            outgoing.put_nowait(pb.AgentMessage(heartbeat=pb.Heartbeat(sequence=sequence)))

    async def _tell(self, outgoing: "asyncio.Queue[pb.AgentMessage]") -> None:
        while True:
            outgoing.put_nowait(await self._events.news())

    async def _report(self, outgoing: "asyncio.Queue[pb.AgentMessage]") -> None:
        while True:
            outgoing.put_nowait(pb.AgentMessage(report=await self._reporter.next()))


def _whole(joined: Joined, message: pb.ControllerMessage) -> pb.ControllerMessage | None:
    try:
        return joined.add(message)
    except DecodeError as e:
        raise BrokenChainError(f"assignments that cannot be read: {e}") from None


async def _ended(call: _Call) -> grpc.aio.AioRpcError:
    """Return the error that ended a stream, to be raised."""
    return grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


def _leader(message: pb.ControllerMessage) -> LeaderEpoch:
    return LeaderEpoch(message.leader.epoch, message.leader.revision)
