"""Entries of network state as route netlink messages, and the kernel's answers as entries again.

Everything is written with replace semantics: writing twice is as good as once. Numbers are from linux/if_link.h,
linux/rtnetlink.h, linux/neighbour.h and linux/netconf.h; attributes are spelled out here because each is used once.
"""

import errno
import os
import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from typing import Final

from argosy.agent.logic.network_state import (
    MAIN_TABLE,
    Address,
    Entry,
    Fdb,
    Gro,
    Link,
    LinkKind,
    Neighbour,
    Route,
    RouteKind,
    Rule,
    Setting,
    Sysctl,
)
from argosy.agent.network.netlink import (
    GONE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Netlink,
    attribute,
    attribute_u32,
    attributes,
)

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
_RTM_NEWADDR: Final = 20
_RTM_DELADDR: Final = 21
_RTM_GETADDR: Final = 22
_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25
_RTM_GETROUTE: Final = 26
_RTM_NEWNEIGH: Final = 28
_RTM_DELNEIGH: Final = 29
_RTM_GETNEIGH: Final = 30
_RTM_NEWRULE: Final = 32
_RTM_DELRULE: Final = 33
_RTM_GETRULE: Final = 34
_RTM_GETNETCONF: Final = 82
_RTM_GETNSID: Final = 90

_AF_UNSPEC: Final = 0
_AF_INET: Final = 2
_AF_BRIDGE: Final = 7

_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_NETCONF: Final = struct.Struct("=Bxxx")
_IPV4: Final = struct.Struct("!I")
_U32: Final = struct.Struct("=I")
_ROUTE_ATTRIBUTES: Final = struct.Struct("=HH4sHHI")  # RTA_DST, RTA_OIF
_GATEWAY: Final = struct.Struct("=HH4s")

_NETNSA_NSID: Final = 1
_NETNSA_FD: Final = 3
_NO_NSID: Final = struct.pack("=i", -1)
_IFLA_LINK_NETNSID: Final = 37
_IFF_UP: Final = 1
_OPERATIONAL: Final = b"\x06"  # IF_OPER_UP
_NUD_PERMANENT: Final = 0x80
_NUD_NOARP: Final = 0x40
_NTF_SELF: Final = 0x02
_RTNH_F_ONLINK: Final = 4
_ROUTE_KINDS: Final = frozenset(RouteKind)
_RTPROT_KERNEL: Final = 2
_RTN_LOCAL: Final = 2
_RTM_F_CLONED: Final = 0x200
"""An exception to a route, such as a path's MTU: the kernel lists what it learned among what somebody wrote."""
_RT_SCOPE_UNIVERSE: Final = 0
_RT_SCOPE_LINK: Final = 253
_RT_SCOPE_NOWHERE: Final = 255
_FR_ACT_TO_TBL: Final = 1

ROUTE_PROTOCOL: Final = 144
"""Marks our routes in `ip route` (linux/rtnetlink.h leaves the number free)."""

IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_LINK: Final = 5
IFLA_OPERSTATE: Final = 16
IFLA_LINKINFO: Final = 18
IFLA_IFALIAS: Final = 20
IFLA_GROUP: Final = 27
IFLA_NET_NS_FD: Final = 28
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
_VETH_INFO_PEER: Final = 1

_VXLAN_ID: Final = 1
_VXLAN_LOCAL: Final = 4
_VXLAN_LEARNING: Final = 7
_VXLAN_PORT: Final = 15

Indexes = Mapping[str, int]
"""Interface index by device name, of one namespace."""


def ipv4(address: int) -> bytes:
    """Return an address as the kernel wants it."""
    return _IPV4.pack(address)


def link_header(index: int = 0, *, up: bool = False) -> bytes:
    """Return the fixed part of a link message; `up` also sets the link up."""
    flag = _IFF_UP if up else 0
    return _LINK.pack(_AF_UNSPEC, 0, index, flag, flag)


def link_name(name: str) -> bytes:
    """Return the attribute with a link's name."""
    return attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")


def link_info(kind: str, data: bytes) -> bytes:
    """Return the attribute that says what kind of link to make."""
    info = attribute(IFLA_INFO_KIND, kind.encode() + b"\0") + attribute(IFLA_INFO_DATA, data)
    return attribute(IFLA_LINKINFO, info)


