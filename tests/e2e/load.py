"""Requests at a constant rate, from a network namespace: what a client sees while a service changes underneath it.

Each request has so many seconds and one try; over a connection of its own, or over one of those that are kept, as
browsers and proxies keep them.
"""

import asyncio
import ctypes
import os
import threading
import time
from contextlib import suppress

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class _Client:
    """A thread with an event loop in a network namespace."""

    def __init__(self, namespace, address, rate, patience_s):
        self.address = address
        self._patience_s = patience_s
        self.answered = 0
        self.failures = []
        self.asked = 0
        self.rate = rate
        self.lasted_s = 0.0
        """How long it asked."""
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        fd = os.open(self._namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            assert _libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        finally:
            os.close(fd)
        began = time.monotonic()
        asyncio.run(self._serve())
        self.lasted_s = time.monotonic() - began

    async def _try(self, request):
        """Count a request: answered, or failed and why."""
        began = time.time()
        self.asked += 1
        try:
            async with asyncio.timeout(self._patience_s):
                await request
            self.answered += 1
        except (OSError, ValueError, EOFError, TimeoutError) as error:
            self.failures.append((began, f"{type(error).__name__}: {error}"))


class Load(_Client):
    """So many HTTP requests a second."""

    async def _serve(self):
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        async with asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                group.create_task(self._try(self._ask()))
                next_at += 1 / self.rate
                await asyncio.sleep(max(0.0, next_at - loop.time()))

    async def _ask(self):
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(b"GET /hello HTTP/1.0\r\n\r\n")
            answer = await reader.read()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        if not answer.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")) or b"hello" not in answer:
            raise ValueError(answer[:60])


class Keepers(_Client):
    """So many HTTP requests a second over connections that are kept, each asked over again and again.

    A connection is left when the server says with an answer that it is the last (`Connection: close`, RFC 9112, 9.6).
    One that ends in any other way costs a request, and that is a failure: none is sent twice.
    """

    def __init__(self, namespace, address, rate, patience_s, count=10):
        super().__init__(namespace, address, rate, patience_s)
        self._pause_s = count / rate
        self._count = count
        self.connections = 0

    async def _serve(self):
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._keep(loop.time() + self._pause_s * number / self._count))

    async def _keep(self, next_at):
        loop = asyncio.get_running_loop()
        held = None

        async def ask():
            nonlocal held
            if held is None:
                held = await asyncio.open_connection(*self.address)
                self.connections += 1
            reader, writer = held
            writer.write(b"GET /hello HTTP/1.1\r\nHost: web\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(6)
            if not head.startswith(b"HTTP/1.1 200") or body != b"hello\n":
                raise ValueError(head[:60])
            if b"Connection: close" in head:
                writer.close()
                held = None

        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, next_at - loop.time()))
            failed = len(self.failures)
            await self._try(ask())
            if len(self.failures) > failed and held is not None:
                held[1].close()
                held = None
            next_at += self._pause_s
        if held is not None:
            held[1].close()
