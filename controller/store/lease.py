"""A lease that is kept alive by a thread, and until when it surely lasts.

etcd renews a lease to its full time to live when a renewal *arrives*, which is after it was sent. So a renewal that was
confirmed proves the lease until `sent + ttl`, by a clock that counts while the machine sleeps (CLOCK_BOOTTIME: a
suspended laptop or a paused virtual machine must not believe that no time went by). Without a confirmation nothing
is extended, whatever the connection looks like.

An event loop that serves thousands of agents may be busy for longer than a lease lasts, and still do its work. So the
renewing has a thread and connections of its own. A loop that hangs must lose its lease all the same: the thread goes on
only for as long as the loop ran within the last HUNG_S. Nor does it bring back a lease that may have ended.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import grpc
import structlog

from argosy.controller.store.endpoints import Endpoint
from argosy.controller.store.etcd import EtcdClient
from argosy.controller.store.outcome import NEEDS_LEADER, words_of
from argosy.proto.etcd import rpc_pb2 as pb

log = structlog.get_logger(__name__)

HUNG_S: Final = 5.0
"""An event loop that did not run for so long hangs: what it leads is to be led by another."""
TICK_S: Final = 0.5
"""How often the event loop says that it runs."""
KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"


@dataclass(slots=True)
class Lease:
    """A lease as far as this process knows. Times are by `clock`.

    `confirmed_at`: when the last confirmed renewal was sent; only who renews writes it. `loop_ran_at`: when the event
    loop that the lease is for was last seen to run.
    """

    id: int
    ttl_s: float
    confirmed_at: float
    clock: Callable[[], float]
    loop_ran_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.loop_ran_at = self.confirmed_at

    def remaining(self) -> float:
        """Return for how many seconds the lease surely lasts; not positive when it may have ended."""
        return self.confirmed_at + self.ttl_s - self.clock()

    def tick(self) -> None:
        """Note that the event loop runs."""
        self.loop_ran_at = self.clock()

    def hangs(self) -> bool:
        """Whether the event loop has not run for too long."""
        return self.clock() - self.loop_ran_at >= HUNG_S


async def grant(client: EtcdClient, ttl_s: float, clock: Callable[[], float]) -> Lease:
    """Make a lease. etcd takes whole seconds and has a minimum: `ttl_s` of the result is what it gave.

    `clock` counts also while the machine sleeps.
    """
    asked_at = clock()
    response = await client.lease_grant(max(1, round(ttl_s)))
    return Lease(response.ID, float(response.TTL), asked_at, clock)


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask etcd to renew; answer with the time to live that it gives (0: the lease is gone), or None for no answer."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


Steps: TypeAlias = Generator[Ask | Pause, int | None, None]
Renew: TypeAlias = Callable[[EtcdClient, Lease], Coroutine[Any, Any, None]]
"""Renews a lease until it is gone, or may be, or until cancelled."""


def renewals(lease: Lease) -> Steps:
    """Yield what keeps a lease alive, six times in each time to live, for as long as it lasts and the event loop runs.

    Whoever carries it out decides where to ask, and goes elsewhere when there is no answer.
    """
    period = lease.ttl_s / 6
    while lease.remaining() > 0 and not lease.hangs():
        sent_at = lease.clock()
        ttl = yield Ask(2 * period)
        if ttl is None:
            yield Pause(min(0.05, period))
        elif ttl <= 0:
            return
        else:
            lease.confirmed_at = sent_at
            yield Pause(period)


async def keep_alive(client: EtcdClient, lease: Lease) -> None:
    """Have a thread renew the lease, on whichever endpoint works. Returns when the lease is gone, or may be."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def ended() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(over.set)

    def failed(endpoint: Endpoint) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(client.endpoints.failed, endpoint)

    lease.tick()
    renewer = _Renewer(client, lease, failed, ended)
    renewer.start()
    try:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await over.wait()
            lease.tick()
    finally:
        renewer.stop()
        await over.wait()  # some milliseconds


class _Renewer(threading.Thread):
    """Carries `renewals` out. It follows the client to another endpoint, and the client follows it."""

    def __init__(
        self, client: EtcdClient, lease: Lease, failed: Callable[[Endpoint], None], ended: Callable[[], None]
    ) -> None:
        """`failed` and `ended` are called in the thread."""
        super().__init__(name="lease", daemon=True)
        self._client = client
        self._lease = lease
        self._failed = failed
        self._ended = ended
        self._stop = threading.Event()
        self._call: Any = None
        self._endpoint = self._clients = client.endpoints.current
        self._channel: grpc.Channel | None = None

    def stop(self) -> None:
        """Have the thread end; for another thread."""
        self._stop.set()
        if call := self._call:
            call.cancel()

    def run(self) -> None:
        """Renew until the lease is gone, or may be, or this is stopped."""
        steps, answer = renewals(self._lease), None
        try:
            with contextlib.suppress(StopIteration):
                while not self._stop.is_set():
                    match steps.send(answer):
                        case Ask(timeout_s):
                            answer = self._ask(timeout_s)
                        case Pause(seconds):
                            answer = None
                            self._stop.wait(seconds)
            if self._lease.hangs():
                log.error("the event loop hangs: its lease is not renewed any more", hangs_s=HUNG_S)
        finally:
            if self._channel is not None:
                self._channel.close()
            self._ended()

    def _ask(self, timeout_s: float) -> int | None:
        """Renew once. A call of its own for each: a stream's later answers would have no deadline."""
        if self._clients is not self._client.endpoints.current:
            self._clients = self._client.endpoints.current
            self._move_to(self._clients)
        if self._channel is None:
            self._channel = self._client.blocking_channel(self._endpoint)
        method = self._channel.stream_stream(
            KEEP_ALIVE, pb.LeaseKeepAliveRequest.SerializeToString, pb.LeaseKeepAliveResponse.FromString
        )
        request = pb.LeaseKeepAliveRequest(ID=self._lease.id)
        call: Any = method(iter((request,)), timeout=timeout_s, metadata=NEEDS_LEADER)
        self._call = call
        try:
            if self._stop.is_set():
                return None
            response = next(call, None)
            if response is not None:
                return int(response.TTL)
            why = "the stream ended"
        except grpc.RpcError:
            why = words_of(call)
        finally:
            self._call = None
            call.cancel()
        if not self._stop.is_set():
            log.warning("a lease renewal failed", endpoint=self._endpoint.address, error=why)
            self._failed(self._endpoint)
            self._move_to(self._client.endpoints.after(self._endpoint))
        return None

    def _move_to(self, endpoint: Endpoint) -> None:
        if endpoint is not self._endpoint and self._channel is not None:
            self._channel.close()
            self._channel = None
        self._endpoint = endpoint
