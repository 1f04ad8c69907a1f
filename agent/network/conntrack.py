"""Connections that the kernel tracks in a namespace: whom they go to, which are open, and forgetting some.

Layout: linux/netfilter/nfnetlink_conntrack.h. A dump walks the table of all namespaces (9 ms for the 262,144 buckets of
a host with 4 GiB or more) and yields one namespace's entries; for a single address the kernel filters (since Linux
5.8), so that only its connections are copied.
"""

import socket
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from argosy.agent.network.netlink import GONE, Message, Netlink, attribute, attribute_u32, attributes

TCP: Final = socket.IPPROTO_TCP
UDP: Final = socket.IPPROTO_UDP

_GET: Final = (1 << 8) | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_DELETE: Final = (1 << 8) | 2
_GET_STATISTICS: Final = (1 << 8) | 5
_ENTRIES: Final = 1
_HEADER: Final = struct.pack("=BBH", socket.AF_INET, 0, 0)
_NESTED: Final = 0x8000
_TUPLE_ORIGINAL: Final = 1
_TUPLE_REPLY: Final = 2
_PROTOCOL_INFO: Final = 4
_FILTER: Final = 25
_FILTER_ORIGINAL: Final = 1
_FILTER_REPLY: Final = 2
_FILTER_SOURCE: Final = 1
_IP: Final = 1
_PROTOCOL: Final = 2
_SOURCE: Final = 1
_DESTINATION: Final = 2
_NUMBER: Final = 1
_SOURCE_PORT: Final = 2
_DESTINATION_PORT: Final = 3

_TIMEOUT: Final = 7
_SYN_SENT: Final = 1
_OPEN_STATES: Final = frozenset({2, 3, 4, 5})
"""From SYN_RECV to CLOSE_WAIT: while one side may still say something. After that both have said that they end."""
_TIME_WAIT: Final = 7
_SYN_SENT_S: Final = 120
"""How long the kernel remembers a first packet that was never answered (nf_conntrack_tcp_timeout_syn_sent)."""
_DIALLING_S: Final = 2
"""A younger one may still be answered: the client repeats it after a second. An older one was given up."""


@dataclass(frozen=True, slots=True)
class Connection:
    """`dialled` is the address that the client asked for, `served_by` the one that answers; `original` is the tuple.

    `ended`: both sides have said that they end, and so a new one may begin between the same ports at any time.
    """

    protocol: int
    client: int
    dialled: int
    served_by: int
    open: bool
    ended: bool
    original: bytes

    @property
    def translated(self) -> bool:
        """Whether it goes through a virtual address."""
        return self.dialled != self.served_by


def tracks_any(netlink: Netlink) -> bool:
    """Tell whether there is any connection, which costs nothing; a dump walks the whole table. Raises OSError."""
    found = netlink.request(Message(_GET_STATISTICS, 0, _HEADER, about="the number of connections"))
    entries = attributes(found[1][len(_HEADER) :]).get(_ENTRIES) if found else None
    return entries is None or any(entries)


def served_by(netlink: Netlink, addresses: Collection[int]) -> list[Connection]:
    """Return the connections that are answered by one of the addresses. Raises OSError."""
    if not addresses or not tracks_any(netlink):
        return []
    body = _HEADER
    if len(addresses) == 1:
        (address,) = addresses
        source = attribute(_IP | _NESTED, attribute(_SOURCE, address.to_bytes(4, "big")))
        flags = attribute_u32(_FILTER_ORIGINAL, 0) + attribute_u32(_FILTER_REPLY, _FILTER_SOURCE)
        body += attribute(_TUPLE_REPLY | _NESTED, source) + attribute(_FILTER | _NESTED, flags)
    found = map(_connection, netlink.dump(Message(_GET, 0, body, about="connections")))
    return [c for c in found if c.served_by in addresses]


def all_translated(netlink: Netlink) -> list[Connection]:
    """Return all connections through virtual addresses. Raises OSError."""
    found = map(_connection, netlink.dump(Message(_GET, 0, _HEADER, about="connections")))
    return [c for c in found if c.translated]


def untranslated_datagrams(netlink: Netlink, ports: Collection[int]) -> list[Connection]:
    """Return what goes by UDP to one of the ports, whoever's, and is not translated in any way. Raises OSError.

    To forget these changes nothing but that the next packet of each finds what translates it by now.
    """
    if not ports or not tracks_any(netlink):
        return []
    bodies = netlink.dump(Message(_GET, 0, _HEADER, about="connections"))
    return [_connection(body) for body in bodies if _goes_straight_to(attributes(body[len(_HEADER) :]), ports)]


def _goes_straight_to(found: Mapping[int, bytes], ports: Collection[int]) -> bool:
    asked, answers = (attributes(found[side]) for side in (_TUPLE_ORIGINAL, _TUPLE_REPLY))
    there, back = (attributes(side[_PROTOCOL]) for side in (asked, answers))
    if there[_NUMBER][0] != UDP or int.from_bytes(there[_DESTINATION_PORT], "big") not in ports:
        return False
    way, way_back = attributes(asked[_IP]), attributes(answers[_IP])
    mirrored = way[_SOURCE] == way_back[_DESTINATION] and way[_DESTINATION] == way_back[_SOURCE]
    return mirrored and there[_SOURCE_PORT] == back[_DESTINATION_PORT]


def forget(netlink: Netlink, connections: Iterable[Connection]) -> int:
    """Have the next packet of each connection find its way anew, and return how many there were. Raises OSError.

    Not of those that have ended: the kernel itself has a new one between the same ports find its way, and what is named
    by its ports might be that one by now.
    """
    messages = [
        Message(_DELETE, 0, _HEADER + attribute(_TUPLE_ORIGINAL | _NESTED, c.original), GONE, "a connection")
        for c in connections
        if not c.ended
    ]
    netlink.execute(messages)
    return len(messages)


def _connection(body: bytes) -> Connection:
    found = attributes(body[len(_HEADER) :])
    original = attributes(found[_TUPLE_ORIGINAL])
    asked = attributes(original[_IP])
    answers = attributes(attributes(found[_TUPLE_REPLY])[_IP])
    protocol = attributes(original[_PROTOCOL])[_NUMBER][0]
    is_open, state = False, 0
    if protocol == TCP and _PROTOCOL_INFO in found:
        tcp = attributes(attributes(found[_PROTOCOL_INFO]).get(1, b""))
        state = tcp.get(1, b"\0")[0]
        left_s = int.from_bytes(found.get(_TIMEOUT, b"\0"), "big")
        is_open = state in _OPEN_STATES or (state == _SYN_SENT and left_s > _SYN_SENT_S - _DIALLING_S)
    return Connection(
        protocol,
        int.from_bytes(asked[_SOURCE], "big"),
        int.from_bytes(asked[_DESTINATION], "big"),
        int.from_bytes(answers[_SOURCE], "big"),
        is_open,
        state == _TIME_WAIT,
        found[_TUPLE_ORIGINAL],
    )
