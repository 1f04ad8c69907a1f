"""A node without a kernel: small real parts behind the interfaces that a task's owner uses."""

import asyncio
import contextlib
import time
from pathlib import Path

from argosy.agent.images.store import Unpacked
from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.pieces import Pieces
from argosy.agent.runtime.errors import ContainerMissing, ContainerUnstarted, RuntimeRejected, RuntimeTransient
from argosy.agent.runtime.interface import ContainerState, Created, ExecResult, Exit
from argosy.agent.session.reporter import Reporter
from argosy.agent.settings import AgentSettings
from argosy.agent.state import StateDir
from argosy.agent.tasks.fence import Fence
from argosy.agent.tasks.guards import GuardProcess
from argosy.agent.tasks.host import Host
from argosy.agent.tasks.id_ranges import IdRanges
from argosy.agent.tasks.probe import Prober
from argosy.agent.tasks.tasks import Tasks
from argosy.core.ambient import SYSTEM
from argosy.core.assignment import LeaderEpoch, RevisionAssignment, TaskAssignment
from argosy.core.errors import TransientError
from argosy.core.image import Image, ImageConfig
from argosy.core.service import ContainerSpec, TaskSpec
from argosy.core.task_state import TaskState

DIGEST = "sha256:" + "1" * 64
RANGES = 4


