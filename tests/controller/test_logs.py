"""Logs through any controller: agents that answer, that are away, that break off, and readers that go."""

import asyncio

import grpc
import pytest

from argosy.controller.api import logs
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2, dispatcher_pb2, dispatcher_pb2_grpc, types_pb2
from tests.controller.harness import FakeAgent, until


async def one_running(leader, agents, **more):
    await leader.add_image()
    agent = await agents(leader.address, **more)
    service = await leader.create()
    (task_id,) = await until(lambda: list(agent.tasks()))
    number = await agent.report({task_id: TaskStatus(TaskState.RUNNING)})
    await until(lambda: agent.acknowledged(number))
    return agent, service, task_id


async def asked(agent: FakeAgent) -> dispatcher_pb2.OpenTunnel:
    (ask,) = await until(lambda: agent.bodies("open_tunnel"))
    return ask


def tunnel_of(agent: FakeAgent):
    return dispatcher_pb2_grpc.DispatcherStub(agent.channel).LogTunnel()


async def open_tunnel(agent: FakeAgent, ask):
    call = tunnel_of(agent)
    await call.write(dispatcher_pb2.LogTunnelMessage(tunnel_id=ask.tunnel_id))
    return call


async def written(call, messages) -> None:
    for message in messages:
        await call.write(message)


def wrote(task_id: str, data: bytes, position: int = 0) -> dispatcher_pb2.LogTunnelMessage:
    output = types_pb2.LogOutput(data=data)
    return dispatcher_pb2.LogTunnelMessage(task_id=task_id, output=[output], position=position)


def text_of(*entries: control_pb2.LogEntry) -> list[bytes]:
    return [output.data for entry in entries for output in entry.output]


async def collected(call) -> list[control_pb2.LogEntry]:
    async with asyncio.timeout(10):
        return [entry async for entry in call]


async def test_lines_come_in_order_and_end(leader, agents):
    agent, _, task_id = await one_running(leader, agents)
    reading = asyncio.create_task(collected(leader.control.Logs(control_pb2.LogsRequest(service="web", tail=3))))
    ask = await asked(agent)
    assert (list(ask.task_ids), ask.tail, ask.follow) == ([task_id], 3, False)
    call = await open_tunnel(agent, ask)
    for number in range(1000):
        await call.write(wrote(task_id, b"%d" % number))
    await call.write(dispatcher_pb2.LogTunnelMessage(tunnel_id=ask.tunnel_id))
    await call.done_writing()
    assert text_of(*await reading) == [b"%d" % n for n in range(1000)]
    assert await call.code() is grpc.StatusCode.OK
    assert not leader.tunnels._open


async def test_an_agent_that_is_away_is_noted_and_nothing_hangs(leader, agents):
    agent, _, _ = await one_running(leader, agents)
    await agent.close()
    await until(lambda: leader.session_of(agent) is None)
    for follow in (False, True):
        call = leader.control.Logs(control_pb2.LogsRequest(service="web", follow=follow))
        async with asyncio.timeout(5):
            entry = await call.read()
        assert "n1 is not connected" in entry.notice
        call.cancel()


async def test_an_agent_that_does_not_answer_is_noted(leader, agents, monkeypatch):
    monkeypatch.setattr(logs, "CONNECT_TIMEOUT_S", 0.2)
    await one_running(leader, agents)
    (entry,) = await collected(leader.control.Logs(control_pb2.LogsRequest(service="web")))
    assert "did not answer" in entry.notice


async def test_a_tunnel_that_breaks_is_noted(leader, agents):
    agent, _, task_id = await one_running(leader, agents)
    reading = asyncio.create_task(collected(leader.control.Logs(control_pb2.LogsRequest(task=task_id))))
    call = await open_tunnel(agent, await asked(agent))
    await call.write(wrote(task_id, b"one"))
    await asyncio.sleep(0.05)
    call.cancel()
    entries = await reading
    assert text_of(entries[0]) == [b"one"]
    assert "broke" in entries[-1].notice


