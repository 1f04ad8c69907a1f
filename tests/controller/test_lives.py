"""Nothing leaks, whatever happens to the leader: thousands of tasks live and end while controllers are killed.

The controllers are processes that get SIGKILL, etcd is real; agents are scripted, they have no hosts. The network is so
small that addresses that leak are missed soon.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import grpc
import pytest

from argosy.core.codec import decode, encode
from argosy.core.kinds import KINDS
from argosy.core.network import Network, NetworkSpec
from argosy.core.node import Node, NodeState
from argosy.core.service import Service, ServiceSpec, UpdateConfig
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2, types_pb2
from tests.controller.harness import Controller, FakeAgent, a_service_spec, until
from tests.store.etcd_server import free_port

NODES = 3
TASKS = 45
SUBNET = "10.99.0.0/22"
"""31 slices of 32 addresses for tasks. A slot holds up to seven: its task's, five ended ones', a leaving one's. After
a failover the node that is heard first may get all tasks, and keeps the ten slices that it leases for them."""
SILENT_S = 3.0
"""An agent whose beats are not answered for so long opens another session."""
PATIENCE_S = 60.0
"""For something that takes under a second on an idle machine."""


class Processes:
    """Two controllers that campaign; each is started anew when it was killed."""

    def __init__(self, etcd, cluster, folder):
        self._started = {}
        self._commands = {}
        for name in ("a", "b"):
            address = f"127.0.0.1:{free_port()}"
            options = [
                "--etcd",
                etcd,
                "--cluster",
                cluster,
                "--listen",
                address,
                "--advertise",
                address,
                "--name",
                name,
            ]
            self._commands[name] = [
                *(sys.executable, "-m", "argosy.controller", *options, "--data-dir", str(folder / name)),
                *("--log-level", "warning"),
            ]
        self._log = (folder / "controllers.log").open("wb")
        self.log = folder / "controllers.log"

    def start(self, name):
        self._started[name] = subprocess.Popen(self._commands[name], stdout=self._log, stderr=self._log)

    def kill(self, name):
        process = self._started.pop(name)
        process.kill()
        process.wait()

    def __enter__(self):
        for name in self._commands:
            self.start(name)
        return self

    def __exit__(self, *_):
        for name in list(self._started):
            self.kill(name)
        self._log.close()


class Life:
    """A cluster with its agents and a user, as the tests see it. `watching` is a controller that never leads."""

    def __init__(self, watching: Controller, processes: Processes):
        self.watching = watching
        self.ended = 0
        self.failovers = 0
        self.agents = [FakeAgent(f"n{number}", obedient=True, cpus=64) for number in range(NODES)]
        self._processes = processes
        self._seen = set()

    async def keep(self, agent: FakeAgent) -> None:
        """Have an agent beat, and find the leader again whenever its session ends or is silent, as real ones do."""
        heard, silent_since = 0, time.monotonic()
        while True:
            if len(agent.messages) != heard:
                heard, silent_since = len(agent.messages), time.monotonic()
            elif agent.call is not None and time.monotonic() - silent_since > SILENT_S:
                agent.call.cancel()
                silent_since = time.monotonic()
            with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError):
                if (agent.call is None or agent.call.done()) and self.watching.view.leader_address:
                    await agent.close()
                    await agent.connect(self.watching.view.leader_address)
                if agent.call is not None:
                    async with asyncio.timeout(SILENT_S):
                        await agent.beat()
            await asyncio.sleep(0.2)

    async def fail_over(self) -> None:
        """Kill the leader as it is at work; wait until another leads."""
        view = self.watching.view
        name, epoch = view.leader_name, view.epoch
        self._processes.kill(name)
        self._processes.start(name)
        await until(lambda: view.leader_name and view.epoch > epoch, PATIENCE_S)
        self.failovers += 1

    async def update(self, service: Service, number: int) -> None:
        """Have all tasks of a service replaced."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                now = await self.ask("GetService", control_pb2.GetServiceRequest(ref=service.spec.name))
                now.spec.task.container.env[:] = [f"N={number}"]
                request = control_pb2.UpdateServiceRequest(
                    ref=service.spec.name, spec=now.spec, version=now.meta.version
                )
                with contextlib.suppress(grpc.aio.AioRpcError):  # the service has changed in between
                    await self.watching.control.UpdateService(request)
                    return

    async def all_run(self, service: Service, number: int) -> None:
        """Wait until all tasks run as the update of that number wants."""

        def done() -> bool:
            here = self.watching.cache.snapshot.get(Service, service.meta.id)
            tasks = [t for t in self.tasks() if t.desired_state <= TaskState.RUNNING]
            self._seen |= {t.meta.id for t in tasks}
            self.assert_addresses_unique()
            return (
                here.spec.task.container.env == (f"N={number}",)
                and len(tasks) == here.spec.replicas
                and all(t.revision == here.revision and t.status.state is TaskState.RUNNING for t in tasks)
            )

        try:
            await until(done, PATIENCE_S)
        except TimeoutError:
            here = self.watching.cache.snapshot.get(Service, service.meta.id)
            states = Counter((t.desired_state.name, t.status.state.name, t.status.reason) for t in self.tasks())
            nodes = [(n.spec.name, n.status) for n in self.watching.cache.snapshot.all(Node)]
            sessions = [(a.call.done(), a.error, len(a.messages)) for a in self.agents]
            raise AssertionError(
                f"{self.lives} lives, update {number} under {self.watching.view.leader_name}: {here.update}, {states}, "
                f"{nodes}, {sessions}"
            ) from None

    @property
    def lives(self) -> int:
        """How many tasks have lived."""
        return len(self._seen)

    def tasks(self) -> list[Task]:
        return list(self.watching.cache.snapshot.all(Task))

    def assert_addresses_unique(self) -> None:
        held = [(a.network_id, a.address) for t in self.tasks() if not t.status.released for a in t.attachments]
        assert len(held) == len(set(held))

    async def ask(self, name, request):
        """Ask until a controller that leads has answered."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await getattr(self.watching.control, name)(request)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.05)

    async def keys(self) -> dict[str, int]:
        """Return how many keys of each kind etcd has; the cluster's own is made when it is first needed."""
        prefix = f"/argosy/{self.watching.view.cluster}/".encode()
        answer = await self.watching.client.range(prefix, prefix[:-1] + b"0", keys_only=True)
        kinds = [kv.key.decode().split("/")[3] for kv in answer.kvs]
        return {kind.name: kinds.count(kind.name) for kind in KINDS if kind.name != "cluster"} | {
            "others": len(set(kinds) - {k.name for k in KINDS})
        }


