"""What a follower does about a leader that died: it ends the dead one's lease, instead of waiting for it to run out.

A follower holds a stream to the leader. When that breaks, it tries to connect once more: if the leader's host refuses
the connection, no process listens there any more, and the lease is revoked. Silence proves nothing (the network
between the two may be cut while the leader leads on), so then the lease decides.
"""

import asyncio
import contextlib

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from argosy.controller.cluster import ClusterView
from argosy.controller.store import Election, LeaderRecord
from argosy.core.errors import TransientError
from argosy.proto.argosy.v1 import dispatcher_pb2

log = structlog.get_logger(__name__)

PROBE_TIMEOUT_S = 0.5
RETRY_S = 0.2
DISPATCHER = dispatcher_pb2.DESCRIPTOR.services_by_name["Dispatcher"].full_name
"""It serves only while its controller leads."""


async def watch_leader(election: Election, view: ClusterView) -> None:
    """Watch whoever leads, while it is not this controller; never returns."""
    while True:
        leader = None
        with contextlib.suppress(TransientError):
            leader = await election.leader()
        if leader is not None and leader.address and leader.id != view.own_name:
            await _until_broken(leader)
            if await _is_dead(leader):
                log.warning("the leader is dead: ending its lease", leader=leader.id)
                with contextlib.suppress(TransientError):
                    await election.revoke_leader(leader)
        await asyncio.sleep(RETRY_S)


async def _until_broken(leader: LeaderRecord) -> None:
    """Wait until the stream breaks, or the other says that it does not lead any more: then another is to be watched."""
    async with grpc.aio.insecure_channel(leader.address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=DISPATCHER))
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for health in watching:
                if health.status != health_pb2.HealthCheckResponse.SERVING:
                    return


async def _is_dead(leader: LeaderRecord) -> bool:
    host, _, port = leader.address.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return False
