"""Netlink by hand: messages packed into one buffer, sent in one system call, answered by one acknowledgement.

Why not a library: the kernel works through a buffer of messages in one go, so a batch costs 3 to 8 µs a message where
object-building libraries cost hundreds; and those open sockets in other namespaces by forking, which a process with
gRPC threads must never do. Message layouts: linux/netlink.h, linux/rtnetlink.h, netlink(7), rtnetlink(7).

Only the last message of a buffer asks for an acknowledgement; errors come unasked, each with its message's sequence
number. A socket belongs for ever to the namespace it was opened in, whichever thread uses it later.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_INT: Final = struct.Struct("=i")

NETLINK_NETFILTER: Final = 12
"""Which the socket module does not name (linux/netlink.h)."""

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_ACK_TLVS: Final = 0x200
_NLMSGERR_ATTR_MSG: Final = 1
_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_SO_RCVBUFFORCE: Final = 33
_SO_SNDBUFFORCE: Final = 32

_CHUNK_BYTES: Final = 96 * 1024
"""Of one send; well below the kernel's limit on a send (the socket's send buffer)."""

_BUFFER_BYTES: Final = 1 << 20
_DUMP_BYTES: Final = 1 << 18
_TIMEOUT_S: Final = 10.0

GONE: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO})
"""What the kernel says when that which is to be removed is not there."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request: `body` is the fixed header of its family and the attributes. `tolerate` are errors that are fine.

    When a `decisive` one is refused, the kernel need not answer any after it.
    """

    type: int
    flags: int
    body: bytes
    tolerate: frozenset[int] = frozenset()
    about: str = ""
    decisive: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that the kernel refused: what it was about, the errno and the kernel's own words if it gave any."""

    about: str
    errno: int
    text: str

    def __str__(self) -> str:
        why = os.strerror(self.errno)
        return f"{self.about}: {why} ({self.text})" if self.text else f"{self.about}: {why}"


