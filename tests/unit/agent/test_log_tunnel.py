"""The tunnel of output from an agent to a controller: several tasks in it, and either end breaking off."""

import asyncio
from collections import defaultdict
from types import SimpleNamespace

import grpc
import pytest

from argosy.agent.launcher.logformat import encode
from argosy.agent.logs.tunnel import send_logs
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc as rpc


class Controller(rpc.DispatcherServicer):
    """Takes tunnels; breaks one off once it has so many bytes of output."""

    def __init__(self) -> None:
        self.received: list[pb.LogTunnelMessage] = []
        self.breaks_at = 2**60
        self.closed = asyncio.Event()
        self._news = asyncio.Event()

    async def LogTunnel(self, request_iterator, context):
        try:
            async for message in request_iterator:
                self.received.append(message)
                self._news.set()
                if sum(map(len, self.output().values())) >= self.breaks_at:
                    break
        finally:
            self.closed.set()
        return pb.LogTunnelResponse()

    async def has(self, task_id, count):
        """Wait until so many bytes of a task's output have come."""
        while len(self.output().get(task_id, b"")) < count:
            self._news.clear()
            await self._news.wait()

    def output(self):
        texts = defaultdict(bytes)
        for message in self.received:
            texts[message.task_id] += b"".join(output.data for output in message.output)
        return dict(texts)


@pytest.fixture
async def controller():
    server, servicer = grpc.aio.server(), Controller()
    rpc.add_DispatcherServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as servicer.channel:
        yield servicer
    await server.stop(None)


@pytest.fixture
def host(tmp_path):
    return SimpleNamespace(log_path=lambda task_id: tmp_path / task_id / "log")


def write(host, task_id, data):
    path = host.log_path(task_id)
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as log:
        log.write(encode(data, b"stdout", 1_700_000_000_000_000_000))


def lines(count):
    return b"".join(b"line %d\n" % number for number in range(count))


async def test_all_of_several_tasks_arrives_and_then_the_word_that_it_was_all(controller, host):
    ended = asyncio.Event()
    write(host, "t1", lines(100_000))
    write(host, "t2", lines(50_000))
    sending = asyncio.create_task(
        send_logs(
            pb.OpenTunnel(tunnel_id="x", task_ids=["t1", "t2", "t3"], follow=True),
            controller.channel,
            host,
            lambda task_id: ended if task_id != "t3" else None,
        )
    )
    async with asyncio.timeout(60):
        await controller.has("t1", len(lines(100_000)))
        write(host, "t1", b"last words")
        ended.set()
        await sending
    assert controller.output()["t1"] == lines(100_000) + b"last words"
    assert controller.output()["t2"] == lines(50_000)
    assert [m.notice for m in controller.received if m.notice] == ["this node knows nothing of the task"]
    assert [n for n, m in enumerate(controller.received) if m.tunnel_id] == [0, len(controller.received) - 1]
    assert len(controller.received) < 200, "what is ready goes together"


async def test_many_last_lines_do_not_have_to_fit_one_message(controller, host):
    for _ in range(100):
        write(host, "t1", b"x" * 60_000 + b"\n")
    request = pb.OpenTunnel(tunnel_id="x", task_ids=["t1"], tail=90)
    async with asyncio.timeout(60):
        await send_logs(request, controller.channel, host, lambda _: asyncio.Event())
    assert controller.output()["t1"] == (b"x" * 60_000 + b"\n") * 90
    assert [m.HasField("position") for m in controller.received if m.output][-2:] == [False, True]


async def test_when_the_other_end_goes_the_reading_ends(controller, host):
    """Also while nothing is written; and leaves no error behind (pytest looks for those that nobody took)."""
    write(host, "t1", lines(10))
    controller.breaks_at = 1
    async with asyncio.timeout(30):
        request = pb.OpenTunnel(tunnel_id="x", task_ids=["t1"], follow=True)
        await send_logs(request, controller.channel, host, lambda _: asyncio.Event())


async def test_an_agent_that_ends_breaks_the_tunnel_off(controller, host):
    write(host, "t1", lines(10))
    request = pb.OpenTunnel(tunnel_id="x", task_ids=["t1"], follow=True)
    before = asyncio.all_tasks()
    sending = asyncio.create_task(send_logs(request, controller.channel, host, lambda _: asyncio.Event()))
    async with asyncio.timeout(30):
        await controller.has("t1", 1)
        sending.cancel()
        await controller.closed.wait()
        while left := {t for t in asyncio.all_tasks() - before if "_send" in t.get_coro().__qualname__}:
            await asyncio.wait(left)
    assert not any(message.tunnel_id for message in controller.received[1:]), "that was not all"
