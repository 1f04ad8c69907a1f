"""The way to the leader, for requests that only it can answer: it holds the agents' sessions."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import grpc

from argosy.controller.cluster import ClusterView
from argosy.core.errors import NoLeaderError
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc

_OPTIONS: Final = (("grpc.max_receive_message_length", -1),)
"""An answer may be larger than the library's 4 MiB: it is as large for who asks the leader itself."""


@asynccontextmanager
async def leaders_control(view: ClusterView) -> "AsyncGenerator[rpc.ControlAsyncStub]":
    """Give the Control service of the controller that leads; NoLeaderError while no other is known to."""
    if not view.leader_address or view.leads:
        raise NoLeaderError("no controller leads at the moment: try again")
    async with grpc.aio.insecure_channel(view.leader_address, options=_OPTIONS) as channel:
        yield rpc.ControlStub(channel)
