"""Answering on the sockets of networks. One thread: answers from the zone are sent straight from the reading callback.

Only what is asked upstream, or over TCP, becomes a task.
"""

import asyncio
import random
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from argosy.agent.dns import wire
from argosy.agent.dns.rates import Rates
from argosy.agent.dns.shares import Shares
from argosy.agent.dns.upstream import Upstream
from argosy.agent.dns.wire import FormatError, Query
from argosy.agent.dns.zone import Elsewhere, Found, FoundName, Missing, Zone

_BURST: Final = 64
"""Questions taken from a socket before others have their turn."""

_DATAGRAM: Final = 4096
_UDP_GRO: Final = 104
_SIZE_SPACE: Final = socket.CMSG_SPACE(4)
_TCP_IDLE_S: Final = 10.0
_TCP_EACH: Final = 50
_TCP_TOTAL: Final = 2000
_UPSTREAM_EACH: Final = 500
_UPSTREAM_TOTAL: Final = 5000
_OTHERS_EACH: Final = 500.0
"""Questions a second and asker that came in one piece with another: the firewall counts a piece as one.

The first of each piece are no more than it lets through; they may have waited here for long, and are all answered.
Meanwhile nobody gets any others back: a slow machine would answer all that wait, as fast as they are given back.
"""
_OTHERS_AT_ONCE: Final = 500
_TCP_BYTES: Final = 65535

_Asker = tuple[str, str]
"""The network that was asked on, and the address that it was asked from."""


@dataclass(slots=True)
class _Listener:
    udp: socket.socket
    tcp: socket.socket
    server: asyncio.Server | None = None
    behind_since: float | None = None
    """When a question was found in the UDP socket after there had been none (monotonic clock)."""


