"""Tunnels: streams that agents open when asked, matched to whoever asked by the tunnel's id.

Who asked reads the agent's stream itself, so that gRPC's flow control reaches from the reader to the log file, and
nothing is queued here. A stream that ends without the agent's word that all was sent has broken.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import grpc

from argosy.core.errors import InvalidError, NotFoundError
from argosy.core.ids import new_id


class Message(Protocol):
    """What an agent sends. The first and the last have the tunnel's id, those between have not."""

    @property
    def tunnel_id(self) -> str:
        """The tunnel's id."""


M = TypeVar("M", bound=Message)
Send = Callable[[Any], Awaitable[None]]
"""Sends a message to the agent, through a tunnel that goes both ways."""


async def _nowhere(message: Any) -> None:
    raise AssertionError("this tunnel goes one way")


class Tunnel(Generic[M]):
    """One tunnel, from the asking on."""

    def __init__(self) -> None:
        self.id = new_id()
        self.opened: asyncio.Future[AsyncIterator[M]] = asyncio.get_running_loop().create_future()
        self.first: M
        """What the agent opened it with."""
        self.send: Send = _nowhere
        self.closed = asyncio.Event()
        self.complete = False

    async def messages(self) -> AsyncIterator[M]:
        """Yield what the agent sends once the tunnel is open; `complete` says afterwards whether that was all."""
        try:
            async for message in await self.opened:
                if message.tunnel_id:
                    self.complete = True
                else:
                    yield message
        except grpc.aio.BaseError:
            return  # the stream broke


class Tunnels(Generic[M]):
    """The tunnels of one kind that were asked for and are not closed."""

    def __init__(self) -> None:
        self._open: dict[str, Tunnel[M]] = {}

    def expect(self) -> Tunnel[M]:
        """Make a tunnel for an agent to open."""
        tunnel: Tunnel[M] = Tunnel()
        self._open[tunnel.id] = tunnel
        return tunnel

    def close(self, tunnel: Tunnel[M]) -> None:
        """Forget a tunnel; the agent's stream ends."""
        self._open.pop(tunnel.id, None)
        tunnel.closed.set()

    async def receive(self, messages: AsyncIterator[M], send: Send = _nowhere) -> None:
        """Hand an agent's stream over to whoever expects it, and hold it until that closes it."""
        first = await anext(aiter(messages), None)
        if first is None:
            raise InvalidError("a tunnel begins with its id")
        tunnel = self._open.get(first.tunnel_id)
        if tunnel is None or tunnel.opened.done():
            raise NotFoundError("nobody waits for this tunnel any more")
        tunnel.first, tunnel.send = first, send
        tunnel.opened.set_result(messages)
        await tunnel.closed.wait()
