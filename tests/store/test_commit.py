"""Transactions: compared, fenced, batched, within etcd's limits."""

import asyncio
from dataclasses import replace

import pytest

from argosy.controller.store import (
    Check,
    Claim,
    Delete,
    NewerSchemaError,
    Put,
    Release,
    TooLargeError,
    UnreadableError,
    check,
    create,
    delete,
    update,
)
from argosy.controller.store.txn import MAX_BYTES, MAX_OPS
from argosy.core.errors import ConflictError, ExistsError, NotFoundError
from argosy.core.kinds import BY_TYPE
from argosy.core.service import Service
from argosy.core.task import Task
from argosy.proto.argosy.v1 import types_pb2
from argosy.proto.etcd import rpc_pb2 as pb

from .conftest import a_service, a_task


async def test_put_and_get_carry_the_version(store):
    revision = await store.commit([create(a_task("t1", version=77))])
    task = await store.get(Task, "default", "t1")
    assert task == a_task("t1", version=revision)


async def test_the_version_is_not_in_the_stored_bytes(store, client):
    await store.commit([create(a_task("t1", version=77))])
    (kv,) = (await client.range(store.keys.object(Task, "default", "t1"))).kvs
    message = types_pb2.Task.FromString(kv.value)
    assert (message.meta.version, message.schema) == (0, 1)


async def test_create_of_what_exists_conflicts(store):
    await store.commit([create(a_task("t1"))])
    with pytest.raises(ConflictError, match="task t1 exists already"):
        await store.commit([create(a_task("t1"))])


async def test_update_at_an_old_version_conflicts_and_changes_nothing(store):
    old = a_task("t1", version=await store.commit([create(a_task("t1"))]))
    newer = await store.commit([update(replace(old, slot=2))])
    with pytest.raises(ConflictError, match=rf"task t1 changed since it was read \(version {newer}, not"):
        await store.commit([update(replace(old, slot=3)), create(a_task("t2"))])
    assert (await store.get(Task, "default", "t1")).slot == 2
    with pytest.raises(NotFoundError):
        await store.get(Task, "default", "t2")


async def test_update_of_what_is_gone_conflicts(store):
    task = a_task("t1", version=await store.commit([create(a_task("t1"))]))
    await store.commit([delete(task)])
    with pytest.raises(ConflictError, match="task t1 does not exist any more"):
        await store.commit([update(task)])


async def test_update_of_what_was_never_read_is_a_bug():
    with pytest.raises(ValueError, match="not read from the store"):
        update(a_task("t1"))


async def test_unconditional_put_and_delete(store):
    await store.commit([Put(a_task("t1", slot=1), None)])
    await store.commit([Put(a_task("t1", slot=2), None)])
    assert (await store.get(Task, "default", "t1")).slot == 2
    await store.commit([Delete(Task, "default", "t1", None)])
    await store.commit([Delete(Task, "default", "t1", None)])
    with pytest.raises(NotFoundError):
        await store.get(Task, "default", "t1")


async def test_check_guards_without_writing(store):
    service = a_service("s1", "web")
    service = replace(service, meta=replace(service.meta, version=await store.commit([create(service)])))
    await store.commit([check(service), create(a_task("t1"))])
    await store.commit([update(replace(service, removing=True))])
    with pytest.raises(ConflictError, match="service s1 changed"):
        await store.commit([check(service), create(a_task("t2"))])
    with pytest.raises(ConflictError):
        await store.commit([Check(Service, "default", "s1", 0), create(a_task("t2"))])


async def test_names_are_unique_until_released(store):
    await store.commit([create(a_service("s1", "web")), Claim(Service, "default", "web", "s1")])
    with pytest.raises(ExistsError, match="service name 'web' is taken by s1"):
        await store.commit([create(a_service("s2", "web")), Claim(Service, "default", "web", "s2")])
    assert await store.name_owner(Service, "default", "web") == "s1"
    with pytest.raises(ConflictError, match="service name 'web' is not held by s2"):
        await store.commit([Release(Service, "default", "web", "s2")])
    await store.commit([Release(Service, "default", "web", "s1"), Delete(Service, "default", "s1", None)])
    assert await store.name_owner(Service, "default", "web") is None
    await store.commit([create(a_service("s2", "web")), Claim(Service, "default", "web", "s2")])


async def test_of_two_writers_at_one_version_one_wins(store):
    task = a_task("t1", version=await store.commit([create(a_task("t1"))]))
    results = await asyncio.gather(
        *(store.commit([update(replace(task, slot=n))]) for n in range(2, 12)), return_exceptions=True
    )
    assert sum(isinstance(r, int) for r in results) == 1
    assert sum(isinstance(r, ConflictError) for r in results) == 9


# ---- limits


