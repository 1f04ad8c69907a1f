"""Tells when somebody else has changed a network namespace: the kernel's own notifications, without looking.

Two sockets in each namespace listen: rtnetlink(7) for links, addresses, routes, neighbours, forwarding entries and
settings, nfnetlink for nftables. A notification carries the port of the socket, or the thread, that made the change,
so that the kernel drops those of our own work, which wake nobody. Some changes of links carry no port: after those
one look too many is taken.

A listener belongs for ever to the namespace that it was opened in. It is opened by the plane's worker thread, which
alone moves between namespaces, and read by the event loop.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from argosy.agent.logic.socket_filter import HALF, WORD, Program, taking
from argosy.agent.network.filtered import attach
from argosy.agent.network.namespace import Home

_TYPE: Final = 4
"""Where it is in a message's header (netlink(7))."""
_PORT: Final = 12
_RTNLGRP: Final = (1, 3, 5, 7, 8, 24)
"""Links, neighbours (forwarding entries among them), IPv4 addresses, routes, rules and settings (rtnetlink.h)."""
_NFNLGRP_NFTABLES: Final = 7
_NEW_GENERATION: Final = (10 << 8) | 15
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN: the end of a transaction, which says whose it was."""
_PROC_PID: Final = 28
"""Where its second attribute is, NFTA_GEN_PROC_PID: the number of the thread, whatever its name says."""
_PROC_PID_HEADER: Final = (8, 2)
"""Its length and type."""
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_RECEIVE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Listener:
    """The two sockets of one namespace, on which somebody else's changes are told. Whoever opens it closes it."""

    routes: socket.socket
    tables: socket.socket

    def close(self) -> None:
        """Stop to listen."""
        self.routes.close()
        self.tables.close()


def listen(home: Home, fd: int, own_port: int) -> Listener:
    """Open a listener in the namespace of a descriptor; for the plane's worker thread, which makes all changes.

    `own_port` is that of the socket which it changes routes with.
    """
    with home.away(fd):
        routes = _subscribed(socket.NETLINK_ROUTE, _RTNLGRP, _of_other_ports(own_port))
        try:
            tables = _subscribed(12, (_NFNLGRP_NFTABLES,), _of_other_threads(threading.get_native_id()))  # netfilter's
        except OSError:
            routes.close()
            raise
    return Listener(routes, tables)


def _of_other_ports(port: int) -> Program:
    return taking(unwanted=[(WORD, _PORT, _as_loaded("=I", port))])


def _of_other_threads(thread: int) -> Program:
    header = _as_loaded("=HH", *_PROC_PID_HEADER)
    return taking(
        wanted=[(HALF, _TYPE, _as_loaded("=H", _NEW_GENERATION))],
        unwanted=[(WORD, _PROC_PID, header), (WORD, _PROC_PID + 4, thread)],
    )


def _as_loaded(layout: str, *values: int) -> int:
    """Return what a filter gets to see of numbers in the byte order of this machine."""
    return int.from_bytes(struct.pack(layout, *values), "big")


def _subscribed(family: int, groups: Collection[int], program: Program) -> socket.socket:
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, family)
    try:
        attach(found, program)
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
        loop.add_reader(listener.routes, self._read, scope, listener.routes, False)
        loop.add_reader(listener.tables, self._read, scope, listener.tables, True)

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

    def _read(self, scope: str, source: socket.socket, tables: bool) -> None:
        with suppress(OSError):  # there is no more to read; or more has happened than the buffer holds (ENOBUFS)
            while source.recv(_RECEIVE_BYTES):
                pass
        self._changed(scope, tables)
