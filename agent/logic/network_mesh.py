"""The mesh: the namespace in which the VTEPs of encrypted networks have their sockets, and whose only way out are
WireGuard tunnels to the peers. Pure.

A node has its own underlay address in there too, and a route to each peer's through a tunnel: so VTEPs are made as on
any network, and what they send finds no other way. Nothing that was sent in clear comes in either: no device of the
underlay is there. The addresses collide with nothing, since nothing else is in this namespace.

While keys are changed there are two devices, of two epochs (core/mesh.py); each peer's route goes by the newest
that a handshake has shown to work. What comes in by the other is taken as well, so nothing is lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_state import Address, Entry, Link, LinkKind, Route, RouteKind, Sysctl
from argosy.core.assignment import MeshAssignment, MeshPeerAssignment
from argosy.core.mesh import MeshKey, Tunnel
from argosy.core.network import TUNNEL_OVERHEAD

SESSION_S: Final = 180.0
"""A session is over so long after its handshake (REJECT_AFTER_TIME); a new one is made after 120 s where data flows."""
MOST_MISSED: Final = 3
"""A peer that leaves so many probes in a row without an answer cannot be reached."""
BEING_MADE: Final = "it is being made"
NO_KEY: Final = "it has told no key yet"
PATIENCE_S: Final = 5.0
"""So long nothing else is said of a new tunnel that does not work yet."""
KEEPALIVE_S: Final = 10
"""Also what makes a new tunnel shake hands before anything is sent; of one end alone, see `TunnelPeer`."""

_SYSCTLS: Final = (
    ("ipv4/conf/all/forwarding", "0"),
    ("ipv4/conf/default/forwarding", "0"),
    # During a change of keys a peer may send by the one tunnel and be sent to by the other. The tunnels themselves
    # check whose a packet's source is.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
)
_SYSCTLS_IPV6: Final = (
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
)


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """A peer of a WireGuard device. Addresses are IPv4, of the underlay; the same one is allowed inside the tunnel.

    `begins`: this end shakes hands unasked. If both did, and at the same moment, neither would take the other's answer,
    and both would try again after five seconds.
    """

    public_key: bytes
    address: int
    port: int
    begins: bool = True

    @property
    def keepalive_s(self) -> int:
        """How often something is sent if nothing else is; 0: never."""
        return KEEPALIVE_S if self.begins else 0


@dataclass(frozen=True, slots=True)
class PeerState:
    """A peer as a device has it. `handshake_at`: seconds since 1970, 0 never. `allowed`: (address, prefix) pairs."""

    public_key: bytes
    address: int = 0
    port: int = 0
    allowed: tuple[tuple[int, int], ...] = ()
    handshake_at: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a WireGuard device is set to."""

    public_key: bytes = b""
    port: int = 0
    peers: Mapping[bytes, PeerState] | None = None

    def handshake_at(self, public_key: bytes) -> float:
        """Return when the last handshake with a peer was; 0: never."""
        peer = (self.peers or {}).get(public_key)
        return peer.handshake_at if peer else 0.0


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What to set of a device; `rekey`: private key and port, too."""

    rekey: bool = False
    put: tuple[TunnelPeer, ...] = ()
    remove: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rekey or self.put or self.remove)


def epochs_of(mesh: MeshAssignment | None) -> tuple[int, ...]:
    """Return the epochs that a node has tunnels of, the newest last."""
    if mesh is None or not mesh.epoch:
        return ()
    return (mesh.previous, mesh.epoch) if mesh.previous else (mesh.epoch,)


def key_of(peer: MeshPeerAssignment, epoch: int) -> MeshKey | None:
    """Return a peer's key of an epoch; None while it has told none."""
    return next((k for k in peer.keys if k.epoch == epoch), None)


def others(told: Iterable[MeshPeerAssignment], node_id: str) -> list[MeshPeerAssignment]:
    """Return each other node once, by id, of what each encrypted network tells of all that carry it.

    Of networks that tell of the same node one may lag behind the others for a moment: so that no tunnel is taken away
    which is there, who knows of its latest key is heard, and else always the same one.
    """
    found: dict[str, MeshPeerAssignment] = {}
    for peer in sorted(told, key=lambda p: (p.node_id, -max((k.epoch for k in p.keys), default=0), p.network_id)):
        if peer.node_id != node_id:
            found.setdefault(peer.node_id, peer)
    return list(found.values())


def in_place(peers: Iterable[MeshPeerAssignment]) -> list[MeshPeerAssignment]:
    """Return the peers, those without an address that are down and whose address another host has got since.

    An address leads through one tunnel alone.
    """
    known = list(peers)
    held = {p.underlay_address for p in known if not p.down}
    return [replace(p, underlay_address="") if p.down and p.underlay_address in held else p for p in known]


