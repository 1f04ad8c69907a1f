"""A controller's real parts in this process, on real etcd, and scripted agents that speak to it over loopback.

What is not here is the command line and signals: everything between gRPC and etcd is what production runs.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import grpc

from argosy.controller.api.content import ContentServicer
from argosy.controller.api.control import ControlServicer
from argosy.controller.api.logs import LogRelay
from argosy.controller.changes import images
from argosy.controller.changes.commit import change
from argosy.controller.cluster import ClusterView
from argosy.controller.content.blobs import BlobStore
from argosy.controller.secrets.keyring import Keyring
from argosy.controller.server import serve
from argosy.controller.session.dispatcher import DispatcherServicer
from argosy.controller.session.heard import BeatProtocol
from argosy.controller.session.tunnels import Tunnels
from argosy.controller.store import Cache, Candidate, Election, EtcdClient, EtcdConfig, Store, keep_room
from argosy.controller.term import Leader
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.assignment import Succession
from argosy.core.codec import decode, encode, encode_into
from argosy.core.ids import new_id
from argosy.core.image import Image
from argosy.core.meta import Meta
from argosy.core.node import NodeDescription, Platform, Resources
from argosy.core.service import ContainerSpec, NetworkAttachmentSpec, ServiceSpec, TaskSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState
from argosy.core.wire import Joined, read_piece
from argosy.proto.argosy.v1 import control_pb2, control_pb2_grpc, dispatcher_pb2, dispatcher_pb2_grpc, types_pb2
from tests.store.etcd_server import free_port

LINUX = Platform("linux", "amd64")
KEYS = Keyring((bytes(32),))
DIGEST = "sha256:" + "0" * 64


async def until(condition: Callable[[], object], timeout_s: float = 10.0):
    """Wait until `condition()` is true; return what it returned."""
    async with asyncio.timeout(timeout_s):
        while not (found := condition()):  # noqa: ASYNC110 (conditions are of many kinds)
            await asyncio.sleep(0.005)
    return found


class Controller:
    """One controller; `lead` begins to campaign. Used as an async context."""

    def __init__(
        self,
        etcd: str,
        cluster: str,
        folder,
        *,
        name: str = "c1",
        peers: tuple[str, ...] = (),
        keys: Keyring = KEYS,
        ambient: Ambient = SYSTEM,
    ) -> None:
        self.name = name
        self.address = f"127.0.0.1:{free_port()}"
        self.view = ClusterView(cluster, "test", name)
        self.client = EtcdClient(EtcdConfig((etcd,)))
        self.store = Store(self.client, cluster)
        self.cache = Cache(self.store)
        self.tunnels = Tunnels()
        self.dispatcher = DispatcherServicer(self.store, self.cache, self.view, self.tunnels)
        logs = LogRelay(self.cache, self.view, self.dispatcher, self.tunnels)
        self.control_servicer = ControlServicer(self.store, self.cache, self.view, logs, keys)
        self.beats = BeatProtocol()
        self.leader = Leader(
            self.client, self.store, self.cache, self.dispatcher, self.beats, keys=keys, ambient=ambient
        )
        self._blobs = BlobStore(folder / f"blobs-{name}", min_free_bytes=0)
        self._tasks: list[asyncio.Task] = []
        self._stack = contextlib.AsyncExitStack()
        self.election_task: asyncio.Task | None = None

    async def __aenter__(self) -> "Controller":
        await self._stack.enter_async_context(self.client)
        self._run(self.cache.run())
        self._run(keep_room(self.client))
        async with asyncio.timeout(10):
            await self.cache.ready()
        await self._blobs.open()
        content = ContentServicer(self._blobs, self.store_image)
        self._server, _ = await serve((self.address,), (), self.control_servicer, self.dispatcher, content)
        candidate = Candidate(self.name, self.address)
        self.election = Election(self.client, self.view.cluster, candidate, ttl_s=2.0)
        self._run(self._observe())
        as_the_cli = [("grpc.max_receive_message_length", -1)]
        channel = grpc.aio.insecure_channel(self.address, options=as_the_cli)
        self.channel = await self._stack.enter_async_context(channel)
        self.control = control_pb2_grpc.ControlStub(self.channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in reversed(self._tasks):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._server.stop(grace=0.1)
        await self._stack.aclose()

    def _run(self, part) -> asyncio.Task:
        task = asyncio.create_task(part)
        self._tasks.append(task)
        return task

    async def _observe(self) -> None:
        async for leader in self.election.observe():
            self.view.follow(leader)

    async def lead(self) -> "Controller":
        """Campaign, and wait until this controller leads."""
        self.election_task = self._run(self.election.run(self.leader.run))
        await until(lambda: self.dispatcher.term is not None or self.election_task.done())
        if self.election_task.done():
            self.election_task.result()
        await until(lambda: self.view.leads)
        return self

    async def resign(self) -> None:
        """Stop to campaign and to lead."""
        self.election_task.cancel()
        await asyncio.gather(self.election_task, return_exceptions=True)

    async def store_image(self, image: Image) -> Image:
        """Name an image, as an import does at its end."""
        return await change(self.store, self.cache, lambda snap: images.tagged(snap, image, time.time()))

    async def add_image(self, name: str = "web:1", digest: str = DIGEST) -> Image:
        """Name an image that has no content."""
        return await self.store_image(Image(Meta(project="default"), name=name, digest=digest, platform=LINUX))

    async def create(self, name: str = "web", *, replicas: int = 1, networks: tuple[str, ...] = (), **more):
        """Create a service."""
        spec = a_service_spec(name, replicas=replicas, networks=networks, **more)
        return await self.control.CreateService(control_pb2.CreateServiceRequest(spec=spec))

    def tasks(self, service_id: str = "") -> list[Task]:
        """Return the tasks as this controller's cache has them."""
        found = self.cache.snapshot.all(Task)
        return [t for t in found if not service_id or t.service_id == service_id]

    def session_of(self, agent: "FakeAgent"):
        """Return the session of an agent's node, if it has one."""
        return self.dispatcher.term.sessions.get(agent.node_id) if self.dispatcher.term else None


