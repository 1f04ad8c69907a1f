"""Sends the output of tasks to a controller that asked for it, through a stream which the agent opens."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import structlog

from argosy.agent.logs.reader import LogLine, read_lines
from argosy.agent.tasks.host import Host
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc as rpc

log = structlog.get_logger(__name__)

ReleasedOf = Callable[[str], asyncio.Event | None]
"""Of a task's id: what is set when the task is released, after its last line was written; None: no such task."""

QUEUED_LINES = 1000
"""Lines read ahead of what the controller took: its flow control reaches the reader."""


async def send_logs(request: pb.OpenTunnel, channel: grpc.aio.Channel, host: Host, released_of: ReleasedOf) -> None:
    """Open the tunnel and send what was asked for; returns when all is sent or the other end has gone."""
    queue: asyncio.Queue[pb.LogTunnelMessage | None] = asyncio.Queue(QUEUED_LINES)
    readers = asyncio.create_task(_read_all(request, host, released_of, queue))
    try:
        await rpc.DispatcherStub(channel).LogTunnel(_messages(request.tunnel_id, queue))
    except grpc.aio.AioRpcError as e:
        log.debug("log tunnel ended", code=e.code().name, details=e.details())
    finally:
        readers.cancel()
        await asyncio.gather(readers, return_exceptions=True)


async def _messages(
    tunnel_id: str, queue: "asyncio.Queue[pb.LogTunnelMessage | None]"
) -> AsyncIterator[pb.LogTunnelMessage]:
    yield pb.LogTunnelMessage(tunnel_id=tunnel_id)
    while (message := await queue.get()) is not None:
        yield message
    yield pb.LogTunnelMessage(tunnel_id=tunnel_id)  # that was all


async def _read_all(
    request: pb.OpenTunnel, host: Host, released_of: ReleasedOf, queue: "asyncio.Queue[pb.LogTunnelMessage | None]"
) -> None:
    async with asyncio.TaskGroup() as group:
        for task_id in request.task_ids:
            group.create_task(_read_one(task_id, request, host, released_of, queue))
    await queue.put(None)


async def _read_one(
    task_id: str,
    request: pb.OpenTunnel,
    host: Host,
    released_of: ReleasedOf,
    queue: "asyncio.Queue[pb.LogTunnelMessage | None]",
) -> None:
    released = released_of(task_id)
    if released is None:
        await queue.put(pb.LogTunnelMessage(task_id=task_id, notice="this node knows nothing of the task"))
        return
    tail = request.tail if request.HasField("tail") else None
    lines = read_lines(host.log_path(task_id), tail=tail, since=request.since, follow=request.follow, ended=released)
    try:
        async for line in lines:
            await queue.put(_message(task_id, line))
    except OSError as e:
        await queue.put(pb.LogTunnelMessage(task_id=task_id, notice=f"its output cannot be read: {e}"))


def _message(task_id: str, line: LogLine) -> pb.LogTunnelMessage:
    return pb.LogTunnelMessage(task_id=task_id, at=line.at, stderr=line.stderr, line=line.text)
