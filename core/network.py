"""Networks and the slices of their address space that nodes lease."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from argosy.core.meta import Meta

SLICE_PREFIX = 27
SLICE_SIZE = 1 << (32 - SLICE_PREFIX)
"""Addresses in a slice: what a node leases at a time."""
LEAST_MTU = 1280
"""What every link has to take that carries IPv6 (RFC 8200, 5); the kernel takes a narrower one's IPv6 settings away."""
MOST_MTU = 65_535
VXLAN_OVERHEAD = 50
"""Bytes that VXLAN over IPv4 adds (RFC 7348): inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20."""
TUNNEL_OVERHEAD = 80
"""Bytes that are kept free for WireGuard: 60 over IPv4, up to 15 of padding, and 80 over IPv6."""


def carried_mtu(underlay_mtu: int, *, encrypted: bool) -> int:
    """Return the largest packet of a network that an underlay of some MTU carries, in bytes."""
    return underlay_mtu - VXLAN_OVERHEAD - (TUNNEL_OVERHEAD if encrypted else 0)


@dataclass(frozen=True, slots=True)
class Attachment:
    """An address (IPv4, host byte order) on a network: a task's, or a service's virtual one."""

    network_id: str = ""
    address: int = 0
    fixed: bool = False
    """The service asked for this very address: no node's slice has it, so its node announces it by itself."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What the user wants of a network; an empty subnet lets the cluster choose.

    `ip_range`: the part of the subnet that tasks' addresses are chosen from ("": all of it). `mtu` is that of the
    containers' links, 0 as the hosts' links allow.
    """

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    subnet: str = ""
    internal: bool = False
    attachable: bool = False
    encrypted: bool = False
    ip_range: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Network:
    """A network with what was allocated to it. Slice 0 is for virtual addresses without being stored."""

    meta: Meta = Meta()
    spec: NetworkSpec = NetworkSpec()
    vni: int = 0
    subnet: str = ""
    removing: bool = False
    schema: int = 1


class SliceUse(IntEnum):
    """What the addresses of a slice are for: the tasks of the node that leases it, services (virtual addresses), or
    the tasks of services that asked for them (static addresses)."""

    TASKS = 0
    SERVICES = 1
    STATIC = 2


@dataclass(frozen=True, slots=True)
class StaticAddress:
    """An address (IPv4, host byte order) that a service asked for."""

    address: int = 0
    service_id: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """Addresses [subnet + index*32, +32) of a network.

    Those for services and static ones are leased to no node (`node_id` ""); `holders`: whose the static ones are.
    """

    meta: Meta = Meta()
    network_id: str = ""
    index: int = 0
    node_id: str = ""
    use: SliceUse = SliceUse.TASKS
    holders: tuple[StaticAddress, ...] = ()
    schema: int = 1


def slice_id(network_id: str, index: int) -> str:
    """Return the id of a network's slice."""
    return f"{network_id}.{index}"
