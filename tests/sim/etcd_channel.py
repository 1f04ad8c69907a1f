"""gRPC channels of controllers to etcd that lose, delay and break: what the real client (controller/store) is given.

A unary call may fail before it is sent, be lost on the way, be applied although its answer is lost, or arrive after
its sender has given up. A watch may lag, and break with events under way. What a controller is cut off from is silent.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
import grpc.aio

from argosy.proto.etcd import rpc_pb2 as pb
from tests.sim.etcd_model import Etcd, Refused, Revision
from tests.sim.virtual_time import PROCESS, Process, VirtualLoop

FOR_USER: contextvars.ContextVar[int] = contextvars.ContextVar("FOR_USER", default=0)
"""The number of the user's request that a call is made for; 0: it is a control loop's."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who sent a request."""

    process: Process
    for_user: int


APART_S = 1e-6
"""Between two messages of a stream: timers of one instant come in any order."""


class EtcdFaults:
    """What goes wrong between controllers and etcd.

    `away` are names of controllers that are cut off from it; `lost_for_users`: so many of the next answers to
    transactions that users asked for are lost.
    """

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.away: set[str] = set()
        self.down = False
        self.lost_request = 0.0
        self.lost_answer = 0.0
        self.lost_for_users = 0
        self.late_request = 0.0
        self.refused = 0.0
        self.lag_s = 0.0
        self.fragments = False

    def calm(self) -> None:
        """Let everything go well from now on."""
        self.__init__(self.chance)  # type: ignore[misc]

    def reaches(self, name: str) -> bool:
        """Whether anything passes between a controller and etcd."""
        return not self.down and name not in self.away

    def latency_s(self) -> float:
        return self.chance.uniform(0.0003, 0.003)


class EtcdChannel:
    """One controller's channel. `note` tells the log of what went wrong."""

    def __init__(
        self, loop: VirtualLoop, etcd: Etcd, faults: EtcdFaults, name: str, note: Callable[[str], None]
    ) -> None:
        self.loop = loop
        self.etcd = etcd
        self.faults = faults
        self.name = name
        self.note = note
        self.streams: list[_Stream] = []

    def unary_unary(self, path: str, _serialize: Any, _deserialize: Any) -> Any:
        async def call(request: Any, *, timeout: float, metadata: Any = ()) -> Any:
            return await self._unary(path, request, timeout)

        return call

    def stream_stream(self, path: str, _serialize: Any, _deserialize: Any) -> Any:
        make = _Watch if path.endswith("/Watch") else _KeepAlive

        def call(metadata: Any = ()) -> Any:
            stream = make(self)
            self.streams.append(stream)
            return stream

        return call

    async def close(self) -> None:
        for stream in list(self.streams):
            stream.cancel()

    def break_streams(self, why: str) -> None:
        """Have every stream fail."""
        for stream in list(self.streams):
            stream.fail(why)

    async def _unary(self, path: str, request: Any, timeout: float) -> Any:
        faults, chance = self.faults, self.faults.chance
        if chance.random() < faults.refused:
            await asyncio.sleep(faults.latency_s())
            raise _error(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; last error: refused")
        answer: asyncio.Future[Any] = self.loop.create_future()
        fate = chance.random()
        delay = faults.latency_s()
        if fate < faults.lost_request:
            self._note(path, "request lost")
            self.loop.later(chance.uniform(0.01, timeout), self._fail, answer, "Connection reset by peer")
        else:
            loses = fate < faults.lost_request + faults.lost_answer or self._loses_for_user(path)
            if loses:
                self._note(path, "answer lost")
            elif fate < faults.lost_request + faults.lost_answer + faults.late_request:
                delay = chance.uniform(0.01, 1.5 * timeout)
                self._note(path, f"late by {delay:.3f} s")
            self.loop.later(delay, self._serve, path, request, answer, loses, Writer(PROCESS.get(), FOR_USER.get()))
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise _error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None

    def _loses_for_user(self, path: str) -> bool:
        if not self.faults.lost_for_users or not FOR_USER.get() or not path.endswith("/Txn"):
            return False
        self.faults.lost_for_users -= 1
        return True

    def _note(self, path: str, what: str) -> None:
        self.note(f"etcd {self.name} {path.rpartition('/')[2]}: {what}")

    def _serve(self, path: str, request: Any, answer: "asyncio.Future[Any]", loses: bool, by: Any) -> None:
        if not self.faults.reaches(self.name):
            return  # nothing comes back: the caller's timeout ends it
        try:
            response = self.etcd.serve(path, request, by)
        except Refused as refused:
            self.loop.later(self.faults.latency_s(), _set_error, answer, _error(refused.code, refused.details))
            return
        if loses:
            self.loop.later(self.faults.latency_s(), self._fail, answer, "Socket closed")
        else:
            self.loop.later(self.faults.latency_s(), self._answer, answer, response)

    def _answer(self, answer: "asyncio.Future[Any]", response: Any) -> None:
        if self.faults.reaches(self.name) and not answer.done():
            answer.set_result(response)

    def _fail(self, answer: "asyncio.Future[Any]", why: str) -> None:
        _set_error(answer, _error(grpc.StatusCode.UNAVAILABLE, why))


class _Stream:
    """A stream both ways: requests reach `serve` in order, responses the reader in order."""

    def __init__(self, channel: EtcdChannel) -> None:
        self.channel = channel
        self.loop = channel.loop
        self._inbox: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._last_in = self._last_out = 0.0
        self._error: grpc.aio.AioRpcError | None = None
        self.over = self._muted = False

    def serve(self, request: Any) -> None:
        raise NotImplementedError

    async def write(self, request: Any) -> None:
        if self.over:
            raise asyncio.InvalidStateError("the stream has ended")
        self._last_in = max(self._last_in + APART_S, self.loop.now + self.channel.faults.latency_s())
        self.loop.call_at(self._last_in, self._arrive, request, context=self.loop.world)

    def _arrive(self, request: Any) -> None:
        if self.over or self._muted:
            return
        if self.channel.faults.reaches(self.channel.name):
            self.serve(request)
        else:
            self._mute()

    def respond(self, response: Any, lag_s: float = 0.0) -> None:
        self._last_out = max(self._last_out + APART_S, self.loop.now + self.channel.faults.latency_s() + lag_s)
        self.loop.call_at(self._last_out, self._deliver, response, context=self.loop.world)

    def _deliver(self, response: Any) -> None:
        if self.over or self._muted:
            return
        if not self.channel.faults.reaches(self.channel.name):
            self._mute()
            return
        self._inbox.append(response)
        self._wake()

    def _mute(self) -> None:
        """Something could not pass: nothing after it may, and after a while the connection counts as broken."""
        self._muted = True
        self.loop.later(1.0, self.fail, "keepalive watchdog timeout")

    async def read(self) -> Any:
        while not self._inbox:
            if self._error is not None:
                raise self._error
            if self.over:
                raise asyncio.CancelledError
            self._waiter = self.loop.create_future()
            await self._waiter
        return self._inbox.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, why: str) -> None:
        if not self.over:
            self._error = _error(grpc.StatusCode.UNAVAILABLE, why)
            self._inbox.clear()
            self._close()

    def cancel(self) -> None:
        if not self.over:
            self._close()

    def _close(self) -> None:
        self.over = True
        if self in self.channel.streams:
            self.channel.streams.remove(self)
        self._wake()

    async def code(self) -> grpc.StatusCode:
        return self._error.code() if self._error else grpc.StatusCode.CANCELLED

    async def details(self) -> str:
        return (self._error.details() or "") if self._error else ""


