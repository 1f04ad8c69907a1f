"""Connections that the kernel tracks in a namespace: whom they go to, which are open, and forgetting some.

A dump walks the table of all namespaces (9 ms for the 262,144 buckets of a host with 4 GiB or more) and yields one
namespace's entries; for a single address the kernel filters (since Linux 5.8), so that only its connections are copied.
To forget by address takes a walk, too, but one that passes over empty buckets without locking them (0.3 ms).
"""

import errno
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from argosy.agent.network import ctnetlink as ct
from argosy.agent.network.netlink import GONE, Message, Netlink, NetlinkError, attribute, attribute_u32, attributes

TCP: Final = socket.IPPROTO_TCP
UDP: Final = socket.IPPROTO_UDP

FEW: Final = 30
"""Addresses whose connections are forgotten by a walk each; of more, all are listed, which costs as much."""

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
    found = netlink.request(Message(ct.GET_STATISTICS, 0, ct.HEADER, about="the number of connections"))
    entries = attributes(found[1][len(ct.HEADER) :]).get(ct.ENTRIES) if found else None
    return entries is None or any(entries)


def served_by(netlink: Netlink, addresses: Collection[int]) -> list[Connection]:
    """Return the connections that are answered by one of the addresses. Raises OSError."""
    if not addresses or not tracks_any(netlink):
        return []
    body = ct.HEADER
    if len(addresses) == 1:
        body += _answered_by(*addresses)
    found = map(_connection, netlink.dump(Message(ct.GET, 0, body, about="connections")))
    return [c for c in found if c.served_by in addresses]


def all_translated(netlink: Netlink) -> list[Connection]:
    """Return all connections through virtual addresses. Raises OSError."""
    found = map(_connection, netlink.dump(Message(ct.GET, 0, ct.HEADER, about="connections")))
    return [c for c in found if c.translated]


def unanswered(netlink: Netlink) -> list[Connection]:
    """Return what nobody has answered yet and goes by its client's own address. Raises OSError.

    To forget these changes nothing but that the next packet of each finds what translates it by now.
    """
    if not tracks_any(netlink):
        return []
    bits = ct.ANSWERED | ct.SOURCE_TRANSLATED
    # A kernel that does not know this filter tells of all.
    bodies = netlink.dump(Message(ct.GET, 0, ct.HEADER + _with_status(0, of=bits), about="connections"))
    return [_connection(body) for body in bodies if not _status(body) & bits]


def _status(body: bytes) -> int:
    return int.from_bytes(attributes(body[len(ct.HEADER) :])[ct.STATUS], "big")


def untranslated_datagrams(netlink: Netlink, ports: Collection[int]) -> list[Connection]:
    """Return what goes by UDP to one of the ports, whoever's, and is not translated in any way. Raises OSError.

    To forget these changes nothing but that the next packet of each finds what translates it by now.
    """
    if not ports or not tracks_any(netlink):
        return []
    bodies = netlink.dump(Message(ct.GET, 0, ct.HEADER, about="connections"))
    return [_connection(body) for body in bodies if _goes_straight_to(attributes(body[len(ct.HEADER) :]), ports)]


def _goes_straight_to(found: Mapping[int, bytes], ports: Collection[int]) -> bool:
    asked, answers = (attributes(found[side]) for side in (ct.ORIGINAL, ct.REPLY))
    there, back = (attributes(side[ct.PROTOCOL]) for side in (asked, answers))
    if there[ct.NUMBER][0] != UDP or int.from_bytes(there[ct.DESTINATION_PORT], "big") not in ports:
        return False
    way, way_back = attributes(asked[ct.IP]), attributes(answers[ct.IP])
    mirrored = way[ct.SOURCE] == way_back[ct.DESTINATION] and way[ct.DESTINATION] == way_back[ct.SOURCE]
    return mirrored and there[ct.SOURCE_PORT] == back[ct.DESTINATION_PORT]


