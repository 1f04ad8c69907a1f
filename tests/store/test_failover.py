"""Several endpoints: three real members, of which the one in use dies or hangs."""

import asyncio
import time

import pytest

from argosy.controller.store import (
    Cache,
    Candidate,
    Election,
    EtcdClient,
    EtcdConfig,
    Store,
    StoreUnavailableError,
    create,
)
from argosy.core.task import Task

from .conftest import a_task, running, until
from .etcd_server import EtcdServer, free_port


@pytest.fixture
def members(tmp_path):
    peers = {name: free_port() for name in ("one", "two", "three")}
    servers = {name: EtcdServer(tmp_path / name, name=name, peers=peers) for name in peers}
    try:
        for server in servers.values():
            server.spawn()
        for server in servers.values():
            server.wait()
        yield list(servers.values())
    finally:
        for server in servers.values():
            server.kill()


def config(members, **timeouts):
    return EtcdConfig(tuple(m.endpoint for m in members), **timeouts)


async def test_the_member_in_use_is_killed_then_another_hangs(members, cluster):
    """Commits and the cache go on, nothing is applied twice, and the leader stays the leader."""
    async with EtcdClient(config(members, attempt_timeout_s=1.0, request_timeout_s=10.0)) as client:
        store = Store(client, cluster)
        election = Election(client, cluster, Candidate("one", "-"), ttl_s=5)
        async with running(Cache(store)) as cache, election.lead() as leadership:
            sub = cache.subscribe()
            expected = [await store.commit([create(a_task("t0"))], leadership.fence)]

            members[0].kill()
            began = time.monotonic()
            expected.append(await store.commit([create(a_task("t1"))], leadership.fence))
            await cache.wait_for(expected[-1], timeout=10)
            print(f"killed member: commit and cache go on after {time.monotonic() - began:.2f} s")
            await asyncio.to_thread(members[0].start)

            in_use = next(m for m in members if m.endpoint == client.endpoints.current.address)
            in_use.pause()
            began = time.monotonic()
            expected.append(await store.commit([create(a_task("t2"))], leadership.fence))
            await cache.wait_for(expected[-1], timeout=10)
            print(f"hanging member: commit and cache go on after {time.monotonic() - began:.2f} s")
            in_use.resume()

            await until(lambda: cache.snapshot.count(Task) == 3)
            batches = [await anext(sub) for _ in range(3)]
            assert [b.revision for b in batches] == expected
            assert cache.lists == 1
            assert leadership.held()


async def test_without_a_majority_reads_and_writes_say_so(members, cluster):
    async with EtcdClient(config(members, attempt_timeout_s=0.5, request_timeout_s=1.0)) as client:
        store = Store(client, cluster)
        await store.commit([create(a_task("t0"))])
        for member in members[:2]:
            member.kill()
        with pytest.raises(StoreUnavailableError, match="etcd does not answer"):
            await store.get(Task, "default", "t0")
        for member in members[:2]:
            await asyncio.to_thread(member.spawn)
        for member in members[:2]:
            await asyncio.to_thread(member.wait)
        await until_ok(lambda: store.commit([create(a_task("t1"))]))


async def until_ok(call, timeout=20):
    async with asyncio.timeout(timeout):
        while True:
            try:
                return await call()
            except StoreUnavailableError:
                await asyncio.sleep(0.05)


def test_no_endpoint_is_said_at_once():
    with pytest.raises(ValueError, match="no etcd endpoint"):
        EtcdClient(EtcdConfig(()))
