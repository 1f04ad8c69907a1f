"""The cache against a real etcd: it follows, it catches up, it notices when it is wrong."""

import asyncio
import contextlib
import gc
import random
from dataclasses import replace

import pytest

from argosy.controller.store import (
    Cache,
    Claim,
    Delete,
    EtcdClient,
    EtcdConfig,
    NewerSchemaError,
    Put,
    Store,
    StoreUnavailableError,
    VersionTooOldError,
    create,
    update,
)
from argosy.controller.store.snapshot import Change
from argosy.core.image import Image
from argosy.core.kinds import KINDS
from argosy.core.meta import Meta
from argosy.core.node import Node, NodeSpec
from argosy.core.service import Service
from argosy.core.task import Task
from argosy.proto.argosy.v1 import types_pb2
from argosy.proto.etcd import rpc_pb2 as pb

from .conftest import a_service, a_task, running, until
from .etcd_server import free_port


def contents(snapshot):
    """Return all that a snapshot holds, comparable."""
    objects = {k.name: {(o.meta.project, o.meta.id): o for o in snapshot.all(k.domain)} for k in KINDS}
    tasks = snapshot.all(Task)
    by_node = {t.node_id: {x.meta.id for x in snapshot.tasks_on_node(t.node_id)} for t in tasks}
    by_service = {t.service_id: {x.meta.id for x in snapshot.tasks_of_service(t.service_id)} for t in tasks}
    return objects, by_node, by_service


async def fresh(store):
    """Return what a new cache lists."""
    cache = Cache(store)
    async with running(cache):
        return contents(cache.snapshot)


async def take(subscription, count, timeout=10):
    async with asyncio.timeout(timeout):
        return [await anext(subscription) for _ in range(count)]


async def test_it_lists_follows_and_reads_its_own_writes(store):
    await store.commit([create(a_task("t1", node="n1")), Claim(Service, "default", "web", "s1")])
    async with running(Cache(store)) as cache:
        assert [t.meta.id for t in cache.snapshot.tasks_on_node("n1")] == ["t1"]
        before = cache.snapshot
        revision = await store.commit([create(a_task("t2", node="n1")), Delete(Task, "default", "t1", None)])
        await cache.wait_for(revision)
        assert [t.meta.id for t in cache.snapshot.tasks_on_node("n1")] == ["t2"]
        assert cache.snapshot.get(Task, "t2").meta.version == revision
        assert [t.meta.id for t in before.tasks_on_node("n1")] == ["t1"]


async def test_wait_for_reaches_revisions_of_other_writers(store, client):
    async with running(Cache(store)) as cache:
        elsewhere = await Store(client, "another-cluster").commit([Put(a_task("x"), None)])
        await cache.wait_for(elsewhere)
        assert cache.snapshot.revision >= elsewhere


async def test_wait_for_gives_up(store):
    async with running(Cache(store)) as cache:
        with pytest.raises(StoreUnavailableError, match="did not reach"):
            await cache.wait_for(cache.snapshot.revision + 1000, timeout=0.3)


async def test_images_of_two_projects_may_share_an_id(store):
    images = [Image(Meta("d1", project), name=f"{project}/app") for project in ("p", "q")]
    await store.commit([create(i) for i in images])
    async with running(Cache(store)) as cache:
        assert cache.snapshot.get(Image, "d1", "p").name == "p/app"
        assert cache.snapshot.get(Image, "d1", "q").name == "q/app"
        assert [i.name for i in cache.snapshot.all(Image, "q")] == ["q/app"]


async def test_changes_come_a_revision_at_a_time(store):
    async with running(Cache(store)) as cache:
        with cache.subscribe() as sub:
            first = await store.commit([create(a_task("t1")), create(a_task("t2"))])
            old = await store.get(Task, "default", "t1")
            second = await store.commit([update(replace(old, slot=2))])
            third = await store.commit([Delete(Task, "default", "t2", None)])
            batches = await take(sub, 3)
        assert [b.revision for b in batches] == [first, second, third]
        assert {c.id for c in batches[0].changes} == {"t1", "t2"}
        new = replace(old, slot=2, meta=replace(old.meta, version=second))
        assert batches[1].changes == (Change(Task, "t1", old, new),)
        assert [(c.id, c.old is not None, c.new) for c in batches[2].changes] == [("t2", True, None)]
        assert all(b.snapshot.revision >= b.revision for b in batches)


async def test_a_coalesced_subscription_gives_all_at_once(store):
    async with running(Cache(store)) as cache:
        sub = cache.subscribe(coalesce=True)
        for slot in range(1, 6):
            last = await store.commit([Put(a_task("t1", slot=slot), None)])
        await cache.wait_for(last)
        (batch,) = await take(sub, 1)
        assert [(c.old, c.new.slot) for c in batch.changes] == [(None, 5)]
        assert batch.revision == last