class Faults:
    """Errors to raise, by the name of a call: each is raised once, in order. `hold` makes a call wait."""

    def __init__(self) -> None:
        self.errors: dict[str, list[Exception]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.calls: list[str] = []

    def add(self, call: str, *errors: Exception) -> None:
        self.errors.setdefault(call, []).extend(errors)

    def hold(self, call: str) -> asyncio.Event:
        self.gates[call] = asyncio.Event()
        return self.gates[call]

    async def meet(self, call: str) -> None:
        self.calls.append(call)
        if call in self.gates:
            await self.gates[call].wait()
        await asyncio.sleep(0)
        if self.errors.get(call):
            raise self.errors[call].pop(0)


class MemoryRuntime:
    """Containers as a launcher sees them: refuses what a launcher refuses. `ran` counts executions by id."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.containers: dict[str, ContainerState] = {}
        self.ran: dict[str, int] = {}
        self.signals: list[tuple[str, int]] = []
        self.stubborn: set[str] = set()  # containers that ignore signals other than SIGKILL
        self.health = 0
        self.lost_answers = 0  # of `start`: executed, but the launcher dies before it says so
        self._exits: asyncio.Queue[Exit] = asyncio.Queue()

    async def create(self, id, config, rootfs, log, labels, *, wire=None, feed=None):
        await self.faults.meet("create")
        if id in self.containers:
            raise RuntimeRejected(f"container {id} exists")
        self.containers[id] = ContainerState(id, "created", 100, None, None, labels)
        created = Created(100, "/proc/100/ns/net")
        if wire is not None:
            try:
                await wire(created)
            except Exception:
                del self.containers[id]
                raise
        return created

    async def start(self, id):
        await self.faults.meet("start")
        found = self._get(id)
        if found.started_at is None and found.status == "stopped":
            raise ContainerUnstarted(f"container {id} ended before it was started")
        if found.status != "created":
            raise RuntimeRejected(f"container {id} is {found.status}, only a created one can be started")
        self.containers[id] = ContainerState(id, "running", 100, time.time(), None, found.labels)
        self.ran[id] = self.ran.get(id, 0) + 1
        if self.lost_answers:
            self.lost_answers -= 1
            raise RuntimeTransient("the launcher ended before it answered")

    async def kill(self, id, signal, *, everything=False):
        await self.faults.meet("kill")
        self.signals.append((id, signal))
        if self._get(id).status == "running" and (signal == 9 or id not in self.stubborn):
            self.end(id, None, signal=signal)

    async def delete(self, id):
        await self.faults.meet("delete")
        self.containers.pop(id, None)

    async def list(self):
        await self.faults.meet("list")
        return list(self.containers.values())

    async def exec(self, id, argv, *, timeout_s, user="", env=(), cwd=""):
        await self.faults.meet("exec")
        self._get(id)
        return ExecResult(self.health, b"said so", False)

    def pidfd(self, id):
        raise ContainerMissing("a container in memory has no process")

    async def exits(self):
        while True:
            yield await self._exits.get()

    def end(self, id, code, *, signal=None) -> None:
        """Let a program end."""
        found = self._get(id)
        end = Exit(id, code if signal is None else 128 + signal, signal, False, time.time())
        self.containers[id] = ContainerState(id, "stopped", 0, found.started_at, end, found.labels)
        self._exits.put_nowait(end)

    def _get(self, id):
        if id not in self.containers:
            raise ContainerMissing(f"no container {id}")
        return self.containers[id]


class MemoryNetwork:
    """Who is attached."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.attached: set[str] = set()
        self.open: dict[str, int] = {}

    async def attach(self, task_id, pid, attachments, nameservers=()):
        await self.faults.meet("attach")
        self.attached.add(task_id)

    async def detach(self, task_id):
        await self.faults.meet("detach")
        self.attached.discard(task_id)

    async def connections(self, task_id):
        await self.faults.meet("connections")
        return self.open.get(task_id, 0)


class MemoryImages:
    """An image store that has everything."""

    def __init__(self) -> None:
        self.faults = Faults()

    async def ensure(self, image):
        await self.faults.meet("ensure")
        return Unpacked("/layers", ("one",))


def assignments(*tasks: TaskAssignment, container: ContainerSpec | None = None, version: int = 1) -> Assignments:
    """Return a synced set of tasks of one service."""
    spec = TaskSpec(container=container or ContainerSpec(image="web:1", command=("serve",), image_digest=DIGEST))
    revision = RevisionAssignment("svc", 1, "web", {}, spec)
    image = Image(name="web:1", digest=DIGEST, config=ImageConfig(command=("serve",)))
    pieces = [*tasks, revision, image]
    return Assignments(Pieces(pieces), version, LeaderEpoch(1, version), synced=True)


def a_task(id: str = "t1", desired: TaskState = TaskState.RUNNING, not_before: float = 0.0) -> TaskAssignment:
    return TaskAssignment(id, "default", "svc", 1, 1, desired, (), not_before)


class NodeParts:
    """An agent's life: `start` adopts what an earlier one left, `stop` ends it as SIGTERM does, `crash` as SIGKILL."""

    def __init__(self, root: Path, runtime: MemoryRuntime | None = None, ranges: int = RANGES) -> None:
        self.root = root
        self.runtime = runtime or MemoryRuntime()
        self.network, self.images = MemoryNetwork(), MemoryImages()
        self.state = StateDir(root / "agent")
        self.records = self.state.load_tasks()
        settings = AgentSettings(("c:1",), "n1", state_dir=root / "state", run_dir=root / "run")
        used = [r.id_range for r in self.records if r.id_range >= 0 and not r.status.released]
        self.host = Host(
            settings=settings,
            state=self.state,
            runtime=self.runtime,
            network=self.network,
            images=self.images,
            reporter=Reporter(),
            prober=Prober(self.runtime),
            fence=Fence(root / "run" / "guard", SYSTEM, GuardProcess(root / "run" / "guard", "/argosy").ensure),
            id_ranges=IdRanges(1_000_000, ranges, used),
            node_id="n1",
            node_name="n1",
            hostname="h1",
        )
        self.died: BaseException | None = None

    async def start(self, known: Assignments | None = None) -> "NodeParts":
        started = asyncio.Event()

        async def run() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    self.tasks = Tasks(self.host, group)
                    self.tasks.adopt(self.records, list(self.runtime.containers.values()))
                    group.create_task(self.tasks.watch_exits())
                    if known:
                        self.apply(known)
                    started.set()
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # what would have ended the agent
                self.died = error

        self._running = asyncio.create_task(run())
        await started.wait()
        return self

    def apply(self, wanted: Assignments) -> None:
        self.host.assignments = wanted
        self.tasks.apply(wanted)

    def status(self, task_id: str = "t1"):
        return self.tasks.statuses().get(task_id)

    def reported(self, task_id: str = "t1"):
        return self.host.reporter._pending.get(task_id)

    async def until(self, condition, timeout_s: float = 5.0):
        async with asyncio.timeout(timeout_s):
            while not (found := condition()):
                if self.died:
                    raise AssertionError(f"the agent died: {self.died!r}") from self.died
                await asyncio.sleep(0.002)
        return found

    async def until_state(self, state: TaskState, task_id: str = "t1", *, released: bool | None = None):
        def there():
            status = self.status(task_id)
            return status and status.state is state and (released is None or status.released is released) and status

        return await self.until(there)

    async def stop(self) -> None:
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        self.state.release()

    async def successor(self, known: Assignments | None = None) -> "NodeParts":
        """Return the agent that comes after this one."""
        await self.stop()
        return await NodeParts(self.root, self.runtime).start(known)


def transient(text: str = "the launcher is restarting") -> TransientError:
    return RuntimeTransient(text)
