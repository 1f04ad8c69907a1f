"""A lease that is kept alive over one stream, and until when it surely lasts.

etcd renews a lease to its full time to live when a renewal *arrives*, which is after it was sent. So a renewal that was
confirmed proves the lease until `sent + ttl`, by a clock that counts while the machine sleeps (CLOCK_BOOTTIME: a
suspended laptop or a paused virtual machine must not believe that no time went by). Without a confirmation nothing
is extended, whatever the connection looks like.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio
import structlog

from argosy.controller.store.endpoints import Endpoint
from argosy.controller.store.etcd import EtcdClient
from argosy.controller.store.outcome import NEEDS_LEADER, words_of
from argosy.proto.etcd import rpc_pb2 as pb

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Lease:
    """A lease as far as this process knows. `confirmed_at`: when the last confirmed renewal was sent, by `clock`."""

    id: int
    ttl_s: float
    confirmed_at: float
    clock: Callable[[], float]

    def remaining(self) -> float:
        """Return for how many seconds the lease surely lasts; not positive when it may have ended."""
        return self.confirmed_at + self.ttl_s - self.clock()


async def grant(client: EtcdClient, ttl_s: float, clock: Callable[[], float]) -> Lease:
    """Make a lease. etcd takes whole seconds and has a minimum: `ttl_s` of the result is what it gave.

    `clock` counts also while the machine sleeps.
    """
    asked_at = clock()
    response = await client.lease_grant(max(1, round(ttl_s)))
    return Lease(response.ID, float(response.TTL), asked_at, clock)


async def keep_alive(client: EtcdClient, lease: Lease) -> None:
    """Renew six times in each time to live, on whichever endpoint works. Returns when etcd says the lease is gone."""
    period = lease.ttl_s / 6
    while True:
        endpoint = client.endpoints.current
        try:
            if not await _renew_on(endpoint, lease, period):
                return
        except grpc.aio.AioRpcError as error:
            log.warning("a lease renewal failed", endpoint=endpoint.address, error=words_of(error))
        except asyncio.InvalidStateError:  # written to after the stream had broken
            log.warning("a lease renewal failed", endpoint=endpoint.address, error="the connection broke")
        except TimeoutError:
            log.warning("a lease renewal was not answered", endpoint=endpoint.address, waited_s=2 * period)
        client.endpoints.failed(endpoint)
        await asyncio.sleep(min(0.05, period))


async def _renew_on(endpoint: Endpoint, lease: Lease, period: float) -> bool:
    """Renew over one stream until it breaks (raises) or the lease is gone (False)."""
    call: Any = endpoint.stream("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse)(metadata=NEEDS_LEADER)
    try:
        while True:
            sent_at = lease.clock()
            async with asyncio.timeout(2 * period):
                await call.write(pb.LeaseKeepAliveRequest(ID=lease.id))
                response = await call.read()
            if response is grpc.aio.EOF:
                return True
            if response.TTL <= 0:
                return False
            lease.confirmed_at = sent_at
            await asyncio.sleep(period)
    finally:
        call.cancel()
