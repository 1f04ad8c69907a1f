"""Requests at a constant rate, from a network namespace: what a client sees while a service changes underneath it.

Each request has its own connection, so many seconds, and one try. A keeper holds its connections, as browsers and
proxies do, and asks over them again and again.
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

    def __init__(self, namespace, address, patience_s):
        self.address = address
        self._patience_s = patience_s
        self.answered = 0
        self.failures = []
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
        asyncio.run(self._serve())

    async def _try(self, request):
        """Count a request: answered, or failed and why."""
        began = time.time()
        try:
            async with asyncio.timeout(self._patience_s):
                await request
            self.answered += 1
        except (OSError, ValueError, EOFError, TimeoutError) as error:
            self.failures.append((began, f"{type(error).__name__}: {error}"))


class Load(_Client):
    """So many HTTP requests a second."""

    def __init__(self, namespace, address, rate, patience_s):
        super().__init__(namespace, address, patience_s)
        self._rate = rate

    async def _serve(self):
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        async with asyncio.TaskGroup() as group:
            while not self._stop.is_set():
                group.create_task(self._try(self._ask()))
                next_at += 1 / self._rate
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
    """Clients that keep a connection each and ask over it; the service gives back what it is told.

    A request that is sent as the server closes an idle connection is sent once more over a new one, as RFC 9112 (9.3.1)
    lets a client do, and every HTTP library does: only an answer that breaks off is a failure. `again` counts those.
    """

    def __init__(self, namespace, address, count, pause_s, patience_s):
        super().__init__(namespace, address, patience_s)
        self._count = count
        self._pause_s = pause_s
        self.again = 0
        self.connections = 0

    async def _serve(self):
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._keep(number))

    async def _keep(self, number):
        held = None
        asked = 0

        async def ask():
            nonlocal held
            said = f"{number} {asked}\n".encode()
            for last in (False, True):
                fresh = held is None
                if held is None:
                    held = await asyncio.open_connection(*self.address)
                    self.connections += 1
                reader, writer = held
                try:
                    writer.write(said)
                    answer = await reader.readline()
                except OSError:
                    answer = b""
                if answer == said:
                    return
                writer.close()
                held = None
                if answer or fresh or last:
                    raise ValueError(f"answered {answer!r} to {said!r}")
                self.again += 1

        while not self._stop.is_set():
            asked += 1
            await self._try(ask())
            await asyncio.sleep(self._pause_s)
        if held:
            held[1].close()