async def test_a_subscription_resumes_after_a_version(store):
    async with running(Cache(store, max_history=5)) as cache:
        revisions = [await store.commit([Put(a_task("t1", slot=n), None)]) for n in range(10)]
        await cache.wait_for(revisions[-1])
        batches = await take(cache.subscribe(after=revisions[-3]), 2)
        assert [b.revision for b in batches] == revisions[-2:]
        with pytest.raises(VersionTooOldError, match="list again"):
            cache.subscribe(after=revisions[0])
        assert len(await take(cache.subscribe(after=cache.oldest_resumable), 5)) == 5


async def test_a_version_of_the_future_waits_for_what_comes_after_it(store):
    async with running(Cache(store)) as cache:
        sub = cache.subscribe(after=cache.snapshot.revision + 1)
        await store.commit([create(a_task("t1"))])
        second = await store.commit([create(a_task("t2"))])
        (batch,) = await take(sub, 1)
        assert batch.revision == second


async def test_a_slow_subscriber_resyncs_and_the_others_do_not(store):
    async with running(Cache(store, max_pending=50)) as cache:
        slow, quick = cache.subscribe(), cache.subscribe()
        seen = []

        async def read():
            async for batch in quick:
                seen.extend(c.id for c in batch.changes)

        reader = asyncio.create_task(read())
        for n in range(20):
            await store.commit([create(a_task(f"t{n}-{i}")) for i in range(10)])
            # etcd sends a watch that is behind many revisions at once: then the quick one would have 50 pending, too.
            await until(lambda n=n: len(seen) == 10 * (n + 1))
        (batch,) = await take(slow, 1)
        assert (batch.resync, batch.changes, batch.snapshot.count(Task)) == (True, (), 200)
        await store.commit([create(a_task("after"))])
        (batch,) = await take(slow, 1)
        assert [c.id for c in batch.changes] == ["after"]
        assert quick.resyncs == 0
        quick.close()
        await reader


async def test_a_forgotten_subscription_is_dropped(store):
    async with running(Cache(store)) as cache:
        cache.subscribe()
        gc.collect()
        assert len(cache._subscriptions) == 0


async def test_it_equals_a_fresh_list_after_random_writes(store):
    """Seeded: writers of several kinds, deletions, conflicts; a subscriber that replays the changes agrees, too."""
    chance = random.Random(7)
    async with running(Cache(store)) as cache:
        sub = cache.subscribe()
        start = cache.snapshot
        for _ in range(60):
            groups = [[_random_op(chance)] for _ in range(chance.randint(1, 40))]
            outcomes = await store.commit_batched(groups)
        await cache.wait_for(max(o.revision for o in outcomes))
        assert contents(cache.snapshot) == await fresh(store)
        replayed = start
        while replayed.revision < cache.snapshot.revision:
            (batch,) = await take(sub, 1)
            replayed = replayed.apply(batch.revision, batch.changes)
        assert contents(replayed) == contents(cache.snapshot)
        assert await cache.verify() == 0


def _random_op(chance):
    n = chance.randint(1, 60)
    match chance.randint(0, 5):
        case 0:
            return Delete(Task, "default", f"t{n}", None)
        case 1:
            return Put(a_service(f"s{n}", f"name{chance.randint(1, 9)}"), None)
        case 2:
            return Put(Node(Meta(f"n{n}"), NodeSpec(name=f"node{n}")), chance.choice([None, 0]))
        case _:
            task = a_task(f"t{n}", node=f"n{chance.randint(1, 5)}", service=f"s{chance.randint(1, 5)}")
            return Put(task, chance.choice([None, None, 0]))


# ---- faults


async def test_restart_of_etcd(own_etcd, cluster):
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as client:
        store = Store(client, cluster)
        async with running(Cache(store)) as cache:
            sub = cache.subscribe()
            revisions = [await store.commit([create(a_task("t1"))])]
            own_etcd.kill()
            await asyncio.to_thread(own_etcd.start)
            revisions.append(await store.commit([create(a_task("t2"))]))
            assert [b.revision for b in await take(sub, 2)] == revisions
            assert cache.lists == 1


