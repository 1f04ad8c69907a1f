"""Datagrams to published ports that go on to where the port led before: the kernel is made to forget these flows.

It translates what comes from a client as it did the first time, as long as anything comes. So a client that never
pauses would never find what its port leads to by now, nor hear that it leads nowhere. Layout: conntrack.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from argosy.agent.logic.network_ingress import Place
from argosy.agent.network.conntrack import UDP, tracks_any
from argosy.agent.network.netlink import GONE, Message, Netlink, attribute, attribute_u32, attributes

_GET: Final = (1 << 8) | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_DELETE: Final = (1 << 8) | 2
_HEADER: Final = b"\x02\0\0\0"  # AF_INET
_NESTED: Final = 0x8000
_ORIGINAL: Final = 1
_REPLY: Final = 2
_FILTER: Final = 25
_FILTER_ORIGINAL: Final = 1
_FILTER_REPLY: Final = 2
_FILTER_PROTOCOL: Final = 1 << 3
_IP: Final = 1
_PROTOCOL: Final = 2
_SOURCE: Final = 1
_DESTINATION: Final = 2
_NUMBER: Final = 1
_SOURCE_PORT: Final = 2
_DESTINATION_PORT: Final = 3


@dataclass(frozen=True, slots=True)
class Flow:
    """`dialled` is whom the client sends to, `reached` who gets it."""

    dialled: Place
    reached: Place
    original: bytes


def forget(netlink: Netlink, misled: Callable[[Place, Place], bool]) -> int:
    """Forget the flows of which `misled` says so, given whom the client sends to and who gets it. Raises OSError.

    The next datagram of each finds its way anew. Returns how many there were.
    """
    found = [flow for flow in _flows(netlink) if misled(flow.dialled, flow.reached)]
    netlink.execute(
        [
            Message(_DELETE, 0, _HEADER + attribute(_ORIGINAL | _NESTED, flow.original), GONE, "datagrams")
            for flow in found
        ]
    )
    return len(found)


def _flows(netlink: Netlink) -> list[Flow]:
    """Return what goes by UDP; the kernel passes over everything else."""
    if not tracks_any(netlink):
        return []
    protocol = attribute(_PROTOCOL | _NESTED, attribute(_NUMBER, bytes((UDP,))))
    flags = attribute_u32(_FILTER_ORIGINAL, _FILTER_PROTOCOL) + attribute_u32(_FILTER_REPLY, 0)
    body = _HEADER + attribute(_ORIGINAL | _NESTED, protocol) + attribute(_FILTER | _NESTED, flags)
    return [_flow(found) for found in netlink.dump(Message(_GET, 0, body, about="datagrams"))]


def _flow(body: bytes) -> Flow:
    found = attributes(body[len(_HEADER) :])
    return Flow(
        _place(found[_ORIGINAL], _DESTINATION, _DESTINATION_PORT),
        _place(found[_REPLY], _SOURCE, _SOURCE_PORT),
        found[_ORIGINAL],
    )


def _place(side: bytes, address: int, port: int) -> Place:
    parts = attributes(side)
    addresses, ports = attributes(parts[_IP]), attributes(parts[_PROTOCOL])
    return int.from_bytes(addresses[address], "big"), int.from_bytes(ports[port], "big")
