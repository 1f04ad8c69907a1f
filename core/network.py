"""Networks and the slices of their address space that nodes lease."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from argosy.core.meta import Meta

SLICE_PREFIX = 27
SLICE_SIZE = 1 << (32 - SLICE_PREFIX)
"""Addresses in a slice: what a node leases at a time."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """An address (IPv4, host byte order) on a network: a task's, or a service's virtual one."""

    network_id: str = ""
    address: int = 0


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What the user wants of a network; an empty subnet lets the cluster choose."""

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    subnet: str = ""
    internal: bool = False
    attachable: bool = False


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
    """What the addresses of a slice are for: the tasks of the node that leases it, or services (virtual addresses)."""

    TASKS = 0
    SERVICES = 1


@dataclass(frozen=True, slots=True)
class Slice:
    """Addresses [subnet + index*32, +32) of a network; those for services are leased to no node (`node_id` "")."""

    meta: Meta = Meta()
    network_id: str = ""
    index: int = 0
    node_id: str = ""
    use: SliceUse = SliceUse.TASKS
    schema: int = 1


def slice_id(network_id: str, index: int) -> str:
    """Return the id of a network's slice."""
    return f"{network_id}.{index}"
