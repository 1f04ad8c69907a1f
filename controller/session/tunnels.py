"""Tunnels: streams that agents open when asked, matched to whoever asked by the tunnel's id."""

import asyncio
from collections.abc import AsyncIterator

from argosy.core.errors import NotFoundError
from argosy.core.ids import new_id
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

QUEUED = 256


class Tunnel:
    """One tunnel: a bounded queue, so that a slow reader slows the agent down."""

    def __init__(self) -> None:
        self.id = new_id()
        self.queue: asyncio.Queue[pb.LogTunnelMessage | None] = asyncio.Queue(QUEUED)
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()


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
        """Forget a tunnel; the agent's stream ends with its next message."""
        self._open.pop(tunnel.id, None)
        tunnel.closed.set()

    async def receive(self, messages: AsyncIterator[pb.LogTunnelMessage]) -> None:
        """Pass an agent's stream on to whoever expects it, until either side ends."""
        first = await anext(aiter(messages))
        tunnel = self._open.get(first.tunnel_id)
        if tunnel is None:
            raise NotFoundError("nobody waits for this tunnel any more")
        tunnel.connected.set()
        pump = asyncio.create_task(_pump(messages, tunnel))
        closed = asyncio.create_task(tunnel.closed.wait())
        try:
            await asyncio.wait({pump, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closed.cancel()
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)


async def _pump(messages: AsyncIterator[pb.LogTunnelMessage], tunnel: Tunnel) -> None:
    try:
        async for message in messages:
            await tunnel.queue.put(message)
    finally:
        if not tunnel.closed.is_set():
            await tunnel.queue.put(None)
