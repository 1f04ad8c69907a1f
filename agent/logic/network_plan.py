"""What a node's namespaces should hold, from assignments. Pure; one function a piece, so that a change costs its piece.

In a network's namespace: the router's address and `unreachable` for the subnet (an address that nobody has never
leaves by the uplink); the VTEP; for each peer one neighbour, one forwarding entry, and a route a slice through a
placeholder address; for each local container a link, a route and a neighbour; the uplink unless it is internal.

A peer's placeholder is the first address of its lowest slice: unique among the peers, and `ip route` then shows which
peer a route belongs to. That a container may hold the same address does not matter: as a gateway it only names the
neighbour entry on the VTEP.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_state import (
    Address,
    Entry,
    Fdb,
    Gro,
    Link,
    LinkKind,
    Neighbour,
    Route,
    RouteKind,
    Sysctl,
)
from argosy.agent.logic.network_uplink import UplinkPair
from argosy.core.assignment import NetworkAssignment, PeerAssignment
from argosy.core.network import LEAST_MTU, SLICE_PREFIX, SLICE_SIZE, carried_mtu

ROUTER: Final = int(IPv4Address("169.254.1.1"))
UPLINK_PREFIX: Final = 31

_NAMESPACE_SYSCTLS: Final = (
    ("ipv4/conf/all/forwarding", "1"),
    ("ipv4/conf/default/forwarding", "1"),
    # Strict, and for every device: a link accepts only source addresses that are routed back through it.
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    # Packets are looked up among the sockets before they are routed: here nearly all are for somebody else.
    ("ipv4/ip_early_demux", "0"),
    # What is refused is refused each time, not once a second for each client.
    ("ipv4/icmp_ratelimit", "0"),
)
_NAMESPACE_SYSCTLS_IPV6: Final = (
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
)


@dataclass(frozen=True, slots=True)
class Site:
    """The node, as far as plans depend on it. `ipv6`: this kernel has IPv6, so it must be switched off."""

    node_id: str
    underlay: int
    underlay_mtu: int
    vxlan_port: int
    ipv6: bool = True


def link_mtu(site: Site, network: NetworkAssignment) -> int:
    """Return the MTU of a network's links on a node: what was assigned, and never more than the underlay carries.

    Nor less than the least: a network whose packets the underlay is too narrow for gets no containers.
    """
    carried = carried_mtu(site.underlay_mtu, encrypted=network.encrypted)
    return max(min(network.mtu, carried) if network.mtu else carried, LEAST_MTU)


def plan_network(site: Site, network: NetworkAssignment, uplink: UplinkPair | None) -> list[Entry]:
    """Return what a network's namespace holds whoever is on it; `uplink` is None for internal networks."""
    subnet = IPv4Network(network.subnet)
    mtu = link_mtu(site, network)
    sysctls = _NAMESPACE_SYSCTLS + (_NAMESPACE_SYSCTLS_IPV6 if site.ipv6 else ())
    entries: list[Entry] = [
        *(Sysctl(path, value) for path, value in sysctls),
        Link(names.LOOPBACK, LinkKind.LOOPBACK),
        Address(names.LOOPBACK, ROUTER),
        Link(
            names.VTEP,
            LinkKind.VTEP,
            mtu=mtu,
            mac=names.vtep_mac(network.id, site.node_id),
            vni=network.vni,
            local=site.underlay,
            port=site.vxlan_port,
        ),
        *_routing_sysctls(names.VTEP),
        # The underlay's device has done that already, for what is inside, too; once more costs time and gains nothing.
        Gro(names.VTEP, "off"),
        Route(int(subnet.network_address), subnet.prefixlen, RouteKind.UNREACHABLE),
    ]
    if uplink:
        mac = names.uplink_mac(network.id, site.node_id)
        entries += [
            Link(names.UPLINK, LinkKind.UPLINK, mtu=mtu, mac=mac),
            *_routing_sysctls(names.UPLINK),
            Address(names.UPLINK, uplink.inner, UPLINK_PREFIX),
            Neighbour(names.UPLINK, uplink.host, names.host_uplink_mac(network.id, site.node_id)),
            Route(0, 0, RouteKind.UNICAST, names.UPLINK, uplink.host),
        ]
    return entries


