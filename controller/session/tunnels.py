"""Tunnels: streams that agents open when asked, matched to whoever asked by the tunnel's id.

Who asked reads the agent's stream itself, so that gRPC's flow control reaches from the reader to the log file, and
nothing is queued here. A stream that ends without the agent's word that all was sent has broken.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc

from argosy.core.errors import InvalidError, NotFoundError
from argosy.core.ids import new_id
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

Messages = AsyncIterator[pb.LogTunnelMessage]


class Tunnel:
    """One tunnel, from the asking on."""

    def __init__(self) -> None:
        self.id = new_id()
        self.opened: asyncio.Future[Messages] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        self.complete = False

    async def messages(self) -> Messages:
        """Yield what the agent sends once the tunnel is open; `complete` says afterwards whether that was all."""
        try:
            async for message in await self.opened:
                if message.tunnel_id:
                    self.complete = True
                else:
                    yield message
        except grpc.aio.BaseError:
            return  # the stream broke


class Tunnels:
    """The tunnels that were asked for and are not closed."""

    def __init__(self) -> None:
        self._open: dict[str, Tunnel] = {}

    def expect(self) -> Tunnel:
        """Make a tunnel for an agent to open."""
        tunnel = Tunnel()
        self._open[tunnel.id] = tunnel
        return tunnel

    def close(self, tunnel: Tunnel) -> None:
        """Forget a tunnel; the agent's stream ends."""
        self._open.pop(tunnel.id, None)
        tunnel.closed.set()

    async def receive(self, messages: Messages) -> None:
        """Hand an agent's stream over to whoever expects it, and hold it until that closes it."""
        first = await anext(aiter(messages), None)
        if first is None:
            raise InvalidError("a tunnel begins with its id")
        tunnel = self._open.get(first.tunnel_id)
        if tunnel is None or tunnel.opened.done():
            raise NotFoundError("nobody waits for this tunnel any more")
        tunnel.opened.set_result(messages)
        await tunnel.closed.wait()
