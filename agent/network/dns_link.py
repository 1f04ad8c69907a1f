"""The agent's end of argosy-dns: starts it, keeps it supplied, and holds its sockets so that none is lost with it.

The launcher keeps them too, so that none is lost with both of us.

Used by one thread of its own, so that a process that starts slowly holds up no container. Sockets are opened by the
network plane's thread inside the namespaces and given in by `supply`.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from argosy.agent.dns import channel
from argosy.agent.dns.channel import Decoder
from argosy.agent.network.keeper import Keeper, Sockets
from argosy.agent.network.readable import readable
from argosy.agent.network.records import Book
from argosy.agent.spawn import spawn
from argosy.core.errors import TransientError

_START_S: Final = 60.0
_ANSWER_S: Final = 5.0
_END_S: Final = 3.0
_POLL_S: Final = 0.005

_Message = tuple[dict[str, Any], tuple[int, ...]]
"""With the descriptors that go with it."""


class DnsLink:
    """What argosy-dns was told, and the sockets that all hold. Owns the descriptors of our copies."""

    def __init__(self, run_dir: Path, resolv_conf: Path, keeper: Keeper | None = None) -> None:
        self._directory = run_dir / "network"
        self._resolv_conf = resolv_conf
        self._keeper = keeper
        self._socket: socket.socket | None = None
        self._decoder = Decoder()
        self._pid = 0
        self.pidfd = -1
        """Readable when the process that we talk to has ended; -1 without one."""
        self._number = 0
        self._told = 0  # the number of the book that it has; 0: none
        self._given: set[str] = set()
        self.sockets: dict[str, Sockets] = {}
        """Our copies, by network."""

    @property
    def control(self) -> Path:
        """The unix socket of argosy-dns."""
        return self._directory / "dns.sock"

    @property
    def knows_launcher(self) -> bool:
        """Whether the launcher, where there is to be one, keeps our sockets, as far as we know."""
        return self._keeper is None or self._keeper.connected

    def adopt(self) -> None:
        """Connect to an argosy-dns that runs already, and take copies of its sockets; without one, do nothing."""
        if self._socket is None and self._connect():
            self._receive_greeting()

    def meet_launcher(self) -> None:
        """Have the launcher keep our sockets, and take copies of others that it keeps. Raises TransientError."""
        if self._keeper is None:
            return
        try:
            self.sockets.update(self._keeper.meet(self.sockets))
        except OSError as error:
            raise TransientError(str(error)) from error
        self._keeper.want(self.sockets)

    def ensure(self) -> None:
        """Have a running argosy-dns of our version. Raises TransientError."""
        if self._socket is not None and not self._ended():
            return
        self._disconnect()
        if not self._connect():
            self._start()
        self._receive_greeting()

    def keep(self) -> None:
        """Have it running, with the sockets that we hold. Raises TransientError."""
        try:
            self.ensure()
            self._tell(self._of_sockets())
        except OSError as error:
            self._disconnect()
            raise TransientError(f"argosy-dns does not answer: {error}") from error
        if self._keeper:
            self._keeper.want(self.sockets)

    def supply(self, book: Book, sockets: Mapping[str, Sockets]) -> None:
        """Tell argosy-dns what it does not know yet, and wait until it is in force. Raises TransientError.

        `sockets` are those of all networks; the descriptors are ours from now on.
        """
        self._take(sockets)
        try:
            self.ensure()
            # Records first: one that has just started must not deny what it has not heard of yet.
            self._tell([*self._of_records(book), *self._of_sockets()])
            self._told = book.number
        except OSError as error:
            self._disconnect()
            raise TransientError(f"argosy-dns does not answer: {error}") from error

    def stop(self) -> None:
        """End argosy-dns, also one that does not listen to us any more, and have nobody hold its sockets."""
        if self._keeper:
            self._keeper.forget()
        if self._socket is not None and self._ended():
            self._disconnect()  # it listens to another connection, or is another process by now
        if self._socket is None and not self._connect():
            self.close()
            return
        self._end()
        self.close()

    def close(self) -> None:
        """Let go of the streams and our copies of the sockets; argosy-dns goes on."""
        self._disconnect()
        if self._keeper:
            self._keeper.close()
        for pair in self.sockets.values():
            _close(pair)
        self.sockets.clear()

    def _take(self, sockets: Mapping[str, Sockets]) -> None:
        for network in self.sockets.keys() - sockets.keys():
            _close(self.sockets.pop(network))
        for network, pair in sockets.items():
            held = self.sockets.get(network)
            if held != pair:
                if held:
                    _close(held)
                self.sockets[network] = pair
                self._given.discard(network)
                if self._keeper:
                    self._keeper.replaced(network)
        if self._keeper:
            self._keeper.want(self.sockets)

    def _of_sockets(self) -> list[_Message]:
        drops: list[_Message] = [({"drop": n}, ()) for n in sorted(self._given - self.sockets.keys())]
        return drops + [({"socket": n}, pair) for n, pair in self.sockets.items() if n not in self._given]

    def _of_records(self, book: Book) -> list[_Message]:
        if not self._told or self._told + 1 != book.number:
            return [({"replace": book.records}, ())]
        if book.put or book.delete:
            return [({"put": book.put, "delete": list(book.delete)}, ())]
        return []

    def _tell(self, messages: list[_Message]) -> None:
        """Send messages, and wait until they are in force. Raises OSError."""
        if not messages:
            return
        self._number += 1
        number = {"number": self._number}
        if messages[-1][1]:  # one with descriptors is of nothing else
            messages = [*messages, (number, ())]
        else:
            messages = [*messages[:-1], (messages[-1][0] | number, ())]
        for message, descriptors in messages:
            channel.send(self._connected(), message, descriptors)
        self._given = set(self.sockets)
        self._await("done", self._number)

    def _connect(self) -> bool:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(_ANSWER_S)
        try:
            stream.connect(str(self.control))
        except OSError:
            stream.close()
            return False
        self._socket = stream
        self._decoder = Decoder()
        credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self._pid = int.from_bytes(credentials[:4], sys.byteorder)
        try:
            self.pidfd = os.pidfd_open(self._pid)
        except OSError:
            self._disconnect()
            return False
        return True

    def _start(self) -> None:
        """Start the process."""
        self._directory.mkdir(parents=True, exist_ok=True)
        log = os.open(self._directory / "dns.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        arguments = [sys.executable, "-m", "argosy.agent.dns", "--control", str(self.control)]
        arguments += ["--records", str(self._directory / "dns-records.json")]
        arguments += ["--resolv-conf", str(self._resolv_conf)]
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        try:
            pid = spawn(arguments, os.environ, actions)
        except OSError as error:
            raise TransientError(f"cannot start argosy-dns ({sys.executable}): {error}") from error
        finally:
            os.close(log)
            os.close(null)
        self._await_start(pid)

    def _await_start(self, pid: int) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._connect():
                return
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    break
            time.sleep(_POLL_S)
        else:
            # One that starts after all would take the place of the next, and nobody would ever end that.
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:  # still ours: the number cannot be somebody else's by now
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        said = (self._directory / "dns.log").read_text(errors="replace").strip().splitlines()
        raise TransientError(f"argosy-dns did not start: {said[-1] if said else 'it said nothing'}")

    def _receive_greeting(self) -> None:
        """Take over the sockets it holds that we have no copies of; replace a process of another version."""
        try:
            version = self._await("hello")
            self._await("ready")
        except OSError as error:
            self._disconnect()
            raise TransientError(f"argosy-dns does not greet us: {error}") from error
        if version != channel.VERSION:
            self._end()
            self._disconnect()
            self._start()
            self._receive_greeting()

    def _end(self) -> None:
        """Tell it to end, and see to it."""
        with suppress(OSError):
            channel.send(self._connected(), {"stop": True})
        if not readable(self.pidfd, _END_S):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            readable(self.pidfd, _END_S)

    def _await(self, key: str, value: Any = None) -> Any:
        """Return what the next message with a key says, taking sockets on the way. Raises OSError."""
        while True:
            for message, descriptors in self._decoder.messages():
                self._keep(message, descriptors)
                if key in message and (value is None or message[key] == value):
                    return message[key]
            if not self._decoder.receive(self._connected()):
                raise OSError("it ended")

    def _keep(self, message: dict[str, Any], descriptors: list[int]) -> None:
        network = str(message.get("socket", ""))
        if len(descriptors) == 2 and network:
            self._given.add(network)
            if network not in self.sockets:
                self.sockets[network] = (descriptors[0], descriptors[1])
                return
        for descriptor in descriptors:
            os.close(descriptor)

    def _ended(self) -> bool:
        """Tell whether the stream is at its end: argosy-dns sends nothing unasked."""
        return readable(self._connected())

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise OSError("not connected")
        return self._socket

    def _disconnect(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pidfd = -1
        self._decoder.close()
        self._told = 0
        self._given.clear()
        with suppress(ChildProcessError):
            if self._pid:
                os.waitpid(self._pid, os.WNOHANG)


def _close(pair: Sockets) -> None:
    for descriptor in pair:
        os.close(descriptor)
