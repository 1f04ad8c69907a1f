"""A host without a kernel: containers, links and images that outlive the agent, with delays, failures and crashes.

This is the ground truth that the invariants judge by: what runs where, with which addresses and ports, whatever anyone
believes. Each agent's life gets new `Runtime`, `Plane` and `Images` on the same host. An operation reaches the host
as a request does a launcher: it may fail, or be carried out without an answer, and goes on when the agent is killed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from argosy.agent.images.store import Unpacked
from argosy.agent.network.desired import AttachResult, NetworkState
from argosy.agent.runtime.errors import ContainerMissing, ContainerUnstarted, RuntimeRejected, RuntimeTransient
from argosy.agent.runtime.interface import ContainerState, Created, ExecResult, Exit
from argosy.core.errors import PreconditionError, TransientError
from argosy.core.network import Attachment
from tests.sim.virtual_time import VirtualLoop

NO_PID = 10_000_000
"""Over Linux' largest process id (proc(5), pid_max)."""
FILE_TARGETS = ("/etc/settings", "/etc/password")
"""Where services of the simulator have their configs and secrets."""
READY = "ready"
"""What a readiness check asks for: a program becomes ready some time after it was started, and stays so."""


@dataclass(slots=True)
class Container:
    """What the host has of a task.

    `links` are its addresses in networks, there as long as nobody took them away; `files` what was bound into it.
    """

    id: str
    host: str
    env: Mapping[str, str]
    labels: Mapping[str, str]
    pid: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    status: str = "created"
    links: tuple[Attachment, ...] = ()
    started_at: float | None = None
    exit: Exit | None = None
    well: bool = True
    ready_at: float = 0.0
    stubborn: bool = False
    signalled: bool = False


class Judge(Protocol):
    """What is told of everything that happens on hosts."""

    def linked(self, container: Container) -> None: ...

    def started(self, container: Container) -> None: ...

    def answered_ready(self, container: Container) -> None: ...

    def ended_by_us(self, container: Container, how: str) -> None: ...

    def cut_loose(self, container: Container) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(slots=True)
class Troubles:
    """Chances of what goes wrong on hosts."""

    transient: float = 0.0
    lost_answer: float = 0.0
    crash: float = 0.0
    refused: float = 0.0
    missing_image: float = 0.0
    unwell: float = 0.0
    stubborn: float = 0.0
    slow_s: float = 0.0