@pytest.mark.parametrize(
    ("lives", "failovers"),
    [(400, 2), pytest.param(10_000, 20, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
)
async def test_no_address_slice_or_key_leaks(lives, failovers, etcd, controllers, tmp_path):
    watching = await controllers("watching")
    cluster = watching.view.cluster
    async with contextlib.AsyncExitStack() as stack:
        life = Life(watching, stack.enter_context(Processes(etcd.endpoint, cluster, tmp_path)))
        await until(lambda: watching.view.leader_address, PATIENCE_S)
        await watching.add_image()
        group = await stack.enter_async_context(asyncio.TaskGroup())
        agents = life.agents
        keeping = [group.create_task(life.keep(agent)) for agent in agents]
        snap = lambda: watching.cache.snapshot  # noqa: E731
        await until(lambda: [n.status.state for n in snap().all(Node)] == [NodeState.READY] * NODES, PATIENCE_S)
        before = await life.keys()

        for name, subnet in (("net", SUBNET), ("wide", "10.98.0.0/22")):
            spec = encode(NetworkSpec(name=name, subnet=subnet), types_pb2.NetworkSpec)
            await life.ask("CreateNetwork", control_pb2.CreateNetworkRequest(spec=spec))
        spec = a_service_spec("web", replicas=TASKS, networks=("net", "wide"))
        wanted = replace(decode(spec, ServiceSpec), update=UpdateConfig(parallelism=0, monitor=0.0))
        await life.ask("CreateService", control_pb2.CreateServiceRequest(spec=encode(wanted, types_pb2.ServiceSpec)))
        await until(lambda: list(snap().all(Service)), PATIENCE_S)
        (service,) = snap().all(Service)

        number = 0
        while life.lives < lives or life.failovers < failovers:
            number += 1
            await life.update(service, number)
            if life.failovers < failovers and life.lives >= lives * life.failovers // failovers:
                await life.fail_over()
            await life.all_run(service, number)

        await until(lambda: len(life.tasks()) <= TASKS * 7, PATIENCE_S)  # ended tasks are remembered, a few a slot
        await life.ask("RemoveService", control_pb2.RemoveServiceRequest(ref="web"))
        await until(lambda: not life.tasks() and not list(snap().all(Service)), PATIENCE_S)
        for network in list(snap().all(Network)):
            shown = await life.ask("GetNetwork", control_pb2.GetNetworkRequest(ref=network.spec.name))
            assert shown.addresses_used == 0
            await life.ask("RemoveNetwork", control_pb2.RemoveNetworkRequest(ref=network.spec.name))
        await until(lambda: not list(snap().all(Network)), PATIENCE_S)
        assert await life.keys() == before
        await until(lambda: not any(agent.tasks() for agent in agents), PATIENCE_S)
        for task in keeping:
            task.cancel()
        for agent in agents:
            await agent.close()
        print(f"{life.lives} lives, {number} updates, {life.failovers} failovers")
