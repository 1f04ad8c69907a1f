"""What the agent tells its network plane, and what the plane answers: the types of the interface.

The agent hands over the whole desired state each time (level-triggered); the plane finds what changed by itself. Give
the same piece objects again where nothing changed: comparing is then a pointer comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from argosy.core.assignment import (
    EndpointAssignment,
    MeshAssignment,
    MeshPeerAssignment,
    NamesAssignment,
    NetworkAssignment,
    PeerAssignment,
    PublishedAssignment,
)
from argosy.core.mesh import MeshKey, Tunnel
from argosy.core.network import Attachment
from argosy.core.service import HostPort

ROUTER_ADDRESS: Final = "169.254.1.1"
"""What every container has as its router and name server, in every network."""

VXLAN_PORT: Final = 14789
"""Not 4789: another orchestrator's device with the same VNI would collide with ours."""


WIREGUARD_PORT: Final = 51820
"""Of the tunnels of even epochs; those of odd ones are at the next."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this node is. `underlay_address` (IPv4) is where its peers send VXLAN packets when the plane begins."""

    node_id: str
    node_name: str
    underlay_address: str


@dataclass(frozen=True, slots=True)
class AuditTiming:
    """When the kernel is looked at, in seconds.

    `period`: between two looks at everything. `settle`: after an event, for more of the same to come. `silent`:
    between two looks at what nobody notifies of: settings, and the namespaces' pins. `retry`: after a repair that
    failed. `away`: so long the host may be without its address before another is looked for, and before anything is
    said of it. `events`: whether the kernel's notifications are listened to.
    """

    period: float = 15.0
    settle: float = 0.2
    silent: float = 2.0
    retry: float = 1.0
    away: float = 1.5
    events: bool = True


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """What can be set of the plane.

    `state_dir` outlives a boot, `run_dir` must not (tmpfs). No container may reach `protected_udp` and
    `protected_tcp` ports through the host, wherever they are: the lead's controllers, etcd, WireGuard; the VXLAN
    port is always among them. Tunnels are at `wireguard_port` and, while keys are changed, at the next.
    `uplink_range` is cut into a pair of addresses a network; it never leaves the host. `resolv_conf` names the
    resolvers that are asked for what is not ours. `advertise` and `towards` say where another address is found when
    the host has lost that of the underlay (facts.find_underlay). Without `dns` no names are answered, without `audit`
    nothing is repaired unasked. `launcher` is the socket of the host's, which keeps copies of names' sockets.
    """

    state_dir: Path
    run_dir: Path
    vxlan_port: int = VXLAN_PORT
    wireguard_port: int = WIREGUARD_PORT
    protected_udp: tuple[int, ...] = (WIREGUARD_PORT, WIREGUARD_PORT + 1)
    protected_tcp: tuple[int, ...] = (2379, 2380)
    uplink_range: str = "169.254.64.0/18"
    resolv_conf: Path = Path("/etc/resolv.conf")
    advertise: str = ""
    towards: str = ""
    dns: bool = True
    audit: AuditTiming | None = AuditTiming()
    launcher: Path | None = None


@dataclass(frozen=True, slots=True)
class LocalTask:
    """A task of this node that holds addresses; names are answered to it for all its networks.

    `nameservers` (addresses) are asked for what is not ours, instead of the host's. `host_ports` are open for it on
    this node.
    """

    container_id: str
    attachments: tuple[Attachment, ...]
    nameservers: tuple[str, ...] = ()
    service_id: str = ""
    host_ports: tuple[HostPort, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkState:
    """All that the node should have: whole, not an increment."""

    networks: Mapping[str, NetworkAssignment] = field(default_factory=dict)
    peers: Sequence[PeerAssignment] = ()
    names: Sequence[NamesAssignment] = ()
    endpoints: Sequence[EndpointAssignment] = ()
    tasks: Sequence[LocalTask] = ()
    mesh: MeshAssignment | None = None
    mesh_peers: Sequence[MeshPeerAssignment] = ()
    published: Sequence[PublishedAssignment] = ()


@dataclass(frozen=True, slots=True)
class MeshReport:
    """What a node says of its mesh: its public keys, its tunnels, and by encrypted network what is wrong with them."""

    keys: tuple[MeshKey, ...] = ()
    tunnels: tuple[Tunnel, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostReport:
    """What may change of the host while it runs, in the words of the node's description.

    `problems`: by network, why running containers may not reach everything, or the network does not fit the host.
    """

    underlay_address: str = ""
    underlay_mtu: int = 0
    underlay_problem: str = ""
    addresses: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interface:
    """A link that a container got; `mtu` in bytes."""

    name: str
    network_id: str
    network_name: str
    address: str
    mtu: int
    default_route: bool


@dataclass(frozen=True, slots=True)
class AttachResult:
    """What `attach` made, in the order of the attachments. `nameserver` goes into the container's resolv.conf."""

    interfaces: tuple[Interface, ...]
    nameserver: str = ROUTER_ADDRESS


class DriftKind(StrEnum):
    """How the kernel differs from what is intended."""

    MISSING = "missing"
    UNEXPECTED = "unexpected"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between the intended and the kernel's state; `network_id` "" is the host's own namespace."""

    network_id: str
    kind: DriftKind
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair put right in one network: the first difference, as a rule the others' cause, and how many others.

    `at` in seconds since 1970.
    """

    drift: Drift
    at: float
    others: int


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit that was asked for found, and why not all of it was put right ("" when it was).

    `earlier`: the latest repairs before.
    """

    found: tuple[Drift, ...]
    problem: str
    earlier: tuple[Repaired, ...]
