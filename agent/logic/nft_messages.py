"""nftables transactions as netlink messages, packed by hand. Pure.

`nft` and its library list every set and chain that there is before they change one, which costs 4 ms at a thousand
services. These messages say only what changes, so that a change costs what it says. Numbers and layouts are those of
linux/netfilter/nf_tables.h; what the kernel makes of them is what `nft` would have made (`tests/kernel/network/
test_nft_messages.py` compares the two). Numbers within attributes are in network byte order, contents of registers as
the packet or the kernel has them.
"""

import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from itertools import islice
from typing import Final

_NEW_TABLE: Final = 0
_DELETE_TABLE: Final = 2
_NEW_CHAIN: Final = 3
_DELETE_CHAIN: Final = 5
_NEW_RULE: Final = 6
_DELETE_RULE: Final = 8
_NEW_SET: Final = 9
_DELETE_SET: Final = 11
_NEW_ELEMENTS: Final = 12
_DELETE_ELEMENTS: Final = 14

_CREATE: Final = 0x400  # NLM_F_CREATE
_APPEND: Final = 0x800  # NLM_F_APPEND

_ANONYMOUS: Final = 1
_CONSTANT: Final = 2
_INTERVAL: Final = 4
_MAP: Final = 8
_TIMEOUT: Final = 16
_DYNAMIC: Final = 32
_ELEMENT_ENDS_INTERVAL: Final = 1

_HEAD: Final = struct.Struct("=HH")  # of an attribute: its length with this, and its kind
_PADDING: Final = b"", b"\0\0\0", b"\0\0", b"\0"  # by how many bytes there are beyond a multiple of four
_HEADER: Final = struct.pack("!BBH", 2, 0, 0)  # nfgenmsg: AF_INET, version, no resource
_ELEMENTS_AT_ONCE: Final = 512
"""Of one message: the attribute that holds them is never longer than 64 KiB."""

_GOTO: Final = -4
_ANONYMOUS_MAP: Final = "__map%d"  # the kernel puts a number in
_KEY: Final = 1
"""The register that lookups are made with, and that they put what they find into."""


@dataclass(frozen=True, slots=True)
class NftMessage:
    """One message: its type within nftables, its flags, what follows the netlink header, and what it does in words."""

    kind: int
    flags: int
    body: bytes
    about: str

    def __str__(self) -> str:
        return self.about


class Type(IntEnum):
    """nft's own numbers of data types, by which it prints a set (datatype.h); the kernel keeps them and no more."""

    INTEGER = 4
    IPV4 = 7
    MARK = 19
    IPV4_PAIR = 7 << 6 | 7
    VERDICT = 0xFFFFFF00


_BYTES: Final = {Type.INTEGER: 4, Type.IPV4: 4, Type.MARK: 4, Type.IPV4_PAIR: 8, Type.VERDICT: 0}
_BYTE_ORDERS: Final = {Type.INTEGER: 2, Type.IPV4: 2, Type.MARK: 1, Type.IPV4_PAIR: 0, Type.VERDICT: 0}
"""nft's numbers for network order, the machine's own, and none: for printing, too."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Where the kernel calls a chain: its type, the number of the hook, and its place among those there."""

    type: str
    number: int
    priority: int


