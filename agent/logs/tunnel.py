"""Sends the output of tasks to a controller that asked for it, through a stream which the agent opens.

A log is read as it is taken: gRPC's flow control reaches the reader, and what is ready meanwhile goes in one message.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc
import structlog

from argosy.agent.logs.reader import Extent, Part, read_output
from argosy.agent.tasks.host import Host
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc as rpc
from argosy.proto.argosy.v1 import types_pb2 as types

log = structlog.get_logger(__name__)

ReleasedOf = Callable[[str], asyncio.Event | None]
"""Of a task's id: what is set when the task is released, after its last line was written; None: no such task."""
Call: TypeAlias = "grpc.aio.StreamUnaryCall[pb.LogTunnelMessage, pb.LogTunnelResponse]"
Send = Callable[[pb.LogTunnelMessage], Awaitable[None]]


async def send_logs(request: pb.OpenTunnel, channel: grpc.aio.Channel, host: Host, released_of: ReleasedOf) -> None:
    """Open the tunnel and send what was asked for; returns when all is sent or the other end has gone."""
    call: Call = rpc.DispatcherStub(channel).LogTunnel()
    gone = asyncio.Event()
    call.add_done_callback(lambda _: gone.set())
    sending, breaking = (
        asyncio.create_task(_send_all(request, call, host, released_of)),
        asyncio.create_task(gone.wait()),
    )
    try:
        await asyncio.wait({sending, breaking}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            await sending  # which raises what it ended with
    finally:
        sending.cancel()
        breaking.cancel()
        call.cancel()
        await asyncio.gather(sending, breaking, return_exceptions=True)


async def _send_all(request: pb.OpenTunnel, call: Call, host: Host, released_of: ReleasedOf) -> None:
    turn = asyncio.Lock()

    async def send(message: pb.LogTunnelMessage) -> None:
        async with turn:  # a call takes one message at a time
            await call.write(message)

    try:
        await send(pb.LogTunnelMessage(tunnel_id=request.tunnel_id))
        async with asyncio.TaskGroup() as group:
            for task_id in request.task_ids:
                group.create_task(_send_one(task_id, request, send, host, released_of))
        await send(pb.LogTunnelMessage(tunnel_id=request.tunnel_id))  # that was all
        await call.done_writing()
        await call
    except* (grpc.aio.AioRpcError, asyncio.InvalidStateError) as broken:
        log.debug("log tunnel ended", tunnel=request.tunnel_id, why=repr(broken.exceptions[0]))


async def _send_one(task_id: str, request: pb.OpenTunnel, send: Send, host: Host, released_of: ReleasedOf) -> None:
    released = released_of(task_id)
    if released is None:
        await send(pb.LogTunnelMessage(task_id=task_id, notice="this node knows nothing of the task"))
        return
    extent = Extent(
        position=request.positions.get(task_id),
        tail=request.tail if request.HasField("tail") else None,
        since=request.since,
    )
    try:
        reading = read_output(host.log_path(task_id), extent, follow=request.follow, ended=released)
        async with contextlib.aclosing(reading) as parts:
            async for part in parts:
                await send(_message(task_id, part))
    except OSError as e:
        await send(pb.LogTunnelMessage(task_id=task_id, notice=f"its output cannot be read: {e}"))


def _message(task_id: str, part: Part) -> pb.LogTunnelMessage:
    return pb.LogTunnelMessage(
        task_id=task_id,
        output=[types.LogOutput(at=out.at, stderr=out.stderr, data=out.data) for out in part.outputs],
        position=part.position,
        missing=part.missing,
    )