def begins(underlay: int, address: int) -> bool:
    """Tell which of two nodes shakes hands unasked: the one with the lower address."""
    return underlay < address


def peers_of(epoch: int, underlay: int, peers: Iterable[MeshPeerAssignment]) -> dict[bytes, TunnelPeer]:
    """Return what a device of an epoch should have as its peers, by public key; `underlay` is our own address."""
    found: dict[bytes, TunnelPeer] = {}
    for peer in peers:
        key = key_of(peer, epoch)
        if key and peer.underlay_address:
            address = int(IPv4Address(peer.underlay_address))
            found[key.public_key] = TunnelPeer(key.public_key, address, key.port, begins(underlay, address))
    return found


def change(
    there: DeviceState, public_key: bytes, port: int, wanted: Mapping[bytes, TunnelPeer], now: float
) -> DeviceChange:
    """Return what to set of a device to get what is wanted.

    A peer may be heard from another address than its own (several interfaces): where that works it is left so.
    """
    actual = there.peers or {}
    put = tuple(p for k, p in wanted.items() if k not in actual or not _serves(actual[k], p, now))
    remove = tuple(k for k in actual if k not in wanted)
    return DeviceChange((there.public_key, there.port) != (public_key, port), put, remove)


def choose(peer: MeshPeerAssignment, devices: Mapping[int, DeviceState], present: int, now: float) -> int:
    """Return the epoch whose tunnel leads to a peer; 0: none does. `devices` by epoch, `present`: what is used now.

    A newer one is taken once a handshake has shown that it works.
    """
    common = sorted(e for e in devices if key_of(peer, e))
    if not common:
        return 0
    for epoch in reversed(common):
        key = key_of(peer, epoch)
        if key and now - devices[epoch].handshake_at(key.public_key) < SESSION_S:
            return epoch
    return present if present in common else common[-1]


def plan_mesh(
    underlay: int, underlay_mtu: int, ipv6: bool, devices: Mapping[int, str], ways: Mapping[int, int]
) -> list[Entry]:
    """Return what the mesh's namespace holds: `devices` are tunnels by epoch, `ways` the epoch by peer's address."""
    sysctls = _SYSCTLS + (_SYSCTLS_IPV6 if ipv6 else ())
    entries: list[Entry] = [*(Sysctl(path, value) for path, value in sysctls), Link(names.LOOPBACK, LinkKind.LOOPBACK)]
    for device in devices.values():
        entries += [
            Link(device, LinkKind.TUNNEL, mtu=underlay_mtu - TUNNEL_OVERHEAD),
            Sysctl(f"ipv4/conf/{device}/forwarding", "0", device),
            Sysctl(f"ipv4/conf/{device}/rp_filter", "0", device),
            Address(device, underlay),
        ]
    entries += [
        Route(address, 32, RouteKind.UNICAST, devices[epoch]) for address, epoch in ways.items() if epoch in devices
    ]
    return entries


def problem_of(peer: MeshPeerAssignment, epoch: int, handshake_at: float, missed: int, now: float) -> str:
    """Say why nothing can be sent to a peer; "" when its tunnel works. `missed`: probes without an answer in a row."""
    if not peer.keys:
        return NO_KEY
    key = key_of(peer, epoch)
    if key is None:
        return "it has told no key of the present epoch yet"
    if not handshake_at:
        return f"there was no handshake yet: is UDP port {key.port} open from host to host?"
    if now - handshake_at > SESSION_S:
        return f"it answers no handshake any more: is it there, and UDP port {key.port} open from host to host?"
    if missed >= MOST_MISSED:
        return "it does not answer through the tunnel"
    return ""


def told(problem: str, before: Tunnel | None, now: float) -> str:
    """Return what to say of a tunnel's problem: a new one never works at once, and that is no reason to worry.

    One to a node that had no key before is new, too: it carried no encrypted network.
    """
    fresh = before is not None and before.problem == BEING_MADE and now - before.since < PATIENCE_S
    new = before is None or fresh or before.problem == NO_KEY != problem
    return BEING_MADE if problem and new else problem


def sentence(network: str, broken: Sequence[tuple[str, str]]) -> str:
    """Say what is wrong with a network's tunnels, given as (node, problem); "" for none."""
    if not broken:
        return ""
    first, problem = broken[0]
    more = f"; nor to {len(broken) - 1} other{'s' if len(broken) > 2 else ''}" if len(broken) > 1 else ""
    return f"network {network} is encrypted, and there is no tunnel to {first}: {problem}{more}"


def _serves(actual: PeerState, wanted: TunnelPeer, now: float) -> bool:
    if actual.allowed != ((wanted.address, 32),):
        return False
    works = now - actual.handshake_at < SESSION_S
    return works or (actual.address, actual.port) == (wanted.address, wanted.port)
