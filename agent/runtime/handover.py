"""Where the launcher hands a descriptor over to the agent: a socket that lives for one request.

The launcher's own connection is a stream of JSON objects, which carries none. Its place is beside the launcher's
socket and its name shorter, so that it fits where that does (unix(7): 108 bytes).
"""

from __future__ import annotations

import os
import secrets
import socket
from types import TracebackType

from argosy.agent.launcher import rights

from .errors import RuntimeTransient


class HandedOver:
    """A listening socket; what was handed over and not received is closed with it."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/c-{secrets.token_hex(4)}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    def __enter__(self) -> HandedOver:
        self._listener.bind(self.path)
        os.chmod(self.path, 0o600)
        self._listener.listen(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.close()
        os.unlink(self.path)

    def receive(self) -> int:
        """Return the descriptor, once the launcher has answered that it handed it over; RuntimeTransient if not."""
        try:
            giver, _ = self._listener.accept()
            with giver:
                giver.setblocking(False)
                fds = rights.receive(giver, 1, 1)[1]
        except BlockingIOError:
            fds = []
        if not fds:
            raise RuntimeTransient("the launcher did not hand the container's standard input over")
        return fds[0]
