"""Asks a task whether it is well: runs a program in its container, or calls it over http, tcp or grpc.

Calls are made within the container's own network namespace, to the task's own address: what a check finds is what the
other tasks of its network find, whether or not this host itself has a way there. A socket belongs for good to the
namespace that it was opened in, so one thread goes there, opens it and comes back (setns(2)); everything after that is
the event loop's. Nothing is looked up, imported or executed over there. gRPC makes its own sockets: it is given one
of the agent's that is relayed to the container's, so that the real library speaks and not a copy of HTTP/2 of ours.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc

from argosy.agent.logic.health import command_of
from argosy.agent.network.namespace import Home
from argosy.agent.runtime.interface import Runtime
from argosy.core.errors import RejectedError
from argosy.core.service import GrpcProbe, Healthcheck, HttpProbe, TcpProbe

LOOPBACK: Final = "127.0.0.1"
LONGEST_LINE: Final = 4096
"""Bytes of an http answer that are looked at."""
_GRPC_HEALTH: Final = "/grpc.health.v1.Health/Check"
_NO_HTTP2: Final = "failed to connect to all addresses"
"""What grpc begins with when a connection is there (ours leads to the program) and nobody speaks HTTP/2 on it."""
_SERVING: Final = 1
_GRPC_STATES: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a check; `said` is for a person and matters when it is not well."""

    well: bool
    said: str = ""


class Prober:
    """One for an agent; calls may overlap. TransientError where the runtime is away, which says nothing of a task."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._traveller = ThreadPoolExecutor(1, "probe")
        self._home: Home | None = None

    async def ask(self, task_id: str, address: str, check: Healthcheck) -> Answer:
        """Ask once; `address` is the task's own, "" where it has no network."""
        if check.http is None and check.tcp is None and check.grpc is None:
            return await self._exec(task_id, check)
        port = (check.http or check.tcp or check.grpc or TcpProbe()).port
        what = describe(check)
        try:
            async with asyncio.timeout(check.timeout), self._connected(task_id, address or LOOPBACK, port) as plug:
                if check.http is not None:
                    return await _http(plug, check.http, what)
                if check.grpc is not None:
                    return await _grpc(plug, check.grpc, what, check.timeout)
                return Answer(True)
        except TimeoutError:
            return Answer(False, f"{what} took longer than {check.timeout:g} s")
        except OSError as e:
            return Answer(False, f"{what}: {os.strerror(e.errno).lower() if e.errno else e}")

    async def _exec(self, task_id: str, check: Healthcheck) -> Answer:
        try:
            result = await self._runtime.exec(task_id, command_of(check), timeout_s=check.timeout)
        except RejectedError as e:
            return Answer(False, str(e))
        if result.timed_out:
            return Answer(False, f"it took longer than {check.timeout:g} s")
        return Answer(result.code == 0, result.output.decode(errors="replace") or f"exit code {result.code}")

    @asynccontextmanager
    async def _connected(self, task_id: str, address: str, port: int) -> AsyncIterator[socket.socket]:
        loop = asyncio.get_running_loop()
        pidfd = self._runtime.pidfd(task_id)
        try:
            plug = await loop.run_in_executor(self._traveller, self._socket_in, pidfd)
        finally:
            os.close(pidfd)
        with plug:
            await loop.sock_connect(plug, (address, port))
            yield plug

    def _socket_in(self, pidfd: int) -> socket.socket:
        """Return a socket of a container's network namespace. Runs in the travelling thread alone."""
        if self._home is None:
            self._home = Home()
        with self._home.away(pidfd):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def describe(check: Healthcheck) -> str:
    """Return what a network check does, for a person."""
    if check.http is not None:
        return f"GET :{check.http.port}{check.http.path or '/'}"
    if check.grpc is not None:
        return f"grpc :{check.grpc.port}" + (f" of {check.grpc.service}" if check.grpc.service else "")
    return f"tcp :{check.tcp.port}" if check.tcp else "exec"


async def _http(plug: socket.socket, probe: HttpProbe, what: str) -> Answer:
    """GET and read the status line (RFC 9112); of a bad answer also the beginning of the text."""
    headers = {
        "Host": "localhost",
        "User-Agent": "argosy-health",
        "Accept": "*/*",
        **probe.headers,
        "Connection": "close",
    }
    lines = [f"GET {probe.path or '/'} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    reader, writer = await asyncio.open_connection(sock=plug, limit=LONGEST_LINE)
    try:
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        words = (await reader.readline()).split(maxsplit=2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            return Answer(False, f"{what} did not answer in http")
        code = int(words[1])
        if 200 <= code < 400:
            return Answer(True)
        return Answer(False, f"{what} answered {code}{await _text(reader)}")
    except ValueError:  # a line beyond the limit
        return Answer(False, f"{what} did not answer in http")
    finally:
        writer.transport.abort()


async def _text(reader: asyncio.StreamReader) -> str:
    """Return the first line of an answer's body, if there is one that can be read, as the end of a sentence."""
    with contextlib.suppress(ValueError, OSError, TimeoutError):
        plain = False
        async with asyncio.timeout(1):
            while (line := await reader.readline()).strip():
                plain |= line.lower().startswith(b"content-type: text/plain")
            first = (await reader.readline()).decode(errors="replace").strip() if plain else ""
        return f": {first}" if first.isprintable() and first else ""
    return ""


async def _grpc(plug: socket.socket, probe: GrpcProbe, what: str, timeout_s: float) -> Answer:
    """Call grpc.health.v1.Health/Check; its two messages are one field each, so they are written by hand."""
    name = probe.service.encode()
    request = b"\x0a" + bytes([len(name)]) + name if name else b""
    async with _relayed(plug) as target, grpc.aio.insecure_channel(target) as channel:
        check = channel.unary_unary(_GRPC_HEALTH, request_serializer=bytes, response_deserializer=bytes)
        try:
            response = await check(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as e:
            if e.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from None
            if (e.details() or "").startswith(_NO_HTTP2):
                return Answer(False, f"{what} did not answer in grpc")
            return Answer(False, f"{what} answered {e.code().name}{f': {e.details()}' if e.details() else ''}")
    state = response[1] if response[:1] == b"\x08" and len(response) > 1 else 0
    return Answer(state == _SERVING, f"{what} answered {_GRPC_STATES.get(state, state)}")


@asynccontextmanager
async def _relayed(plug: socket.socket) -> AsyncIterator[str]:
    """Give the address of a socket of ours that leads to `plug`; for one connection."""
    name = f"argosy-probe-{secrets.token_hex(8)}"
    far_reader, far_writer = await asyncio.open_connection(sock=plug)
    pumps: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if pumps:
            writer.transport.abort()
            return
        pumps.append(asyncio.create_task(_pump(reader, far_writer)))
        pumps.append(asyncio.create_task(_pump(far_reader, writer)))
        await asyncio.gather(*pumps, return_exceptions=True)

    server = await asyncio.start_unix_server(accept, f"\0{name}")
    try:
        yield f"unix-abstract:{name}"
    finally:
        server.close()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        far_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
