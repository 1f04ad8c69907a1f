"""Checks over http, tcp and grpc reach a container's own network, and say what they met there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

from argosy.agent.runtime.errors import ContainerMissing
from argosy.agent.tasks.probe import Answer, Prober
from argosy.core.service import GrpcProbe, Healthcheck, HttpProbe, TcpProbe

from .conftest import Host, sh

SERVE = """
mkdir /tmp/www /tmp/www/cgi-bin
echo fine > /tmp/www/health
printf '#!/bin/sh\\nprintf "Status: 503 Away\\r\\nContent-Type: text/plain\\r\\n\\r\\nno database\\nmore\\n"\\n' \
    > /tmp/www/cgi-bin/away
printf '#!/bin/sh\\ntest "$HTTP_HOST" = shop || sleep 60\\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\\n' \
    > /tmp/www/cgi-bin/slow
chmod +x /tmp/www/cgi-bin/*
nc -ll -p 7001 -e cat &
exec httpd -f -p 7000 -h /tmp/www
"""
GRPC_SERVER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import grpc

def check(request, context):
    name = request[2:].decode()
    if name == "slow":
        time.sleep(60)
    if name == "nobody":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
    return b"\\x08" + bytes([{"ill": 2, "": 1, "shop": 1}[name]])

methods = {"Check": grpc.unary_unary_rpc_method_handler(check)}
server = grpc.server(ThreadPoolExecutor(4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)])
server.add_insecure_port("127.0.0.1:7002")
server.start()
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
async def served(host: Host) -> AsyncIterator[Prober]:
    """A container with an http server, an echo server and, beside it in its network, a gRPC server."""
    pid = await host.pid(await host.launch(sh(SERVE)))
    enter = ["nsenter", f"--target={pid}", "--net", "--"]
    await asyncio.to_thread(subprocess.run, [*enter, "ip", "link", "set", "lo", "up"], check=True)
    server = subprocess.Popen(  # noqa: ASYNC220
        [*enter, sys.executable, "-c", GRPC_SERVER], stdout=subprocess.PIPE
    )
    prober = Prober(host.runtime)
    try:
        assert server.stdout is not None
        assert await asyncio.to_thread(server.stdout.readline) == b"up\n"
        deadline = time.monotonic() + 60
        while not all([(await prober.ask("c1", "", Healthcheck(tcp=TcpProbe(p)))).well for p in (7000, 7001)]):
            assert time.monotonic() < deadline, "the servers of the container listen"
            await asyncio.sleep(0.01)
        yield prober
    finally:
        server.kill()
        await asyncio.to_thread(server.wait)


def http(path: str, **headers: str) -> Healthcheck:
    return Healthcheck(http=HttpProbe(7000, path, headers), timeout=20)


def grpc_(service: str = "", port: int = 7002) -> Healthcheck:
    return Healthcheck(grpc=GrpcProbe(port, service), timeout=20)


async def test_each_kind_of_check_says_what_it_met(served: Prober) -> None:
    cases = [
        (http("/health"), Answer(True)),
        (http("/none"), "GET :7000/none answered 404"),
        (http("/cgi-bin/away"), "GET :7000/cgi-bin/away answered 503: no database"),
        (http("/cgi-bin/slow", Host="shop"), Answer(True)),
        (Healthcheck(http=HttpProbe(7000, "/cgi-bin/slow"), timeout=0.2), "took longer than 0.2 s"),
        (Healthcheck(http=HttpProbe(7001), timeout=20), "GET :7001/ did not answer in http"),
        (Healthcheck(http=HttpProbe(7009)), "GET :7009/: connection refused"),
        (Healthcheck(tcp=TcpProbe(7001)), Answer(True)),
        (Healthcheck(tcp=TcpProbe(7009)), "tcp :7009: connection refused"),
        (grpc_(), "SERVING"),
        (grpc_("shop"), "SERVING"),
        (grpc_("ill"), "grpc :7002 of ill answered NOT_SERVING"),
        (grpc_("nobody"), "grpc :7002 of nobody answered NOT_FOUND: no such service"),
        (Healthcheck(grpc=GrpcProbe(7002, "slow"), timeout=0.5), "took longer than 0.5 s"),
        (grpc_(port=7000), "grpc :7000 did not answer in grpc"),
        (grpc_(port=7009), "grpc :7009: connection refused"),
    ]
    answers = await asyncio.gather(*(served.ask("c1", "", check) for check, _ in cases))
    for (check, wanted), answer in zip(cases, answers, strict=True):
        if isinstance(wanted, Answer):
            assert answer == wanted, check
        else:
            assert answer.well is (wanted == "SERVING"), (check, answer)
            assert wanted in answer.said


async def test_nobody_else_is_asked(served: Prober, host: Host) -> None:
    """The port is open in the container alone; and of a container that has ended nothing is asked."""
    pid = await host.pid(await host.launch(sh("sleep 1000")))
    enter = ["nsenter", f"--target={pid}", "--net", "--", "ip", "link", "set", "lo", "up"]
    await asyncio.to_thread(subprocess.run, enter, check=True)
    check = Healthcheck(tcp=TcpProbe(7001))
    assert (await served.ask("c1", "", check)).well
    assert not (await served.ask("c2", "", check)).well
    await host.runtime.delete("c2")
    with pytest.raises(ContainerMissing):
        await served.ask("c2", "", check)
