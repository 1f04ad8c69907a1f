"""The host's own heart beat: tells the controllers that this host lives, whether or not its agent does.

A datagram `NODE_ID SEQUENCE [WORDS] MAC` goes to every controller each period. SEQUENCE is CLOCK_BOOTTIME in
nanoseconds, which only grows, so that a recorded beat cannot be played again; MAC is keyed BLAKE2s (RFC 7693) over what
stands before it, with a key that the agent gave to the controller. WORDS say why the agent ended, where it could tell,
until one has a session again: an agent that cannot start can say so to nobody else. What else the agent said is kept in
the run directory: a launcher that is started anew beats on without an agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from _blake2 import blake2s  # not hashlib: it would load OpenSSL into a process that is forked for every container
from typing import Any, Final

from .loop import Loop

_FILE: Final = "beat.json"
_LEAST_PERIOD_S: Final = 0.1
_MOST_WORDS: Final = 1000
"""Bytes: a datagram has to fit in a packet."""


class Beat:
    """Beats once `set` was called, by this launcher or an earlier one. Sending never blocks, never fails the host."""

    def __init__(self, run_dir: str, loop: Loop) -> None:
        self._path = os.path.join(run_dir, _FILE)
        self._loop = loop
        self._node = b""
        self._key = b""
        self._period_s = 0.0
        self._targets: list[tuple[str, int]] = []
        self._words = b""
        self._socket: socket.socket | None = None

    def recover(self) -> None:
        """Go on as the launcher before this one was told."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(self._path, encoding="utf-8") as file:
            self._take(json.load(file))

    def set(self, settings: dict[str, Any]) -> None:
        """Take `node`, `key` (hex), `period_s` and `controllers` ("host:port"); KeyError, ValueError when malformed.

        OSError where they cannot be kept for a launcher that is started anew; this one beats all the same.
        """
        self._take(settings)
        descriptor = os.open(self._path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(settings, file)
        os.replace(self._path + ".new", self._path)

    def say(self, words: str) -> None:
        """Tell the controllers, with each beat from now on, why the agent has ended."""
        self._words = " ".join(words.split()).encode()[:_MOST_WORDS]

    def _take(self, settings: dict[str, Any]) -> None:
        targets = [
            (host.strip("[]"), int(port)) for host, _, port in (c.rpartition(":") for c in settings["controllers"])
        ]
        key, period_s = bytes.fromhex(settings["key"]), max(_LEAST_PERIOD_S, float(settings["period_s"]))
        begins, self._words = not self._period_s, b""
        self._node, self._key, self._period_s, self._targets = settings["node"].encode(), key, period_s, targets
        if begins:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._send()

    def _send(self) -> None:
        assert self._socket is not None
        text = b"%s %d" % (self._node, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        if self._words:
            text += b" " + self._words
        datagram = text + b" " + blake2s(text, key=self._key).hexdigest().encode()
        for target in self._targets:
            with contextlib.suppress(OSError):  # no route now, or nobody there: the next beat may arrive
                self._socket.sendto(datagram, target)
        self._loop.after(self._period_s, self._send)
