"""The agent's end of the launcher's socket: requests answered in any order, and events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from argosy.agent.launcher import wire

from .errors import ContainerError, ContainerMissing, ContainerUnstarted, LauncherBug, RuntimeRejected, RuntimeTransient

_ERRORS: Final[dict[str, type[ContainerError]]] = {
    "rejected": RuntimeRejected,
    "transient": RuntimeTransient,
    "missing": ContainerMissing,
    "ended": ContainerUnstarted,
}


class LauncherClient:
    """One connection. `closed` is set when it has ended; every request then under way fails as transient."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: Callable[[wire.Message], None],
    ) -> None:
        self.closed = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._progress: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._seq = 0
        self._receiver = asyncio.create_task(self._receive())

    @classmethod
    async def connect(cls, path: str, on_event: Callable[[wire.Message], None]) -> LauncherClient:
        """Connect; raise OSError when nobody listens."""
        reader, writer = await asyncio.open_unix_connection(path)
        return cls(reader, writer, on_event)

    async def request(
        self, op: str, *, on_progress: Callable[[dict[str, Any]], None] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Send one request and return its answer; raise the error that the launcher answered, or RuntimeTransient."""
        if self.closed.is_set():
            raise RuntimeTransient("the launcher is restarting")
        self._seq += 1
        seq = self._seq
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[seq] = answer
        if on_progress is not None:
            self._progress[seq] = on_progress
        try:
            self._writer.write(wire.pack({"seq": seq, "op": op, **arguments}))
            await self._writer.drain()
            return await answer
        except (OSError, RuntimeError):  # the latter is uvloop's word for a connection that is closed
            raise RuntimeTransient("the launcher is restarting") from None
        finally:
            self._pending.pop(seq, None)
            self._progress.pop(seq, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also where nobody came to wait for it

    async def close(self) -> None:
        """End the connection."""
        self._receiver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._receiver

    async def _receive(self) -> None:
        try:
            while True:
                length = wire.body_length(await self._reader.readexactly(wire.HEADER_BYTES))
                self._handle(wire.parse(await self._reader.readexactly(length)))
        except (OSError, EOFError, wire.ProtocolError):
            pass
        finally:
            self.closed.set()
            self._writer.close()
            for answer in self._pending.values():
                if not answer.done():
                    answer.set_exception(RuntimeTransient("the launcher ended before it answered"))

    def _handle(self, message: wire.Message) -> None:
        if "event" in message:
            self._on_event(message)
            return
        if "progress" in message:
            if (on_progress := self._progress.get(message["seq"])) is not None:
                on_progress(message["progress"])
            return
        answer = self._pending.get(message.get("seq", 0))
        if answer is None or answer.done():
            return
        if (error := message.get("error")) is not None:
            answer.set_exception(_as_exception(error))
        else:
            answer.set_result(message.get("ok", {}))


def _as_exception(error: dict[str, Any]) -> ContainerError:
    if error["kind"] not in _ERRORS:
        return LauncherBug(f"bug in the launcher: {error['reason']}", step=error["step"])
    return _ERRORS[error["kind"]](error["reason"], step=error["step"], exit_code=error["code"])
