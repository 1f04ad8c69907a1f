"""Asking the host's own resolvers, or a task's, from the host's namespace: what we cannot answer ourselves.

Each question goes out by a socket of its own (random port) under a random id, and only an answer that repeats both id
and question is passed on. A resolver that is silent is given up after `_TRY_S` for the next one; after two rounds the
client is told that it failed, well before its own resolver would give up on us.
"""

import asyncio
import secrets
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from argosy.agent.dns import wire
from argosy.agent.dns.wire import Query

_TRY_S: Final = 1.5
_ROUNDS: Final = 2
_RECHECK_S: Final = 1.0
_MAX_SERVERS: Final = 3
_PORT: Final = 53

OWN_ADDRESS: Final = "169.254.1.1"


class Upstream:
    """The resolvers of the host's resolv.conf, read again when the file changes."""

    def __init__(self, resolv_conf: Path) -> None:
        self._path = resolv_conf
        self._servers: tuple[tuple[str, int], ...] = ()
        self._stamp: tuple[int, int, int] | None = None
        self._checked = 0.0

    async def ask(self, query: Query, message: bytes, servers: tuple[str, ...] = (), *, tcp: bool) -> bytes:
        """Return the answer to a query that is not ours; SERVFAIL if nobody gives one. `servers`: not the host's."""
        for _ in range(_ROUNDS):
            for server in tuple((address, _PORT) for address in servers[:_MAX_SERVERS]) or self.servers():
                number = secrets.randbits(16)
                renamed = wire.with_id(message, number)
                with suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                    async with asyncio.timeout(_TRY_S):
                        ask = _ask_tcp if tcp else _ask_udp
                        answer = await ask(server, query, number, renamed)
                        return wire.with_id(answer, query.id)
        return wire.failure(query, wire.SERVFAIL)

    def servers(self) -> tuple[tuple[str, int], ...]:
        """Return the resolvers' addresses and ports."""
        now = time.monotonic()
        if now - self._checked >= _RECHECK_S or not self._checked:
            self._checked = now
            self._reread()
        return self._servers

    def _reread(self) -> None:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp != self._stamp:
                self._servers = nameservers(self._path.read_text(errors="replace"))
                self._stamp = stamp
        except OSError:
            self._stamp = None  # being replaced, or gone: what was read before still holds


def nameservers(text: str) -> tuple[tuple[str, int], ...]:
    """Return the resolvers that a resolv.conf names, in order; the loopback if it names none, as the C library does.

    An address may carry a port, `[ADDRESS]:PORT`, as some resolvers understand it.
    """
    found: list[tuple[str, int]] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and words[1] != OWN_ADDRESS:
            address, port = words[1], _PORT
            if address.startswith("[") and "]:" in address:
                address, _, number = address[1:].partition("]:")
                port = int(number) if number.isdigit() else _PORT
            found.append((address, port))
    return tuple(found[:_MAX_SERVERS]) or (("127.0.0.1", _PORT),)


class _Question(asyncio.DatagramProtocol):
    """One question over UDP; answers that are not to it are passed over."""

    def __init__(self, query: Query, number: int) -> None:
        self._query = query
        self._number = number
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.answer.done() and wire.answers(self._query, self._number, data):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_udp(server: tuple[str, int], query: Query, number: int, message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, question = await loop.create_datagram_endpoint(lambda: _Question(query, number), remote_addr=server)
    try:
        transport.sendto(message)
        return await question.answer
    finally:
        transport.close()


async def _ask_tcp(server: tuple[str, int], query: Query, number: int, message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(struct.pack("!H", len(message)) + message)
        while True:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
            if wire.answers(query, number, answer):
                return answer
    finally:
        writer.close()
