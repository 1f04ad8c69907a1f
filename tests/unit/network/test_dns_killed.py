"""A datagram that argosy-dns was about to answer when it was killed is still there for its successor."""

import signal
import socket
import struct
import subprocess
import sys

import pytest

LIFE = """
import asyncio, os, signal, sys
from pathlib import Path
from argosy.agent.dns.server import Server
from argosy.agent.dns.upstream import Upstream
from argosy.agent.dns.zone import Found

class Zone:
    def resolve(self, network, client, name):
        if name == "now":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "bug":
            raise RuntimeError("a bug")
        return Found((0x0A400001,))

async def main():
    server = Server(Zone(), Upstream(Path("/dev/null")))
    await server.listen("net", int(sys.argv[1]), int(sys.argv[2]))
    await asyncio.sleep(60)

asyncio.run(main())
"""


def question(number: int, name: str) -> bytes:
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + bytes((len(name),)) + name.encode() + b"\0\0\1\0\1"


@pytest.fixture
def sockets():
    """The sockets that are answered on, held by the test as the agent does, and a client's."""
    kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_DGRAM)
    udp, tcp, client = (socket.socket(socket.AF_INET, kind) for kind in kinds)
    for one in (udp, tcp):
        one.bind(("127.0.0.1", 0))
    tcp.listen()
    client.connect(udp.getsockname())
    client.settimeout(30)
    with udp, tcp, client:
        yield udp, tcp, client


def begin_life(udp, tcp):
    fds = (udp.fileno(), tcp.fileno())
    return subprocess.Popen([sys.executable, "-c", LIFE, *map(str, fds)], pass_fds=fds, stderr=subprocess.DEVNULL)


def test_the_question_that_it_died_over_is_asked_of_the_next(sockets):
    udp, tcp, client = sockets
    client.send(question(7, "now"))
    assert begin_life(udp, tcp).wait(30) == -signal.SIGKILL
    assert udp.recv(100, socket.MSG_DONTWAIT) == question(7, "now")


def test_a_question_that_meets_a_bug_is_not_asked_for_ever(sockets):
    udp, tcp, client = sockets
    client.send(question(8, "bug"))
    client.send(question(9, "web"))
    life = begin_life(udp, tcp)
    try:
        assert client.recv(500)[:2] == b"\0\x09"
    finally:
        life.kill()
        life.wait()
