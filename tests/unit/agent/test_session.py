"""The agent's session against a scripted controller over loopback."""

import asyncio
import contextlib
import socket

import grpc
import pytest

from argosy.agent.logic.assignments import StaleLeaderError
from argosy.agent.session import session
from argosy.agent.session.reporter import Reporter
from argosy.agent.session.session import LEADER_KEY, Session
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc as rpc

PERIOD_S = 0.05


class ScriptedController(rpc.DispatcherServicer):
    """Runs `script(requests, context)` for each session; counts them."""

    def __init__(self, script) -> None:
        self.script = script
        self.sessions = 0
        self.received: list[pb.AgentMessage] = []

    async def Session(self, request_iterator, context):
        self.sessions += 1
        async for message in self.script(self, request_iterator, context):
            yield message


@contextlib.asynccontextmanager
async def serving(script):
    server = grpc.aio.server()
    controller = ScriptedController(script)
    rpc.add_DispatcherServicer_to_server(controller, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    controller.address = f"127.0.0.1:{port}"
    try:
        yield controller
    finally:
        await server.stop(grace=None)


class Events:
    """Notes what it is told; `assigned` waits for `gate`, and nothing is in force before `kernel` is set."""

    def __init__(self) -> None:
        self.started_sessions = 0
        self.ended_sessions = 0
        self.versions: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.kernel = asyncio.Event()
        self.kernel.set()
        self.refused_epoch = 0
        self.beats: list[int] = []
        self.answers: list[tuple[int, float]] = []

    def hello(self):
        return pb.Hello(node_id="n1", node_name="n1")

    def check_leader(self, leader):
        if leader.epoch < self.refused_epoch:
            raise StaleLeaderError("replaced")

    def started(self, message, channel):
        self.started_sessions += 1

    def ended(self):
        self.ended_sessions += 1

    async def assigned(self, message):
        self.entered.set()
        await self.gate.wait()
        self.versions.append(message.assignments.version)
        return message.assignments.version

    async def in_force(self):
        await self.kernel.wait()

    def beat_sent(self, sequence):
        self.beats.append(sequence)

    def beat_answered(self, sequence, fence_for_s):
        self.answers.append((sequence, fence_for_s))

    def verify_networks(self, request, channel):
        pass

    async def news(self):
        await asyncio.Event().wait()

    def open_tunnel(self, request, channel):
        pass


def started():
    message = pb.ControllerMessage(started=pb.SessionStarted(session_id="s", heartbeat_period=PERIOD_S))
    message.leader.epoch = 5
    return message


def full_set():
    message = pb.ControllerMessage(assignments=pb.AssignmentSet(full=True, version=1))
    message.leader.epoch = 5
    return message


@contextlib.asynccontextmanager
async def running(events, reporter, *addresses):
    task = asyncio.create_task(Session(addresses, events, reporter).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition, task):
    async with asyncio.timeout(10):
        while not condition():
            if task.done():
                task.result()
            await asyncio.sleep(0.005)


async def test_a_stream_that_ends_while_something_is_applied_ends_no_agent():
    """The next heartbeat is then written to a call that is over, before anybody has read its end."""
    events = Events()
    events.gate.clear()

    async def script(controller, requests, context):
        await anext(aiter(requests))
        yield started()
        yield full_set()

    async with serving(script) as controller, running(events, Reporter(), controller.address) as task:
        await asyncio.wait_for(events.entered.wait(), 10)
        await until(lambda: events.ended_sessions > 0, task)
        events.gate.set()
        await until(lambda: controller.sessions > 1, task)
        assert not task.done()


async def test_a_version_is_acknowledged_only_when_it_is_in_force():
    """Tasks stop, and updates go on, on the word that this node's balancers know: it must not be given early."""
    events = Events()
    events.kernel.clear()
    said = []

    async def script(controller, requests, context):
        await anext(aiter(requests))
        yield started()
        for version in (1, 2):
            message = full_set()
            message.assignments.version = version
            yield message
        async for message in requests:
            kind = message.WhichOneof("body")
            said.append(message.ack.version if kind == "ack" else kind)

    async with serving(script) as controller, running(events, Reporter(), controller.address) as task:
        await until(lambda: events.versions == [1, 2] and said.count("heartbeat") > 2, task)
        assert set(said) == {"heartbeat"}
        events.kernel.set()
        await until(lambda: 2 in said, task)


async def test_what_was_not_acknowledged_is_reported_again_in_the_next_session():
    events, reporter = Events(), Reporter()
    reports = []
    events.started = lambda message, channel: reporter.restart({"t1": TaskStatus(TaskState.RUNNING)})

    async def script(controller, requests, context):
        await anext(aiter(requests))
        yield started()
        async for message in requests:
            if message.WhichOneof("body") == "report":
                reports.append([(t.task_id, t.status.state) for t in message.report.tasks])
                return

    async with serving(script) as controller, running(events, reporter, controller.address) as task:
        await until(lambda: len(reports) > 1, task)
    assert reports[0] == reports[1] == [("t1", TaskState.RUNNING)]


async def test_the_leader_that_a_follower_names_is_tried_next():
    events = Events()

    async def lead(controller, requests, context):
        await anext(aiter(requests))
        yield started()
        async for _ in requests:
            pass

    async with serving(lead) as leader:

        async def refuse(controller, requests, context):
            await anext(aiter(requests))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no", ((LEADER_KEY, leader.address),))
            yield

        async with serving(refuse) as follower, running(events, Reporter(), follower.address) as task:
            await until(lambda: events.started_sessions == 1, task)
            assert (follower.sessions, leader.sessions) == (1, 1)


async def test_the_first_beat_goes_at_once_and_its_answer_is_taken_with_what_it_grants():
    events = Events()

    async def script(controller, requests, context):
        await anext(aiter(requests))
        yield pb.ControllerMessage(
            leader=pb.LeaderEpoch(epoch=5, revision=1), started=pb.SessionStarted(heartbeat_period=3600)
        )
        async for message in requests:
            if message.WhichOneof("body") == "heartbeat":
                answer = pb.HeartbeatAck(sequence=message.heartbeat.sequence, fence_for=9.5)
                yield pb.ControllerMessage(leader=pb.LeaderEpoch(epoch=5, revision=1), heartbeat_ack=answer)

    async with serving(script) as controller, running(events, Reporter(), controller.address) as task:
        await until(lambda: events.answers, task)
    assert (events.beats, events.answers) == ([1], [(1, 9.5)])


async def test_a_controller_that_goes_silent_is_left():
    events = Events()
    silent = asyncio.Event()

    async def script(controller, requests, context):
        await anext(aiter(requests))
        yield started()
        await silent.wait()

    async with serving(script) as controller, running(events, Reporter(), controller.address) as task:
        await until(lambda: controller.sessions > 1, task)
        silent.set()


async def test_a_host_that_takes_connections_and_says_nothing_is_left(monkeypatch):
    """As one whose controller was stopped: the hello is not even written then."""
    monkeypatch.setattr(session, "HELLO_S", 1.0)
    events = Events()

    async def script(controller, requests, context):
        yield started()
        async for _ in requests:
            pass

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with serving(script) as controller, running(events, Reporter(), address, controller.address) as task:
            await until(lambda: events.started_sessions, task)


@pytest.mark.parametrize("first", ["stale", "not started"])
async def test_a_controller_that_may_not_command_is_left(first):
    events = Events()
    events.refused_epoch = 6 if first == "stale" else 0
    over = asyncio.Event()

    async def script(controller, requests, context):
        await anext(aiter(requests))
        yield started() if first == "stale" else full_set()
        await over.wait()

    async with serving(script) as controller, running(events, Reporter(), controller.address) as task:
        await until(lambda: controller.sessions > 1, task)
        over.set()
    assert events.started_sessions == 0
    assert events.versions == []


async def test_a_new_session_does_not_go_on_the_connection_that_a_call_of_the_old_one_holds_open():
    peers = []

    async def script(controller, requests, context):
        peers.append(context.peer())
        async for _ in requests:
            yield pb.ControllerMessage(started=pb.SessionStarted(session_id="s"))

    async with serving(script) as controller, contextlib.AsyncExitStack() as held:
        for _ in range(2):
            channel = await held.enter_async_context(session.connect(controller.address))
            call = rpc.DispatcherStub(channel).Session()
            await call.write(pb.AgentMessage(hello=pb.Hello(node_id="n")))
            await call.read()
    assert len(set(peers)) == 2
