"""One leader and 5,000 agents: does it hold all sessions, and what does it cost when nothing happens?

    .venv/bin/python bench/fleet.py [--agents 5000] [--tasks 100000] [--services 200] [--calm 30] [--update 1000]

A real etcd, a real controller process and, from several processes, as many real gRPC sessions as there are agents: each
says hello, beats as the controller asks it to, acknowledges what it is assigned, and reports every task RUNNING as soon
as it has it (a bench of the controller: no agent runs a container). Then, in this order: all tasks are made and run; a
calm time, in which the leader's processor time is taken; a rolling update of one service while the rest goes on.

A session counts as held when it was never opened a second time; a heartbeat as in time when it is answered before the
next is due. No peer prints these figures; Kubernetes states 5,000 nodes and 150,000 pods as its limit (docs/peers).
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from argosy.proto.argosy.v1 import control_pb2 as cpb
from argosy.proto.argosy.v1 import control_pb2_grpc, dispatcher_pb2_grpc
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as tpb

PROJECT = Path(__file__).resolve().parent.parent
ETCD = "/opt/argosy/etcd/bin/etcd"
CHANNELS = 20
"""Sessions of one process share so many connections."""
TICK_S = os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------ agents, in processes of their own


@dataclass(slots=True)
class Tally:
    """What the agents of one process have seen."""

    opened: int = 0
    running: int = 0
    beats: int = 0
    late: int = 0
    slowest_s: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)


class Agent:
    """One session: an agent without a host."""

    def __init__(self, number: int, tally: Tally) -> None:
        self._number = number
        self._tally = tally
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
            beating: asyncio.Task[None] | None = None
            call = stub.Session()
            writing = asyncio.create_task(self._write(call))
            try:
                self._outbox.put_nowait(self._hello())
                while (message := await call.read()) is not grpc.aio.EOF:
                    if message.WhichOneof("body") == "started":
                        self._tally.opened += 1
                        self._period_s = message.started.heartbeat_period
                        beating = asyncio.create_task(self._beat())
                    self._take(message)
            except grpc.aio.AioRpcError as error:
                name = error.code().name
                self._tally.errors[name] = self._tally.errors.get(name, 0) + 1
            finally:
                for part in (writing, beating):
                    if part:
                        part.cancel()
                self._tally.running -= len(self._tasks)
            await asyncio.sleep(random.uniform(0.5, 2))

    def _hello(self) -> pb.AgentMessage:
        description = tpb.NodeDescription(
            hostname=f"host{self._number}",
            platform=tpb.Platform(os="linux", architecture="amd64"),
            resources=tpb.Resources(cpus=64, memory_bytes=256 << 30),
            underlay_address=f"10.{self._number >> 16}.{self._number >> 8 & 255}.{self._number & 255}",
            underlay_mtu=1500,
            boot_id="b",
        )
        hello = pb.Hello(
            node_id=f"n{self._number:012}",
            node_name=f"host{self._number}",
            role="worker",
            labels={"zone": f"z{self._number % 10}", "rack": f"r{self._number % 100}"},
            description=description,
            beat_key=b"k" * 32,
        )
        return pb.AgentMessage(hello=hello)

    async def _write(self, call: object) -> None:
        while True:
            await call.write(await self._outbox.get())  # type: ignore[attr-defined]

    async def _beat(self) -> None:
        sequence = 0
        await asyncio.sleep(random.uniform(0, self._period_s))
        while True:
            sequence += 1
            self._beat_at[sequence] = time.monotonic()
            self._outbox.put_nowait(pb.AgentMessage(heartbeat=pb.Heartbeat(sequence=sequence)))
            await asyncio.sleep(self._period_s * random.uniform(0.9, 1.1))

    def _take(self, message: pb.ControllerMessage) -> None:
        match message.WhichOneof("body"):
            case "heartbeat_ack":
                took = time.monotonic() - self._beat_at.pop(message.heartbeat_ack.sequence, time.monotonic())
                self._tally.beats += 1
                self._tally.late += took > self._period_s
                self._tally.slowest_s = max(self._tally.slowest_s, took)
            case "assignments":
                self._assigned(message.assignments)
            case _:
                pass

    def _assigned(self, body: pb.AssignmentSet) -> None:
        self._outbox.put_nowait(pb.AgentMessage(ack=pb.AssignmentAck(version=body.version)))
        report = pb.StatusReport()
        for key in body.remove:
            if self._tasks.pop(key.removeprefix("task/"), None) == tpb.TASK_STATE_RUNNING:
                self._tally.running -= 1
        for one in body.put:
            if one.WhichOneof("body") == "task":
                self._told(one.task, report)
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
        if before == state or before == tpb.TASK_STATE_SHUTDOWN:
            return
        self._tasks[task.id] = state
        self._tally.running += (state == tpb.TASK_STATE_RUNNING) - (before == tpb.TASK_STATE_RUNNING)
        status = tpb.TaskStatus(state=state, at=time.time(), released=state == tpb.TASK_STATE_SHUTDOWN)
        report.tasks.add(task_id=task.id, status=status)


async def agents(address: str, first: int, count: int) -> None:
    """Run the agents of one process; print the tally whenever a line comes in."""
    tally = Tally()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    stubs = [
        dispatcher_pb2_grpc.DispatcherStub(grpc.aio.insecure_channel(address, options=options)) for _ in range(CHANNELS)
    ]
    async with asyncio.TaskGroup() as group:
        for number in range(first, first + count):
            group.create_task(Agent(number, tally).run(stubs[number % CHANNELS]))
            if number % 20 == 0:
                await asyncio.sleep(0.02)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while await reader.readline():
            print(json.dumps({name: getattr(tally, name) for name in Tally.__slots__}), flush=True)
            tally.slowest_s = 0.0
        os._exit(0)  # the bench is over: nothing here has to be ended in order


# ------------------------------------------------------------------ the bench


class Fleet:
    """The processes of the agents."""

    def __init__(self, address: str, number: int, processes: int, children: list[subprocess.Popen[Any]]) -> None:
        each = -(-number // processes)
        self._children = [
            subprocess.Popen(
                [sys.executable, __file__, "--run-agents", address, str(first), str(min(each, number - first))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for first in range(0, number, each)
        ]
        children += self._children

    def tally(self) -> Tally:
        """Return what all agents have seen."""
        total = Tally()
        for child in self._children:
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
        for child in self._children:
            assert child.stdout
            seen = json.loads(child.stdout.readline())
            for name in ("opened", "running", "beats", "late"):
                setattr(total, name, getattr(total, name) + seen[name])
            total.slowest_s = max(total.slowest_s, seen["slowest_s"])
            for name, count in seen["errors"].items():
                total.errors[name] = total.errors.get(name, 0) + count
        return total


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK_S


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_until(condition, what: str, timeout_s: float) -> float:  # type: ignore[no-untyped-def]
    """Wait for a condition and return how long it took; SystemExit when it does not come."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise SystemExit(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - began