def make_vtep(link: Link, namespace_fd: int) -> Message:
    """Make a VTEP in another namespace, by a socket of the host's: its UDP socket then stays on the underlay."""
    data = (
        attribute_u32(_VXLAN_ID, link.vni)
        + attribute(_VXLAN_LOCAL, ipv4(link.local))
        + attribute(_VXLAN_PORT, struct.pack("!H", link.port))
        + attribute(_VXLAN_LEARNING, b"\0")
    )
    body = (
        link_header(up=True)
        + link_name(link.name)
        + attribute(IFLA_ADDRESS, link.mac)
        + attribute_u32(IFLA_MTU, link.mtu)
        + attribute_u32(IFLA_NET_NS_FD, namespace_fd)
        + link_info("vxlan", data)
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, about=f"make {link}")


def make_pair(link: Link, peer: Link, namespace_fd: int, *, index: int = 0, peer_index: int = 0) -> Message:
    """Make a pair of links: one here and up, its peer in another namespace and down.

    The peer cannot be made up: it is opened before it knows its pair (ENOTCONN). Indexes, if given, are set: the
    kernel takes the peer's only together with the other's.
    """
    there = (
        link_header(peer_index)
        + link_name(peer.name)
        + attribute(IFLA_ADDRESS, peer.mac)
        + attribute_u32(IFLA_MTU, peer.mtu)
        + attribute_u32(IFLA_NET_NS_FD, namespace_fd)
    )
    body = (
        link_header(index, up=True)
        + link_name(link.name)
        + attribute(IFLA_ADDRESS, link.mac)
        + attribute_u32(IFLA_MTU, link.mtu)
        + link_info("veth", attribute(_VETH_INFO_PEER, there))
    )
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, about=f"make {link}")


def set_link(index: int, *, mtu: int = 0, mac: bytes = b"") -> Message:
    """Set a link up, and its MTU and MAC address if given.

    To set a MAC address, even the one it has, makes the kernel forget the device's neighbours.
    """
    body = link_header(index, up=True)
    if mtu:
        body += attribute_u32(IFLA_MTU, mtu)
    if mac:
        body += attribute(IFLA_ADDRESS, mac)
    return Message(RTM_NEWLINK, 0, body, about="set link up")


def move_link(name: str, namespace_fd: int) -> Message:
    """Move a link into another namespace; it is down there."""
    body = link_header() + link_name(name) + attribute_u32(IFLA_NET_NS_FD, namespace_fd)
    return Message(RTM_NEWLINK, 0, body, about=f"move link {name}")


def delete_link(name: str) -> Message:
    """Delete a link; that there is none is fine."""
    return Message(RTM_DELLINK, 0, link_header() + link_name(name), GONE, f"delete link {name}")


def delete_links(names: Sequence[str], group: int) -> list[Message]:
    """Delete many links for the price of one: 15 ms or so of waiting in the kernel, instead of that for each."""
    marks = [
        Message(RTM_NEWLINK, 0, link_header() + link_name(name) + attribute_u32(IFLA_GROUP, group), GONE)
        for name in names
    ]
    return [*marks, Message(RTM_DELLINK, 0, link_header() + attribute_u32(IFLA_GROUP, group), GONE, "delete links")]


def put(entry: Entry, indexes: Indexes) -> Message:
    """Return the message that writes an entry other than a link or a sysctl."""
    match entry:
        case Address():
            return _address(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, entry, indexes[entry.device])
        case Neighbour():
            return neighbour(indexes[entry.device], entry.address, entry.mac)
        case Fdb():
            return _fdb(_RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, entry, indexes[entry.device])
        case Route():
            return _route(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, entry, indexes)
        case Rule():
            return _rule(_RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, entry, frozenset({errno.EEXIST}))
        case Link() | Sysctl() | Gro():
            raise TypeError(f"{entry} is not written by a message of its own")


def is_message(entry: Entry) -> bool:
    """Tell whether `put` can write an entry."""
    return not isinstance(entry, Link | Setting)


def remove(entry: Entry, indexes: Indexes) -> Message | None:
    """Return the message that removes an entry; None if it went with its device."""
    if isinstance(entry, Link):
        return delete_link(entry.name)
    if entry.device and entry.device not in indexes:
        return None
    match entry:
        case Address():
            return _address(_RTM_DELADDR, 0, entry, indexes[entry.device], GONE)
        case Neighbour():
            body = _NEIGHBOUR.pack(_AF_INET, indexes[entry.device], 0, 0, 0) + attribute(1, ipv4(entry.address))
            return Message(_RTM_DELNEIGH, 0, body, GONE, f"remove {entry}")
        case Fdb():
            return _fdb(_RTM_DELNEIGH, 0, entry, indexes[entry.device], GONE)
        case Route():
            return _route(_RTM_DELROUTE, 0, entry, indexes, GONE)
        case Rule():
            return _rule(_RTM_DELRULE, 0, entry, GONE)
        case Sysctl() | Gro():
            return None


