"""Tells when somebody else has changed a network namespace: the kernel's own notifications, without looking.

Two sockets in each namespace listen: rtnetlink(7) for links, addresses, routes, neighbours, forwarding entries and
settings, nfnetlink for nftables. A notification carries the port of the socket, or the thread, that made the change,
so that our own work wakes nobody. Some changes of links carry no port: after those one look too many is taken.

A listener belongs for ever to the namespace that it was opened in. It is opened by the plane's worker thread, which
alone moves between namespaces, and read by the event loop.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from argosy.agent.network.namespace import Home
from argosy.agent.network.netlink import attributes

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_RTNLGRP: Final = (1, 3, 5, 7, 8, 24)
"""Links, neighbours (forwarding entries among them), IPv4 addresses, routes, rules and settings (rtnetlink.h)."""
_NFNLGRP_NFTABLES: Final = 7
_NEW_GENERATION: Final = (10 << 8) | 15
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN: the end of a transaction, which says whose it was."""
_NFTA_GEN_PROC_PID: Final = 2
"""Of the thread, whatever its name says."""
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_RECEIVE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Listener:
    """The two sockets of one namespace, and the port and the thread of our own changes there.

    Whoever opens it closes it.
    """

    routes: socket.socket
    tables: socket.socket
    own_port: int
    own_thread: int

    def close(self) -> None:
        """Stop to listen."""
        self.routes.close()
        self.tables.close()


def listen(home: Home, fd: int, own_port: int) -> Listener:
    """Open a listener in the namespace of a descriptor; for the plane's worker thread, which makes all changes."""
    with home.away(fd):
        routes = _subscribed(socket.NETLINK_ROUTE, _RTNLGRP)
        try:
            tables = _subscribed(12, (_NFNLGRP_NFTABLES,))  # NETLINK_NETFILTER
        except OSError:
            routes.close()
            raise
    return Listener(routes, tables, own_port, threading.get_native_id())


def _subscribed(family: int, groups: Collection[int]) -> socket.socket:
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, family)
    try:
        found.bind((0, 0))
        for group in groups:
            found.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError:
        found.close()
        raise
    return found


class KernelEvents:
    """Reads the listeners of all namespaces. Used on the event loop.

    `changed` is called with the scope's name, and whether it was nftables that was changed.
    """

    def __init__(self, changed: Callable[[str, bool], None]) -> None:
        self._changed = changed
        self._listeners: dict[str, Listener] = {}

    @property
    def scopes(self) -> Collection[str]:
        """The scopes that are listened to."""
        return self._listeners.keys()

    def add(self, scope: str, listener: Listener) -> None:
        """Listen to a namespace; one that was known by this name before is let go."""
        self.remove(scope)
        self._listeners[scope] = listener
        loop = asyncio.get_running_loop()
        loop.add_reader(listener.routes, self._read, scope, listener.routes, listener.own_port, False)
        loop.add_reader(listener.tables, self._read, scope, listener.tables, listener.own_thread, True)

    def remove(self, scope: str) -> None:
        """Let go of a namespace; of one that is not known too."""
        listener = self._listeners.pop(scope, None)
        if listener:
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener.routes)
            loop.remove_reader(listener.tables)
            listener.close()

    def close(self) -> None:
        """Let go of all."""
        for scope in list(self._listeners):
            self.remove(scope)

    def _read(self, scope: str, source: socket.socket, own: int, tables: bool) -> None:
        try:
            while data := source.recv(_RECEIVE_BYTES):
                if any(is_foreign(kind, port, body, own) for kind, port, body in _messages(data)):
                    self._changed(scope, tables)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: more has happened than the buffer holds
            self._changed(scope, tables)


def is_foreign(kind: int, port: int, body: bytes, own: int) -> bool:
    """Whether a notification tells of somebody else's change. `own`: our port, or for nftables our thread."""
    if kind == _NEW_GENERATION:
        raw = attributes(body[4:]).get(_NFTA_GEN_PROC_PID, b"")
        return len(raw) != 4 or struct.unpack("!I", raw)[0] != own
    if kind >> 8:
        return False  # a part of an nftables transaction: its end tells whose it is
    return port != own


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, port, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3
