"""DNS messages, read and packed by hand: what a stub resolver asks and what we answer. Pure.

RFC 1035 (format), 2308 (negative answers), 6891 (EDNS: only its UDP size matters here, and that its version is 0).
Names are compared in lower case; the question is echoed as it came.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TYPE_A: Final = 1
TYPE_PTR: Final = 12
TYPE_AAAA: Final = 28
TYPE_ANY: Final = 255
_TYPE_SOA: Final = 6
_TYPE_OPT: Final = 41
_CLASS_IN: Final = 1

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5

TTL_S: Final = 2
"""Of all answers, negative ones too: endpoints come and go."""

UDP_BYTES: Final = 512
"""What fits a UDP answer to a client that does not say otherwise (RFC 1035, 4.2.1)."""

_MAX_UDP_BYTES: Final = 4096
_HEADER: Final = struct.Struct("!HHHHHH")
_QR: Final = 0x8000
_OPCODE: Final = 0x7800
_AA: Final = 0x0400
_TC: Final = 0x0200
_RD: Final = 0x0100
_RA: Final = 0x0080
_RECORD_A: Final = struct.Struct("!HHHIHI")
_OWNER: Final = 0xC00C  # a pointer to the question's name
_SOA_DATA: Final = b"\0\0" + struct.pack("!IIIII", 1, 3600, 600, 86400, TTL_S)
_SOA: Final = struct.pack("!HHHIH", _OWNER, _TYPE_SOA, _CLASS_IN, TTL_S, len(_SOA_DATA)) + _SOA_DATA
_OPT: Final = struct.pack("!BHHIH", 0, _TYPE_OPT, 1232, 0, 0)
_BADVERS: Final = struct.pack("!BHHIH", 0, _TYPE_OPT, 1232, 1 << 24, 0)  # 16, of which these are the upper bits


class FormatError(ValueError):
    """Not a DNS query that we understand. `reply` is the answer to send, or None where none is due."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__("not a DNS query")
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `name` is in lower case, without the final dot; `udp_bytes` what a UDP answer may have."""

    id: int
    flags: int
    name: str
    type: int
    in_class: bool
    question: bytes
    edns: bool
    udp_bytes: int


def parse(data: bytes) -> Query:
    """Read a query. Raises FormatError."""
    if len(data) < 12:
        raise FormatError(None)
    number, flags, questions, _, _, additional = _HEADER.unpack_from(data)
    if flags & _QR:
        raise FormatError(None)
    if flags & _OPCODE:
        raise FormatError(_HEADER.pack(number, _flags(flags, NOTIMP), 0, 0, 0, 0))
    try:
        if questions != 1:
            raise ValueError("one question")
        name, end = _read_name(data, 12)
        kind, klass = struct.unpack_from("!HH", data, end)
        size, version = _edns(data, end + 4, additional)
    except (ValueError, IndexError, struct.error) as error:
        raise FormatError(_HEADER.pack(number, _flags(flags, FORMERR), 0, 0, 0, 0)) from error
    question = data[12 : end + 4]
    if version:
        raise FormatError(_HEADER.pack(number, _flags(flags, 0), 1, 0, 0, 1) + question + _BADVERS)
    return Query(
        id=number,
        flags=flags,
        name=name,
        type=kind,
        in_class=klass in (_CLASS_IN, 255),
        question=question,
        edns=size is not None,
        udp_bytes=min(max(size or UDP_BYTES, UDP_BYTES), _MAX_UDP_BYTES),
    )


def addresses(query: Query, found: Sequence[int], limit: int) -> bytes:
    """Return an answer of as many addresses as fit `limit` bytes; marked as cut if that is not all.

    A client that does not ask again over TCP has some then, and any will do.
    """
    room = limit - 12 - len(query.question) - (len(_OPT) if query.edns else 0)
    fitting = found[: max(room // _RECORD_A.size, 0)]
    flags = _flags(query.flags, NOERROR) | _AA | (_TC if len(fitting) < len(found) else 0)
    body = b"".join([_RECORD_A.pack(_OWNER, TYPE_A, _CLASS_IN, TTL_S, 4, address) for address in fitting])
    return _message(query, flags, body, len(fitting), b"", 0)


def pointer(query: Query, name: str) -> bytes:
    """Return an answer that an address belongs to a name."""
    target = b"".join(bytes((len(part),)) + part for part in (p.encode()[:63] for p in name.split("."))) + b"\0"
    body = struct.pack("!HHHIH", _OWNER, TYPE_PTR, _CLASS_IN, TTL_S, len(target)) + target
    return _message(query, _flags(query.flags, NOERROR) | _AA, body, 1, b"", 0)


def negative(query: Query, code: int) -> bytes:
    """Return an authoritative answer without addresses: NOERROR (there is such a name) or NXDOMAIN."""
    return _message(query, _flags(query.flags, code) | _AA, b"", 0, _SOA, 1)


def failure(query: Query, code: int) -> bytes:
    """Return an answer that says that no answer can be given."""
    return _message(query, _flags(query.flags, code), b"", 0, b"", 0)


def with_id(message: bytes, number: int) -> bytes:
    """Return a message under another id."""
    return struct.pack("!H", number) + message[2:]


def answers(query: Query, number: int, message: bytes) -> bool:
    """Tell whether a message is the answer to a query that was forwarded under an id: same id, same question."""
    if len(message) < 12 + len(query.question):
        return False
    there, flags, questions = struct.unpack_from("!HHH", message)
    echoed = message[12 : 12 + len(query.question)]
    return bool(there == number and flags & _QR and questions == 1 and echoed.lower() == query.question.lower())


def is_cut(message: bytes) -> bool:
    """Tell whether an answer is marked as cut."""
    return bool(struct.unpack_from("!H", message, 2)[0] & _TC)


def cut(query: Query) -> bytes:
    """Return an empty answer that makes the client ask again over TCP."""
    return _message(query, _flags(query.flags, NOERROR) | _TC, b"", 0, b"", 0)


def reverse_address(name: str) -> int | None:
    """Return the address that a name under in-addr.arpa is about."""
    if not name.endswith(".in-addr.arpa"):
        return None
    parts = name.split(".")[:-2]
    if len(parts) != 4 or not all(p.isascii() and p.isdigit() and len(p) <= 3 and int(p) < 256 for p in parts):
        return None
    value = 0
    for part in reversed(parts):
        value = value << 8 | int(part)
    return value


def _message(query: Query, flags: int, answer: bytes, count: int, authority: bytes, authorities: int) -> bytes:
    header = _HEADER.pack(query.id, flags, 1, count, authorities, int(query.edns))
    return header + query.question + answer + authority + (_OPT if query.edns else b"")


def _flags(asked: int, code: int) -> int:
    return _QR | (asked & _RD) | _RA | code


def _read_name(data: bytes, offset: int) -> tuple[str, int]:
    """Read a name without pointers: a question has none."""
    labels: list[str] = []
    start = offset
    while True:
        length = data[offset]
        if length == 0:
            break
        if length > 63 or offset - start > 254:
            raise ValueError("bad label")
        label = data[offset + 1 : offset + 1 + length]
        if len(label) < length:
            raise ValueError("cut short")
        labels.append(label.decode("latin-1").lower())
        offset += 1 + length
    return ".".join(labels), offset + 1


def _edns(data: bytes, offset: int, records: int) -> tuple[int | None, int]:
    """Return UDP size and version of an OPT record right after the question, where stub resolvers put it."""
    if records and len(data) >= offset + 11 and data[offset] == 0:
        kind, size, _, version = struct.unpack_from("!HHBB", data, offset + 1)
        if kind == _TYPE_OPT:
            return size, version
    return None, 0
