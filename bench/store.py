"""How fast the store is: commits, batches, the cache; on a real etcd with fsync, medians of five.

    python bench/store.py [--tasks 100000]

Beside the figures stand the machine's load and, as the floor, a bare put of one small key.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from argosy.controller.store import (
    Cache,
    Candidate,
    Election,
    EtcdClient,
    EtcdConfig,
    Fence,
    Put,
    Store,
    tune_collector,
)
from argosy.controller.store.keys import ObjectKey
from argosy.controller.store.records import to_bytes
from argosy.controller.store.snapshot import Change
from argosy.core.ids import new_id
from argosy.core.kinds import BY_TYPE
from argosy.core.meta import Meta
from argosy.core.network import Attachment
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from argosy.proto.etcd import rpc_pb2 as pb
from tests.store.etcd_server import EtcdServer

RUNS = 5
NODES = [new_id() for _ in range(1000)]
SERVICES = [new_id() for _ in range(100)]


def a_task(n: int) -> Task:
    return Task(
        Meta(new_id(), "default", created_at=time.time(), updated_at=time.time()),
        service_id=SERVICES[n % len(SERVICES)],
        slot=n,
        node_id=NODES[n % len(NODES)],
        revision=1,
        desired_state=TaskState.RUNNING,
        attachments=(Attachment("network-one-1", 0x0A400001 + n),),
    )


def puts(count: int) -> list[Put]:
    return [Put(a_task(n), 0) for n in range(count)]


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def report(name: str, values: list[float], unit: str, scale: float = 1.0) -> None:
    scaled = sorted(v * scale for v in values)
    print(f"  {name:<58} {statistics.median(scaled):>10.2f} {unit:<8} ({scaled[0]:.2f} to {scaled[-1]:.2f})")


async def latencies(store: Store, fence: Fence) -> None:
    async def bare() -> None:
        txn = pb.TxnRequest()
        put = txn.success.add().request_put
        put.key, put.value = b"/bench/one", b"value"
        await store.client.txn(txn)

    report("bare put of one key", [await timed(bare) for _ in range(200)], "ms", 1e3)
    for count in (1, 60, 127):
        batches = [puts(count) for _ in range(100)]
        report(
            f"fenced commit of {count} tasks, one transaction",
            [await timed(lambda b=b: store.commit(b, fence)) for b in batches],  # type: ignore[misc]
            "ms",
            1e3,
        )


async def rates(store: Store, fence: Fence) -> None:
    async def singles() -> None:
        todo = iter(puts(2000))

        async def worker() -> None:
            for put in todo:
                await store.commit([put], fence)

        await asyncio.gather(*(worker() for _ in range(64)))

    report("single commits, 64 at a time", [2000 / await timed(singles) for _ in range(RUNS)], "/s")
    many = [[[p] for p in await asyncio.to_thread(puts, 10_000)] for _ in range(RUNS)]
    report(
        "tasks by commit_batched, 10,000 groups",
        [10_000 / await timed(lambda g=g: store.commit_batched(g, fence)) for g in many],  # type: ignore[misc]
        "/s",
    )


async def cache_figures(store: Store, fence: Fence, tasks: int) -> None:
    have = 100 * (1 + 60 + 127) + RUNS * 12_000
    rest = await asyncio.to_thread(puts, max(0, tasks - have))
    for outcome in await store.commit_batched([[p] for p in rest], fence):
        assert outcome.ok, outcome.error
    loads, cpu = [], []
    for _ in range(RUNS):
        cache = Cache(store)
        began, spent = time.perf_counter(), time.process_time()
        follower = asyncio.create_task(cache.run())
        await cache.ready()
        loads.append(time.perf_counter() - began)
        cpu.append(time.process_time() - spent)
        follower.cancel()
        await asyncio.wait([follower])
    print(f"  (the cluster holds {cache.snapshot.count(Task):,} tasks now)")
    report("first list of all", loads, "s")
    report("first list of all: CPU of this process", cpu, "s")

    follower = asyncio.create_task(cache.run())
    await cache.wait_for(await store.commit(puts(1), fence), timeout=60)

    async def written_and_read(ops: list[Put]) -> None:
        await cache.wait_for(await store.commit(ops, fence))

    for count in (1, 60):
        batches = [puts(count) for _ in range(100)]
        times = [await timed(lambda b=b: written_and_read(b)) for b in batches]  # type: ignore[misc]
        report(f"commit of {count} and seen in the snapshot", times, "ms", 1e3)
    report("check against etcd of all", [await timed(cache.verify) for _ in range(RUNS)], "s")
    follower.cancel()
    await asyncio.wait([follower])
    apply_figures(cache)


def apply_figures(cache: Cache) -> None:
    """What an event costs the event loop, without the network: decoding, tables, indexes, history."""
    start = cache.snapshot.revision
    rates = []
    for run in range(RUNS):
        events = []
        for n, task in enumerate(cache.snapshot.all(Task)[:10_000]):
            kv = pb.KeyValue(
                key=cache._store.keys.object(Task, "default", task.meta.id),
                value=to_bytes(task),
                mod_revision=start + run * 1000 + n // 60 + 1,
            )
            events.append(pb.Event(kv=kv))
        began = time.perf_counter()
        cache._apply(events)
        rates.append(len(events) / (time.perf_counter() - began))
    report("events applied, 60 a revision", rates, "/s")
    snapshot, task = cache.snapshot, cache.snapshot.all(Task)[0]
    at = ObjectKey(BY_TYPE[Task], task.meta.project, task.meta.id)
    change = Change(Task, at.id, task, task)
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        for _ in range(10_000):
            snapshot = snapshot.apply(1, [change])
        times.append((time.perf_counter() - began) / 10_000)
    report("next snapshot after one change", times, "µs", 1e6)
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        snapshot.all(Task)
        times.append(time.perf_counter() - began)
    report("all tasks of a snapshot", times, "ms", 1e3)


async def main(endpoint: str, tasks: int) -> None:
    async with EtcdClient(EtcdConfig((endpoint,))) as client:
        store = Store(client, "bench")
        async with Election(client, "bench", Candidate("bench", "-")).lead() as leadership:
            await latencies(store, leadership.fence)
            await rates(store, leadership.fence)
            await cache_figures(store, leadership.fence, tasks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100_000, help="tasks in the cluster for the cache's figures")
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
        server = EtcdServer(Path(folder) / "etcd")
        try:
            server.start()
            tune_collector()
            print(f"store: median (lowest to highest); load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
            uvloop.run(main(server.endpoint, arguments.tasks))
            print(f"  load at the end {os.getloadavg()[0]:.1f}")
        finally:
            server.kill()
