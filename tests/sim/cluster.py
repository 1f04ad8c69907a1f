"""A whole cluster in one event loop: etcd, controllers, agents and hosts, put together from real parts over false ones.

Of a controller everything between gRPC and etcd's client is what production runs: store, cache, election, the leader's
loops, sessions. Of an agent everything but the kernel: session, reporter, task owners, wiring, journals on a disk.
"""

import asyncio
import json
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import replace
from hashlib import blake2s, sha256
from pathlib import Path
from random import Random
from typing import Any

from argosy.agent.images.fetch import BlobSource
from argosy.agent.main import Agent
from argosy.agent.settings import AgentSettings
from argosy.agent.state import StateDir
from argosy.controller.changes.commit import change
from argosy.controller.cluster import ClusterView
from argosy.controller.secrets.keyring import KEY_BYTES, Keyring
from argosy.controller.session.dispatcher import DispatcherServicer
from argosy.controller.session.heard import BeatProtocol
from argosy.controller.session.tunnels import Tunnels
from argosy.controller.store import Cache, Candidate, Election, EtcdClient, EtcdConfig, Store
from argosy.controller.term import Leader
from argosy.core.ambient import Ambient
from argosy.core.errors import ArgosyError, first_of
from argosy.core.node import NodeDescription, Platform, Resources
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from tests.sim.agent_network import Network
from tests.sim.etcd_channel import FOR_USER, EtcdChannel, EtcdFaults
from tests.sim.etcd_model import Etcd
from tests.sim.guards import HostGuard, in_memory
from tests.sim.invariants import Violation, Watcher
from tests.sim.kernel import Host, Images, Plane, Runtime, Troubles
from tests.sim.lease import keep_alive
from tests.sim.virtual_time import Process, VirtualLoop

CLUSTER = "sim"
REVIVE_S = 1.0
"""When a process that ended is started again, as systemd does."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
LINUX = Platform("linux", "amd64")


class World:
    """What all parts share: time, chance, the log, the verdicts."""

    def __init__(self, seed: int, folder: Path, *, echo: bool = False) -> None:
        self.loop = VirtualLoop()
        self.chance = Random(seed)
        self.switches = Random(seed + 4)
        self.folder = folder
        self.echo = echo
        self.log: list[str] = []
        self._ids = Random(seed + 1)
        self.ambient = Ambient(self.loop.wall, self.loop.time, self.loop.time, self.new_id, self.loop.time)
        self.etcd = Etcd(self.loop)
        self.etcd_faults = EtcdFaults(Random(seed + 2))
        self.network = Network(self.loop, Random(seed + 3))
        self.watcher = Watcher(self)
        self.troubles = Troubles()
        self.controllers: dict[str, Controller] = {}
        self.agents: dict[str, AgentHost] = {}
        self.requests = 0
        self.lease_ttl_s = self.chance.choice((2.0, 2.0, 5.0))
        self.keys = Keyring((bytes(KEY_BYTES),))

    def new_id(self) -> str:
        number = self._ids.getrandbits(60)
        letters = ""
        for _ in range(12):
            number, rest = divmod(number, 26)
            letters += _LETTERS[rest]
        return "i" + letters

    def note(self, text: str) -> None:
        """Write a line of the log."""
        self.log.append(f"{self.loop.now - 1000:9.4f} {text}")
        if self.echo:
            print(self.log[-1])

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of the world to its end; raise the first violation there was."""
        task = self.loop.create_task(work, name="scenario")
        task.add_done_callback(lambda _: self.loop.stop())
        self.watcher.stop = self.loop.stop
        self.loop.set_exception_handler(self._unhandled)
        self.loop.run_forever()
        if self.watcher.violation is not None:
            raise self.watcher.violation
        task.result()

    def _unhandled(self, _loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, ArgosyError | asyncio.CancelledError):
            self.watcher.fail("no bug", f"{context.get('message')}: {error!r}", error)

    def somebody(self) -> "Controller | None":
        """Return a controller that a user might ask."""
        alive = [c for c in self.controllers.values() if c.alive]
        return self.chance.choice(alive) if alive else None

    def leader(self) -> "Controller | None":
        """Return the controller that leads, as etcd has it and as it knows itself."""
        return next((c for c in self.controllers.values() if c.leads()), None)


