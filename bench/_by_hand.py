"""A rolling update by hand: what the kernel has to do for it, by the agent's own parts, and nothing else.

Three hosts are network namespaces on a bridge, with a real network plane and a real launcher each; a service's tasks
run on them, behind a virtual address. Here one program knows everything and tells everybody at once: no controller, no
store, no messages, no reports, no deciding. So what is left is what no controller can spare. A batch has three phases:

    start   the new containers, with veth pair, address and routes: from the request to the exec of the last program
    ready   the new endpoints in every host's balancer
    drain   the old endpoints out of every host's balancer, packets under way arrived, open connections counted, stop
            signal, end of the last one

What follows (container, link and endpoint of the old one go) no new task has to wait for: its address is another. It
goes on beside the next batch, as in an update, and is not timed.
"""

import asyncio
import itertools
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kernel" / "network"))

from container_start import make_rootfs  # beside this file
from network_world import Host, World, world

from argosy.agent.logic.task_step import SETTLE_S
from argosy.agent.runtime.interface import LogTarget, Rootfs
from argosy.agent.runtime.native import NativeRuntime
from argosy.agent.runtime.oci_config import ContainerSpec, build
from argosy.agent.tasks.prepare import INIT_PROGRAM
from argosy.core.addresses import parse_ipv4
from argosy.core.assignment import EndpointAssignment, NamesAssignment
from argosy.core.network import Attachment

NETWORK = "benchnetwork1"
SUBNET = "10.64.0.0/16"
VIRTUAL = "10.64.0.4"
SLICES = {"h1": (1, 2, 3), "h2": (4, 5, 6), "h3": (7, 8, 9)}
SLICE = 32
ID_BASE = 300_000_000


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of each phase."""

    start: float = 0.0
    ready: float = 0.0
    drain: float = 0.0

    @property
    def all(self) -> float:
        """Of all phases together."""
        return self.start + self.ready + self.drain

    def __add__(self, other: "Phases") -> "Phases":
        return Phases(self.start + other.start, self.ready + other.ready, self.drain + other.drain)


@dataclass(frozen=True, slots=True)
class Task:
    """A container on a host; `number` is unique."""

    id: str
    number: int
    host: "Node"
    address: int

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What it is attached to."""
        return (Attachment(NETWORK, self.address),)


