"""Watches: nothing lost, nothing twice, whatever happens to etcd or the connection."""

import asyncio
import contextlib

import pytest

from argosy.controller.store import EtcdClient, EtcdConfig
from argosy.controller.store.etcd import EtcdClient as _Client
from argosy.controller.store.watch import WatchCompacted, WatchEvents, WatchProgress
from argosy.core.errors import TransientError
from argosy.proto.etcd import rpc_pb2 as pb

from .conftest import until


async def put(client: _Client, key: bytes, value: bytes = b"v") -> int:
    txn = pb.TxnRequest()
    request = txn.success.add().request_put
    request.key, request.value = key, value
    return (await client.txn(txn)).header.revision


class Collector:
    """Reads a watch into lists."""

    def __init__(self, watch):
        self.watch = watch
        self.items = []
        self.events = []
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        async for item in self.watch:
            self.items.append(item)
            if isinstance(item, WatchEvents):
                self.events += [(e.kv.mod_revision, e.kv.key) for e in item.events]

    async def stop(self):
        self.watch.close()
        await self.task


@contextlib.asynccontextmanager
async def collecting(watch):
    collector = Collector(watch)
    try:
        yield collector
    finally:
        await collector.stop()


async def test_a_watch_starts_at_its_revision(client, cluster):
    prefix = f"/argosy/{cluster}/".encode()
    revisions = [await put(client, prefix + b"a%d" % n) for n in range(5)]
    async with collecting(client.watch(prefix, revisions[2])) as got:
        await until(lambda: len(got.events) == 3)
        assert [r for r, _ in got.events] == revisions[2:]


async def test_a_watch_of_one_key_sees_only_it(client, cluster):
    key = f"/argosy/{cluster}/a".encode()
    revision = await put(client, key)
    async with collecting(client.watch(key, revision, single_key=True)) as got:
        await put(client, key + b"b")
        last = await put(client, key)
        await until(lambda: got.events and got.events[-1][0] == last)
        assert got.events == [(revision, key), (last, key)]


async def test_many_watches_share_a_stream(client, cluster):
    prefixes = [f"/argosy/{cluster}/{n}/".encode() for n in range(20)]
    start = await put(client, b"/argosy/x")
    async with contextlib.AsyncExitStack() as stack:
        collectors = [await stack.enter_async_context(collecting(client.watch(p, start + 1))) for p in prefixes]
        for p in prefixes:
            await put(client, p + b"k")
        await until(lambda: all(len(c.events) == 1 for c in collectors))
        assert [c.events[0][1] for c in collectors] == [p + b"k" for p in prefixes]


async def test_closing_ends_the_iteration(client, cluster):
    watch = client.watch(b"/x", await put(client, b"/argosy/x"))
    task = asyncio.create_task(_drain(watch))
    watch.close()
    async with asyncio.timeout(5):
        await task


async def _drain(watch):
    async for _ in watch:
        pass


async def test_a_large_revision_comes_whole(client, cluster):
    """One transaction of over 1 MiB comes in fragments on the wire and as one item here."""
    prefix = f"/argosy/{cluster}/".encode()
    start = await put(client, prefix + b"first")
    for _ in range(4):  # several at once: the sum is beyond what etcd sends in one message
        txn = pb.TxnRequest()
        for n in range(100):
            request = txn.success.add().request_put
            request.key, request.value = prefix + b"%d" % n, b"x" * 14_000
        await client.txn(txn)
    async with collecting(client.watch(prefix, start + 1)) as got:
        await until(lambda: len(got.events) == 400)
        for item in got.items:
            revisions = [e.kv.mod_revision for e in item.events]
            assert all(revisions.count(r) == 100 for r in set(revisions))


async def test_progress_is_told_when_asked(client, cluster):
    prefix = f"/argosy/{cluster}/".encode()
    start = await put(client, prefix + b"a")
    async with collecting(client.watch(prefix, start + 1)) as got:
        other = await put(client, b"/argosy/elsewhere")
        async with asyncio.timeout(10):
            while not any(isinstance(i, WatchProgress) and i.revision >= other for i in got.items):
                await client.request_progress()
                await asyncio.sleep(0.01)
        assert got.events == []


async def test_compaction_is_told_and_ends_the_watch(client, cluster):
    prefix = f"/argosy/{cluster}/".encode()
    start = await put(client, prefix + b"a")
    last = [await put(client, prefix + b"a") for _ in range(5)][-1]
    await client.compact(last)
    async with collecting(client.watch(prefix, start)) as got:
        async with asyncio.timeout(10):
            await got.task
        assert [type(i) for i in got.items] == [WatchCompacted]
        assert start < got.items[0].oldest <= last


async def test_restart_of_etcd_loses_and_repeats_nothing(own_etcd):
    """kill -9 and start, three times, while a writer writes on and another client notes what was committed."""
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as client:
        start = await put(client, b"/w/0")
        async with collecting(client.watch(b"/w/", start + 1)) as got:
            stop = asyncio.Event()
            writer = asyncio.create_task(_write_until(client, stop))
            for _ in range(3):
                seen = len(got.events)
                await until(lambda n=seen: len(got.events) > n + 50, timeout=20)
                own_etcd.kill()
                await asyncio.to_thread(own_etcd.start)
            seen = len(got.events)
            await until(lambda: len(got.events) > seen + 50, timeout=20)
            stop.set()
            await writer
            last = await put(client, b"/w/last")
            await until(lambda: got.events[-1][0] == last)
            # Every revision after the first made exactly one event, committed visibly to the writer or not.
            assert [r for r, _ in got.events] == list(range(start + 1, last + 1))


async def _write_until(client, stop):
    n = 0
    while not stop.is_set():
        n += 1
        try:
            await put(client, b"/w/%d" % (n % 10))
        except TransientError:
            await asyncio.sleep(0.01)


async def test_compaction_while_away_is_told(own_etcd):
    """The position of a watch is compacted while its connection is down."""
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as client:
        start = await put(client, b"/w/0")
        async with collecting(client.watch(b"/w/", start + 1)) as got:
            await until(lambda: got.watch.created)
            own_etcd.kill()
            await until(lambda: not got.watch.created or got.watch._stream._call is None)
            port, own_etcd.port = own_etcd.port, _other_port()
            await asyncio.to_thread(own_etcd.start)
            async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as other:
                last = [await put(other, b"/w/0") for _ in range(10)][-1]
                await other.compact(last)
            own_etcd.kill()
            own_etcd.port = port
            await asyncio.to_thread(own_etcd.start)
            await until(lambda: got.items, timeout=20)
            assert isinstance(got.items[-1], WatchCompacted)
            assert got.events == []


def _other_port():
    from .etcd_server import free_port

    return free_port()


async def test_a_start_before_the_first_revision_is_a_bug(client):
    with pytest.raises(ValueError, match="starts at a revision"):
        client.watch(b"/x", 0)