def service(number: int, replicas: int) -> cpb.CreateServiceRequest:
    """Return one of the services: some with constraints, some spread."""
    spec = tpb.ServiceSpec(name=f"s{number}", replicas=replicas)
    spec.task.container.image = "fleet:1"
    spec.task.reservations.cpus = 0.05
    spec.task.reservations.memory_bytes = 16 << 20
    spec.update.parallelism = 50
    spec.update.order = tpb.UPDATE_ORDER_START_FIRST
    spec.rollback.parallelism = 1
    if number % 4 == 1:
        spec.task.placement.constraints.append(f"node.labels.zone != z{number % 10}")
    if number % 4 == 2:
        spec.task.placement.preferences.add(spread="node.labels.zone")
    return cpb.CreateServiceRequest(project="default", spec=spec)


def main() -> None:
    """Run the bench."""
    if sys.argv[1:2] == ["--run-agents"]:
        uvloop.run(agents(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--agents", type=int, default=5000)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--calm", type=float, default=30.0, help="seconds")
    parser.add_argument("--update", type=int, default=1000, help="tasks of the service that is updated")
    parser.add_argument("--processes", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        children: list[subprocess.Popen[Any]] = []
        try:
            run(Path(work), options, children)
        finally:
            for child in reversed(children):
                child.terminate()
                child.wait(30)


def run(work: Path, options: argparse.Namespace, children: list[subprocess.Popen[Any]]) -> None:
    """Start everything, measure and print."""
    client, peer, port = free_port(), free_port(), free_port()
    urls = [f"--listen-client-urls=http://127.0.0.1:{client}", f"--advertise-client-urls=http://127.0.0.1:{client}"]
    urls += [f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}"]
    urls += [f"--initial-cluster=default=http://127.0.0.1:{peer}", "--quota-backend-bytes=8589934592"]
    log = (work / "log").open("wb")
    children.append(subprocess.Popen([ETCD, f"--data-dir={work}/etcd", *urls], stdout=log, stderr=log))
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "argosy.controller", "--etcd", f"127.0.0.1:{client}", "--listen", address]
    command += ["--data-dir", f"{work}/data", "--log-level", "warning"]
    errors = (work / "controller.log").open("wb")
    leader = subprocess.Popen(command, stdout=errors, stderr=errors)
    children.append(leader)
    control = control_pb2_grpc.ControlStub(grpc.insecure_channel(address))
    wait_until(lambda: leads(control), "a leader", 30)
    import_image(work, address)
    memory = memory_mib(leader.pid)
    print(f"load before {os.getloadavg()[0]:.2f}, {os.cpu_count()} processors; leader's memory {memory:.0f} MiB")

    began = time.monotonic()
    fleet = Fleet(address, options.agents, options.processes, children)
    wait_until(lambda: fleet.tally().opened >= options.agents, "all sessions", 300)
    print(f"{options.agents} sessions after {time.monotonic() - began:.1f} s; memory {memory_mib(leader.pid):.0f} MiB")

    each = options.tasks // options.services
    began, used = time.monotonic(), cpu_s(leader.pid)
    for number in range(options.services):
        control.CreateService(service(number, options.update if number == 0 else each), timeout=120)
    wanted = each * (options.services - 1) + options.update
    wait_until(lambda: fleet.tally().running >= wanted, f"{wanted} tasks run", 1800)
    took = time.monotonic() - began
    print(
        f"{wanted} tasks run after {took:.1f} s ({wanted / took:,.0f} a second, leader "
        f"{cpu_s(leader.pid) - used:.1f} s of processor time); memory {memory_mib(leader.pid):.0f} MiB"
    )

    wait_until(lambda: calm(leader.pid), "the leader comes to rest", 300)
    before, used, began = fleet.tally(), cpu_s(leader.pid), time.monotonic()
    shares = []
    while time.monotonic() - began < options.calm:
        last, at = cpu_s(leader.pid), time.monotonic()
        time.sleep(1)
        shares.append((cpu_s(leader.pid) - last) / (time.monotonic() - at))
    after = fleet.tally()
    beats = (after.beats - before.beats) / (time.monotonic() - began)
    print(
        f"calm for {options.calm:g} s: leader {statistics.median(shares):.2f} cores (median; most {max(shares):.2f}), "
        f"{beats:,.0f} heartbeats a second, {after.late - before.late} answered late, slowest {after.slowest_s:.2f} s"
    )

    updated = control.GetService(cpb.GetServiceRequest(project="default", ref="s0"))
    updated.spec.task.container.env.append("VERSION=2")
    request = cpb.UpdateServiceRequest(project="default", ref="s0", spec=updated.spec, version=updated.meta.version)
    began, used = time.monotonic(), cpu_s(leader.pid)
    updated = control.UpdateService(request, timeout=60)
    batches = -(-options.update // updated.spec.update.parallelism)

    def complete() -> bool:
        found = control.GetService(cpb.GetServiceRequest(project="default", ref="s0"))
        return bool(found.update.state == tpb.UPDATE_STATE_COMPLETED)

    wait_until(complete, "the update", 900)
    took = time.monotonic() - began
    print(
        f"rolling update of {options.update} tasks, {batches} batches: {took:.1f} s, leader "
        f"{(cpu_s(leader.pid) - used) / took:.2f} cores"
    )
    last = fleet.tally()
    again = last.opened - options.agents
    print(
        f"sessions opened again: {again}; heartbeats answered late: {last.late} of {last.beats}; "
        f"errors {last.errors or 'none'}; memory {memory_mib(leader.pid):.0f} MiB; load {os.getloadavg()[0]:.2f}"
    )
    said = (work / "controller.log").read_text()
    if said:
        print(f"the controller said: {said[-2000:]}")


def leads(control: control_pb2_grpc.ControlStub) -> bool:
    """Whether the controller answers and leads."""
    try:
        return bool(control.GetCluster(cpb.GetClusterRequest(project="default"), timeout=2).leader)
    except grpc.RpcError:
        return False


def calm(pid: int) -> bool:
    """Whether a process uses under half of a core."""
    before = cpu_s(pid)
    time.sleep(2)
    return cpu_s(pid) - before < 1.0


def import_image(work: Path, address: str) -> None:
    """Give the cluster the image that its tasks name."""
    tar = work / "image.tar"
    with tar.open("wb") as out:
        subprocess.run([str(PROJECT / "deploy/demo/image.sh"), "1"], stdout=out, check=True)
    argosy = str(PROJECT / ".venv/bin/argosy")
    subprocess.run([argosy, "--host", address, "image", "import", "fleet:1", str(tar)], check=True, capture_output=True)


if __name__ == "__main__":
    main()
