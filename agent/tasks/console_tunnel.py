"""Carries an interactive program's input and output between its console and a controller that asked for it.

The agent opens the stream; it lasts as long as the program. Whoever is attached is gone when it breaks off before.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
import structlog

from argosy.agent.tasks.console import Console, Consoles
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc as rpc
from argosy.proto.argosy.v1 import types_pb2 as types

log = structlog.get_logger(__name__)

Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.ConsoleOutput, types.ConsoleInput]"
LOST = "the connection of whoever was attached broke"


async def serve_console(
    request: pb.OpenConsole,
    channel: grpc.aio.Channel,
    consoles: Consoles,
    released_of: Callable[[str], asyncio.Event | None],
) -> None:
    """Attach to a task's program; returns when it has ended, or whoever is at the other end has gone."""
    call = rpc.DispatcherStub(channel).Console()
    gone = asyncio.Event()
    call.add_done_callback(lambda _: gone.set())
    console, released = consoles.take(request.task_id), released_of(request.task_id)
    over = False
    carriers: list[asyncio.Task[Any]] = []
    try:
        if console is None or released is None:
            problem = "it has no console to attach to: it is not interactive, or somebody attached to it before"
            await _last(call, gone, pb.ConsoleOutput(tunnel_id=request.tunnel_id, problem=problem))
            return
        await call.write(pb.ConsoleOutput(tunnel_id=request.tunnel_id))
        output, breaking = asyncio.create_task(_output(call, console, released)), asyncio.create_task(gone.wait())
        carriers = [output, breaking, asyncio.create_task(_input(call, console))]
        await asyncio.wait({output, breaking}, return_when=asyncio.FIRST_COMPLETED)
        over = output.done() and output.exception() is None
        if over:
            await _last(call, gone, pb.ConsoleOutput(tunnel_id=request.tunnel_id))
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as e:
        log.debug("console tunnel ended", task=request.task_id, why=repr(e))
    finally:
        for carrier in carriers:
            carrier.cancel()
        call.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)
        if console is not None:
            consoles.end(request.task_id, "" if over else LOST)


async def _output(call: Call, console: Console, released: asyncio.Event) -> None:
    """Return when the program has ended. Without a terminal, its output is in its log."""
    if not console.terminal:
        await released.wait()
        return
    while data := await console.read():
        await call.write(pb.ConsoleOutput(data=data))


async def _input(call: Call, console: Console) -> None:
    async for message in call:
        match message.WhichOneof("body"):
            case "data":
                await console.write(message.data)
            case "size":
                console.resize(message.size.rows, message.size.columns)
            case "end":
                console.end_input()
            case _:
                pass  # of a newer controller


async def _last(call: Call, gone: asyncio.Event, message: pb.ConsoleOutput) -> None:
    """Send the last message, and wait until it was read."""
    await call.write(message)
    await call.done_writing()
    await gone.wait()