def neighbour(index: int, address: int, mac: bytes) -> Message:
    """Write a permanent neighbour entry."""
    body = _NEIGHBOUR.pack(_AF_INET, index, _NUD_PERMANENT, 0, 1) + attribute(1, ipv4(address)) + attribute(2, mac)
    return Message(_RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, about="write neighbour")


def address_on(index: int, address: int, prefix: int = 32) -> Message:
    """Write an address of the device with an index."""
    return _address(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, Address("", address, prefix), index)


def route_via(
    index: int, destination: int, prefix: int, *, gateway: int = 0, source: int = 0, table: int = MAIN_TABLE
) -> Message:
    """Write a route over the device with an index, with the address that it is to be used from."""
    scope = _RT_SCOPE_UNIVERSE if gateway else _RT_SCOPE_LINK
    flags = _RTNH_F_ONLINK if gateway else 0
    short_table = table if table < 256 else 0
    body = _ROUTE.pack(_AF_INET, prefix, 0, 0, short_table, ROUTE_PROTOCOL, scope, RouteKind.UNICAST, flags)
    body += attribute_u32(4, index) + attribute_u32(15, table)
    if prefix:
        body += attribute(1, ipv4(destination))
    if gateway:
        body += attribute(5, ipv4(gateway))
    if source:
        body += attribute(7, ipv4(source))
    return Message(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, about=f"write route of /{prefix}")


def _address(kind: int, flags: int, entry: Address, index: int, tolerate: frozenset[int] = frozenset()) -> Message:
    packed = attribute(2, ipv4(entry.address)) + attribute(1, ipv4(entry.address))
    body = _ADDRESS.pack(_AF_INET, entry.prefix, 0, 0, index) + packed
    return Message(kind, flags, body, tolerate, f"write {entry}" if flags else f"remove {entry}")


def _fdb(kind: int, flags: int, entry: Fdb, index: int, tolerate: frozenset[int] = frozenset()) -> Message:
    body = _NEIGHBOUR.pack(_AF_BRIDGE, index, _NUD_PERMANENT | _NUD_NOARP, _NTF_SELF, 0)
    body += attribute(2, entry.mac) + attribute(1, ipv4(entry.destination))
    return Message(kind, flags, body, tolerate, "write fdb entry" if flags else "remove fdb entry")


def _route(kind: int, flags: int, entry: Route, indexes: Indexes, tolerate: frozenset[int] = frozenset()) -> Message:
    nowhere = entry.kind is not RouteKind.UNICAST
    scope = _RT_SCOPE_UNIVERSE if entry.gateway or nowhere else _RT_SCOPE_LINK
    onlink = _RTNH_F_ONLINK if entry.gateway else 0
    protocol = ROUTE_PROTOCOL
    if kind == _RTM_DELROUTE:
        # Whoever wrote it, and however.
        scope, protocol, onlink = _RT_SCOPE_NOWHERE, 0, 0
    short_table = entry.table if entry.table < 256 else 0
    body = _ROUTE.pack(_AF_INET, entry.prefix, 0, 0, short_table, protocol, scope, entry.kind, onlink)
    body += attribute(1, ipv4(entry.destination)) + attribute_u32(15, entry.table)
    if not nowhere:
        body += attribute_u32(4, indexes[entry.device])
    if entry.gateway:
        body += attribute(5, ipv4(entry.gateway))
    return Message(kind, flags, body, tolerate, "write route" if flags else "remove route")


def _rule(kind: int, flags: int, entry: Rule, tolerate: frozenset[int]) -> Message:
    source = 32 if entry.source else 0
    body = _ROUTE.pack(_AF_INET, 0, source, 0, 0, ROUTE_PROTOCOL, 0, _FR_ACT_TO_TBL, 0)
    body += attribute_u32(6, entry.table) + attribute_u32(15, entry.table)
    if entry.source:
        body += attribute(2, ipv4(entry.source))
    else:
        body += attribute_u32(10, entry.mark) + attribute_u32(16, entry.mask)
    return Message(kind, flags, body, tolerate, f"write {entry}" if flags else f"remove {entry}")


# What is there. ------------------------------------------------------------------------------------------------------


def read_links(netlink: Netlink) -> list[tuple[int, Link, dict[int, bytes]]]:
    """Return (index, link, attributes) of all links of the socket's namespace."""
    return [_read_link(body) for body in netlink.dump(Message(RTM_GETLINK, 0, link_header(), about="list links"))]