class Server:
    """The sockets that are answered on, by network. Owns them."""

    def __init__(self, zone: Zone, upstream: Upstream) -> None:
        self._zone = zone
        self._upstream = upstream
        self._listeners: dict[str, _Listener] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = Shares(_TCP_EACH, _TCP_TOTAL)
        self._under_way = Shares(_UPSTREAM_EACH, _UPSTREAM_TOTAL)
        self._others = Rates(_OTHERS_EACH, _OTHERS_AT_ONCE)

    def sockets(self) -> dict[str, tuple[int, int]]:
        """Return the descriptors of the UDP and TCP sockets of each network."""
        return {network: (one.udp.fileno(), one.tcp.fileno()) for network, one in self._listeners.items()}

    async def listen(self, network: str, udp: int, tcp: int) -> None:
        """Answer on the sockets of a network, instead of those it had."""
        self.drop(network)
        listener = _Listener(socket.socket(fileno=udp), socket.socket(fileno=tcp))
        listener.udp.setblocking(False)
        listener.tcp.setblocking(False)
        self._listeners[network] = listener
        asyncio.get_running_loop().add_reader(listener.udp, self._read, network, listener)
        listener.server = await asyncio.start_server(
            lambda reader, writer: self._serve_tcp(network, reader, writer), sock=listener.tcp
        )

    def drop(self, network: str) -> None:
        """Answer on a network no more."""
        listener = self._listeners.pop(network, None)
        if listener:
            asyncio.get_running_loop().remove_reader(listener.udp)
            listener.udp.close()
            if listener.server:
                listener.server.close()
            listener.tcp.close()

    def _read(self, network: str, listener: _Listener) -> None:
        """Answer what waits; a datagram is taken out when it is answered: who is killed leaves it to the next life."""
        udp, count = listener.udp, 0
        if listener.behind_since is None:
            listener.behind_since = time.monotonic()
        for _ in range(_BURST + 1):  # the last is a look whether anything is left
            try:
                data, ancillary, _, client = udp.recvmsg(_DATAGRAM, _SIZE_SPACE, socket.MSG_PEEK)
            except BlockingIOError:
                listener.behind_since = None
                return
            except OSError:
                count += 1
                continue  # an error that an earlier answer met on its way; it is read once
            if count >= _BURST:
                break
            try:
                first, *others = _datagrams(data, ancillary)
                count += 1 + len(others)
                self._answer_datagram(network, udp, first, client)
                for datagram in others:
                    if not self._others.take((network, client[0]), listener.behind_since):
                        break
                    self._answer_datagram(network, udp, datagram, client)
            finally:
                _take(udp)

    def _answer_datagram(self, network: str, udp: socket.socket, data: bytes, client: tuple[str, int]) -> None:
        try:
            query = wire.parse(data)
        except FormatError as error:
            _send(udp, error.reply, client)
            return
        answer = self._own_answer(network, client[0], query, query.udp_bytes)
        if not isinstance(answer, Elsewhere):
            _send(udp, answer, client)
            return
        forwarding = self._forward(network, udp, query, data, client, answer.servers)
        task = asyncio.get_running_loop().create_task(forwarding)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(
        self,
        network: str,
        udp: socket.socket,
        query: Query,
        data: bytes,
        client: tuple[str, int],
        servers: tuple[str, ...],
    ) -> None:
        answer = await self._ask_upstream((network, client[0]), query, data, servers, tcp=False)
        _send(udp, answer if len(answer) <= query.udp_bytes else wire.cut(query), client)

    async def _ask_upstream(
        self, asker: _Asker, query: Query, data: bytes, servers: tuple[str, ...], *, tcp: bool
    ) -> bytes:
        """Return the answer of the servers, or of the host's; SERVFAIL to an asker that waits for too many already."""
        with self._under_way.one(asker) as may:
            if not may:
                return wire.failure(query, wire.SERVFAIL)
            return await self._upstream.ask(query, data, servers, tcp=tcp)

    def _own_answer(self, network: str, client: str, query: Query, limit: int) -> bytes | Elsewhere:
        """Return the answer to a query, or where else it is to be asked."""
        if not query.in_class:
            return wire.failure(query, wire.REFUSED)
        match self._zone.resolve(network, int(IPv4Address(client)), query.name):
            case Elsewhere() as elsewhere:
                return elsewhere
            case Missing():
                return wire.negative(query, wire.NXDOMAIN)
            case FoundName(name):
                return (
                    wire.pointer(query, name)
                    if query.type in (wire.TYPE_PTR, wire.TYPE_ANY)
                    else wire.negative(query, wire.NOERROR)
                )
            case Found(found):
                if query.type not in (wire.TYPE_A, wire.TYPE_ANY) or not found:
                    return wire.negative(query, wire.NOERROR)
                return wire.addresses(query, random.sample(found, len(found)), limit)

    async def _serve_tcp(self, network: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the questions of one connection in order, until it is idle or closed."""
        asker = network, str(writer.get_extra_info("peername")[0])
        try:
            with self._connections.one(asker) as may:
                if may:
                    await self._converse(asker, reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _converse(self, asker: _Asker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_TCP_IDLE_S):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                data = await reader.readexactly(length)
            answer = await self._answer_stream(asker, data)
            if answer is None:
                return
            writer.write(struct.pack("!H", len(answer)) + answer)
            async with asyncio.timeout(_TCP_IDLE_S):
                await writer.drain()

    async def _answer_stream(self, asker: _Asker, data: bytes) -> bytes | None:
        try:
            query = wire.parse(data)
        except FormatError as error:
            return error.reply
        answer = self._own_answer(*asker, query, _TCP_BYTES)
        if isinstance(answer, Elsewhere):
            return await self._ask_upstream(asker, query, data, answer.servers, tcp=True)
        return answer


def _datagrams(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> Iterator[bytes]:
    """Tell apart what waits in one piece: the kernel says how long each but the last is (udp(7), UDP_GRO)."""
    sizes = [value for level, kind, value in ancillary if (level, kind) == (socket.IPPROTO_UDP, _UDP_GRO)]
    size = int.from_bytes(sizes[0], sys.byteorder) if sizes else len(data)
    return (data[at : at + size] for at in range(0, max(len(data), 1), size or 1))


def _take(udp: socket.socket) -> None:
    """Take the datagram out that was looked at; an error that an answer met since comes first."""
    for _ in range(2):
        try:
            udp.recv(1)  # of 0 bytes Python asks nobody
        except OSError:
            continue
        return


def _send(udp: socket.socket, answer: bytes | None, client: tuple[str, int]) -> None:
    """Send a datagram if there is one to send; one that cannot be sent is lost, as datagrams are."""
    if answer is None:
        return
    try:
        udp.sendto(answer, client)
    except OSError:
        return