class _KeepAlive(_Stream):
    def serve(self, request: pb.LeaseKeepAliveRequest) -> None:
        self.respond(pb.LeaseKeepAliveResponse(ID=request.ID, TTL=self.channel.etcd.renew(request.ID)))


class _Watch(_Stream):
    def __init__(self, channel: EtcdChannel) -> None:
        super().__init__(channel)
        self._watches: dict[int, tuple[bytes, bytes]] = {}
        channel.etcd.listeners.append(self._committed)

    def _close(self) -> None:
        super()._close()
        if self._committed in self.channel.etcd.listeners:
            self.channel.etcd.listeners.remove(self._committed)

    def serve(self, request: pb.WatchRequest) -> None:
        etcd = self.channel.etcd
        match request.WhichOneof("request_union"):
            case "create_request":
                create = request.create_request
                id, start = create.watch_id, create.start_revision
                self.respond(pb.WatchResponse(header=_header(etcd), watch_id=id, created=True))
                if start and start < etcd.compacted:
                    gone = pb.WatchResponse(header=_header(etcd), watch_id=id, canceled=True)
                    gone.compact_revision = etcd.compacted
                    self.respond(gone)
                    return
                self._watches[id] = (create.key, create.range_end)
                for revision in etcd.since(start) if start else ():
                    self._send(id, revision)
            case "cancel_request":
                id = request.cancel_request.watch_id
                if self._watches.pop(id, None):
                    self.respond(pb.WatchResponse(header=_header(etcd), watch_id=id, canceled=True))
            case "progress_request":
                self.respond(pb.WatchResponse(header=_header(etcd), watch_id=-1))

    def _committed(self, revision: Revision) -> None:
        for id in self._watches:
            self._send(id, revision)

    def _send(self, id: int, revision: Revision) -> None:
        key, end = self._watches[id]
        events = [e for e in revision.events if (key <= e.kv.key < end if end else e.kv.key == key)]
        if not events:
            return
        faults = self.channel.faults
        lag = faults.chance.uniform(0, faults.lag_s) if faults.lag_s else 0.0
        header = pb.ResponseHeader(revision=revision.number)
        if faults.fragments and len(events) > 1:
            self.respond(pb.WatchResponse(header=header, watch_id=id, events=events[:1], fragment=True), lag)
            events = events[1:]
        self.respond(pb.WatchResponse(header=header, watch_id=id, events=events), lag)


def _header(etcd: Etcd) -> pb.ResponseHeader:
    return pb.ResponseHeader(revision=etcd.revision)


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def _set_error(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