class Controller:
    """A controller's host; `start` begins a process on it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.address = f"{name}:7070"
        self.process: Process | None = None
        self.lives = 0
        self.election: Election | None = None
        world.controllers[name] = self

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.process.dead

    def leads(self) -> bool:
        return self.alive and not self.process.paused and self.dispatcher.term is not None  # type: ignore[union-attr]

    def start(self) -> None:
        if self.alive:
            return
        self.lives += 1
        self.process = Process(self.world.loop, f"{self.name}#{self.lives}")
        self.world.note(f"{self.process.name} starts")
        self.process.context.copy().run(self._build)

    def _build(self) -> None:
        world, process = self.world, self.process
        assert process is not None

        def connect(_address: str, _config: Any) -> Any:
            self.channel = EtcdChannel(world.loop, world.etcd, world.etcd_faults, self.name, world.note)
            return self.channel

        config = EtcdConfig(("etcd:2379",))
        self.client = EtcdClient(config, connect)
        self.store = Store(self.client, CLUSTER)
        self.cache = Cache(self.store, relist_period_s=20.0)
        self.view = ClusterView(CLUSTER, "sim", self.name)
        self.dispatcher = DispatcherServicer(self.store, self.cache, self.view, Tunnels(), world.ambient)
        self.beats = BeatProtocol()
        candidate = Candidate(self.name, self.address)
        self.election = Election(
            self.client, CLUSTER, candidate, ttl_s=world.lease_ttl_s, ambient=world.ambient, renew=keep_alive
        )
        process.spawn(self._main(process), name=self.name)

    async def _main(self, process: Process) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.cache.run(), name="cache")
                await self.cache.ready()
                group.create_task(self._read_along(process))
                self.world.network.listen(
                    self.address, process, self.dispatcher.Session, lambda data: self.beats.datagram_received(data, ())
                )
                parts = (self.client, self.store, self.cache, self.dispatcher, self.beats)
                leader = Leader(*parts, self.world.ambient, self.world.keys)
                group.create_task(self.election.run(leader.run), name="election")  # type: ignore[union-attr]
                group.create_task(self._observe(), name="observer")
        except* ArgosyError as errors:
            self.world.note(f"{process.name} ends: {first_of(errors)}")
        except* Exception as errors:
            self.world.watcher.fail("no bug", f"{process.name} died of {first_of(errors)!r}", first_of(errors))
        self.crash(revive=True)

    async def _read_along(self, process: Process) -> None:
        """Be a reader of this controller's cache who misses nothing."""
        with self.cache.subscribe() as changes:
            async for batch in changes:
                self.world.watcher.read(process.name, batch)

    async def _observe(self) -> None:
        async for leader in self.election.observe():  # type: ignore[union-attr]
            self.view.follow(leader)

    def crash(self, *, revive: bool) -> None:
        """End the process at this instant."""
        process = self.process
        if process is None or process.dead:
            return
        self.world.note(f"{process.name} is killed")
        process.kill()
        self.world.network.died(process)
        if hasattr(self, "channel"):
            for stream in list(self.channel.streams):
                stream.cancel()
        if revive:
            self.world.loop.later(REVIVE_S, self.start)

    async def user(self, what: str, decide: Callable[[Any, float], Any]) -> Any:
        """Carry a user's change out on this controller; None when it was refused or did not come through."""
        process = self.process
        if not self.alive or not self.cache.snapshot.revision:
            return None
        answer: asyncio.Future[Any] = self.world.loop.create_future()

        number = self.world.requests = self.world.requests + 1

        async def work() -> None:
            FOR_USER.set(number)
            try:
                async with asyncio.timeout(8):
                    done = await change(self.store, self.cache, lambda snap: decide(snap, self.world.loop.wall()))
                self.world.note(f"user: {what} ({process.name})")  # type: ignore[union-attr]
            except (ArgosyError, TimeoutError) as error:
                problems = getattr(error, "problems", "") or ""
                self.world.note(f"user: {what}: {type(error).__name__}: {error} {problems}")
                done = None
                self.world.watcher.refused(number, what, error)
            if not answer.done():
                answer.set_result(done)

        process.spawn(work())  # type: ignore[union-attr]
        try:
            async with asyncio.timeout(10):
                return await answer
        except TimeoutError:
            return None


