"""Renewing a lease in virtual time, where no thread can run: the real decisions, carried out in the event loop."""

import asyncio
import contextlib

import grpc.aio

from argosy.controller.store.etcd import EtcdClient
from argosy.controller.store.lease import KEEP_ALIVE, Ask, Lease, Pause, renewals
from argosy.proto.etcd import rpc_pb2 as pb


async def keep_alive(client: EtcdClient, lease: Lease) -> None:
    """Renew the lease. Returns when it is gone, or may be."""
    steps, answer = renewals(lease), None
    with contextlib.suppress(StopIteration):
        while True:
            lease.tick()
            match steps.send(answer):
                case Ask(timeout_s):
                    answer = await _ask(client, lease, timeout_s)
                case Pause(seconds):
                    answer = None
                    await asyncio.sleep(seconds)


async def _ask(client: EtcdClient, lease: Lease, timeout_s: float) -> int | None:
    endpoint = client.endpoints.current
    call = endpoint.stream(KEEP_ALIVE, pb.LeaseKeepAliveResponse)()
    try:
        async with asyncio.timeout(timeout_s):
            await call.write(pb.LeaseKeepAliveRequest(ID=lease.id))
            return int((await call.read()).TTL)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
        client.endpoints.failed(endpoint)
        return None
    finally:
        call.cancel()
