"""WireGuard in the kernel: devices made by rtnetlink, set and read by generic netlink (linux/wireguard.h).

A device is made by a socket of the host's namespace and born in the mesh's: its UDP socket then stays in the host's,
and so on the underlay (https://www.wireguard.com/netns/).
"""

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from argosy.agent.logic.network_mesh import DeviceChange, DeviceState, PeerState, TunnelPeer
from argosy.agent.network import rtnetlink
from argosy.agent.network.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Netlink,
    attribute,
    attribute_u32,
    attributes,
)

NETLINK_GENERIC: Final = 16

_GENERIC: Final = struct.Struct("=BBxx")  # command, version
_CONTROL: Final = 0x10  # GENL_ID_CTRL
_GET_FAMILY: Final = 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_GET_DEVICE, _SET_DEVICE = 0, 1
_NESTED: Final = 0x8000
_DEVICE_NAME, _DEVICE_PRIVATE, _DEVICE_PUBLIC, _DEVICE_PORT, _DEVICE_PEERS = 2, 3, 4, 6, 8
_PEER_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE, _PEER_HANDSHAKE, _PEER_ALLOWED = 1, 3, 4, 5, 6, 9
_REMOVE, _REPLACE_ALLOWED = 1, 2
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_PREFIX = 1, 2, 3
_SOCKADDR: Final = struct.Struct("=H2s4s8x")
_PEERS_A_MESSAGE: Final = 200


def make(name: str, namespace_fd: int) -> Message:
    """Return the message that makes a device in another namespace, its UDP socket in that of the message's socket."""
    body = (
        rtnetlink.link_header()
        + rtnetlink.link_name(name)
        + attribute_u32(rtnetlink.IFLA_NET_NS_FD, namespace_fd)
        + rtnetlink.link_info("wireguard", b"")
    )
    return Message(rtnetlink.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, about=f"make tunnel {name}")


class KernelTunnels:
    """The devices in one namespace: `netlink` is a generic netlink socket of it, owned by this."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._family = 0

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def read(self, name: str) -> DeviceState:
        """Return what a device is set to. Raises OSError."""
        body = _GENERIC.pack(_GET_DEVICE, 1) + attribute(_DEVICE_NAME, name.encode() + b"\0")
        public, port = b"", 0
        peers: dict[bytes, PeerState] = {}
        for answer in self._netlink.dump(Message(self._id(), 0, body, about=f"read tunnel {name}")):
            found = attributes(answer[4:])
            public = found.get(_DEVICE_PUBLIC, public)
            port = struct.unpack("=H", found[_DEVICE_PORT])[0] if _DEVICE_PORT in found else port
            for peer in map(_read_peer, _items(found.get(_DEVICE_PEERS, b""))):
                peers.setdefault(peer.public_key, peer)
        return DeviceState(public, port, peers)

    def set(self, name: str, change: DeviceChange, private_key: bytes, port: int) -> None:
        """Carry a change out. Raises OSError."""
        head = _GENERIC.pack(_SET_DEVICE, 1) + attribute(_DEVICE_NAME, name.encode() + b"\0")
        messages: list[bytes] = []
        if change.rekey:
            messages.append(attribute(_DEVICE_PRIVATE, private_key) + attribute(_DEVICE_PORT, struct.pack("=H", port)))
        peers = [*(_removal(key) for key in change.remove), *map(_peer, change.put)]
        messages += [_nested(_DEVICE_PEERS, _numbered(part)) for part in _parts(peers)]
        self._netlink.execute([Message(self._id(), 0, head + m, about=f"set tunnel {name}") for m in messages])

    def _id(self) -> int:
        if not self._family:
            body = _GENERIC.pack(_GET_FAMILY, 1) + attribute(_FAMILY_NAME, b"wireguard\0")
            answer = self._netlink.request(Message(_CONTROL, 0, body, about="find WireGuard"))
            if answer is None:
                raise OSError(errno.EOPNOTSUPP, "this kernel has no WireGuard")
            self._family = struct.unpack("=H", attributes(answer[1][4:])[_FAMILY_ID])[0]
        return self._family


def _parts(peers: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(peers), _PEERS_A_MESSAGE):
        yield peers[start : start + _PEERS_A_MESSAGE]


def _nested(kind: int, payload: bytes) -> bytes:
    return attribute(kind | _NESTED, payload)


def _numbered(items: Iterable[bytes]) -> bytes:
    return b"".join(_nested(0, item) for item in items)


def _items(data: bytes) -> Iterator[bytes]:
    """Yield what an array holds; `attributes` would keep only one of those with the same number."""
    offset = 0
    while offset + 4 <= len(data):
        length = struct.unpack_from("=H", data, offset)[0]
        if length < 4:
            return
        yield data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _peer(peer: TunnelPeer) -> bytes:
    allowed = (
        attribute(_ALLOWED_FAMILY, struct.pack("=H", socket.AF_INET))
        + attribute(_ALLOWED_ADDRESS, rtnetlink.ipv4(peer.address))
        + attribute(_ALLOWED_PREFIX, b"\x20")
    )
    endpoint = _SOCKADDR.pack(socket.AF_INET, struct.pack("!H", peer.port), rtnetlink.ipv4(peer.address))
    return (
        attribute(_PEER_KEY, peer.public_key)
        + attribute_u32(_PEER_FLAGS, _REPLACE_ALLOWED)
        + attribute(_PEER_ENDPOINT, endpoint)
        + attribute(_PEER_KEEPALIVE, struct.pack("=H", peer.keepalive_s))
        + _nested(_PEER_ALLOWED, _numbered([allowed]))
    )


def _removal(public_key: bytes) -> bytes:
    return attribute(_PEER_KEY, public_key) + attribute_u32(_PEER_FLAGS, _REMOVE)


def _read_peer(data: bytes) -> PeerState:
    found = attributes(data)
    address = port = 0
    endpoint = found.get(_PEER_ENDPOINT, b"")
    if len(endpoint) == _SOCKADDR.size:
        _, raw_port, raw_address = _SOCKADDR.unpack(endpoint)
        address, port = int.from_bytes(raw_address, "big"), int.from_bytes(raw_port, "big")
    seconds, nanoseconds = struct.unpack("=qq", found[_PEER_HANDSHAKE]) if _PEER_HANDSHAKE in found else (0, 0)
    allowed = []
    for item in map(attributes, _items(found.get(_PEER_ALLOWED, b""))):
        allowed.append((int.from_bytes(item[_ALLOWED_ADDRESS], "big"), item[_ALLOWED_PREFIX][0]))
    return PeerState(found[_PEER_KEY], address, port, tuple(sorted(allowed)), seconds + nanoseconds / 1e9)