class AgentHost:
    """A host with an agent."""

    def __init__(self, world: World, name: str, *, cpus: float, labels: dict[str, str]) -> None:
        self.world = world
        self.name = name
        self.labels = labels
        self.kernel = Host(
            name, world.loop, Random(world.chance.getrandbits(32)), world.watcher, world.troubles, self._send_beat
        )
        self.node_id = world.new_id()
        number = len(world.agents) + 1
        self.description = NodeDescription(
            hostname=name,
            platform=LINUX,
            resources=Resources(cpus, 8 * 2**30),
            underlay_address=f"192.0.2.{number}",
            underlay_mtu=1500,
        )
        self.folder = world.folder / name
        self.settings = AgentSettings(
            controllers=tuple(c.address for c in world.controllers.values()),
            node_name=name,
            state_dir=self.folder / "lib",
            run_dir=self.folder / "run",
            labels=labels,
            id_ranges=200,
        )
        self._key = sha256(name.encode()).digest()
        self._guard = HostGuard(self.kernel, self.settings.run_dir / "guard")
        state = self.settings.state_dir / "agent"
        state.mkdir(parents=True)
        (state / "identity.json").write_text(json.dumps({"node_id": self.node_id, "beat_key": self._key.hex()}))
        self.process: Process | None = None
        self.lives = 0
        self._state: StateDir | None = None
        self.agent: Agent | None = None
        world.agents[name] = self

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.process.dead

    def start(self) -> None:
        if self.alive or not self.kernel.powered:
            return
        self.lives += 1
        self.process = Process(self.world.loop, f"{self.name}#{self.lives}")
        self.world.note(f"{self.process.name} starts")
        self.process.spawn(self._main(self.process), name=self.name)

    async def _main(self, process: Process) -> None:
        world = self.world
        state = self._state = _Watched(self.settings.state_dir / "agent", self.name, world.watcher)
        runtime = Runtime(self.kernel)
        try:
            async with asyncio.TaskGroup() as group:
                self.agent = Agent(
                    self.settings,
                    state,
                    state.identity(),
                    self.description,
                    BlobSource(),
                    Images(self.kernel),  # type: ignore[arg-type]
                    Plane(self.kernel),  # type: ignore[arg-type]
                    runtime,  # type: ignore[arg-type]
                    group,
                    connect=lambda address: world.network.channel(self.name, process, address),  # type: ignore[arg-type,return-value]
                    ambient=replace(world.ambient, boot=self.kernel.uptime),
                    ensure_guard=self._guard.ensure,
                    ensure_memory=in_memory,
                )
                group.create_task(self.agent.run())
        except* ArgosyError as errors:
            world.note(f"{process.name} ends: {first_of(errors)}")
        except* Exception as errors:
            world.watcher.fail("no bug", f"{process.name} died of {first_of(errors)!r}", first_of(errors))
        self.crash()
        world.loop.later(REVIVE_S, self.start)

    def crash(self) -> None:
        """End the agent's process at this instant; containers go on."""
        if self.process is None or self.process.dead:
            return
        self.world.note(f"{self.process.name} is killed")
        self.process.kill()
        self.kernel.listener = None
        self.world.network.died(self.process)
        if self._state is not None:
            self._state.abandon()
            self._state = None

    def power_off(self) -> None:
        """Lose the host: what runs on it is gone, and nobody is told."""
        self.world.note(f"{self.name} loses power")
        for address in self.settings.controllers:
            self.world.network.close(self.name, address)
        self.crash()
        self.kernel.power_off()
        self._guard.power_off()
        self.world.watcher.rebooted(self.name)
        self._lose_writes()
        shutil.rmtree(self.settings.run_dir, ignore_errors=True)

    def damage_assignments(self) -> None:
        """Damage the file of assignments: the agent starts anew without any, and must not conclude anything of it."""
        if not self.alive:
            self.world.note(f"{self.name} loses its assignments")
            (self.settings.state_dir / "agent" / "assignments.journal").write_bytes(b"")
            self.world.watcher.forgot(self.name)

    def _lose_writes(self) -> None:
        """Lose the last records of the tasks: the agent does not sync them to the disk."""
        journal = self.settings.state_dir / "agent" / "tasks.journal"
        if journal.exists() and self.world.chance.random() < 0.9:
            size = journal.stat().st_size
            left = int(size * self.world.chance.random())
            self.world.note(f"{self.name} loses {size - left} of {size} bytes of its tasks' records")
            with journal.open("r+b") as file:
                file.truncate(left)

    def power_on(self) -> None:
        self.world.note(f"{self.name} has power")
        for address in self.settings.controllers:
            self.world.network.open(self.name, address)
        self.kernel.power_on()
        self.start()

    def _send_beat(self, name: str, settings: dict[str, Any]) -> None:
        text = f"{settings['node']} {int(self.world.loop.now * 1e9)}".encode()
        datagram = text + b" " + blake2s(text, key=bytes.fromhex(settings["key"])).hexdigest().encode()
        for address in settings["controllers"]:
            self.world.network.datagram(name, address, datagram)


class _Watched(StateDir):
    """The agent's disk, with a reader of what is written to it."""

    def __init__(self, root: Path, host: str, watcher: Watcher) -> None:
        super().__init__(root)
        self._host = host
        self._watcher = watcher

    def save_assignments(self, message: pb.ControllerMessage, after: Any) -> None:
        self._watcher.applied(self._host, message.leader.epoch, message.leader.revision)
        super().save_assignments(message, after)

    def abandon(self) -> None:
        """Close the files, as the end of a process does."""
        import os

        for journal in (self._assignments, self._tasks):
            os.close(journal._fd)
        self.release()


__all__ = ["AgentHost", "Controller", "Violation", "World"]