@dataclass(slots=True)
class Transaction:
    """Messages about one table of family ip, in the order in which the kernel is to take them: all or none."""

    table: str
    messages: list[NftMessage] = field(default_factory=list)
    _anonymous: int = 0

    def renew_table(self) -> None:
        """Have the table be there and empty."""
        name = attribute(1, _text(self.table))
        self._add(_NEW_TABLE, _CREATE, name, "add table")
        self._add(_DELETE_TABLE, 0, name, "delete table")
        self._add(_NEW_TABLE, _CREATE, name, "add table")

    def add_chain(self, chain: str, hook: Hook | None = None) -> None:
        """Add a chain; with a hook, one that lets through what its rules do not decide."""
        body = self._table + attribute(3, _text(chain))
        if hook:
            where = _u32(1, hook.number) + _u32(2, hook.priority & 0xFFFFFFFF)
            body += attribute(7, _text(hook.type)) + _u32(5, 1) + nested(4, where)
        self._add(_NEW_CHAIN, _CREATE, body, f"add chain {chain}")

    def flush_chain(self, chain: str) -> None:
        """Delete all rules of a chain."""
        self._add(_DELETE_RULE, 0, self._table + attribute(2, _text(chain)), f"flush chain {chain}")

    def delete_chain(self, chain: str) -> None:
        """Delete a chain that nothing goes to any more."""
        self.flush_chain(chain)
        self._add(_DELETE_CHAIN, 0, self._table + attribute(3, _text(chain)), f"delete chain {chain}")

    def add_rule(self, chain: str, expressions: Iterable[bytes], comment: str) -> None:
        """Add a rule at the end of a chain."""
        body = self._table + attribute(2, _text(chain)) + nested(4, b"".join(expressions))
        said = _text(comment)
        body += attribute(7, struct.pack("=BB", 0, len(said)) + said)
        self._add(_NEW_RULE, _CREATE | _APPEND, body, f"add rule to {chain}")

    def add_set(self, name: str, key: Type, value: Type | None = None) -> None:
        """Add a set, or with a type of values a map."""
        self._add_set(name, 0, key, value)

    def add_memory(self, name: str, key: Type, value: Type, *, timeout_s: int, size: int) -> None:
        """Add a map that rules write to, and whose elements are forgotten after a time."""
        limits = nested(9, _u32(1, size)) + attribute(11, struct.pack("!Q", timeout_s * 1000))
        self._add_set(name, _TIMEOUT | _DYNAMIC, key, value, limits)

    def delete_set(self, name: str) -> None:
        """Delete a set or map that no rule uses any more."""
        self._add(_DELETE_SET, 0, self._table + attribute(2, _text(name)), f"delete set {name}")

    def add_elements(self, name: str, elements: Iterable[bytes]) -> None:
        """Add elements to a set."""
        self._change_elements(_NEW_ELEMENTS, name, elements)

    def delete_elements(self, name: str, elements: Iterable[bytes]) -> None:
        """Delete elements from a set; for a map, the keys are enough."""
        self._change_elements(_DELETE_ELEMENTS, name, elements)

    def exact_map(self, key: Type, value: Type, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Add a map of the rule that comes next, and return the expression that looks the register up in it."""
        return self._anonymous_map(0, key, value, len(pairs), [element(k, v) for k, v in pairs])

    def range_map(self, value: Type, pairs: Sequence[tuple[int, bytes]], end: int) -> bytes:
        """Do the same with a map of ranges of numbers: each begins with its key and ends where the next begins."""
        elements = [element(struct.pack("!I", start), v) for start, v in pairs]
        elements.append(element(struct.pack("!I", end), flags=_ELEMENT_ENDS_INTERVAL))
        return self._anonymous_map(_INTERVAL, Type.INTEGER, value, len(elements), elements)

    @property
    def _table(self) -> bytes:
        return attribute(1, _text(self.table))

    def _anonymous_map(self, flags: int, key: Type, value: Type, size: int, elements: Iterable[bytes]) -> bytes:
        self._anonymous += 1
        flags |= _ANONYMOUS | _CONSTANT
        self._add_set(_ANONYMOUS_MAP, flags, key, value, nested(9, _u32(1, size)), self._anonymous)
        self._change_elements(_NEW_ELEMENTS, _ANONYMOUS_MAP, elements, self._anonymous)
        return lookup(_ANONYMOUS_MAP, into=_KEY, number=self._anonymous)

    def _add_set(
        self, name: str, flags: int, key: Type, value: Type | None, more: bytes = b"", number: int = 0
    ) -> None:
        orders = [_BYTE_ORDERS[key]] + ([] if value is None else [_BYTE_ORDERS[value]])
        if value is not None:
            flags |= _MAP
        body = self._table + attribute(2, _text(name)) + _u32(3, flags) + _u32(4, key) + _u32(5, _BYTES[key])
        if value is not None:
            body += _u32(6, value) + _u32(7, _BYTES[value])
        body += _u32(10, number) + more
        body += attribute(13, b"".join(struct.pack("=BBI", kind, 4, order) for kind, order in enumerate(orders)))
        self._add(_NEW_SET, _CREATE, body, f"add set {name}")

    def _change_elements(self, kind: int, name: str, elements: Iterable[bytes], number: int = 0) -> None:
        verb, flags = ("add", _CREATE) if kind == _NEW_ELEMENTS else ("delete", 0)
        rest = iter(elements)
        while some := b"".join(islice(rest, _ELEMENTS_AT_ONCE)):
            body = self._table + attribute(2, _text(name)) + (_u32(4, number) if number else b"") + nested(3, some)
            self._add(kind, flags, body, f"{verb} elements of {name}")

    def _add(self, kind: int, flags: int, body: bytes, about: str) -> None:
        self.messages.append(NftMessage(kind, flags, _HEADER + body, about))


# Elements. -----------------------------------------------------------------------------------------------------------


def element(key: bytes, value: bytes = b"", *, flags: int = 0) -> bytes:
    """Return an element of a set, or of a map; `value` is what `data` or `goto` returns."""
    body = nested(1, attribute(1, key))
    if value:
        body += nested(2, value)
    return nested(1, body + _u32(3, flags) if flags else body)


def data(value: bytes) -> bytes:
    """Return a value of a map, or of a register."""
    return attribute(1, value)


def goto(chain: str) -> bytes:
    """Return the verdict to go on in another chain, as a value of a map."""
    return nested(2, _u32(1, _GOTO & 0xFFFFFFFF) + attribute(2, _text(chain)))


# Expressions of rules. Each works on the register _KEY if it is not said otherwise. ----------------------------------


def load_source(register: int = _KEY) -> bytes:
    """Load the packet's source address."""
    return _load_from_header(12, register)


def load_destination(register: int = _KEY) -> bytes:
    """Load the packet's destination address."""
    return _load_from_header(16, register)


def lookup(name: str, *, into: int | None = None, number: int = 0) -> bytes:
    """Go on only if a set has the register; of a map, put the value into another: 0 is the verdict."""
    body = _u32(2, _KEY)
    if into is not None:
        body += _u32(3, into)
    return _expression("lookup", body + attribute(1, _text(name)) + _u32(4, number))


@cache
def next_turn(turns: int) -> bytes:
    """Count from 0 to `turns` - 1 and again, with each packet that comes here, in network byte order."""
    count = _expression("numgen", _u32(1, _KEY) + _u32(2, turns) + _u32(3, 0) + _u32(4, 0))
    swap = _u32(1, _KEY) + _u32(2, _KEY) + _u32(3, 1) + _u32(4, 4) + _u32(5, 4)
    return count + _expression("byteorder", swap)


def load_mark(register: int = _KEY) -> bytes:
    """Load the packet's mark."""
    return _expression("meta", _u32(2, 3) + _u32(1, register))


def set_mark() -> bytes:
    """Set the packet's mark."""
    return _expression("meta", _u32(2, 3) + _u32(3, _KEY))


def is_protocol(number: int) -> bytes:
    """Go on only with packets of a protocol above IP."""
    load = _expression("meta", _u32(2, 16) + _u32(1, _KEY))
    return load + _expression("cmp", _u32(1, _KEY) + _u32(2, 0) + nested(3, data(bytes((number,)))))


def immediate(value: bytes) -> bytes:
    """Put a value into the register."""
    return _expression("immediate", _u32(1, _KEY) + nested(2, data(value)))


@cache
def translate_source() -> bytes:
    """Give the connection the register as its source address."""
    return _expression("nat", _u32(1, 0) + _u32(2, 2) + _u32(3, _KEY))


@cache
def translate_destination() -> bytes:
    """Give the connection the register as its destination address."""
    return _expression("nat", _u32(1, 1) + _u32(2, 2) + _u32(3, _KEY))


def remember(name: str, value_register: int, *, forget: bool = False) -> bytes:
    """Write the register and a value to a map, or take them from it."""
    operation = 2 if forget else 1
    body = attribute(1, _text(name)) + _u32(3, operation) + _u32(4, _KEY) + _u32(5, value_register)
    return _expression("dynset", body)


def reset() -> bytes:
    """Drop the packet, and answer with the reset of a TCP connection."""
    return _expression("reject", _u32(1, 1) + attribute(2, b"\0"))


def unreachable_port() -> bytes:
    """Drop the packet, and answer that nobody listens on the port (ICMP)."""
    return _expression("reject", _u32(1, 0) + attribute(2, b"\3"))


def mark(value: int) -> bytes:
    """Return a mark as registers have it: in the machine's byte order."""
    return value.to_bytes(4, sys.byteorder)


def _load_from_header(offset: int, register: int) -> bytes:
    return _expression("payload", _u32(1, register) + _u32(2, 1) + _u32(3, offset) + _u32(4, 4))


def _expression(name: str, body: bytes) -> bytes:
    return nested(1, attribute(1, _text(name)) + nested(2, body))


# Attributes. ---------------------------------------------------------------------------------------------------------


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to four bytes."""
    return _HEAD.pack(4 + len(payload), kind) + payload + _PADDING[len(payload) % 4]


def nested(kind: int, attributes: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | 0x8000, attributes)


def _u32(kind: int, value: int) -> bytes:
    return _HEAD.pack(8, kind) + value.to_bytes(4, "big")


def _text(value: str) -> bytes:
    return value.encode() + b"\0"