async def test_the_limit_of_operations_is_etcds(store):
    await store.commit([create(a_task(f"t{n}")) for n in range(MAX_OPS)])
    with pytest.raises(TooLargeError, match="129 operations"):
        await store.commit([create(a_task(f"u{n}")) for n in range(MAX_OPS + 1)])


async def test_etcd_itself_refuses_one_operation_more(client, cluster):
    txn = pb.TxnRequest()
    for n in range(MAX_OPS + 1):
        txn.success.add().request_put.key = f"/argosy/{cluster}/x{n}".encode()
    with pytest.raises(TooLargeError, match="too many operations"):
        await client.txn(txn)


async def test_a_commit_just_below_the_limit_of_bytes_is_taken(store):
    # The largest that our own estimate lets through must be acceptable to etcd.
    parts = [create(a_service(f"s{n}", "x", padding=MAX_BYTES // 2 - 400)) for n in range(2)]
    await store.commit(parts)


async def test_a_commit_above_the_limit_of_bytes_names_the_largest_part(store):
    with pytest.raises(TooLargeError, match="the largest part is service s1 with"):
        await store.commit([create(a_service("s1", "x", padding=MAX_BYTES)), create(a_task("t1"))])


async def test_batched_groups_go_over_both_limits(store, client):
    many = [[create(a_task(f"t{n}-{i}")) for i in range(3)] for n in range(100)]
    large = [[create(a_service(f"s{n}", "x", padding=400_000))] for n in range(8)]
    before = (await client.range(b"\0", limit=1)).header.revision
    outcomes = await store.commit_batched([*many, *large])
    assert all(o.ok for o in outcomes)
    revisions = {o.revision for o in outcomes}
    # 300 operations are 3 transactions (42 groups of 3 each), 3.2 MB are 3 (3 objects each); first-fit may share one.
    assert len(revisions) <= 6
    assert max(revisions) - before >= len(revisions)
    assert (await store.get(Task, "default", "t99-2")).meta.version == outcomes[99].revision


async def test_a_conflicting_group_fails_alone(store):
    await store.commit([create(a_task("t3"))])
    groups = [[create(a_task(f"t{n}")), create(a_task(f"u{n}"))] for n in range(10)]
    outcomes = await store.commit_batched(groups)
    assert [o.ok for o in outcomes] == [n != 3 for n in range(10)]
    assert isinstance(outcomes[3].error, ConflictError)
    assert len({o.revision for o in outcomes if o.ok}) == 1
    with pytest.raises(NotFoundError):
        await store.get(Task, "default", "u3")


async def test_a_group_too_large_fails_alone(store):
    outcomes = await store.commit_batched([[create(a_task(f"t{n}")) for n in range(200)], [create(a_task("ok"))], []])
    assert isinstance(outcomes[0].error, TooLargeError)
    assert [o.ok for o in outcomes[1:]] == [True, True]


async def test_groups_on_one_key_are_applied_in_turn(store):
    outcomes = await store.commit_batched([[create(a_task("t1"))], [Put(a_task("t1", slot=2), None)]])
    assert outcomes[0].revision < outcomes[1].revision
    outcomes = await store.commit_batched([[create(a_task("t2"))], [create(a_task("t2"))]])
    assert [o.ok for o in outcomes] == [True, False]


async def test_a_key_twice_in_a_group_is_a_bug(store):
    with pytest.raises(ValueError, match="twice"):
        await store.commit([Put(a_task("t1"), None), Delete(Task, "default", "t1", None)])


# ---- what cannot be read


async def _store_raw(client, store, message):
    txn = pb.TxnRequest()
    put = txn.success.add().request_put
    put.key, put.value = store.keys.object(Task, "default", "t1"), message
    await client.txn(txn)


async def test_a_newer_schema_is_refused(store, client):
    message = types_pb2.Task(meta=types_pb2.Meta(id="t1", project="default"), schema=2)
    await _store_raw(client, store, message.SerializeToString())
    with pytest.raises(NewerSchemaError, match="task t1 was stored in schema 2"):
        await store.get(Task, "default", "t1")


async def test_damaged_bytes_are_refused(store, client):
    await _store_raw(client, store, b"\xff\xff\xff")
    with pytest.raises(UnreadableError, match="stored task"):
        await store.get(Task, "default", "t1")


def test_every_kind_has_a_key_that_parses_back(store):
    for row in BY_TYPE.values():
        project = "p" if row.scoped else ""
        at = store.keys.parse(store.keys.object(row.domain, project, "id1"))
        assert (at.kind, at.project, at.id) == (row, project, "id1")
    assert store.keys.parse(store.keys.leader) is None
    assert store.keys.parse(store.keys.name(Service, "p", "a/b")) is None
