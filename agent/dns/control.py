"""The agent's stream into the process, and the records kept on disk for the time without an agent."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from argosy.agent.dns import channel
from argosy.agent.dns.channel import Decoder
from argosy.agent.dns.server import Server
from argosy.agent.dns.zone import Zone

_SAVE_DELAY_S: Final = 0.01
_SAVE_SHARE: Final = 0.05
"""Of the time at most, is spent saving: many records that keep changing are saved less often."""

_SEND_TIMEOUT_S: Final = 5.0


class Control:
    """Takes what the agent sends, one agent at a time: a newer connection ends an older one."""

    def __init__(self, zone: Zone, server: Server, records: Path) -> None:
        self._zone = zone
        self._server = server
        self._records = records
        self._saving: asyncio.TimerHandle | None = None
        self._save_took = 0.0
        self._agent: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()

    def load(self) -> None:
        """Take over the records of a former life; an unreadable file means to begin with none."""
        try:
            self._zone.replace(json.loads(self._records.read_text()))
        except (OSError, ValueError, TypeError, AttributeError):
            return

    async def serve(self, listening: socket.socket) -> None:
        """Take connections until told to stop."""
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        stopped = loop.create_task(self._stopped.wait())
        while not self._stopped.is_set():
            accepted = loop.create_task(loop.sock_accept(listening))
            await asyncio.wait((accepted, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not accepted.done():
                accepted.cancel()
                break
            if self._agent:
                self._agent.cancel()
                await asyncio.gather(self._agent, return_exceptions=True)
            self._agent = loop.create_task(self._talk(accepted.result()[0]))
        self._save()

    async def _talk(self, agent: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        decoder = Decoder()
        readable = asyncio.Event()
        try:
            self._greet(agent)
            loop.add_reader(agent, readable.set)
            more = True
            while more and not self._stopped.is_set():
                await readable.wait()
                readable.clear()
                try:
                    more = decoder.receive(agent)
                except BlockingIOError:
                    continue  # told twice of the same
                for message, descriptors in decoder.messages():
                    await self._handle(agent, message, descriptors)
        except OSError:
            return  # the agent is gone; it will come again
        finally:
            loop.remove_reader(agent)
            decoder.close()
            agent.close()

    def _greet(self, agent: socket.socket) -> None:
        _send(agent, {"hello": channel.VERSION})
        for network, descriptors in self._server.sockets().items():
            _send(agent, {"socket": network}, descriptors)
        _send(agent, {"ready": True})

    async def _handle(self, agent: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
        if "socket" in message and len(descriptors) == 2:
            await self._server.listen(str(message["socket"]), *descriptors)
            return
        for unexpected in descriptors:
            os.close(unexpected)
        if "drop" in message:
            self._server.drop(str(message["drop"]))
        if "replace" in message:
            self._zone.replace(message["replace"])
            self._save_soon()
        if "put" in message or "delete" in message:
            self._zone.change(message.get("put", {}), message.get("delete", ()))
            self._save_soon()
        if "number" in message:
            _send(agent, {"done": message["number"]})
        if "stop" in message:
            self._stopped.set()

    def _save_soon(self) -> None:
        if self._saving is None:
            delay = max(_SAVE_DELAY_S, self._save_took / _SAVE_SHARE)
            self._saving = asyncio.get_running_loop().call_later(delay, self._save)

    def _save(self) -> None:
        if self._saving:
            self._saving.cancel()
        self._saving = None
        began = time.monotonic()
        temporary = self._records.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(self._zone.records, separators=(",", ":")))
            temporary.replace(self._records)
        except OSError:
            return  # no disk: what is in memory is answered all the same, and the agent sends it again
        finally:
            self._save_took = time.monotonic() - began


def _send(agent: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message; it is small and the agent reads it at once. Raises OSError for an agent that does not."""
    agent.settimeout(_SEND_TIMEOUT_S)
    try:
        channel.send(agent, message, descriptors)
    finally:
        agent.setblocking(False)