async def test_who_follows_reads_on_when_a_tunnel_breaks(leader, agents):
    agent, _, task_id = await one_running(leader, agents)
    reading = leader.control.Logs(control_pb2.LogsRequest(task=task_id, follow=True, tail=2))
    call = await open_tunnel(agent, await asked(agent))
    await call.write(wrote(task_id, b"one", 1000))
    assert text_of(await reading.read()) == [b"one"]
    call.cancel()
    ask = (await until(lambda: agent.bodies("open_tunnel")[1:]))[0]
    assert (dict(ask.positions), ask.follow) == ({task_id: 1000}, True)
    again = await open_tunnel(agent, ask)
    await again.write(wrote(task_id, b"two", 2000))
    entry = await reading.read()
    assert (text_of(entry), entry.position) == ([b"two"], 2000)
    await again.write(dispatcher_pb2.LogTunnelMessage(tunnel_id=ask.tunnel_id))
    await again.done_writing()
    assert await reading.read() is grpc.aio.EOF
    assert not leader.tunnels._open


async def test_who_follows_reads_on_when_an_agent_comes_back(leader, agents):
    """As all do when a controller begins to lead; nothing is said of one that does soon."""
    agent, _, task_id = await one_running(leader, agents)
    await agent.close()
    await until(lambda: leader.session_of(agent) is None)
    reading = asyncio.create_task(collected(leader.control.Logs(control_pb2.LogsRequest(task=task_id, follow=True))))
    await asyncio.sleep(2 * logs.RETRY_S)
    await agent.connect(leader.address)
    call = await open_tunnel(agent, await asked(agent))
    await call.write(wrote(task_id, b"one"))
    await call.write(dispatcher_pb2.LogTunnelMessage(tunnel_id=(await asked(agent)).tunnel_id))
    await call.done_writing()
    assert [(text_of(entry), entry.notice) for entry in await reading] == [([b"one"], "")]


@pytest.mark.parametrize("agent_goes_first", [False, True])
async def test_a_reader_that_does_not_read_and_goes_leaves_nothing_behind(leader, agents, agent_goes_first):
    agent, _, task_id = await one_running(leader, agents)
    before = set(asyncio.all_tasks())
    async with grpc.aio.insecure_channel(leader.address) as channel:
        from argosy.proto.argosy.v1 import control_pb2_grpc

        reading = control_pb2_grpc.ControlStub(channel).Logs(control_pb2.LogsRequest(task=task_id, follow=True))
        call = await open_tunnel(agent, await asked(agent))
        line = wrote(task_id, b"x" * 10_000)
        with pytest.raises(TimeoutError):  # the reader's flow control reaches the agent
            await asyncio.wait_for(written(call, [line] * 20_000), 2)
        if agent_goes_first:
            call.cancel()
            await asyncio.sleep(0.1)
        reading.cancel()
    await until(lambda: not leader.tunnels._open)
    call.cancel()
    await until(lambda: not {t for t in asyncio.all_tasks() - before if _ours(t)})


def _ours(task: asyncio.Task) -> bool:
    name = getattr(task.get_coro(), "__qualname__", "")
    return any(part in name for part in ("LogRelay", "_pump", "_relay", "_from_node", "LogTunnel"))


async def test_a_follower_passes_on_what_the_leader_says(controllers, agents):
    leader = await (await controllers("c1")).lead()
    follower = await controllers("c2")
    agent, _, task_id = await one_running(leader, agents)
    await until(lambda: follower.cache.snapshot.revision >= leader.cache.snapshot.revision)
    reading = asyncio.create_task(collected(follower.control.Logs(control_pb2.LogsRequest(service="web"))))
    ask = await asked(agent)
    call = await open_tunnel(agent, ask)
    await call.write(wrote(task_id, b"one"))
    await call.write(dispatcher_pb2.LogTunnelMessage(tunnel_id=ask.tunnel_id))
    await call.done_writing()
    assert text_of(*await reading) == [b"one"]
    missing = follower.control.Logs(control_pb2.LogsRequest(service="nosuch"))
    assert await missing.code() is grpc.StatusCode.NOT_FOUND
    assert "nosuch" in await missing.details()


async def test_a_tunnel_that_nobody_waits_for_is_refused(leader, agents):
    agent = await agents(leader.address)
    call = await open_tunnel(agent, dispatcher_pb2.OpenTunnel(tunnel_id="nosuch"))
    assert await call.code() is grpc.StatusCode.NOT_FOUND
    call = tunnel_of(agent)
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
