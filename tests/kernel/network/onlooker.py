"""Two who look on while something is broken and repaired, each by its own means, and say when it was right again.

One sends datagrams through the network all the while, or asks each time as somebody new; the other listens to the
kernel's notifications. Neither takes the machine's time, as looking with tools again and again would: on an emulated
machine that takes longer than what is looked at.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from network_world import Container, Namespace

_INTERVAL_S = 0.01
_PATIENCE_S = 0.5
"""An answer that is not there by then is lost."""
_SETTLED = 10
"""So many answers in a row mean that traffic is back."""
_ROUTE_GROUPS = (1, 3, 5, 7, 24)  # links, neighbours, IPv4 addresses, routes and settings (linux/rtnetlink.h)
_NETFILTER, _NFT_GROUP = 12, 7


class _Conversation:
    """Some work in threads while the body runs, and a server that sends back what comes to one of its UDP ports."""

    def __init__(self, server: Namespace, port: int, *work: Callable[[], None]) -> None:
        self._answering = server.open_socket(socket.SOCK_DGRAM)
        self._answering.bind(("0.0.0.0", port))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=one) for one in (*work, self._echo)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._answering.close()

    def _echo(self) -> None:
        self._answering.settimeout(0.1)
        while not self._stop.is_set():
            try:
                self._answering.sendto(*self._answering.recvfrom(4))
            except OSError:
                continue


class Traffic(_Conversation):
    """Asks another namespace's end over UDP, every 10 ms and never twice the same; knows which were answered."""

    def __init__(self, client: Container, server: Namespace, address: str) -> None:
        super().__init__(server, 7, self._send, self._receive)
        self._asking = client.open_socket(socket.SOCK_DGRAM)
        self._address = (address, 7)
        self._sent: list[float] = []
        self._answered: set[int] = set()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._asking.close()

    def back_at(self) -> float | None:
        """Return when the first datagram was sent since which all were answered; None while traffic is not back."""
        answered, count = set(self._answered), len(self._sent)
        while count and count - 1 not in answered:
            count -= 1  # the last ones may be under way
        first = count
        while first and first - 1 in answered:
            first -= 1
        under_way = len(self._sent) - count
        return self._sent[first] if count - first >= _SETTLED and under_way < _SETTLED else None

    def _send(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self._sent.append(time.monotonic())
            try:
                self._asking.sendto(struct.pack("!I", len(self._sent) - 1), self._address)
            except OSError:
                continue  # refused at once: as good as lost

    def _receive(self) -> None:
        self._asking.settimeout(0.1)
        while not self._stop.is_set():
            try:
                self._answered.add(struct.unpack("!I", self._asking.recv(4))[0])
            except OSError:
                continue


class Newcomers(_Conversation):
    """Asks a server over UDP again and again, each time from another port: nothing is remembered of who asks."""

    def __init__(self, client: Namespace, server: Namespace, address: tuple[str, int], port: int) -> None:
        super().__init__(server, port, lambda: client.run(self._ask))
        self._address = address
        self._asked: list[tuple[float, bool]] = []

    def back_at(self) -> float | None:
        """Return when the first was asked since whom all were answered; None while somebody was not."""
        asked = list(self._asked)
        first = len(asked)
        while first and asked[first - 1][1]:
            first -= 1
        return asked[first][0] if len(asked) - first >= _SETTLED else None

    def _ask(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            began = time.monotonic()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(_PATIENCE_S)
                try:
                    asking.connect(self._address)
                    asking.send(b"who?")
                    answered = asking.recv(4) == b"who?"
                except OSError:
                    answered = False
            self._asked.append((began, answered))


class Changes:
    """Notes when each of some namespaces was last changed, by anybody: the kernel's own notifications."""

    def __init__(self, *namespaces: Namespace) -> None:
        self.last = 0.0
        self._stop = threading.Event()
        self._sockets = [
            _subscribed(namespace, family, groups)
            for namespace in namespaces
            for family, groups in ((socket.NETLINK_ROUTE, _ROUTE_GROUPS), (_NETFILTER, (_NFT_GROUP,)))
        ]
        self._threads = [threading.Thread(target=self._listen, args=(one,)) for one in self._sockets]

    def __enter__(self) -> "Changes":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with ExitStack() as stack:
            for thread, one in zip(self._threads, self._sockets, strict=True):
                stack.callback(one.close)
                thread.join()

    def _listen(self, listening: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                listening.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:  # more has happened than the buffer holds
                pass
            self.last = time.monotonic()


def _subscribed(namespace: Namespace, family: int, groups: tuple[int, ...]) -> socket.socket:
    opened = namespace.open_socket(socket.SOCK_RAW, socket.AF_NETLINK, family)
    opened.bind((0, 0))
    for group in groups:
        opened.setsockopt(270, 1, group)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
    opened.settimeout(0.1)
    return opened