class Node:
    """A host with its launcher. Belongs to the loop that made it; the host's plane has a loop of its own."""

    def __init__(self, host: Host, addresses: Iterator[int], directory: Path, run: str, parent: str) -> None:
        self.host = host
        self.addresses = deque(addresses)
        self.runtime = NativeRuntime(f"{run}/launcher.sock", str(directory / "state"), parent)
        self.ended: dict[str, asyncio.Event] = {}
        self._exits: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start the launcher."""
        await self.runtime.open()
        self._exits = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Remove what runs, and the launcher."""
        if self._exits:
            self._exits.cancel()
            await asyncio.gather(self._exits, return_exceptions=True)
        for state in await self.runtime.list():
            await self.runtime.delete(state.id)
        await self.runtime.stop_launcher()
        await self.runtime.close()

    async def _watch(self) -> None:
        async for end in self.runtime.exits():
            self.ended[end.id].set()

    async def plane(self, action: Coroutine[Any, Any, Any]) -> Any:
        """Carry out something in the plane's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(action, self.host._loop))


class ByHand:
    """A service of `replicas` tasks; `update` replaces them all, `parallelism` at a time."""

    def __init__(self, replicas: int, parallelism: int) -> None:
        self._replicas = replicas
        self._parallelism = parallelism
        self._numbers = itertools.count(1)
        self._tasks: list[Task] = []
        self._endpoints: dict[str, EndpointAssignment] = {}
        self._loop = asyncio.new_event_loop()
        self._stack = ExitStack()

    def __enter__(self) -> "ByHand":
        self._stack.callback(self._loop.close)
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="argosy-bench-")))
        directory.chmod(0o755)
        self._directory = directory
        make_rootfs(directory / "layers" / "base")
        self._rootfs = Rootfs(str(directory / "layers"), ("base",))
        self._world: World = self._stack.enter_context(world(directory))
        self._world.add_network(NETWORK, SUBNET, SLICES)
        self._nodes: list[Node] = []
        try:
            for name, slices in SLICES.items():
                host = self._world.add_host(dns=False)
                # Records and pipes belong on a tmpfs, as on a host where they are below /run.
                run = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="argosy-bench-", dir="/dev/shm"))
                first = parse_ipv4(SUBNET.partition("/")[0]) + SLICE * slices[0]
                addresses = iter(range(first + 1, first + SLICE * len(slices)))
                node = Node(host, addresses, directory / name, run, f"/{host.name}")
                self._loop.run_until_complete(node.open())
                self._nodes.append(node)
            self._loop.run_until_complete(self._begin())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._nodes:
            node.host.containers.clear()
            self._loop.run_until_complete(node.close())
        self._stack.close()

    def update(self) -> Phases:
        """Replace all tasks; return what the phases of all batches took."""
        return self._loop.run_until_complete(self._update())

    async def _begin(self) -> None:
        self._tasks, _ = await self._started([self._nodes[n % len(self._nodes)] for n in range(self._replicas)])
        await self._told(new=self._tasks)

    async def _update(self) -> Phases:
        total = Phases()
        leaving: list[asyncio.Task[None]] = []
        old, self._tasks = self._tasks, []
        for first in range(0, len(old), self._parallelism):
            batch = old[first : first + self._parallelism]
            new, start = await self._started([task.host for task in batch])
            self._tasks += new
            ready = await timed(self._told(new=new))
            drain = await timed(self._ended(batch))
            leaving.append(asyncio.create_task(self._gone(batch)))
            total += Phases(start, ready, drain)
        await asyncio.gather(*leaving)
        return total

    # ---- phases

    async def _started(self, nodes: list[Node]) -> tuple[list[Task], float]:
        new = []
        for node in nodes:
            number = next(self._numbers)
            task = Task(f"byhand{number:07}", number, node, node.addresses.popleft())
            node.ended[task.id] = asyncio.Event()
            node.host.containers[task.id] = SimpleNamespace(id=task.id, attachments=task.attachments)  # type: ignore
            new.append(task)
        began = time.perf_counter()
        await asyncio.gather(*(self._applied(node) for node in dict.fromkeys(nodes)), *map(self._start, new))
        return new, time.perf_counter() - began

    async def _start(self, task: Task) -> None:
        base = ID_BASE + 65_536 * (task.number % 4000)
        spec = ContainerSpec(argv=("/bin/sleep", "100000"), id_base=base, init=INIT_PROGRAM)
        log = LogTarget(str(self._directory / f"{task.id}.log"))
        runtime, plane = task.host.runtime, task.host.host.plane
        await runtime.create(
            task.id,
            build(spec),
            self._rootfs,
            log,
            {},
            wire=lambda made: task.host.plane(plane.attach(task.id, made.pid, task.attachments)),
        )
        await runtime.start(task.id)

    async def _ended(self, old: list[Task]) -> None:
        await self._told(withdrawn=old)
        await asyncio.sleep(SETTLE_S)
        await asyncio.gather(*map(self._end, old))

    async def _end(self, task: Task) -> None:
        await task.host.plane(task.host.host.plane.connections(task.id))
        await task.host.runtime.kill(task.id, signal.SIGTERM)
        await task.host.ended[task.id].wait()

    async def _gone(self, old: list[Task]) -> None:
        await asyncio.gather(*map(self._remove, old))
        for task in old:
            del self._endpoints[task.id]
            task.host.addresses.append(task.address)
        await self._told()

    async def _remove(self, task: Task) -> None:
        await task.host.runtime.delete(task.id)
        del task.host.host.containers[task.id]
        await task.host.plane(task.host.host.plane.detach(task.id))

    # ---- balancers

    async def _told(self, new: Sequence[Task] = (), withdrawn: Sequence[Task] = ()) -> None:
        for task in new:
            self._endpoints[task.id] = EndpointAssignment(NETWORK, task.id, "web", task.number, task.address)
        for task in withdrawn:
            self._endpoints[task.id] = replace(self._endpoints[task.id], withdrawn=True)
        await asyncio.gather(*map(self._applied, self._nodes))

    async def _applied(self, node: Node) -> None:
        names = (NamesAssignment(NETWORK, "web", ("web",), parse_ipv4(VIRTUAL)),)
        self._world.extra = {"names": names, "endpoints": tuple(self._endpoints.values())}
        await node.plane(node.host.plane.apply(self._world.state_for(node.host)))


async def timed(action: Awaitable[object]) -> float:
    """Return how long something takes, in seconds."""
    began = time.perf_counter()
    await action
    return time.perf_counter() - began


def main() -> None:
    """Print what five updates take."""
    with ByHand(20, 5) as hand:
        for _ in range(5):
            done = hand.update()
            print(f"start {done.start:.3f} s, ready {done.ready:.3f} s, drain {done.drain:.3f} s: {done.all:.3f} s")


if __name__ == "__main__":
    main()
