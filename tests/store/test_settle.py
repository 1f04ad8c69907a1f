"""Transactions whose answer was lost: settled where that is possible, said to be ambiguous where it is not."""

import asyncio
import contextlib

import pytest

from argosy.controller.store import AmbiguousError, Claim, EtcdClient, EtcdConfig, Put, Store, create, update
from argosy.controller.store.errors import StoreUnavailableError
from argosy.controller.store.keys import Keyspace
from argosy.controller.store.ops import Check, Delete, Release
from argosy.controller.store.settle import Settled, Verdict, can_settle, settle
from argosy.controller.store.txn import prepare
from argosy.core.errors import ConflictError, NotFoundError
from argosy.core.service import Service
from argosy.core.task import Task
from argosy.proto.etcd import rpc_pb2 as pb

from .conftest import a_service, a_task
from .etcd_server import free_port
from .relay import Relay


@contextlib.asynccontextmanager
async def lossy(etcd, cluster):
    """A store whose answers can be lost, and the relay that loses them."""
    async with (
        Relay(etcd.port) as relay,
        EtcdClient(EtcdConfig((relay.endpoint,), attempt_timeout_s=0.5)) as client,
    ):
        store = Store(client, cluster)
        await store.revision()  # connected
        yield store, relay


async def appears(store, id):
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(NotFoundError):
                return await store.get(Task, "default", id)
            await asyncio.sleep(0.01)


async def test_a_commit_whose_answer_was_lost_is_found_applied_once(etcd, store, client, cluster):
    async with lossy(etcd, cluster) as (lossy_store, relay):
        relay.swallow = True
        commit = asyncio.create_task(
            lossy_store.commit([create(a_task("t1")), Claim(Service, "default", "web", "s1"), Put(a_task("t2"), None)])
        )
        task = await appears(store, "t1")
        relay.heal()
        assert await commit == task.meta.version
        for key in (store.keys.object(Task, "default", "t1"), store.keys.object(Task, "default", "t2")):
            (kv,) = (await client.range(key)).kvs
            assert (kv.version, kv.mod_revision) == (1, task.meta.version)


async def test_a_batch_whose_answer_was_lost_is_settled(etcd, store, cluster):
    async with lossy(etcd, cluster) as (lossy_store, relay):
        relay.swallow = True
        commit = asyncio.create_task(lossy_store.commit_batched([[create(a_task("t1"))], [create(a_task("t2"))]]))
        task = await appears(store, "t1")
        relay.heal()
        assert [o.revision for o in await commit] == [task.meta.version] * 2


async def test_a_commit_that_never_arrived_is_applied_once(own_etcd, cluster):
    """etcd is paused, gets the request into its socket only, and is killed."""
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,), attempt_timeout_s=0.5)) as client:
        store = Store(client, cluster)
        await store.revision()
        own_etcd.pause()
        commit = asyncio.create_task(store.commit([create(a_task("t1"))]))
        await asyncio.wait([commit], timeout=1.0)
        assert not commit.done()
        own_etcd.kill()
        await asyncio.to_thread(own_etcd.start)
        revision = await commit
        (kv,) = (await client.range(store.keys.object(Task, "default", "t1"))).kvs
        assert (kv.version, kv.mod_revision) == (1, revision)


async def test_overwritten_before_it_was_settled_is_ambiguous(etcd, store, cluster):
    async with lossy(etcd, cluster) as (lossy_store, relay):
        relay.swallow = True
        commit = asyncio.create_task(lossy_store.commit([create(a_task("t1", slot=1))]))
        await store.commit([update(await appears(store, "t1")), create(a_task("t2"))])
        await store.commit([Put(a_task("t1", slot=9), None)])
        relay.heal()
        with pytest.raises(AmbiguousError):
            await commit