def read_link(netlink: Netlink, name: str) -> tuple[int, Link, dict[int, bytes]] | None:
    """Return one link by name."""
    answer = netlink.request(Message(RTM_GETLINK, 0, link_header() + link_name(name), about=f"find link {name}"))
    return _read_link(answer[1]) if answer else None


def read_link_at(netlink: Netlink, index: int) -> tuple[int, Link, dict[int, bytes]] | None:
    """Return one link by index."""
    answer = netlink.request(Message(RTM_GETLINK, 0, link_header(index), about=f"find link {index}"))
    return _read_link(answer[1]) if answer else None


def has_far_side_in(netlink: Netlink, name: str, namespace_fd: int) -> bool:
    """Tell whether a VTEP's socket, or a pair's other end, is in a namespace other than the link's own.

    The link goes by its name; True without one.
    """
    found = read_link(netlink, name)
    if found is None:
        return True
    body = struct.pack("=B3x", _AF_UNSPEC) + attribute_u32(_NETNSA_FD, namespace_fd)
    answer = netlink.request(Message(_RTM_GETNSID, 0, body, about="find a namespace"))
    there = attributes(answer[1][4:]).get(_NETNSA_NSID) if answer else None
    return there is not None and there != _NO_NSID and found[2].get(_IFLA_LINK_NETNSID) == there


def peer_index(found: Mapping[int, bytes]) -> int:
    """Return the index of the other end of a pair, in its own namespace; 0 if there is none."""
    link = found.get(IFLA_LINK)
    return int(_U32.unpack(link)[0]) if link else 0


def is_operational(netlink: Netlink, index: int) -> bool:
    """Tell whether a link passes packets. Raises OSError if there is no such link."""
    answer = netlink.request(Message(RTM_GETLINK, 0, link_header(index), about="look at link"))
    if answer is None:
        raise OSError(errno.ENODEV, "the link is gone")
    return attributes(answer[1][16:]).get(IFLA_OPERSTATE) == _OPERATIONAL


def _read_link(body: bytes) -> tuple[int, Link, dict[int, bytes]]:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body[16:])
    name = os.fsdecode(found[IFLA_IFNAME].rstrip(b"\0"))  # any bytes but "/" and white space
    info = attributes(found.get(IFLA_LINKINFO, b""))
    kind = info.get(IFLA_INFO_KIND, b"").rstrip(b"\0")
    mtu = _U32.unpack(found[IFLA_MTU])[0]
    mac = found.get(IFLA_ADDRESS, b"")
    up = bool(flags & _IFF_UP)
    if kind == b"vxlan":
        data = attributes(info.get(IFLA_INFO_DATA, b""))
        vni = _U32.unpack(data[_VXLAN_ID])[0]
        local = _IPV4.unpack(data[_VXLAN_LOCAL])[0] if _VXLAN_LOCAL in data else 0
        port = struct.unpack("!H", data[_VXLAN_PORT])[0]
        learning = data.get(_VXLAN_LEARNING, b"\0") != b"\0"
        return index, Link(name, LinkKind.VTEP, mtu, mac, vni, local, port, learning, up), found
    if name == "lo":
        return index, Link(name, LinkKind.LOOPBACK, up=up), found
    if kind in (b"wireguard", b"tun"):
        return index, Link(name, LinkKind.TUNNEL, mtu, up=up), found
    link_kind = LinkKind.CONTAINER if kind == b"veth" else LinkKind.OTHER
    return index, Link(name, link_kind, mtu, mac, up=up), found


def read_addresses(netlink: Netlink, devices: Mapping[int, str]) -> list[Address]:
    """Return the addresses of some devices, given by index."""
    request = Message(_RTM_GETADDR, 0, _ADDRESS.pack(_AF_INET, 0, 0, 0, 0), about="list addresses")
    addresses: list[Address] = []
    for body in netlink.dump(request):
        _, prefix, _, _, index = _ADDRESS.unpack_from(body)
        local = attributes(body[8:]).get(2)
        if index in devices and local:
            addresses.append(Address(devices[index], _IPV4.unpack(local)[0], prefix))
    return addresses


def read_neighbours(netlink: Netlink, devices: Mapping[int, str]) -> list[Neighbour]:
    """Return the permanent neighbour entries of some devices."""
    request = Message(_RTM_GETNEIGH, 0, _NEIGHBOUR.pack(_AF_INET, 0, 0, 0, 0), about="list neighbours")
    found: list[Neighbour] = []
    for body in netlink.dump(request):
        _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
        if index not in devices or not state & _NUD_PERMANENT:
            continue
        parts = attributes(body[12:])
        found.append(Neighbour(devices[index], _IPV4.unpack(parts[1])[0], parts.get(2, b"")))
    return found