async def test_compacted_while_away_it_lists_and_says_what_changed(own_etcd, cluster):
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as client:
        store = Store(client, cluster)
        await store.commit([create(a_task(id)) for id in ("stays", "changes", "goes")])
        async with running(Cache(store)) as cache:
            sub = cache.subscribe()
            resumable = cache.oldest_resumable
            # While the cache looks for etcd on one port it serves others on another.
            own_etcd.kill()
            port, own_etcd.port = own_etcd.port, free_port()
            await asyncio.to_thread(own_etcd.start)
            async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as other:
                elsewhere = Store(other, cluster)
                await elsewhere.commit([Put(a_task("changes", slot=2), None), Delete(Task, "default", "goes", None)])
                await elsewhere.commit([create(a_task("brief"))])
                last = await elsewhere.commit([Delete(Task, "default", "brief", None), create(a_task("new"))])
                await other.compact(last)
            own_etcd.kill()
            own_etcd.port = port
            await asyncio.to_thread(own_etcd.start)
            (batch,) = await take(sub, 1, timeout=20)
            assert {(c.id, c.old is None, c.new is None) for c in batch.changes} == {
                ("changes", False, False),
                ("goes", False, True),
                ("new", True, False),
            }
            assert contents(cache.snapshot) == await fresh(store)
            assert cache.lists == 2
            with pytest.raises(VersionTooOldError):
                cache.subscribe(after=resumable)


async def test_a_difference_is_counted_and_repaired(store):
    await store.commit([create(a_task(id, node="n1")) for id in ("lost", "altered", "right")])
    async with running(Cache(store)) as cache:
        true = contents(cache.snapshot)
        # Make it wrong by hand: an object missing, one with another version, one that etcd does not have.
        lost, altered = cache.snapshot.get(Task, "lost"), cache.snapshot.get(Task, "altered")
        wrong = replace(altered, meta=replace(altered.meta, version=1), node_id="n2")
        cache._snapshot = cache._snapshot.apply(
            cache.snapshot.revision,
            [
                Change(Task, "lost", lost, None),
                Change(Task, "altered", altered, wrong),
                Change(Task, "ghost", None, a_task("ghost", version=1)),
            ],
        )
        sub = cache.subscribe()
        assert await cache.verify() == 3
        assert cache.differences == 3
        (batch,) = await take(sub, 1)
        assert {c.id for c in batch.changes} == {"lost", "altered", "ghost"}
        assert contents(cache.snapshot) == true
        assert await cache.verify() == 0


async def test_it_is_checked_in_the_background(store):
    await store.commit([create(a_task("t1"))])
    async with running(Cache(store, relist_period_s=0.05)) as cache:
        cache._snapshot = cache._snapshot.apply(
            cache.snapshot.revision, [Change(Task, "t1", cache.snapshot.get(Task, "t1"), None)]
        )
        await until(lambda: cache.snapshot.get(Task, "t1") is not None)
        assert cache.differences == 1


async def test_no_difference_under_writes_and_compaction(store, client):
    async with running(Cache(store)) as cache:
        for n in range(20):
            revision = await store.commit([Put(a_task(f"t{n}"), None)])
            await client.compact(revision)
            assert await cache.verify() == 0


async def test_an_etcd_set_back_to_a_backup_is_noticed(own_etcd, cluster, tmp_path):
    """The revisions start anew: every object counts as changed, and the cache agrees with etcd in the end."""
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as client:
        store = Store(client, cluster)
        for n in range(20):
            await store.commit([create(a_task(f"t{n}"))])
        async with running(Cache(store)) as cache:
            own_etcd.kill()
            own_etcd.folder = tmp_path / "empty"
            await asyncio.to_thread(own_etcd.start)
            await store.commit([create(a_task("t0", slot=5))])
            with contextlib.suppress(StoreUnavailableError):  # it may still be waiting for etcd to come back
                await cache.verify()
            await until(lambda: cache.snapshot.count(Task) == 1, timeout=20)
            assert cache.snapshot.get(Task, "t0").slot == 5


async def test_a_newer_schema_ends_the_cache(store, client):
    cache = Cache(store)
    await store.commit([create(a_task("t1"))])
    task = asyncio.create_task(cache.run())
    await cache.ready()
    txn = pb.TxnRequest()
    put = txn.success.add().request_put
    put.key = store.keys.object(Task, "default", "t2")
    put.value = types_pb2.Task(meta=types_pb2.Meta(id="t2"), schema=99).SerializeToString()
    await client.txn(txn)
    with pytest.raises(NewerSchemaError, match="schema 99"):
        async with asyncio.timeout(10):
            await task
    with pytest.raises(NewerSchemaError):
        await Cache(store).run()


async def test_it_waits_for_etcd_to_start(own_etcd, cluster):
    own_etcd.kill()
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,), request_timeout_s=0.3)) as client:
        cache = Cache(Store(client, cluster))
        task = asyncio.create_task(cache.run())
        ready = asyncio.create_task(cache.ready())
        await asyncio.wait([ready, task], timeout=0.7)
        assert not ready.done()
        assert not task.done()
        await asyncio.to_thread(own_etcd.start)
        async with asyncio.timeout(10):
            await ready
        task.cancel()
        await asyncio.wait([task])
