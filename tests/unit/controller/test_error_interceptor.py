"""Errors of all kinds of handlers become codes; handlers of all kinds are served."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from argosy.controller.api.errors import ErrorInterceptor
from argosy.controller.store import AmbiguousError
from argosy.core.errors import InvalidError
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc
from argosy.proto.argosy.v1 import types_pb2 as types


class Handlers(rpc.ControlServicer):
    """One of each style: a response, and responses from a generator."""

    async def ListNodes(self, request: pb.ListNodesRequest, context: object) -> pb.ListNodesResponse:
        raise InvalidError("two problems", [("a", "is wrong"), ("b", "too")])

    async def GetNode(self, request: pb.GetNodeRequest, context: object) -> types.Node:
        raise AmbiguousError("etcd did not answer: it may or may not have been applied")

    async def Watch(self, request: pb.WatchRequest, context: object) -> AsyncIterator[pb.WatchResponse]:
        yield pb.WatchResponse(version=7)
        raise ZeroDivisionError("a bug")


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    rpc.add_ControlServicer_to_server(Handlers(), server)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    address = f"unix://{tmp_path}/server.sock"
    server.add_insecure_port(address)
    await server.start()
    async with grpc.aio.insecure_channel(address, options=[("grpc.default_authority", "test")]) as channel:
        yield channel
    await server.stop(None)


async def test_an_error_of_ours_tells_the_user_everything(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.ControlStub(channel).ListNodes(pb.ListNodesRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "two problems\na: is wrong\nb: too"


async def test_what_may_have_been_done_is_not_said_to_be_safe_to_repeat(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.ControlStub(channel).GetNode(pb.GetNodeRequest())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "may or may not" in (caught.value.details() or "")


async def test_a_bug_behind_some_responses_is_a_number_to_quote(channel: grpc.aio.Channel) -> None:
    call = rpc.ControlStub(channel).Watch(pb.WatchRequest())
    assert (await call.read()).version == 7
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "ZeroDivisionError" not in (caught.value.details() or "")


async def test_a_handler_that_writes_to_the_context_is_served(channel: grpc.aio.Channel) -> None:
    watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
    async for response in watching:
        assert response.status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()
        break
