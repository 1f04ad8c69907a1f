"""Attaching through any controller: bytes both ways, the program's end, and either side breaking off."""

import asyncio
import contextlib

import grpc
import pytest

from argosy.controller.api import attach
from argosy.core.service import Service
from argosy.proto.argosy.v1 import control_pb2, dispatcher_pb2, dispatcher_pb2_grpc, types_pb2
from tests.controller.harness import until
from tests.controller.test_logs import one_running


def typed(data: bytes) -> control_pb2.AttachRequest:
    return control_pb2.AttachRequest(input=types_pb2.ConsoleInput(data=data))


async def attached(leader, agents):
    """Attach to a task; return its service, the agent's end and the caller's."""
    agent, service, task_id = await one_running(leader, agents)
    call = leader.control.Attach()
    await call.write(control_pb2.AttachRequest(task=task_id))
    (ask,) = await until(lambda: agent.bodies("open_console"))
    assert ask.task_id == task_id
    console = dispatcher_pb2_grpc.DispatcherStub(agent.channel).Console()
    await console.write(dispatcher_pb2.ConsoleOutput(tunnel_id=ask.tunnel_id))
    return service, ask, console, call


async def end_of(call) -> str:
    """Return the status that a stream ends with."""
    while not call.done():
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
    return f"{(await call.code()).name} {await call.details()}"


def is_removed(leader, service) -> bool:
    found = leader.cache.snapshot.get(Service, service.meta.id)
    return found is None or found.removing


async def test_bytes_go_both_ways_until_the_program_ends(leader, agents):
    service, ask, console, call = await attached(leader, agents)
    await call.write(typed(b"ls\n"))
    assert (await console.read()).data == b"ls\n"
    await call.write(control_pb2.AttachRequest(input=types_pb2.ConsoleInput(size={"rows": 3, "columns": 4})))
    assert (await console.read()).size.columns == 4
    for number in range(100):
        await console.write(dispatcher_pb2.ConsoleOutput(data=b"%d." % number))
    await console.write(dispatcher_pb2.ConsoleOutput(tunnel_id=ask.tunnel_id))
    await console.done_writing()
    shown = [message.output async for message in call]
    assert shown == [b"%d." % number for number in range(100)]
    assert (await call.code(), await console.code()) == (grpc.StatusCode.OK, grpc.StatusCode.OK)
    assert not is_removed(leader, service)
    assert not leader.dispatcher.consoles._open


@pytest.mark.parametrize("who_goes", ["the agent", "whoever attached"])
async def test_when_either_side_breaks_off_the_other_hears_and_the_service_goes(leader, agents, who_goes):
    service, _, console, call = await attached(leader, agents)
    await console.write(dispatcher_pb2.ConsoleOutput(data=b"$ "))
    assert (await call.read()).output == b"$ "
    going, staying = (console, call) if who_goes == "the agent" else (call, console)
    going.cancel()
    async with asyncio.timeout(10):
        said = await end_of(staying)
    assert staying is console or said == "UNAVAILABLE the connection to node n1 broke"
    await until(lambda: is_removed(leader, service))
    assert not leader.dispatcher.consoles._open


async def test_what_cannot_be_attached_to_is_said(leader, agents, monkeypatch):
    monkeypatch.setattr(attach, "CONNECT_TIMEOUT_S", 0.2)
    agent, service, task_id = await one_running(leader, agents)

    async def refusal(task: str) -> str:
        call = leader.control.Attach()
        await call.write(control_pb2.AttachRequest(task=task))
        return await end_of(call)

    assert "NOT_FOUND" in await refusal("nobody")
    assert "UNAVAILABLE node n1 did not answer" in await refusal(task_id)
    asking = asyncio.create_task(refusal(task_id))
    _, ask = await until(lambda: len(found := agent.bodies("open_console")) == 2 and found)
    console = dispatcher_pb2_grpc.DispatcherStub(agent.channel).Console()
    await console.write(dispatcher_pb2.ConsoleOutput(tunnel_id=ask.tunnel_id, problem="it is not interactive"))
    assert await asking == f"FAILED_PRECONDITION task {task_id}: it is not interactive"
    assert not is_removed(leader, service)
