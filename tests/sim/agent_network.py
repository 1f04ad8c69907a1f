"""What lies between agents and controllers: streams and datagrams that are late, cut off, and break.

A stream keeps its order, as TCP does; different streams overtake each other. While the way between two is cut, a stream
holds what is sent and delivers it when the way is open again, or breaks if that takes too long. The controllers' real
interceptor maps what their handlers raise; the agent's real session gets a channel whose calls behave as gRPC's.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import grpc
import grpc.aio

from argosy.controller.api.errors import ErrorInterceptor
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from tests.sim.etcd_channel import APART_S
from tests.sim.virtual_time import Process, VirtualLoop

PATIENCE_S = 4.0
"""How long a stream outlives a cut."""

Handler = Callable[[AsyncIterator[Any], Any], Any]


class Network:
    """Ways between hosts (by name) and controllers (by address)."""

    def __init__(self, loop: VirtualLoop, chance: Random) -> None:
        self.loop = loop
        self.chance = chance
        self.cut: set[tuple[str, str]] = set()
        self.slow_s = 0.0
        self.listeners: dict[str, tuple[Process, Handler, Callable[[bytes], None]]] = {}
        self.calls: list[SessionCall] = []
        self.sent_down: Callable[[SessionCall, Any], None] = lambda _call, _message: None
        self.sent_up: Callable[[SessionCall, Any], None] = lambda _call, _message: None
        self.heard: Callable[[Process, str, str], None] = lambda _process, _host, _what: None

    def calm(self) -> None:
        """Open all ways."""
        self.slow_s = 0.0
        for way in sorted(self.cut):
            self.open(*way)

    def close(self, host: str, address: str) -> None:
        """Cut the way between a host and a controller."""
        self.cut.add((host, address))

    def open(self, host: str, address: str) -> None:
        """Open it again: streams go on, unless they have been cut off for too long."""
        self.cut.discard((host, address))
        for call in list(self.calls):
            if (call.host, call.address) == (host, address):
                call.flush()

    def passes(self, host: str, address: str) -> bool:
        return (host, address) not in self.cut

    def latency_s(self) -> float:
        return self.chance.uniform(0.0005, 0.004) + (self.chance.uniform(0, self.slow_s) if self.slow_s else 0.0)

    def datagram(self, host: str, address: str, data: bytes) -> None:
        """Send a host's beat."""
        if self.passes(host, address) and address in self.listeners:
            self.loop.later(self.latency_s(), self._arrived, host, address, data)

    def _arrived(self, host: str, address: str, data: bytes) -> None:
        if address in self.listeners and self.passes(host, address):
            process, _, receive = self.listeners[address]

            def take() -> None:
                self.heard(process, host, "beat")
                receive(data)

            process.call(take)

    def listen(self, address: str, process: Process, handler: Handler, beat: Callable[[bytes], None]) -> None:
        """Have a process answer at an address."""
        self.listeners[address] = (process, handler, beat)

    def died(self, process: Process) -> None:
        """A process is gone: its peers see their connections reset (the host lives and says so)."""
        for address, (listener, _, _) in list(self.listeners.items()):
            if listener is process:
                del self.listeners[address]
        for call in list(self.calls):
            if process in (call.client, call.server):
                call.reset("connection reset: the process ended")

    def channel(self, host: str, client: Process, address: str) -> "Channel":
        """Return what an agent on a host reaches a controller by."""
        return Channel(self, host, client, address)


class Channel:
    """A grpc.aio.Channel as far as the agent's session uses it."""

    def __init__(self, network: Network, host: str, client: Process, address: str) -> None:
        self._network = network
        self._host = host
        self._client = client
        self._address = address
        self._calls: list[SessionCall] = []

    async def __aenter__(self) -> "Channel":
        return self

    async def __aexit__(self, *_: object) -> None:
        for call in self._calls:
            call.cancel()

    def unary_unary(self, *_args: Any, **_more: Any) -> Any:
        return _no_such_call

    unary_stream = stream_unary = unary_unary

    def stream_stream(self, path: str, **_more: Any) -> Any:
        def call(**_options: Any) -> SessionCall:
            made = SessionCall(self._network, self._host, self._client, self._address)
            self._calls.append(made)
            return made

        return call if path.endswith("/Session") else _no_such_call


def _no_such_call(*_: Any, **__: Any) -> Any:
    raise AssertionError("the simulated network carries sessions only")


class _Way:
    """One direction of a stream."""

    def __init__(self, call: "SessionCall", deliver: Callable[[Any], None]) -> None:
        self._call = call
        self._deliver = deliver
        self._last = 0.0
        self._held: deque[Any] = deque()

    def send(self, item: Any) -> None:
        network = self._call.network
        self._last = max(self._last + APART_S, network.loop.now + network.latency_s())
        network.loop.call_at(self._last, self._arrive, item, context=network.loop.world)

    def _arrive(self, item: Any) -> None:
        if self._held or not self._call.passes():
            self._held.append(item)
            self._call.held()
        elif not self._call.over:
            self._deliver(item)

    def flush(self) -> None:
        held, self._held = self._held, deque()
        for item in held:
            self.send(item)


