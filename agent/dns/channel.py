"""The stream between agent and argosy-dns: messages of JSON, some with descriptors. For both ends.

    dns   -> agent   {"hello": version}                      the first message
                     {"socket": NET} + [udp, tcp]            each pair it holds, after the hello
                     {"ready": true}                         no more of them
                     {"done": number}                        a numbered message took effect
    agent -> dns     {"socket": NET} + [udp, tcp]            answer on these
                     {"drop": NET}                           answer there no more
                     {"replace": {key: record}}              these are all records
                     {"put": {key: record}, "delete": [key]} these have changed
                     {"number": number}                      say when all before this is in force
                     {"stop": true}                          end

A message is a length of four bytes and its text. Descriptors travel with the first byte of their message (unix(7)).
"""

import json
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from argosy.agent.launcher import rights

VERSION: Final = 3
"""An agent that finds another version running replaces it; the sockets are kept."""

_LENGTH: Final = struct.Struct("!IB")  # bytes of text, number of descriptors
_CHUNK: Final = 1 << 16
_MAX_DESCRIPTORS: Final = 2
_MAX_BYTES: Final = 1 << 28


class Decoder:
    """Puts messages together from what is received, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def receive(self, sock: socket.socket) -> bool:
        """Take what is there to receive; False at the end of the stream. Raises OSError, BlockingIOError among them."""
        data, fds = rights.receive(sock, _CHUNK, _MAX_DESCRIPTORS)
        self._descriptors.extend(fds)
        self._buffer += data
        return bool(data)

    def messages(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Yield each complete message and the descriptors that came with it; they are the caller's now."""
        while len(self._buffer) >= _LENGTH.size:
            length, count = _LENGTH.unpack_from(self._buffer)
            if length > _MAX_BYTES or count > _MAX_DESCRIPTORS:
                raise OSError("the other end speaks something else")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            text = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            descriptors = [self._descriptors.popleft() for _ in range(min(count, len(self._descriptors)))]
            yield json.loads(text), descriptors

    def close(self) -> None:
        """Close descriptors that nobody took."""
        while self._descriptors:
            os.close(self._descriptors.popleft())


def send(sock: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message, and wait until it is sent; the socket blocks or has a timeout."""
    text = json.dumps(message, separators=(",", ":")).encode()
    head = _LENGTH.pack(len(text), len(descriptors))
    if descriptors:
        # Only with the descriptors: a part of a message could be sent without them otherwise.
        sent = socket.send_fds(sock, [head], list(descriptors))
        head = head[sent:]
    sock.sendall(head + text)
