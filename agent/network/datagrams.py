"""Datagrams to published ports that go on to where the port led before: the kernel is made to forget these flows.

It translates what comes from a client as it did the first time, as long as anything comes. So a client that never
pauses would never find what its port leads to by now, nor hear that it leads nowhere. Layout: conntrack.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

from argosy.agent.logic.network_ingress import Place
from argosy.agent.network import ctnetlink as ct
from argosy.agent.network.conntrack import UDP, tracks_any
from argosy.agent.network.netlink import GONE, Message, Netlink, attribute, attribute_u32, attributes


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
            Message(ct.DELETE, 0, ct.HEADER + attribute(ct.ORIGINAL | ct.NESTED, flow.original), GONE, "datagrams")
            for flow in found
        ]
    )
    return len(found)


def _flows(netlink: Netlink) -> list[Flow]:
    """Return what goes by UDP; the kernel passes over everything else."""
    if not tracks_any(netlink):
        return []
    protocol = attribute(ct.PROTOCOL | ct.NESTED, attribute(ct.NUMBER, bytes((UDP,))))
    flags = attribute_u32(ct.FILTER_ORIGINAL, ct.FILTER_PROTOCOL) + attribute_u32(ct.FILTER_REPLY, 0)
    body = ct.HEADER + attribute(ct.ORIGINAL | ct.NESTED, protocol) + attribute(ct.FILTER | ct.NESTED, flags)
    return [_flow(found) for found in netlink.dump(Message(ct.GET, 0, body, about="datagrams"))]


def _flow(body: bytes) -> Flow:
    found = attributes(body[len(ct.HEADER) :])
    return Flow(
        _place(found[ct.ORIGINAL], ct.DESTINATION, ct.DESTINATION_PORT),
        _place(found[ct.REPLY], ct.SOURCE, ct.SOURCE_PORT),
        found[ct.ORIGINAL],
    )


def _place(side: bytes, address: int, port: int) -> Place:
    parts = attributes(side)
    addresses, ports = attributes(parts[ct.IP]), attributes(parts[ct.PROTOCOL])
    return int.from_bytes(addresses[address], "big"), int.from_bytes(ports[port], "big")
