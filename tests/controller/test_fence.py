"""Fenced services on the leader's side: nodes are granted time with their heartbeats, and told what it is for."""

from dataclasses import replace

import grpc
import pytest

from argosy.core.codec import decode, encode
from argosy.core.fence import GRANT_S
from argosy.core.service import Disconnect, Service
from argosy.proto.argosy.v1 import control_pb2, types_pb2
from tests.controller.harness import until


async def test_a_heartbeat_is_answered_with_a_grant_within_the_lease(leader, agents):
    agent = await agents(leader.address)
    await agent.beat()
    ack = await until(lambda: agent.bodies("heartbeat_ack"))
    assert 0 < ack[0].fence_for <= GRANT_S
    replaced_in = leader.dispatcher.term.grants.replace_in(agent.node_id, 10.0)
    assert ack[0].fence_for + 10 - 5 < replaced_in, "a replacement waits for grant and grace"


async def test_a_node_is_told_that_a_service_is_fenced_and_when_it_no_longer_is(leader, agents):
    await leader.add_image()
    agent = await agents(leader.address, obedient=True)
    service = decode(await leader.create(disconnect=Disconnect.FENCE), Service)
    key = f"revision/{service.meta.id}.1"
    await until(lambda: key in agent.pieces)
    assert agent.pieces[key].fenced
    current = leader.cache.snapshot.get(Service, service.meta.id)
    spec = encode(replace(current.spec, disconnect=Disconnect.REPLACE), types_pb2.ServiceSpec)
    await leader.control.UpdateService(
        control_pb2.UpdateServiceRequest(ref="web", spec=spec, version=current.meta.version)
    )
    await until(lambda: not any(p.fenced for k, p in agent.pieces.items() if k.startswith("revision/")))


async def test_an_impossible_budget_is_refused_by_the_api(leader):
    await leader.add_image()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await leader.create(replicas=3, max_unavailable="25%")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "less than one task" in refused.value.details()
