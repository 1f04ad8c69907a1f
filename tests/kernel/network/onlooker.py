"""Looks on while something is broken and repaired, by means of its own, and says when it was right again.

Datagrams go by several ways all the while; and the kernel's notifications are listened to. A process of its own does
both, since the plane that is looked at lives in the tests' interpreter: whoever takes turns with it there slows it
down. Nor are tools asked again and again: on an emulated machine that takes longer than what is looked at.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from network_world import Namespace

_PROGRAM: Final = Path(__file__).with_name("onlooker_process.py")


@dataclass(frozen=True, slots=True)
class Way:
    """From a client to an address and UDP port, where a server that listens on a port sends back what comes."""

    client: Namespace
    server: Namespace
    address: str
    port: int
    listened: int
    newcomers: bool
    """Each datagram is sent by somebody new, of whom nothing is remembered; else they go on from one socket."""


class Onlooker:
    """Looks on while the body runs."""

    def __init__(self, ways: Sequence[Way], changed: Sequence[Namespace]) -> None:
        kinds = {True: "newcomers", False: "traffic"}
        self._what = {
            "ways": [(kinds[w.newcomers], w.client.fd, w.server.fd, w.address, w.port, w.listened) for w in ways],
            "changed": [namespace.fd for namespace in changed],
        }
        self._namespaces = {n.fd for n in (*changed, *(w.client for w in ways), *(w.server for w in ways))}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _PROGRAM, json.dumps(self._what)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self._namespaces,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def changed_at(self) -> float:
        """Return when one of the namespaces was changed last, on the monotonic clock; 0: never."""
        return float(self._look()[0])

    def open_since(self) -> list[float] | None:
        """Return since when each way is open, on the monotonic clock; None while one is not."""
        since = self._look()[1:]
        return None if "-" in since else [float(at) for at in since]

    def _look(self) -> list[str]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline().decode()
        assert line, "the onlooker ended"
        return line.split()
