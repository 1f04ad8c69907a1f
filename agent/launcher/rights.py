"""Receiving descriptors over a unix socket (unix(7), SCM_RIGHTS), such that no program that is executed inherits them.

Not `socket.recv_fds`, which takes flags and ignores them (CPython 3.11).
"""

from __future__ import annotations

import array
import socket


def receive(sock: socket.socket, size: int, count: int, flags: int = 0) -> tuple[bytes, list[int]]:
    """Return at most `size` bytes, and the descriptors that came with them; those beyond `count` are lost."""
    fds = array.array("i")
    space = socket.CMSG_LEN(count * fds.itemsize)
    data, ancillary, _, _ = sock.recvmsg(size, space, flags | socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)
