"""Fixtures: a real etcd for all, a cluster, controllers and agents for each test."""

import contextlib
import itertools
import os

import pytest

from tests.controller.harness import Controller, FakeAgent
from tests.store.etcd_server import EtcdServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def etcd(tmp_path_factory):
    """The etcd that most tests share. Those that stop it take `own_etcd`."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def own_etcd(tmp_path):
    server = EtcdServer(tmp_path / "etcd")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
async def controllers(etcd, tmp_path):
    """A function that makes controllers of one cluster."""
    cluster = f"c{os.getpid()}x{next(_numbers)}"
    async with contextlib.AsyncExitStack() as stack:

        async def make(name: str = "c1", **more) -> Controller:
            return await stack.enter_async_context(Controller(etcd.endpoint, cluster, tmp_path, name=name, **more))

        yield make


@pytest.fixture
async def leader(controllers):
    """A controller that leads."""
    return await (await controllers()).lead()


@pytest.fixture
async def agents():
    """A function that makes agents with a session."""
    made: list[FakeAgent] = []

    async def make(address: str, name: str = "n1", **more) -> FakeAgent:
        agent = FakeAgent(name, **more)
        made.append(agent)
        return await agent.connect(address)

    yield make
    for agent in made:
        await agent.close()
