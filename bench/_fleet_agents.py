"""Agents without hosts, many in one process: sessions, heartbeats, hosts' beats, and reports that all tasks run.

Started by bench/fleet.py. They are cheap, since they share the machine with the leader that is measured: of what they
are assigned they read their own tasks and skip what they are told of networks.
"""

import asyncio
import hashlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import grpc.aio

from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc
from argosy.proto.argosy.v1 import types_pb2 as tpb

CHANNELS = 20
"""Sessions of one process share so many connections."""
OPENED_PER_S = 1000
BEAT_KEY = b"k" * 32
PUT, REMOVE, KEY = b"\x22", b"\x2a", b"\x0a"
"""Of AssignmentSet and Assignment: the tags of `put`, `remove` and `key`, as they are on the wire."""
OWN = (b"task/", b"revision/", b"image/", b"config/", b"secret/")


@dataclass(slots=True)
class Tally:
    """What agents have seen. `slowest_s`: to the answer of a heartbeat, since the last time that somebody asked."""

    opened: int = 0
    running: int = 0
    beats: int = 0
    late: int = 0
    slowest_s: float = 0.0
    received: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Take in what others have seen."""
        for name in ("opened", "running", "beats", "late", "received"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        for name, count in other.errors.items():
            self.errors[name] = self.errors.get(name, 0) + count


class Agent:
    """One session: an agent without a host."""

    def __init__(self, number: int, tally: Tally, host: socket.socket) -> None:
        """`host` sends the beats of the agent's host."""
        self._number = number
        self._id = f"n{number:012}"
        self._tally = tally
        self._host = host
        self._call: Any = None
        self._outbox: asyncio.Queue[pb.AgentMessage] = asyncio.Queue()
        self._tasks: dict[str, int] = {}
        self._reports = 0
        self._beat_at: dict[int, float] = {}
        self._period_s = 5.0

    async def run(self, stub: dispatcher_pb2_grpc.DispatcherStub) -> None:
        """Hold the session; open it again when it breaks, which is counted."""
        while True:
            self._tasks.clear()
            self._outbox = asyncio.Queue()
            self._beat_at.clear()
            parts: list[asyncio.Task[None]] = []
            call = stub.Session()
            try:
                await call.write(self._hello())
                parts.append(asyncio.create_task(self._write(call)))
                while (message := await call.read()) is not grpc.aio.EOF:
                    if message.WhichOneof("body") == "started":
                        self._tally.opened += 1
                        self._period_s = message.started.heartbeat_period
                        parts.append(asyncio.create_task(self._beat()))
                    self._take(message)
            except grpc.aio.AioRpcError as error:
                name = error.code().name
                self._tally.errors[name] = self._tally.errors.get(name, 0) + 1
            finally:
                for part in parts:
                    part.cancel()
                self._tally.running -= sum(state == tpb.TASK_STATE_RUNNING for state in self._tasks.values())
            await asyncio.sleep(random.uniform(0.5, 2))

    def _hello(self) -> pb.AgentMessage:
        number = self._number
        description = tpb.NodeDescription(
            hostname=f"host{number}",
            platform=tpb.Platform(os="linux", architecture="amd64"),
            resources=tpb.Resources(cpus=64, memory_bytes=256 << 30),
            underlay_address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            underlay_mtu=1500,
            boot_id="b",
        )
        hello = pb.Hello(
            node_id=self._id,
            node_name=f"host{number}",
            role="worker",
            labels={"zone": f"z{number % 10}", "rack": f"r{number % 100}"},
            description=description,
            beat_key=BEAT_KEY,
        )
        return pb.AgentMessage(hello=hello)

    async def _write(self, call: Any) -> None:
        while True:
            await call.write(await self._outbox.get())

    async def _beat(self) -> None:
        sequence = 0
        await asyncio.sleep(random.uniform(0, self._period_s))
        while True:
            sequence += 1
            self._beat_at[sequence] = time.monotonic()
            self._outbox.put_nowait(pb.AgentMessage(heartbeat=pb.Heartbeat(sequence=sequence)))
            self._host.send(host_beat(self._id))
            await asyncio.sleep(self._period_s * random.uniform(0.9, 1.1))

    def _take(self, message: pb.ControllerMessage) -> None:
        match message.WhichOneof("body"):
            case "heartbeat_ack":
                took = time.monotonic() - self._beat_at.pop(message.heartbeat_ack.sequence, time.monotonic())
                self._period_s = message.heartbeat_ack.heartbeat_period
                self._tally.beats += 1
                self._tally.late += took > self._period_s
                self._tally.slowest_s = max(self._tally.slowest_s, took)
            case "assignments":
                self._assigned(message.assignments)
            case _:
                pass

    def _assigned(self, body: pb.AssignmentSet) -> None:
        report = pb.StatusReport()
        entries = body.entries
        self._tally.received += len(entries)
        for key, put in own_entries(entries):
            task_id = key.removeprefix(b"task/").decode()
            if put is None:
                self._tally.running -= self._tasks.pop(task_id, None) == tpb.TASK_STATE_RUNNING
            else:
                self._told(pb.Assignment.FromString(put).task, report)
        if not body.more:
            self._outbox.put_nowait(pb.AgentMessage(ack=pb.AssignmentAck(version=body.version)))
        if report.tasks:
            self._reports += 1
            report.sequence = self._reports
            self._outbox.put_nowait(pb.AgentMessage(report=report))

    def _told(self, task: pb.TaskAssignment, report: pb.StatusReport) -> None:
        before = self._tasks.get(task.id)
        if task.desired_state > tpb.TASK_STATE_RUNNING:
            state = tpb.TASK_STATE_SHUTDOWN
        elif task.desired_state == tpb.TASK_STATE_READY:
            state = tpb.TASK_STATE_READY
        else:
            state = tpb.TASK_STATE_RUNNING
        if state == tpb.TASK_STATE_SHUTDOWN and task.attachments and not task.drained and before is not None:
            return  # others may still send it connections
        if before in (state, tpb.TASK_STATE_SHUTDOWN):
            return
        self._tasks[task.id] = state
        self._tally.running += (state == tpb.TASK_STATE_RUNNING) - (before == tpb.TASK_STATE_RUNNING)
        status = tpb.TaskStatus(state=state, at=time.time(), released=state == tpb.TASK_STATE_SHUTDOWN)
        report.tasks.add(task_id=task.id, status=status)