class SessionCall:
    """One Session RPC: the agent's end of it (as grpc.aio.StreamStreamCall), and the controller's handler."""

    def __init__(self, network: Network, host: str, client: Process, address: str) -> None:
        self.network = network
        self.host = host
        self.client = client
        self.address = address
        self.server: Process | None = None
        self.over = False
        self.node_id = ""
        self._handler: asyncio.Task[None] | None = None
        self._up = _Way(self, self._take_up)
        self._down = _Way(self, self._take_down)
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._responses: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._status: tuple[grpc.StatusCode, str, Any] | None = None
        self._cut_since: float | None = None
        network.calls.append(self)
        self._up.send("connect")

    def passes(self) -> bool:
        return self.network.passes(self.host, self.address)

    # ---- the agent's end

    async def write(self, message: pb.AgentMessage) -> None:
        if self._status is not None:
            raise self._error()
        self.network.sent_up(self, message)
        self._up.send(message)

    async def read(self) -> Any:
        while not self._responses:
            if self._status is not None:
                return grpc.aio.EOF
            self._waiter = self.network.loop.create_future()
            await self._waiter
        return self._responses.popleft()

    def done(self) -> bool:
        return self._status is not None

    def cancel(self) -> None:
        if self._status is None:
            self._status = (grpc.StatusCode.CANCELLED, "cancelled by the agent", ())
            self._wake()
            self._up.send("cancel")

    async def code(self) -> grpc.StatusCode:
        assert self._status
        return self._status[0]

    async def details(self) -> str:
        assert self._status
        return self._status[1]

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        assert self._status
        return grpc.aio.Metadata(*self._status[2])

    def _error(self) -> grpc.aio.AioRpcError:
        assert self._status
        code, details, trailing = self._status
        return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take_down(self, item: Any) -> None:
        if isinstance(item, tuple):
            if self._status is None:
                self._status = item
            self._end()
        elif self._status is None:
            self._responses.append(item)
        self._wake()

    # ---- the controller's end

    def _take_up(self, item: Any) -> None:
        if item == "connect":
            self._connect()
        elif item == "cancel":
            self._cancel_handler()
            self._end()
        elif self.server is not None:
            server = self.server
            server.call(self._received, item)

    def _received(self, message: pb.AgentMessage) -> None:
        assert self.server is not None
        self.network.heard(self.server, self.host, message.WhichOneof("body"))
        self._requests.put_nowait(message)

    def _connect(self) -> None:
        found = self.network.listeners.get(self.address)
        if found is None:
            self._down.send((grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", ()))
            return
        self.server, handler, _ = found
        self._handler = self.server.spawn(self._serve(handler), name=f"session of {self.host}")

    async def _serve(self, handler: Handler) -> None:
        async def continuation(_: Any) -> Any:
            return grpc.stream_stream_rpc_method_handler(handler)

        wrapped = await ErrorInterceptor().intercept_service(continuation, _Details())
        try:
            await wrapped.stream_stream(self._request_iterator(), _Context(self))
        except _Aborted as end:
            self._down.send(end.status)
        except asyncio.CancelledError:
            raise
        else:
            self._down.send((grpc.StatusCode.OK, "", ()))

    async def _request_iterator(self) -> AsyncIterator[Any]:
        while True:
            item = await self._requests.get()
            if item is None:
                return
            yield item

    def send_down(self, message: Any) -> None:
        if not self.over:
            self.network.sent_down(self, message)
            self._down.send(message)

    def _cancel_handler(self) -> None:
        if self._handler is not None and self.server is not None:
            self.server.call(self._handler.cancel)

    # ---- the network between

    def held(self) -> None:
        """Something waits for the way to open."""
        if self._cut_since is None:
            self._cut_since = self.network.loop.now
            self.network.loop.later(PATIENCE_S, self._give_up)

    def _give_up(self) -> None:
        if self._cut_since is not None and self.network.loop.now - self._cut_since >= PATIENCE_S - 1e-6:
            self.reset("connection timed out")

    def flush(self) -> None:
        """Deliver what waited."""
        if self._cut_since is not None:
            self._cut_since = None
            self._up.flush()
            self._down.flush()

    def reset(self, why: str) -> None:
        """Break: both ends see it."""
        if self.over:
            return
        if self._status is None:
            self._status = (grpc.StatusCode.UNAVAILABLE, why, ())
            self._responses.clear()
        self._cancel_handler()
        self._end()
        self._wake()

    def _end(self) -> None:
        self.over = True
        if self in self.network.calls:
            self.network.calls.remove(self)


class _Details:
    method = "/argosy.v1.Dispatcher/Session"


class _Aborted(grpc.aio.AbortError):  # type: ignore[misc]
    def __init__(self, status: tuple[grpc.StatusCode, str, Any]) -> None:
        super().__init__()
        self.status = status


class _Context:
    """A grpc.aio.ServicerContext as far as the interceptor uses it."""

    def __init__(self, call: SessionCall) -> None:
        self._call = call

    async def write(self, message: Any) -> None:
        self._call.send_down(message)
        await asyncio.sleep(0)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Any = ()) -> None:
        raise _Aborted((code, details, trailing))