def plan_peer(network: NetworkAssignment, peer: PeerAssignment) -> list[Entry]:
    """Return the entries that lead to a peer: a neighbour, a forwarding entry, and a route for each of its slices.

    A static address of the peer has a route of its own. To a peer that has neither, answers to clients that came in by
    it may go: it has a forwarding entry alone. None lead to one whose own address is not known yet.
    """
    if not peer.underlay_address:
        return []
    mac = names.vtep_mac(network.id, peer.node_id)
    entry = Fdb(names.VTEP, mac, number_of(peer.underlay_address))
    placeholder = placeholder_of(network, peer)
    if placeholder is None:
        return [entry]
    base = base_of(network.subnet)
    return [
        Neighbour(names.VTEP, placeholder, mac),
        entry,
        *(
            Route(base + index * SLICE_SIZE, SLICE_PREFIX, RouteKind.UNICAST, names.VTEP, placeholder)
            for index in peer.slices
        ),
        *(Route(address, 32, RouteKind.UNICAST, names.VTEP, placeholder) for address in peer.addresses),
    ]


def placeholder_of(network: NetworkAssignment, peer: PeerAssignment) -> int | None:
    """Return the address that stands for a peer on a network: the first of its lowest slice, else its first static one.

    None for one that has neither.
    """
    if peer.slices:
        return base_of(network.subnet) + min(peer.slices) * SLICE_SIZE
    return min(peer.addresses, default=None)


def occupied(network: NetworkAssignment, peers: Iterable[PeerAssignment], addresses: Iterable[int]) -> set[str]:
    """Return the nodes that have some of a network's addresses, in their slices or as static ones."""
    base, taken = base_of(network.subnet), set(addresses)
    slices = {(address - base) // SLICE_SIZE for address in taken}
    on_it = (peer for peer in peers if peer.network_id == network.id)
    return {peer.node_id for peer in on_it if slices.intersection(peer.slices) or taken.intersection(peer.addresses)}


@lru_cache(1 << 16)
def number_of(address: str) -> int:
    """Return an address as a number. Peers are thousands, and their addresses are looked at with every change."""
    return int(IPv4Address(address))


@lru_cache(64)
def base_of(subnet: str) -> int:
    """Return the first address of a subnet."""
    return int(IPv4Network(subnet).network_address)


def plan_container(site: Site, network: NetworkAssignment, device: str, address: int) -> list[Entry]:
    """Return what a network's namespace holds for one local container, whose link there is called `device`."""
    return [
        Link(device, LinkKind.CONTAINER, mtu=link_mtu(site, network), mac=names.router_mac(network.id)),
        *_routing_sysctls(device),
        Neighbour(device, address, names.container_mac(network.id, address)),
        Route(address, 32, RouteKind.UNICAST, device),
    ]


def plan_host_uplink(site: Site, network: NetworkAssignment, uplink: UplinkPair) -> list[Entry]:
    """Return what the host's namespace holds for a network that is not internal.

    With `route_localnet` the host's own connections to a published port of 127.0.0.1 may leave by the uplink.
    """
    device = names.host_uplink_device(network.id)
    mac = names.host_uplink_mac(network.id, site.node_id)
    entries: list[Entry] = [
        Link(device, LinkKind.HOST_UPLINK, mtu=link_mtu(site, network), mac=mac),
        *_routing_sysctls(device),
        Sysctl(f"ipv4/conf/{device}/route_localnet", "1", device),
        Address(device, uplink.host, UPLINK_PREFIX),
        Neighbour(device, uplink.inner, names.uplink_mac(network.id, site.node_id)),
    ]
    if site.ipv6:
        entries.append(Sysctl(f"ipv6/conf/{device}/disable_ipv6", "1", device))
    return entries


def plan_egress(devices: Iterable[str]) -> list[Entry]:
    """Return the settings of the host's own devices that answers from outside come in by."""
    return [Sysctl(f"ipv4/conf/{device}/forwarding", "1", device) for device in devices]


def _routing_sysctls(device: str) -> list[Entry]:
    """A new device inherits these from `default`; stated for each, so that a change by hand is seen and undone."""
    return [
        Sysctl(f"ipv4/conf/{device}/forwarding", "1", device),
        Sysctl(f"ipv4/conf/{device}/rp_filter", "1", device),
    ]
