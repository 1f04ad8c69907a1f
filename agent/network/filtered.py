"""Has the kernel drop what a socket is not to be woken for."""

import ctypes
import socket
import struct
from typing import Final

from argosy.agent.logic.socket_filter import Program

_SO_ATTACH_FILTER: Final = 26


def attach(to: socket.socket, program: Program) -> None:
    """Have a socket receive only what a program takes, from now on (socket(7)). Raises OSError."""
    instructions = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(buffer)))