def forget_translated(netlink: Netlink, gone: Collection[int], withdrawn: Collection[int]) -> None:
    """Forget what goes through virtual addresses to what is gone, and the datagrams to what is withdrawn.

    The next packet of each finds its way anew. Raises OSError.
    """
    quiet = set(withdrawn).difference(gone)
    if len(gone) + len(quiet) <= FEW:
        try:
            netlink.execute([*map(_forget_served_by, gone), *(_forget_served_by(a, UDP) for a in quiet)])
            return
        except NetlinkError as error:
            if error.errno != errno.EINVAL:  # Linux before 6.11, which forgets only what is named whole
                raise
    found = [c for c in served_by(netlink, {*gone, *quiet}) if c.translated]
    forget(netlink, [c for c in found if c.protocol == UDP or c.served_by in gone])


def _forget_served_by(address: int, protocol: int = 0) -> Message:
    status = _with_status(ct.DESTINATION_TRANSLATED, of=ct.DESTINATION_TRANSLATED)
    return Message(ct.DELETE, 0, ct.HEADER + _answered_by(address, protocol) + status, about="connections")


def _with_status(status: int, *, of: int) -> bytes:
    """Return what has the kernel pick out the connections that have this status, of these bits."""
    return attribute(ct.STATUS, status.to_bytes(4, "big")) + attribute(ct.STATUS_MASK, of.to_bytes(4, "big"))


def _answered_by(address: int, protocol: int = 0) -> bytes:
    """Return what has the kernel pick out the connections that an address answers; `protocol` 0: whichever."""
    reply, flags = attribute(ct.IP | ct.NESTED, attribute(ct.SOURCE, address.to_bytes(4, "big"))), ct.FILTER_SOURCE
    if protocol:
        reply += attribute(ct.PROTOCOL | ct.NESTED, attribute(ct.NUMBER, bytes((protocol,))))
        flags |= ct.FILTER_PROTOCOL
    compared = attribute_u32(ct.FILTER_ORIGINAL, 0) + attribute_u32(ct.FILTER_REPLY, flags)
    return attribute(ct.REPLY | ct.NESTED, reply) + attribute(ct.FILTER | ct.NESTED, compared)


def forget(netlink: Netlink, connections: Iterable[Connection]) -> int:
    """Have the next packet of each connection find its way anew, and return how many there were. Raises OSError.

    Not of those that have ended: the kernel itself has a new one between the same ports find its way, and what is named
    by its ports might be that one by now.
    """
    messages = [
        Message(ct.DELETE, 0, ct.HEADER + attribute(ct.ORIGINAL | ct.NESTED, c.original), GONE, "a connection")
        for c in connections
        if not c.ended
    ]
    netlink.execute(messages)
    return len(messages)


def _connection(body: bytes) -> Connection:
    found = attributes(body[len(ct.HEADER) :])
    original = attributes(found[ct.ORIGINAL])
    asked = attributes(original[ct.IP])
    answers = attributes(attributes(found[ct.REPLY])[ct.IP])
    protocol = attributes(original[ct.PROTOCOL])[ct.NUMBER][0]
    is_open, state = False, 0
    if protocol == TCP and ct.PROTOCOL_INFO in found:
        tcp = attributes(attributes(found[ct.PROTOCOL_INFO]).get(1, b""))
        state = tcp.get(1, b"\0")[0]
        left_s = int.from_bytes(found.get(ct.TIMEOUT, b"\0"), "big")
        is_open = state in _OPEN_STATES or (state == _SYN_SENT and left_s > _SYN_SENT_S - _DIALLING_S)
    return Connection(
        protocol,
        int.from_bytes(asked[ct.SOURCE], "big"),
        int.from_bytes(asked[ct.DESTINATION], "big"),
        int.from_bytes(answers[ct.SOURCE], "big"),
        is_open,
        state == _TIME_WAIT,
        found[ct.ORIGINAL],
    )
