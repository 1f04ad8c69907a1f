"""The agent's end of what the host's launcher keeps for it: copies of argosy-dns's sockets, under `dns/NETWORK`.

With them, queries wait also when the agent and argosy-dns have ended together. Nothing here waits for the launcher but
`meet`, and `forget`: what it is given or told to drop is on its way, also when it is stopped or we end at once.
"""

import os
import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from argosy.agent.launcher import rights, wire
from argosy.agent.network.readable import readable

Sockets = tuple[int, int]
"""Descriptors of a network's UDP and TCP socket."""

_ANSWER_S: Final = 1.0
_PREFIX: Final = "dns/"
_CHUNK: Final = 1 << 16


class Keeper:
    """What one launcher keeps. For one thread."""

    def __init__(self, launcher: Path) -> None:
        """`launcher` is its socket."""
        self._path = launcher
        self._socket: socket.socket | None = None
        self._unpacker = wire.Unpacker()
        self._descriptors: deque[int] = deque()
        self._number = 0
        self._kept: set[str] = set()

    @property
    def connected(self) -> bool:
        """Whether the launcher is known; that it has ended may not have been noticed yet."""
        return self._socket is not None

    def meet(self, held: Mapping[str, Sockets]) -> dict[str, Sockets]:
        """Have a connection; return what the launcher keeps of networks that are not among those `held`.

        They are the caller's. Where we know this launcher already there is nothing that we do not know of. Raises
        OSError.
        """
        if self._alive():
            return {}
        try:
            self._connect()
            return self._take_back(held)
        except (OSError, wire.ProtocolError) as error:
            self.close()
            raise OSError(f"the launcher does not say what it keeps: {error}") from error

    def want(self, sockets: Mapping[str, Sockets]) -> None:
        """Have the launcher that we know keep these, and no others; one that is gone keeps nothing any more."""
        if not self._alive():
            return
        try:
            for network in sorted(self._kept - sockets.keys()):
                self._send({"op": "drop", "name": _PREFIX + network})
                self._kept.discard(network)
            for network, pair in sockets.items():
                if network not in self._kept:
                    self._send({"op": "keep", "name": _PREFIX + network, "count": len(pair)}, pair)
                    self._kept.add(network)
        except OSError:
            self.close()

    def replaced(self, network: str) -> None:
        """Take note that a network has other sockets than before."""
        self._kept.discard(network)

    def forget(self) -> None:
        """Have the launcher keep nothing; without one there is nothing to do."""
        with suppress(OSError):
            for pair in self.meet({}).values():
                for descriptor in pair:
                    os.close(descriptor)
            self.want({})
            self._names()  # they are dropped when this is answered

    def close(self) -> None:
        """End the connection; the launcher goes on keeping."""
        if self._socket:
            self._socket.close()
        self._socket = None
        self._unpacker = wire.Unpacker()
        self._kept.clear()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _take_back(self, held: Mapping[str, Sockets]) -> dict[str, Sockets]:
        lacking = [n for n in self._names() if n not in held]
        for network in lacking:
            self._ask({"op": "give", "name": _PREFIX + network})
        if len(self._descriptors) != 2 * len(lacking):
            raise OSError("it kept something else")
        self._kept.update(lacking)
        take = self._descriptors.popleft
        return {network: (take(), take()) for network in lacking}

    def _names(self) -> list[str]:
        """Return the networks whose sockets the launcher keeps."""
        names = self._ask({"op": "kept"})["names"]
        return [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]

    def _ask(self, request: wire.Message) -> dict[str, Any]:
        """Return the answer to a request. Raises OSError, also for a refusal: an older launcher keeps nothing."""
        number = self._send(request)
        while True:
            for message in self._receive():
                if message.get("seq") != number:
                    continue
                if "ok" not in message:
                    raise OSError(message.get("error", {}).get("reason", "no answer"))
                return dict(message["ok"])

    def _send(self, request: wire.Message, descriptors: Sockets | tuple[()] = ()) -> int:
        self._number += 1
        data = wire.pack({"seq": self._number, **request})
        sent = socket.send_fds(self._connected(), [data], descriptors) if descriptors else 0
        self._connected().sendall(data[sent:])
        return self._number

    def _receive(self) -> list[wire.Message]:
        """Return messages that have come. Raises OSError at the end of the connection."""
        data, fds = rights.receive(self._connected(), _CHUNK, wire.MAX_DESCRIPTORS)
        self._descriptors.extend(fds)
        if not data:
            raise OSError("it ended")
        return self._unpacker.feed(data)

    def _alive(self) -> bool:
        """Tell whether there is a connection, which has not ended; answers that nobody waited for are read."""
        try:
            while self._socket and readable(self._socket):
                self._receive()
        except (OSError, wire.ProtocolError):
            self.close()
        return self._socket is not None

    def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_ANSWER_S)
        self._socket.connect(str(self._path))

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise OSError("not connected")
        return self._socket
