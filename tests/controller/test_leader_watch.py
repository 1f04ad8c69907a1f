"""What a follower does while another leads, when that one dies, and when it merely does not lead any more."""

import asyncio

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from argosy.controller.cluster import ClusterView
from argosy.controller.leader_watch import watch_leader
from argosy.controller.server import set_health
from argosy.controller.store import LeaderRecord
from tests.controller.harness import until


class Elections:
    """An election as far as a follower needs it."""

    def __init__(self) -> None:
        self.record: LeaderRecord | None = None
        self.asked = 0
        self.revoked: list[LeaderRecord] = []

    async def leader(self):
        self.asked += 1
        return self.record

    async def revoke_leader(self, record):
        self.revoked.append(record)
        self.record = None


async def a_controller():
    server, health = grpc.aio.server(), HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await set_health(health, leads=True)
    return server, health, f"127.0.0.1:{port}"


async def test_a_follower_revokes_the_dead_leader_and_never_one_that_lives():
    elections = Elections()
    (first, first_health, address), (second, _, other_address) = await a_controller(), await a_controller()
    elections.record = LeaderRecord("c1", address, 5, 1)
    watching = asyncio.create_task(watch_leader(elections, ClusterView("c", "v", "c3")))
    try:
        await until(lambda: elections.asked)
        # c1 is deposed but lives on: from now on c2 is the one to watch.
        elections.record = record = LeaderRecord("c2", other_address, 6, 2)
        await set_health(first_health, leads=False)
        asked = elections.asked
        await until(lambda: elections.asked > asked)
        assert not elections.revoked
        await second.stop(None)
        await until(lambda: elections.revoked)
        assert elections.revoked == [record]
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await first.stop(None)
        await second.stop(None)


async def test_a_leader_without_an_address_is_left_to_its_lease():
    elections = Elections()
    elections.record = LeaderRecord("c1", "", 5, 1)
    watching = asyncio.create_task(watch_leader(elections, ClusterView("c", "v", "c3")))
    await until(lambda: elections.asked > 1 or watching.done())
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
