"""The process of onlooker.py, which says how it is called. Everything happens in one thread, as it comes.

    python onlooker_process.py '{"ways": [[KIND, CLIENT, SERVER, ADDRESS, PORT, LISTENED], ...], "changed": [...]}'

CLIENT, SERVER and what is in `changed` are descriptors of network namespaces. Whoever sends ADDRESS:PORT from CLIENT a
datagram gets it back from SERVER, where it comes to the port LISTENED. For each line on standard input one is printed:
when one of the namespaces was changed last (0: never), and since when each way is open ("-": it is not), all in seconds
on the monotonic clock. Ends with its standard input.
"""

import ctypes
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

_INTERVAL_S = 0.01
_PATIENCE_S = 0.5
"""An answer that is not there by then is lost."""
_SETTLED = 10
"""So many answers in a row mean that a way is open."""
_ROUTE_GROUPS = (1, 3, 5, 7, 24)  # links, neighbours, IPv4 addresses, routes and settings (linux/rtnetlink.h)
_NETFILTER, _NFT_GROUP = 12, 7
_NEW_NEIGHBOUR = 28  # RTM_NEWNEIGH (linux/rtnetlink.h)
_MADE = 0xC0
"""NUD_PERMANENT and NUD_NOARP (linux/neighbour.h): the states of entries that somebody has made."""
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def opened(namespace: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Open a socket in a namespace; it stays there."""
    if _libc.setns(namespace, _NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made


class Echo:
    """Sends back what comes to a UDP port."""

    def __init__(self, selector: selectors.BaseSelector, namespace: int, port: int) -> None:
        self._socket = opened(namespace, socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("0.0.0.0", port))
        selector.register(self._socket, selectors.EVENT_READ, self._answer)

    def _answer(self) -> None:
        with suppress(OSError):
            while True:
                self._socket.sendto(*self._socket.recvfrom(4))


class Traffic:
    """Goes on from one socket, whatever became of what was sent before, and knows which datagrams came back."""

    def __init__(self, selector: selectors.BaseSelector, client: int, asked: tuple[str, int]) -> None:
        self._socket = opened(client, socket.AF_INET, socket.SOCK_DGRAM)
        self._asked = asked
        self._sent: list[float] = []
        self._answered: set[int] = set()
        selector.register(self._socket, selectors.EVENT_READ, self._take)

    def ask(self) -> None:
        """Send the next datagram."""
        self._sent.append(time.monotonic())
        with suppress(OSError):  # refused at once: as good as lost
            self._socket.sendto(struct.pack("!I", len(self._sent) - 1), self._asked)

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                self._answered.add(struct.unpack("!I", self._socket.recv(4))[0])

    def open_since(self) -> float | None:
        """Return when the first datagram was sent since which all were answered; None while that is not so."""
        count = len(self._sent)
        while count and count - 1 not in self._answered:
            count -= 1  # the last ones may be under way
        first = count
        while first and first - 1 in self._answered:
            first -= 1
        under_way = len(self._sent) - count
        return self._sent[first] if count - first >= _SETTLED and under_way < _SETTLED else None


class Newcomers:
    """Asks each time from another socket, so that nothing is remembered of who asks; one after the other."""

    def __init__(self, selector: selectors.BaseSelector, client: int, asked: tuple[str, int]) -> None:
        self._selector = selector
        self._client = client
        self._asked = asked
        self._asking: socket.socket | None = None
        self._began = self._since = 0.0
        self._answered = 0  # in a row, since then

    def ask(self) -> None:
        """Have somebody new ask, unless one still waits."""
        now = time.monotonic()
        if self._asking and now < self._began + _PATIENCE_S:
            return
        if self._asking:
            self._end(answered=False)
        self._began = now
        self._asking = opened(self._client, socket.AF_INET, socket.SOCK_DGRAM)
        self._selector.register(self._asking, selectors.EVENT_READ, self._take)
        try:
            self._asking.connect(self._asked)
            self._asking.send(b"who?")
        except OSError:
            self._end(answered=False)

    def _take(self) -> None:
        assert self._asking
        try:
            self._end(answered=self._asking.recv(4) == b"who?")
        except OSError:
            self._end(answered=False)

    def _end(self, *, answered: bool) -> None:
        assert self._asking
        self._selector.unregister(self._asking)
        self._asking.close()
        self._asking = None
        if not self._answered:
            self._since = self._began
        self._answered = self._answered + 1 if answered else 0

    def open_since(self) -> float | None:
        """Return when the first asked since whom all were answered; None while somebody was not."""
        return self._since if self._answered >= _SETTLED else None


class Changes:
    """Notes when a namespace was last changed, by anybody: the kernel's own notifications.

    What the kernel itself learns of neighbours is no change: it tries those that are used again after 5 s
    (delay_first_probe_time, arp(7)), and tells of that.
    """

    last = 0.0

    def __init__(self, selector: selectors.BaseSelector, namespace: int) -> None:
        for protocol, groups in ((socket.NETLINK_ROUTE, _ROUTE_GROUPS), (_NETFILTER, (_NFT_GROUP,))):
            listening = opened(namespace, socket.AF_NETLINK, socket.SOCK_RAW, protocol)
            listening.bind((0, 0))
            for group in groups:
                listening.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            selector.register(listening, selectors.EVENT_READ, lambda one=listening: self._note(one))

    def _note(self, listening: socket.socket) -> None:
        now = time.monotonic()
        try:
            while True:
                told = listening.recv(1 << 16)
                if listening.proto == _NETFILTER or any(map(_is_change, _messages(told))):
                    self.last = now
        except BlockingIOError:
            pass
        except OSError:  # more has happened than the buffer holds
            self.last = now


def _messages(data: bytes) -> Iterator[bytes]:
    """Return the messages of rtnetlink that came together."""
    while len(data) >= 16:
        length = struct.unpack_from("=I", data)[0]
        yield data[:length]
        data = data[(length + 3) & ~3 :]


def _is_change(message: bytes) -> bool:
    if struct.unpack_from("=H", message, 4)[0] != _NEW_NEIGHBOUR:
        return True
    return bool(struct.unpack_from("=H", message, 24)[0] & _MADE)


def main() -> None:
    """Ask, and answer what is read from standard input, until that ends."""
    what = json.loads(sys.argv[1])
    selector = selectors.DefaultSelector()
    ways = []
    for kind, client, server, address, port, listened in what["ways"]:
        Echo(selector, server, listened)
        way = {"traffic": Traffic, "newcomers": Newcomers}[kind]
        ways.append(way(selector, client, (address, port)))
    changes = [Changes(selector, namespace) for namespace in what["changed"]]
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    due = time.monotonic()
    while True:
        for key, _ in selector.select(max(due - time.monotonic(), 0)):
            if key.data:
                key.data()
            elif lines := os.read(sys.stdin.fileno(), 4096):
                since = [max(c.last for c in changes), *(way.open_since() for way in ways)]
                print(*("-" if at is None else at for at in since), flush=True)
                assert lines == b"\n", "one question at a time"
            else:
                return
        if time.monotonic() >= due:
            for way in ways:
                way.ask()
            due = time.monotonic() + _INTERVAL_S


if __name__ == "__main__":
    main()
