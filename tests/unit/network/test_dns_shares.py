"""One asker that wants everything leaves the others theirs: TCP connections, and questions that wait for a resolver."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from argosy.agent.dns import server
from argosy.agent.dns.server import Server
from argosy.agent.dns.upstream import Upstream
from argosy.agent.dns.zone import Answer, Found, Zone

GREEDY, MODEST = "127.0.0.2", "127.0.0.3"
NOERROR, SERVFAIL = 0, 2
MANY = 600
"""More than any one asker is given of anything."""


def question(number: int, name: str) -> bytes:
    labels = b"".join(bytes((len(p),)) + p.encode() for p in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


class Resolver(asyncio.DatagramProtocol):
    """Answers at once that there is no address; but of names that begin with "slow" nothing, ever."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data[13:17] != b"slow":
            self.transport.sendto(data[:2] + b"\x81\x80" + data[4:], addr)


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The sockets that are answered on."""
    udp, tcp = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    with udp, tcp:
        for one in (udp, tcp):
            one.bind(("127.0.0.1", 0))
        tcp.listen(1000)
        yield udp, tcp


def served(
    sockets: tuple[socket.socket, socket.socket],
    directory: Path,
    body: Callable[[], Awaitable[None]],
    zone: Zone | None = None,
) -> None:
    """Run a test's body while argosy-dns answers, which asks a resolver of the test's."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Resolver, local_addr=("127.0.0.1", 0))
        conf = directory / "resolv.conf"
        conf.write_text(f"nameserver [127.0.0.1]:{transport.get_extra_info('sockname')[1]}\n")
        answering = Server(zone or Zone(), Upstream(conf))
        udp, tcp = sockets
        await answering.listen("net", udp.dup().detach(), tcp.dup().detach())
        try:
            async with asyncio.timeout(60):
                await body()
        finally:
            answering.drop("net")
            transport.close()

    asyncio.run(run())


async def ask(udp: socket.socket, address: str, name: str) -> int:
    """Ask from an address, and return the code of the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.bind((address, 0))
        asking.connect(udp.getsockname())
        asking.send(question(7, name))
        answer = await asyncio.get_running_loop().sock_recv(asking, 500)
        return answer[3] & 15


def test_questions_that_wait_for_a_resolver(sockets: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    udp, _ = sockets

    async def body() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:
            greedy.bind((GREEDY, 0))
            greedy.connect(udp.getsockname())
            for number in range(MANY):
                greedy.send(question(number, f"slow{number}.example"))
                if number % 100 == 99:  # questions are taken in order: so these have been
                    assert await ask(udp, MODEST, "quick.example") == NOERROR
            assert await ask(udp, GREEDY, "quick.example") == SERVFAIL
            assert await ask(udp, MODEST, "quick.example") == NOERROR

    served(sockets, tmp_path, body)


def test_connections(sockets: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    _, tcp = sockets
    query = question(7, "quick")

    async def connected(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*tcp.getsockname(), local_addr=(address, 0))

    async def body() -> None:
        held = [await connected(GREEDY) for _ in range(MANY)]
        assert await held[-1][0].read() == b"", "it is closed"
        reader, writer = await connected(MODEST)
        writer.write(struct.pack("!H", len(query)) + query)
        assert (await reader.readexactly(4))[2:] == b"\0\x07"
        for _, one in (*held, (reader, writer)):
            one.close()

    served(sockets, tmp_path, body)


class SlowZone(Zone):
    """Knows every name, after 2 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def resolve(self, network: str, source: int, name: str) -> Answer:
        self.asked += 1
        time.sleep(0.002)
        return Found()


@pytest.fixture
def greedy(sockets: tuple[socket.socket, socket.socket]) -> Iterator[socket.socket]:
    """Hands questions over in one piece, which they stay where they are received."""
    udp, _ = sockets
    udp.setsockopt(socket.IPPROTO_UDP, 104, 1)  # UDP_GRO
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.bind((GREEDY, 0))
        asking.connect(udp.getsockname())
        asking.setsockopt(socket.IPPROTO_UDP, 103, len(question(7, "web")))  # UDP_SEGMENT
        yield asking


def test_what_waited_in_pieces_counts_when_it_came(
    sockets: tuple[socket.socket, socket.socket], tmp_path: Path, greedy: socket.socket
) -> None:
    """On a slow machine, too: an asker gets nothing back for the time that its own questions take."""
    udp, _ = sockets
    zone, waiting, in_each = SlowZone(), 60, 50

    async def body() -> None:
        for _ in range(waiting):
            greedy.send(question(7, "web") * in_each)
        assert await ask(udp, MODEST, "web") == NOERROR

    served(sockets, tmp_path, body, zone)
    assert zone.asked == waiting + 500 + 1


def test_an_asker_gets_its_rate_back_whenever_nothing_waits(
    sockets: tuple[socket.socket, socket.socket],
    tmp_path: Path,
    greedy: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where each look ends with the last of what waited."""
    now, in_each = [1000.0], 40
    monkeypatch.setattr(server, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def body() -> None:
        for _ in range(20):
            now[0] += 1
            for _ in range(2):
                greedy.send(question(7, "web") * in_each)
            for _ in range(2 * in_each):
                assert (await asyncio.get_running_loop().sock_recv(greedy, 500))[3] & 15 == NOERROR

    served(sockets, tmp_path, body, SlowZone())