async def test_an_unguarded_write_is_ambiguous_and_sent_once(etcd, store, client, cluster):
    async with lossy(etcd, cluster) as (lossy_store, relay):
        relay.swallow = True
        with pytest.raises(AmbiguousError, match="may or may not have been applied"):
            await lossy_store.commit([Put(a_task("t1"), None)])
        await appears(store, "t1")
        relay.heal()
        (kv,) = (await client.range(store.keys.object(Task, "default", "t1"))).kvs
        assert kv.version == 1


async def test_a_commit_to_nobody_is_surely_not_applied(cluster):
    async with EtcdClient(EtcdConfig((f"127.0.0.1:{free_port()}",), request_timeout_s=0.5)) as client:
        with pytest.raises(StoreUnavailableError, match="is it running"):
            await Store(client, cluster).commit([create(a_task("t1"))])


async def test_a_lost_answer_to_a_commit_that_conflicts_is_a_conflict(etcd, store, cluster):
    """The first copy fails its comparison; so does the second, and t2 is as it was: surely not applied."""
    await store.commit([create(a_service("s1", "web"))])
    async with lossy(etcd, cluster) as (lossy_store, relay):
        relay.swallow = True
        commit = asyncio.create_task(lossy_store.commit([create(a_task("t2")), Check(Service, "default", "s1", 1)]))
        await asyncio.wait([commit], timeout=0.7)
        relay.heal()
        with pytest.raises(ConflictError, match="service s1 changed"):
            await commit


# ---- the verdicts, as a table

KEYS = Keyspace("c")
CREATE = prepare(create(a_task("t1")), KEYS)
UPDATE = prepare(Put(a_task("t2"), 7), KEYS)
REMOVE = prepare(Delete(Task, "default", "t3", 7), KEYS)
BLIND = prepare(Put(a_task("t4"), None), KEYS)
CHECKED = prepare(Check(Task, "default", "t5", 7), KEYS)


def kv(part, value, revision):
    return part.key, pb.KeyValue(key=part.key, value=value, mod_revision=revision)


@pytest.mark.parametrize(
    ("parts", "found", "expected"),
    [
        ([CREATE], [], Settled(Verdict.NOT_APPLIED)),
        ([CREATE], [kv(CREATE, CREATE.value, 9)], Settled(Verdict.APPLIED, 9)),
        ([CREATE], [kv(CREATE, b"other", 9)], Settled(Verdict.UNKNOWN)),
        ([UPDATE], [kv(UPDATE, b"old", 7)], Settled(Verdict.NOT_APPLIED)),
        ([UPDATE], [kv(UPDATE, b"other", 9)], Settled(Verdict.UNKNOWN)),
        ([UPDATE], [], Settled(Verdict.UNKNOWN)),
        ([UPDATE, BLIND], [kv(UPDATE, UPDATE.value, 9), kv(BLIND, BLIND.value, 9)], Settled(Verdict.APPLIED, 9)),
        ([UPDATE, BLIND], [kv(UPDATE, UPDATE.value, 9), kv(BLIND, BLIND.value, 10)], Settled(Verdict.UNKNOWN)),
        ([UPDATE, CREATE], [kv(UPDATE, UPDATE.value, 9)], Settled(Verdict.NOT_APPLIED)),
        ([REMOVE], [], Settled(Verdict.APPLIED, 0)),
        ([REMOVE], [kv(REMOVE, b"x", 7)], Settled(Verdict.NOT_APPLIED)),
        ([CREATE, CHECKED], [kv(CHECKED, b"", 8)], Settled(Verdict.NOT_APPLIED)),
    ],
)
def test_verdict(parts, found, expected):
    assert settle(parts, dict(found)) == expected


def test_only_guarded_transactions_can_be_settled():
    release = prepare(Release(Service, "default", "web", "s1"), KEYS)
    parts = (CREATE, UPDATE, REMOVE, BLIND, CHECKED, release)
    assert [can_settle([p]) for p in parts] == [True, True, True, False, False, False]
    assert can_settle([BLIND, CREATE])
