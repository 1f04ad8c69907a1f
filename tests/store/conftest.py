"""Fixtures of the store's contract tests: a real etcd, a client, and a cluster of its own for every test."""

import asyncio
import contextlib
import itertools
import os

import pytest

from argosy.controller.store import Cache, EtcdClient, EtcdConfig, Store
from argosy.core.meta import Meta
from argosy.core.service import Service, ServiceSpec
from argosy.core.task import Task

from .etcd_server import EtcdServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    """The etcd that most tests share. Nobody stops it; those that do take `own_etcd`."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def own_etcd(tmp_path):
    """An etcd for one test, which may kill, restart or pause it."""
    server = EtcdServer(tmp_path / "etcd")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
async def client(etcd):
    async with EtcdClient(EtcdConfig((etcd.endpoint,))) as client:
        yield client


@pytest.fixture
def cluster():
    """The name of a cluster that no other test has."""
    return f"t{os.getpid()}x{next(_numbers)}"


@pytest.fixture
def store(client, cluster):
    return Store(client, cluster)


@contextlib.asynccontextmanager
async def running(cache: Cache):
    """Run a cache; what ends it early fails the test."""
    task = asyncio.create_task(cache.run())
    ready = asyncio.create_task(cache.ready())
    try:
        async with asyncio.timeout(10):
            await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield cache
    finally:
        ready.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition, timeout=10.0):
    """Wait until `condition()` is true."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 (conditions are of many kinds)
            await asyncio.sleep(0.005)


def a_task(id: str, *, service: str = "svc", node: str = "", slot: int = 1, version: int = 0) -> Task:
    return Task(Meta(id, "default", version), service_id=service, node_id=node, slot=slot)


def a_service(id: str, name: str, *, version: int = 0, padding: int = 0) -> Service:
    labels = {"padding": "x" * padding} if padding else {}
    return Service(Meta(id, "default", version), ServiceSpec(name=name, labels=labels))