def host_beat(node_id: str) -> bytes:
    """Return a datagram as launchers send them."""
    text = f"{node_id} {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}".encode()
    return text + b" " + hashlib.blake2s(text, key=BEAT_KEY).hexdigest().encode()


def own_entries(entries: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield the tasks among a node's own assignments: key, and the Assignment (None: removed).

    A node's own come before those of its networks, where this ends: nothing of what follows is looked at.
    """
    at, end = 0, len(entries)
    while at < end:
        tag = entries[at : at + 1]
        size, at = _number(entries, at + 1)
        body, at = entries[at : at + size], at + size
        key = body
        if tag == PUT:
            length, start = _number(body, 1)
            key = body[start : start + length]
        if not key.startswith(OWN):
            return
        if key.startswith(b"task/"):
            yield key, body if tag == PUT else None


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at a position, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


async def agents(address: str, first: int, count: int) -> None:
    """Run the agents of one process; print the tally whenever a line comes in."""
    tally = Tally()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    stubs = [
        dispatcher_pb2_grpc.DispatcherStub(grpc.aio.insecure_channel(address, options=options)) for _ in range(CHANNELS)
    ]
    host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    name, _, port = address.rpartition(":")
    host.connect((name, int(port)))
    async with asyncio.TaskGroup() as group:
        group.create_task(_answer(tally))
        for number in range(first, first + count):
            group.create_task(Agent(number, tally, host).run(stubs[number % CHANNELS]))
            await asyncio.sleep(1 / OPENED_PER_S)


async def _answer(tally: Tally) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps(asdict(tally)), flush=True)
        tally.slowest_s = 0.0
    os._exit(0)  # the bench is over: nothing here has to be ended in order


if __name__ == "__main__":
    import uvloop

    uvloop.run(agents(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