def read_fdb(netlink: Netlink, devices: Mapping[int, str]) -> list[Fdb]:
    """Return the forwarding entries of VTEPs."""
    request = Message(_RTM_GETNEIGH, 0, _LINK.pack(_AF_BRIDGE, 0, 0, 0, 0), about="list forwarding entries")
    found: list[Fdb] = []
    for body in netlink.dump(request):
        _, index, _, flags, _ = _NEIGHBOUR.unpack_from(body)
        parts = attributes(body[12:])
        if index in devices and flags & _NTF_SELF and len(parts.get(1, b"")) == 4:
            found.append(Fdb(devices[index], parts[2], _IPV4.unpack(parts[1])[0]))
    return found


def read_routes(netlink: Netlink, devices: Mapping[int, str]) -> list[Route]:
    """Return the routes that someone wrote: not those that the kernel makes for addresses, nor what it learned."""
    request = Message(_RTM_GETROUTE, 0, _ROUTE.pack(_AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), about="list routes")
    routes: list[Route] = []
    for body in netlink.dump(request):
        _, prefix, _, _, table, protocol, _, kind, flags = _ROUTE.unpack_from(body)
        if protocol == _RTPROT_KERNEL or kind not in _ROUTE_KINDS or flags & _RTM_F_CLONED:
            continue
        parts = attributes(body[12:])
        table = _U32.unpack(parts[15])[0] if 15 in parts else table
        device = devices.get(_U32.unpack(parts[4])[0], "") if 4 in parts else ""
        destination = _IPV4.unpack(parts[1])[0] if 1 in parts else 0
        gateway = _IPV4.unpack(parts[5])[0] if 5 in parts else 0
        device = device if kind == RouteKind.UNICAST else ""
        routes.append(Route(destination, prefix, RouteKind(kind), device, gateway, table))
    return routes


def read_local(netlink: Netlink) -> list[IPv4Network]:
    """Return what the namespace takes for its own, whoever said so (rtnetlink(7), RTN_LOCAL)."""
    request = Message(_RTM_GETROUTE, 0, _ROUTE.pack(_AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), about="list routes")
    found: list[IPv4Network] = []
    for body in netlink.dump(request):
        _, prefix, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(body)
        if kind == _RTN_LOCAL:
            parts = attributes(body[12:])
            found.append(IPv4Network((parts.get(1, bytes(4)), prefix)))
    return found


def read_rules(netlink: Netlink) -> list[Rule]:
    """Return the routing rules that look at marks or at where packets come from."""
    request = Message(_RTM_GETRULE, 0, _ROUTE.pack(_AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), about="list rules")
    rules: list[Rule] = []
    for body in netlink.dump(request):
        parts = attributes(body[12:])
        if 10 in parts or 2 in parts:
            mark, mask, table = (_U32.unpack(parts[i])[0] if i in parts else 0 for i in (10, 16, 15))
            source = _IPV4.unpack(parts[2])[0] if 2 in parts else 0
            rules.append(Rule(mark, mask, table, source=source))
    return rules


def read_route_devices(netlink: Netlink) -> set[int]:
    """Return the indexes of all devices that the main table has routes over, those of the kernel included."""
    request = Message(_RTM_GETROUTE, 0, _ROUTE.pack(_AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), about="list routes")
    found: set[int] = set()
    for body in netlink.dump(request):
        _, _, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
        oif = attributes(body[12:]).get(4)
        if table == MAIN_TABLE and kind == RouteKind.UNICAST and oif:
            found.add(_U32.unpack(oif)[0])
    return found


def read_routing_sysctls(netlink: Netlink, devices: Mapping[int, str]) -> list[Sysctl]:
    """Return `forwarding` and `rp_filter` of some devices: one request, where reading files would be two a device."""
    request = Message(_RTM_GETNETCONF, 0, _NETCONF.pack(_AF_INET), about="list device settings")
    found: list[Sysctl] = []
    for body in netlink.dump(request):
        parts = attributes(body[4:])
        index = struct.unpack("=i", parts[1])[0]
        if index not in devices:
            continue
        device = devices[index]
        for kind, name in ((2, "forwarding"), (3, "rp_filter")):
            value = struct.unpack("=i", parts[kind])[0]
            found.append(Sysctl(f"ipv4/conf/{device}/{name}", str(value), device))
    return found