@dataclass
class Host:
    """One machine. `beat` are the launcher's settings of its own heart beat."""

    name: str
    loop: VirtualLoop
    chance: Random
    judge: Judge
    troubles: Troubles
    send_beat: Callable[[str, dict[str, Any]], None]
    powered: bool = True
    containers: dict[str, Container] = field(default_factory=dict)
    links: dict[str, tuple[Attachment, ...]] = field(default_factory=dict)
    networks: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    ends: dict[str, Exit] = field(default_factory=dict)
    listener: Callable[[], None] | None = None
    after_start: Callable[[], None] | None = None
    _beat: dict[str, Any] | None = None
    _boots: int = 0
    _up_since: float = 0.0
    _pids: int = NO_PID
    _queues: dict[str, float] = field(default_factory=dict)

    def power_off(self) -> None:
        """Lose all that runs; images and files stay."""
        self.powered = False
        self.containers.clear()
        self.links.clear()
        self.networks.clear()
        self.ends.clear()
        self._beat = None
        self._boots += 1

    def power_on(self) -> None:
        self.powered, self._up_since = True, self.loop.time()

    def uptime(self) -> float:
        """Return seconds since the host has power, as CLOCK_BOOTTIME does."""
        return self.loop.time() - self._up_since

    def new_pid(self) -> int:
        """Return a process id that no process of the real machine has."""
        self._pids += 1
        return self._pids

    async def do(self, what: str, act: Callable[[], Any], fastest_s: float, slowest_s: float, queue: str = "") -> Any:
        """Carry an operation out after a while and return what it returns; those of one `queue` keep their order."""
        troubles, chance = self.troubles, self.chance
        fate = chance.random()
        answer: asyncio.Future[Any] = self.loop.create_future()
        delay = chance.uniform(fastest_s, slowest_s)
        if troubles.slow_s and chance.random() < 0.1:
            delay += chance.uniform(0, troubles.slow_s)
        boots = self._boots

        def work() -> None:
            if boots != self._boots or not self.powered:
                return
            if fate < troubles.transient:
                self.judge.note(f"{self.name} {what}: fails")
                self._end_waiting()
                result: Any = RuntimeTransient("the launcher was started anew")
            else:
                try:
                    result = act()
                except Exception as error:
                    result = error
                if fate < troubles.transient + troubles.lost_answer and not isinstance(result, Exception):
                    self.judge.note(f"{self.name} {what}: done without an answer")
                    result = RuntimeTransient("the launcher ended before it answered")
            self.loop.later(chance.uniform(0.0002, 0.002), _answer, answer, result)

        if what == "list":  # it tells what is after everything that was asked for before, by whichever agent
            delay = max(delay, max(self._queues.values(), default=0.0) + 1e-6 - self.loop.now)
        elif queue:
            at = self._queues[queue] = max(self._queues.get(queue, 0.0) + 1e-6, self.loop.now + delay)
            delay = at - self.loop.now
        self.loop.later(delay, work)
        return await answer

    def beat(self, settings: dict[str, Any]) -> None:
        """Beat from now on, as the launcher does."""
        begins = self._beat is None
        self._beat = settings
        if begins:
            self._send(self._boots)

    def _send(self, boots: int) -> None:
        if boots == self._boots and self._beat is not None:
            self.send_beat(self.name, self._beat)
            self.loop.later(self._beat["period_s"], self._send, boots)

    # ---- programs

    def run(self, container: Container) -> None:
        """Have the program run, and end by itself if that is its fate."""
        container.status = "running"
        container.started_at = self.loop.wall()
        self.judge.started(container)
        if self.after_start is not None:
            self.loop.later(0.0, self.after_start)
            self.after_start = None
        fate, chance = container.env.get("FATE", ""), self.chance
        if chance.random() < self.troubles.unwell:
            self.loop.later(chance.uniform(0.2, 6), self._fall_ill, container)
        container.stubborn = chance.random() < self.troubles.stubborn
        container.ready_at = self.loop.now + chance.choice((0.0, 0.3, 1.5))
        if fate == "completes":
            self.loop.later(chance.uniform(0.2, 2.0), self.end, container, 0, None)
        elif fate == "works":
            self.loop.later(chance.uniform(5.0, 70.0), self.end, container, 0, None)
        elif fate == "crashes":
            self.loop.later(chance.uniform(0.01, 1.0), self.end, container, 1, None)
        elif chance.random() < self.troubles.crash:
            self.loop.later(chance.choice((0.01, 0.3, 1.5, 5.0)), self.end, container, chance.choice((0, 1, 137)), None)

    def take_signal(self, container: Container, number: int) -> None:
        """Have a program get a signal: it ends at once, soon, or not if it is stubborn."""
        container.signalled = True
        if number == 9:
            self.end(container, None, 9)
        elif not container.stubborn:
            self.loop.later(self.chance.choice((0.001, 0.05, 0.5)), self.end, container, 0, None)

    def _end_waiting(self) -> None:
        """End what waits for its start, as the end of its launcher does."""
        for container in [c for c in self.containers.values() if c.status == "created"]:
            self._ended(container, 1, None)

    def _fall_ill(self, container: Container) -> None:
        container.well = False

    def end(self, container: Container, code: int | None, signal: int | None) -> None:
        """End a program."""
        if container.status == "running" and self.containers.get(container.id) is container:
            self._ended(container, code, signal)

    def _ended(self, container: Container, code: int | None, signal: int | None) -> None:
        container.status = "stopped"
        end = Exit(container.id, code if signal is None else 128 + signal, signal, False, self.loop.wall())
        container.exit = end
        self.ends[container.id] = end
        self.judge.note(f"{self.name} {container.id} ends: code {code} signal {signal}")
        if self.listener is not None:
            self.listener()


def _answer(answer: "asyncio.Future[Any]", result: Any) -> None:
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


