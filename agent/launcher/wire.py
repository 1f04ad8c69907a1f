"""The launcher's socket protocol: a stream of JSON objects, each behind a 4-byte big-endian length.

Client to launcher   {"seq": N, "op": NAME, …}            answered once, in any order, by
Launcher to client   {"seq": N, "ok": {…}} | {"seq": N, "error": {kind, reason, step, code}}
                     {"seq": N, "progress": {…}}           of a create: its namespaces exist, its set-up goes on
                     {"event": "exit", …}                  to a client that sent `hello` with `subscribe`, until it acks

Descriptors (unix(7), SCM_RIGHTS) come in order, none later than the message that tells their number:
    keep NAME, COUNT     + descriptors                      keep these under the name, instead of what it had
    drop NAME                                               let go of them
    kept                 → {names}                          what is kept
    give NAME            → {count} + descriptors            copies of what is kept; none of an unknown name
An agent takes back what a launcher of another version kept, before it replaces it: these four stay as they are.

A stream and not SOCK_SEQPACKET, since an environment may be larger than a socket buffer and a packet may not.
"""

from __future__ import annotations

import json
from typing import Any, Final

Message = dict[str, Any]

#: Version of the protocol; a launcher that is older or newer than its agent says so in its `hello` answer.
PROTOCOL: Final = 2
HEADER_BYTES: Final = 4
#: A larger message is a broken peer: the largest sane request is an OCI config with a full environment.
MAX_MESSAGE_BYTES: Final = 16 * 2**20
#: Descriptors that cross the socket at once.
MAX_DESCRIPTORS: Final = 16


class ProtocolError(Exception):
    """The peer sent what this protocol does not allow; the connection ends."""


def pack(message: Message) -> bytes:
    """Return one message as it crosses the socket."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """Return the length that a header announces; raise ProtocolError for an impossible one."""
    length = int.from_bytes(header, "big")
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {length} bytes was announced, at most {MAX_MESSAGE_BYTES} are allowed")
    return length


def parse(body: bytes) -> Message:
    """Return the message in one body; raise ProtocolError if it is not a JSON object."""
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    return message


class Unpacker:
    """Cuts a byte stream into messages; keeps what is incomplete."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Add received bytes and return the messages that are complete now."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= HEADER_BYTES:
            end = HEADER_BYTES + body_length(bytes(self._buffer[:HEADER_BYTES]))
            if len(self._buffer) < end:
                break
            messages.append(parse(bytes(self._buffer[HEADER_BYTES:end])))
            del self._buffer[:end]
        return messages
