"""The sockets that names are answered on: opened inside a network's namespace, at the router's address."""

import fcntl
import os
import socket
from contextlib import ExitStack
from typing import Final

from argosy.agent.network.desired import ROUTER_ADDRESS
from argosy.agent.network.namespace import Home

_PORT: Final = 53
_BACKLOG: Final = 128
RECEIVE_BYTES: Final = 8 << 20
"""Room for the queries that wait while argosy-dns restarts: of 7,200, as the kernel doubles it and counts up to 2,304
bytes each. One address that floods has 1,000 and 2,000 a second of these, and leaves some to others for 3 s."""

_SO_RCVBUFFORCE: Final = 33
_UDP_GRO: Final = 104
"""What a program hands over in one piece (UDP_SEGMENT) waits in one piece, as the firewall counts it (udp(7))."""
_SIOCGSKNS: Final = 0x894C


def open_sockets(home: Home, namespace_fd: int) -> tuple[int, int]:
    """Return descriptors of a UDP and a listening TCP socket in a namespace. Raises OSError."""
    with ExitStack() as undo, home.away(namespace_fd):
        udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        tcp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
        udp.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (udp, tcp):
            one.bind((ROUTER_ADDRESS, _PORT))
        tcp.listen(_BACKLOG)
        return udp.detach(), tcp.detach()


def are_in(namespace_fd: int, sockets: tuple[int, int]) -> bool:
    """Tell whether sockets are in a namespace: after it was made anew those of the old one are of no use."""
    inode = os.fstat(namespace_fd).st_ino
    for descriptor in sockets:
        fd = fcntl.ioctl(descriptor, _SIOCGSKNS)
        try:
            if os.fstat(fd).st_ino != inode:
                return False
        finally:
            os.close(fd)
    return True
