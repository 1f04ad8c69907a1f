"""A TCP relay between a client and etcd that can lose answers: the way to make an outcome ambiguous at will."""

import asyncio
import contextlib


class Relay:
    """Passes bytes both ways. With `swallow` requests reach etcd and its answers are lost."""

    def __init__(self, target_port: int) -> None:
        self.swallow = False
        self.port = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Lose nothing any more. Connections that lost bytes are of no use and are cut."""
        self.swallow = False
        self.cut()

    def cut(self) -> None:
        """Break all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader, writer):
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, upstream_writer}
        for source, sink, is_answer in ((reader, upstream_writer, False), (upstream_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, is_answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source, sink, is_answer):
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not (is_answer and self.swallow):
                    sink.write(data)
                    await sink.drain()
        sink.close()
