"""Care for etcd: history is compacted in its time, wasted space is given back, alarms are cleared when they may be."""

import asyncio
import contextlib

import pytest

from argosy.controller.store import (
    Cache,
    EtcdClient,
    EtcdConfig,
    Maintenance,
    MaintenanceConfig,
    Put,
    Store,
    create,
    keep_room,
)
from argosy.controller.store.errors import CompactedError, StoreFullError
from argosy.core.task import Task

from .conftest import a_service, a_task, running
from .etcd_server import EtcdServer


async def at(client, key, revision):
    return (await client.range(key, revision=revision)).kvs[0].mod_revision


async def test_history_is_kept_for_its_time_and_then_compacted(own_etcd, cluster):
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as client:
        store = Store(client, cluster)
        care = Maintenance(client, MaintenanceConfig(keep_s=100))
        key = store.keys.object(Task, "default", "t1")
        first = await store.commit([create(a_task("t1"))])
        second = await store.commit([Put(a_task("t1"), None)])
        await care.round(now=0)
        third = await store.commit([Put(a_task("t1"), None)])
        await care.round(now=99)
        assert await at(client, key, first) == first
        async with running(Cache(store)) as cache:
            await care.round(now=100)
            with pytest.raises(CompactedError):
                await at(client, key, first)
            assert await at(client, key, second) == second
            assert await at(client, key, third) == third
            await care.round(now=300)
            assert await cache.verify() == 0
        # Another leader may have compacted further already.
        behind = Maintenance(client, MaintenanceConfig(keep_s=0))
        behind._seen.append((0, first))
        await behind.round(now=1)


async def test_wasted_space_is_given_back(own_etcd, cluster):
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as client:
        store = Store(client, cluster)
        for _ in range(10):
            last = await store.commit([Put(a_service("s1", "x", padding=1_000_000), None)])
        await client.compact(last)
        endpoint = client.endpoints.current
        async with asyncio.timeout(20):  # etcd frees pages in the background, and counts them at a later write
            while True:
                await store.commit([Put(a_task("t1"), None)])
                status = await client.status(endpoint)
                if status.dbSizeInUse < 4_000_000:
                    break
                await asyncio.sleep(0.05)
        assert status.dbSize > 8_000_000
        config = MaintenanceConfig(keep_s=1000, defragment_bytes=1_000_000, defragment_share=0.5)
        await Maintenance(client, config).round(now=0)
        assert (await client.status(endpoint)).dbSize < 5_000_000


def patient(endpoint):
    """Return a client that waits for an etcd that rewrites its file, however slow the disk."""
    return EtcdClient(EtcdConfig((endpoint,), request_timeout_s=30, attempt_timeout_s=30))


async def fill(store):
    for _ in range(20):
        await store.commit([Put(a_service("s1", "x", padding=1_000_000), None)])


async def test_a_full_etcd_is_said_and_recovers(tmp_path, cluster):
    server = EtcdServer(tmp_path / "etcd", options={"quota-backend-bytes": str(8 * 1024 * 1024)})
    try:
        await asyncio.to_thread(server.start)
        async with patient(server.endpoint) as client:
            store = Store(client, cluster)
            with pytest.raises(StoreFullError, match="database is full"):
                await fill(store)
            care = Maintenance(client, MaintenanceConfig(keep_s=10, defragment_bytes=1_000_000))
            await care.round(now=0)
            async with asyncio.timeout(30):
                while True:
                    await care.round(now=10)
                    try:
                        await store.commit([Put(a_task("t1"), None)])
                        break
                    except StoreFullError:
                        await asyncio.sleep(0.05)
    finally:
        server.kill()


async def test_room_is_made_at_once_in_a_full_etcd(tmp_path, cluster):
    server = EtcdServer(tmp_path / "etcd", options={"quota-backend-bytes": str(8 * 1024 * 1024)})
    try:
        await asyncio.to_thread(server.start)
        async with patient(server.endpoint) as client:
            store = Store(client, cluster)
            with pytest.raises(StoreFullError):
                await fill(store)
            caring = asyncio.create_task(keep_room(client))
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(StoreFullError):
                        await store.commit([Put(a_task("t1"), None)])
                        break
                    await asyncio.sleep(0.05)
            assert await client.alarms() == []
            caring.cancel()
            await asyncio.wait([caring])
    finally:
        server.kill()