class NetlinkError(OSError):
    """The kernel refused part of a batch; what it did not refuse is in force. `errno` is the first refusal's."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        super().__init__(refusals[0].errno, f"{refusals[0]}{more}")
        self.refusals = tuple(refusals)

    def __str__(self) -> str:
        return str(self.args[1])


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to four bytes as the format wants it."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def attribute_u32(kind: int, value: int) -> bytes:
    """Return an attribute that holds a number in the machine's byte order."""
    return struct.pack("=HHI", 8, kind, value)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes in `data` by type; the flag bits of nested and byte-ordered ones are dropped."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class Netlink:
    """A socket of a family of netlink(7), in the network namespace of the thread that made it. For one user."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._sequence = 0
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)

    @property
    def port(self) -> int:
        """The address of this socket in its namespace, which the kernel names in what it tells of our changes."""
        address: tuple[int, int] = self._socket.getsockname()
        return address[0]

    def close(self) -> None:
        """Close the socket; the namespace loses one reference."""
        self._socket.close()

    def execute(self, messages: Sequence[Message]) -> None:
        """Have the kernel work through the messages in order, in as few system calls as they fit in.

        A refused message does not stop those after it. Raises NetlinkError with all that were refused, tolerated
        errors aside.
        """
        refusals: list[Refusal] = []
        for chunk in _chunks(messages):
            refusals += self._execute_chunk(chunk)
        if refusals:
            raise NetlinkError(refusals)

    def transact(self, begin: Message, messages: Sequence[Message], end: Message) -> None:
        """Have the kernel carry out all messages, which `begin` and `end` enclose, or none. Raises NetlinkError.

        The kernel takes a transaction from one system call, however long it is.
        """
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(messages) + 1
        parts: list[bytes] = []
        for sequence, message in enumerate((begin, *messages, end), first):
            flags = message.flags | NLM_F_REQUEST | (NLM_F_ACK if sequence == last else 0)
            parts += (_HEADER.pack(16 + len(message.body), message.type, flags, sequence, 0), message.body)
        self._sequence += 1  # the end's, which is never answered
        data = b"".join(parts)
        if len(data) > _BUFFER_BYTES:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(data))
        self._socket.send(data)
        refusals = self._answers((begin, *messages), first, last)
        if refusals:
            raise NetlinkError(refusals)

    def request(self, message: Message) -> tuple[int, bytes] | None:
        """Ask for one object; None if there is no such."""
        self._sequence += 1
        flags = message.flags | NLM_F_REQUEST
        self._socket.send(_HEADER.pack(16 + len(message.body), message.type, flags, self._sequence, 0) + message.body)
        while True:
            for kind, sequence, _, body in _parse(self._socket.recv(_DUMP_BYTES)):
                if sequence != self._sequence:
                    continue
                if kind != _NLMSG_ERROR:
                    return kind, body
                refusal = _refusal(body, 0, message.about)
                if refusal.errno and refusal.errno not in GONE:
                    raise NetlinkError([refusal])
                return None

    def dump(self, message: Message) -> list[bytes]:
        """Return the bodies of all objects that the request lists; taken again if they changed meanwhile."""
        while True:
            bodies = self._dump_once(message)
            if bodies is not None:
                return bodies

    def _dump_once(self, message: Message) -> list[bytes] | None:
        self._sequence += 1
        flags = message.flags | NLM_F_REQUEST | NLM_F_DUMP
        self._socket.send(_HEADER.pack(16 + len(message.body), message.type, flags, self._sequence, 0) + message.body)
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, sequence, reply_flags, body in _parse(self._socket.recv(_DUMP_BYTES)):
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(reply_flags & NLM_F_DUMP_INTR)
                if kind == _NLMSG_DONE:
                    return None if interrupted else bodies
                if kind == _NLMSG_ERROR:
                    refusal = _refusal(body, reply_flags, message.about)
                    if refusal.errno:
                        raise NetlinkError([refusal])
                bodies.append(body)

    def _execute_chunk(self, chunk: Sequence[Message]) -> list[Refusal]:
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(chunk)
        parts: list[bytes] = []
        for sequence, message in enumerate(chunk, first):
            flags = message.flags | NLM_F_REQUEST | (NLM_F_ACK if sequence == last else 0)
            body = message.body
            parts.append(_HEADER.pack(16 + len(body), message.type, flags, sequence, 0))
            parts.append(body)
        self._socket.send(b"".join(parts))
        return self._answers(chunk, first, last)

    def _answers(self, chunk: Sequence[Message], first: int, last: int) -> list[Refusal]:
        refusals: list[Refusal] = []
        while True:
            for kind, sequence, flags, body in _parse(self._socket.recv(_DUMP_BYTES)):
                if kind != _NLMSG_ERROR or not first <= sequence <= last:
                    continue
                message = chunk[sequence - first]
                refusal = _refusal(body, flags, message.about)
                if refusal.errno and refusal.errno not in message.tolerate:
                    refusals.append(refusal)
                if sequence == last or (message.decisive and refusal.errno):
                    return refusals


def _chunks(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Cut a batch into buffers. Bodies are multiples of four bytes, so messages follow each other without padding."""
    start = size = 0
    for position, message in enumerate(messages):
        length = 16 + len(message.body)
        if size + length > _CHUNK_BYTES and position > start:
            yield messages[start:position]
            start, size = position, 0
        size += length
    if start < len(messages):
        yield messages[start:]


def _parse(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (type, sequence, flags, body) of each message in what was received."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, sequence, flags, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _refusal(body: bytes, flags: int, about: str) -> Refusal:
    """Read an error message: an errno (0 is an acknowledgement) and, with extended answers, a text."""
    code = -_INT.unpack_from(body)[0]
    text = ""
    if flags & _NLM_F_ACK_TLVS:
        text = attributes(body[20:]).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    return Refusal(about, code, text)