class Runtime:
    """The agent's end of the launcher (argosy.agent.runtime.interface.Runtime)."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._arrived = asyncio.Event()

    async def create(
        self,
        id: str,
        config: Mapping[str, Any],
        rootfs: Any,
        log: Any,
        labels: Mapping[str, str],
        *,
        wire: Callable[[Created], Awaitable[Any]] | None = None,
        feed: Callable[[int], None] | None = None,
    ) -> Created:
        host = self._host
        env = dict(entry.partition("=")[::2] for entry in config["process"]["env"])

        def make() -> Container:
            if id in host.containers:
                raise RuntimeRejected(f"container {id} exists")
            if host.chance.random() < host.troubles.refused:
                raise RuntimeRejected("the kernel lacks what it needs")
            host.containers[id] = Container(id, host.name, env, dict(labels), host.new_pid(), _files_of(config))
            return host.containers[id]

        made: Container = await host.do(f"create {id}", make, 0.002, 0.02, id)
        created = Created(made.pid, f"/proc/{id}/ns/net")
        if wire is not None:
            try:
                await wire(created)
            except Exception:
                if host.containers.get(id) is made:
                    del host.containers[id]
                raise
        return created

    async def start(self, id: str) -> None:
        host = self._host

        def start() -> None:
            container = self._get(id)
            if container.started_at is None and container.status == "stopped":
                raise ContainerUnstarted(f"container {id} ended before it was started")
            if container.status != "created":
                raise RuntimeRejected(f"container {id} is {container.status}, only a created one can be started")
            if container.env.get("FATE") == "cannot":
                error = RuntimeRejected("no such program", exit_code=127)
                raise error
            host.run(container)

        await host.do(f"start {id}", start, 0.001, 0.02, id)

    async def kill(self, id: str, signal: int, *, everything: bool = False) -> None:
        host = self._host

        def kill() -> None:
            container = self._get(id)
            if container.status != "running":
                return
            host.judge.ended_by_us(container, f"signal {signal}")
            host.take_signal(container, signal)

        await host.do(f"kill {id} {signal}", kill, 0.001, 0.01, id)

    async def delete(self, id: str) -> None:
        host = self._host

        def delete() -> None:
            container = host.containers.get(id)
            if container is not None and container.status == "running":
                host.judge.ended_by_us(container, "delete")
            host.containers.pop(id, None)
            host.ends.pop(id, None)

        await host.do(f"delete {id}", delete, 0.001, 0.01, id)

    async def list(self) -> list[ContainerState]:
        host = self._host
        return await host.do("list", lambda: [_state(c) for c in host.containers.values()], 0.001, 0.01)  # type: ignore[no-any-return]

    async def exec(self, id: str, argv: Any, *, timeout_s: float, **_more: Any) -> ExecResult:
        def probe() -> ExecResult:
            container = self._get(id)
            if container.status != "running":
                raise ContainerMissing(f"container {id} has ended")
            if READY not in argv:
                return ExecResult(0 if container.well else 1, b"", False)
            if self._host.loop.now < container.ready_at:
                return ExecResult(1, b"not yet", False)
            self._host.judge.answered_ready(container)
            return ExecResult(0, b"", False)

        return await self._host.do(f"exec {id}", probe, 0.001, 0.05)  # type: ignore[no-any-return]

    async def exits(self) -> Any:
        self._host.listener = self._arrived.set
        self._arrived.set()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            for id, end in list(self._host.ends.items()):
                yield end
                self._host.ends.pop(id, None)

    async def beat(self, settings: dict[str, Any]) -> None:
        await self._host.do("beat", lambda: self._host.beat(settings), 0.001, 0.01)

    def _get(self, id: str) -> Container:
        if id not in self._host.containers:
            raise ContainerMissing(f"no container {id}")
        return self._host.containers[id]


def _files_of(config: Mapping[str, Any]) -> dict[str, bytes]:
    """Read the files that are bound into a container, as its program would."""
    mounts = [m for m in config["mounts"] if m["destination"] in FILE_TARGETS]
    return {m["destination"]: Path(m["source"]).read_bytes() for m in mounts}


def _state(container: Container) -> ContainerState:
    return ContainerState(
        container.id,
        container.status,  # type: ignore[arg-type]
        container.pid if container.status != "stopped" else 0,
        container.started_at,
        container.exit,
        container.labels,
    )


class Plane:
    """The agent's network plane on the host's links: refuses what the real one refuses."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._desired = NetworkState()

    async def apply(self, desired: NetworkState, *, synced: bool) -> int:
        def apply() -> int:
            self._desired = desired
            self._host.networks |= set(desired.networks)
            if synced:
                self._remove_leftovers()
            return 1

        return await self._do("apply", apply)  # type: ignore[no-any-return]

    async def connections(self, container_id: str) -> int:
        return await self._do(f"connections {container_id}", lambda: 0)  # type: ignore[no-any-return]

    async def attach(self, container_id: str, pid: int, attachments: tuple[Attachment, ...]) -> AttachResult:
        def attach() -> AttachResult:
            container = self._host.containers.get(container_id)
            if container is None:
                raise PreconditionError(f"the process of {container_id} is gone")
            missing = [a.network_id for a in attachments if a.network_id not in self._desired.networks]
            if missing:
                raise PreconditionError(f"networks {missing} are not assigned")
            container.links = tuple(attachments)
            if attachments:
                self._host.links[container_id] = container.links
                self._host.judge.linked(container)
            return AttachResult(())

        return await self._do(f"attach {container_id}", attach)  # type: ignore[no-any-return]

    async def detach(self, container_id: str) -> None:
        def detach() -> None:
            self._host.links.pop(container_id, None)

        await self._do(f"detach {container_id}", detach)

    def _remove_leftovers(self) -> None:
        wanted = {task.container_id for task in self._desired.tasks}
        for container_id in [c for c in self._host.links if c not in wanted]:
            del self._host.links[container_id]
            container = self._host.containers.get(container_id)
            if container is not None and container.status == "running":
                self._host.judge.cut_loose(container)
        self._host.networks &= set(self._desired.networks)

    async def _do(self, what: str, act: Callable[[], Any]) -> Any:
        try:
            return await self._host.do(what, act, 0.0005, 0.01, "network")
        except RuntimeTransient as error:
            raise TransientError(str(error)) from None


class Images:
    """The agent's image store: fetches once, from nowhere."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def ensure(self, image: Any) -> Unpacked:
        host, digest = self._host, image.digest

        def fetch() -> Unpacked:
            if host.chance.random() < host.troubles.missing_image:
                raise TransientError("fetching the image failed")
            host.images.add(digest)
            return Unpacked("/layers", (digest,))

        if digest in host.images:
            return Unpacked("/layers", (digest,))
        return await host.do(f"fetch {digest[7:11]}", fetch, 0.05, 1.0)  # type: ignore[no-any-return]

    async def retain(self, images: Any, in_use: Any) -> tuple[str, ...]:
        return ()
