"""Probes of the way to a peer: ICMP echo requests as frames on the VTEP, and what their answers say. Pure.

A probe needs nobody's help on the other node: its kernel answers, at the address that every router has (169.254.1.1).
So a node without tasks' addresses, or without an agent, can be probed too. The request goes to the peer's VTEP by its
MAC address, and comes from this node's placeholder (network_plan.py): the peer accepts it only if its routes lead that
address back to us, and the answer takes that way. What an answer proves: forwarding entries, underlay and admission in
both directions, and the peer's neighbour and route to us. A node that carries the network for published ports alone has
no such address: its requests come from one outside of the network and are answered as clients' are, by the mark of the
node that they came in by (network_ingress.py).

Nothing of it reaches a container: the answer is read off the VTEP, and the kernel then drops it, since it comes from an
address of its own.
"""

import statistics
import struct
from dataclasses import dataclass, field
from typing import Final

from argosy.agent.logic.network_plan import ROUTER
from argosy.agent.logic.socket_filter import BYTE, HALF, WORD, Program, taking

ETHERNET: Final = 14
LEAST_PACKET: Final = 64
"""Bytes of the smallest probe, IP header included."""
_IPV4: Final = 0x0800
_ECHO, _ECHO_REPLY = 8, 0
_ICMP: Final = 1
_DO_NOT_FRAGMENT: Final = 0x4000
_TTL: Final = 4
_HEADERS: Final = 28


@dataclass(frozen=True, slots=True)
class Way:
    """The way from this node's VTEP to a peer's on one network; `source`: this node's placeholder on it, or a client's
    address."""

    source_mac: bytes
    peer_mac: bytes
    source: int


@dataclass(slots=True)
class Tally:
    """What is known of a way: round trips by the number of their probe, in seconds, and the sizes that passed."""

    sent: int = 0
    trips: dict[int, float] = field(default_factory=dict)
    largest: int = 0

    @property
    def lost(self) -> int:
        """How many of the probes that count for loss were not answered."""
        return self.sent - len(self.trips)

    @property
    def latency(self) -> float:
        """The median round trip; 0.0 where none came back."""
        return statistics.median(self.trips.values()) if self.trips else 0.0


def request(way: Way, identifier: int, sequence: int, size: int) -> bytes:
    """Return the frame of an echo request whose IP packet has `size` bytes and may not be fragmented (RFC 792)."""
    payload = bytes(size - _HEADERS)
    icmp = struct.pack(">BBHHH", _ECHO, 0, 0, identifier, sequence) + payload
    icmp = icmp[:2] + struct.pack(">H", checksum(icmp)) + icmp[4:]
    header = struct.pack(">BBHHHBBHII", 0x45, 0, size, 0, _DO_NOT_FRAGMENT, _TTL, _ICMP, 0, way.source, ROUTER)
    header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
    return way.peer_mac + way.source_mac + struct.pack(">H", _IPV4) + header + icmp


def reply(frame: bytes, identifier: int) -> tuple[bytes, int, int] | None:
    """Return whose answer a frame is (a MAC address), to which probe, and the packet's size; None for others."""
    if len(frame) < ETHERNET + _HEADERS or frame[12:14] != b"\x08\x00" or frame[ETHERNET] != 0x45:
        return None
    size, protocol, source = struct.unpack_from(">2xH5xB2xI", frame, ETHERNET)
    kind, number, sequence = struct.unpack_from(">B3xHH", frame, ETHERNET + 20)
    if (protocol, source, kind, number) != (_ICMP, ROUTER, _ECHO_REPLY, identifier):
        return None
    return frame[6:12], sequence, size


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def sizes_between(passed: int, failed: int, most: int = 8) -> list[int]:
    """Return sizes to try next, evenly between one that passed and one that did not; none when they are neighbours."""
    gap = failed - passed
    if gap <= 1:
        return []
    count = min(most, gap - 1)
    return sorted({passed + gap * i // (count + 1) for i in range(1, count + 1)} - {passed, failed})


def answers_filter(identifier: int) -> Program:
    """Return what lets only answers to our probes through to the socket.

    Other packets of the network must not be copied to us: that would cost them time.
    """
    return taking(
        (
            (HALF, 12, _IPV4),
            (BYTE, ETHERNET, 0x45),
            (BYTE, ETHERNET + 9, _ICMP),
            (WORD, ETHERNET + 12, ROUTER),
            (BYTE, ETHERNET + 20, _ECHO_REPLY),
            (HALF, ETHERNET + 24, identifier),
        )
    )