def a_service_spec(
    name: str, *, replicas: int = 1, networks: tuple[str, ...] = (), image: str = "web:1", **more
) -> types_pb2.ServiceSpec:
    task = TaskSpec(
        container=ContainerSpec(image=image), networks=tuple(NetworkAttachmentSpec(target) for target in networks)
    )
    return encode(ServiceSpec(name=name, replicas=replicas, task=task, **more), types_pb2.ServiceSpec)


@dataclass
class FakeAgent:
    """A node's end of a session: takes what comes, and says what the test tells it to.

    With `obedient` it reports every task that is to run as RUNNING, and every other as ended and released.
    """

    name: str
    obedient: bool = False
    node_id: str = field(default_factory=new_id)
    cpus: float = 8.0
    beat_key: bytes = b""

    def __post_init__(self) -> None:
        self.messages: list[dispatcher_pb2.ControllerMessage] = []
        self.pieces: dict[str, object] = {}
        self.sequence = 0
        self.error: grpc.aio.AioRpcError | None = None
        self.call = None
        self._writing = asyncio.Lock()
        self._told: dict[str, TaskState] = {}

    async def connect(self, address: str, *, wait: bool = True) -> "FakeAgent":
        """Open a session."""
        self.messages, self.pieces, self.error, self._told = [], {}, None, {}
        # Of its own: connections that several share are tried again more and more seldom, for all of them.
        self.channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.call = dispatcher_pb2_grpc.DispatcherStub(self.channel).Session()
        hello = dispatcher_pb2.Hello(node_id=self.node_id, node_name=self.name, beat_key=self.beat_key)
        description = NodeDescription(
            hostname=self.name,
            platform=LINUX,
            resources=Resources(self.cpus, 8 * 2**30),
            underlay_address="192.0.2.1",
            underlay_mtu=1500,
        )
        encode_into(description, hello.description)
        await self._write(dispatcher_pb2.AgentMessage(hello=hello))
        self._reader = asyncio.create_task(self._read(self.call))
        if wait:
            await until(lambda: self.bodies("assignments") or self.error)
        return self

    async def _read(self, call) -> None:
        try:
            joined = Joined()
            while isinstance(message := await call.read(), dispatcher_pb2.ControllerMessage):
                if message.WhichOneof("body") == "assignments" and not (message := joined.add(message)):
                    continue
                self.messages.append(message)
                if message.WhichOneof("body") == "assignments":
                    self._take(message.assignments)
                    if self.obedient:
                        await self._obey()
            self.error = grpc.aio.AioRpcError(
                await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )
        except grpc.aio.AioRpcError as error:
            self.error = error

    def _take(self, body: dispatcher_pb2.AssignmentSet) -> None:
        if body.full:
            self.pieces = {}
        for key in body.remove:
            self.pieces.pop(key, None)
        for message in body.put:
            self.pieces[message.key] = read_piece(message)

    async def _obey(self) -> None:
        statuses = {}
        for task_id, task in self.tasks().items():
            runs = task.desired_state <= TaskState.RUNNING
            state = TaskState.RUNNING if runs else TaskState.SHUTDOWN
            if self._told.get(task_id) is not state:
                self._told[task_id] = state
                statuses[task_id] = TaskStatus(state, released=not runs)
        if statuses:
            await self.report(statuses)

    def bodies(self, kind: str) -> list:
        """Return the messages of a kind that have come, oldest first."""
        return [getattr(m, kind) for m in self.messages if m.WhichOneof("body") == kind]

    def tasks(self) -> dict[str, object]:
        """Return the assigned tasks by id."""
        return {key.removeprefix("task/"): piece for key, piece in self.pieces.items() if key.startswith("task/")}

    def host_beat(self) -> bytes:
        """Return a beat of the agent's host, as its launcher sends it."""
        text = f"{self.node_id} {time.time_ns()}".encode()
        return text + b" " + hashlib.blake2s(text, key=self.beat_key).hexdigest().encode()

    async def _write(self, message: dispatcher_pb2.AgentMessage) -> None:
        """Send a message: a call takes one at a time, and a second one that is sent meanwhile fails (grpc.aio)."""
        async with self._writing:
            await self.call.write(message)

    async def beat(self) -> None:
        await self._write(dispatcher_pb2.AgentMessage(heartbeat=dispatcher_pb2.Heartbeat(sequence=1)))

    async def report(
        self,
        statuses: dict[str, TaskStatus],
        made: Mapping[str, Succession] = MappingProxyType({}),
        *,
        more: bool = False,
    ) -> int:
        """Send a report, also of tasks that the node has `made`; return its number."""
        self.sequence += 1
        report = dispatcher_pb2.StatusReport(sequence=self.sequence, more=more)
        for task_id, status in statuses.items():
            entry = report.tasks.add(task_id=task_id)
            encode_into(status, entry.status)
            if task_id in made:
                encode_into(made[task_id], entry.succession)
        await self._write(dispatcher_pb2.AgentMessage(report=report))
        return self.sequence

    def acknowledged(self, sequence: int) -> bool:
        """Whether a report was acknowledged."""
        return any(ack.sequence == sequence for ack in self.bodies("report_ack"))

    async def close(self) -> None:
        """Go away."""
        if self.call is not None:
            self.call.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            await self.channel.close()


def status_of(message: types_pb2.Task) -> TaskStatus:
    return decode(message, Task).status
