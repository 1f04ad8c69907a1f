"""Nodes: what the operator wants of a host (spec), what it says of itself (description), what was seen (status)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from argosy.core.mesh import MeshKey, Tunnel
from argosy.core.meta import Meta


class NodeState(IntEnum):
    """What the leader knows of a node."""

    UNKNOWN = 0
    READY = 1
    AGENT_LOST = 2
    DOWN = 3


class Availability(IntEnum):
    """Whether the scheduler may use a node; DRAIN also moves away what it runs."""

    ACTIVE = 0
    PAUSE = 1
    DRAIN = 2


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of CPU time (cores), memory (bytes) and processes; 0 means none asked for or no limit."""

    cpus: float = 0.0
    memory_bytes: int = 0
    pids: int = 0


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system and architecture in the words of OCI images ("linux", "amd64")."""

    os: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """How a drained node is emptied: `pace` tasks on their way at once (0: as the budgets allow).

    What is left at `deadline` (0: never) is stopped without waiting for its replacement.
    """

    pace: int = 0
    deadline: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What the operator wants of a node."""

    name: str = ""
    role: str = "worker"
    availability: Availability = Availability.ACTIVE
    labels: Mapping[str, str] = field(default_factory=dict)
    drain: Drain = Drain()


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """What the agent says of its host. `routes`: what it reaches by itself, without the default route, as CIDRs.

    `addresses`: those that its devices have, without 127.0.0.1 and link-local ones.
    `tunnels_by`: what makes tunnels for encrypted networks, "kernel" or "wireguard-go"; "" nothing can, and
    `no_tunnels` says why. `underlay_problem`: why other hosts cannot reach it.
    """

    hostname: str = ""
    platform: Platform = Platform()
    resources: Resources = Resources()
    agent_version: str = ""
    kernel: str = ""
    underlay_address: str = ""
    underlay_mtu: int = 0
    boot_id: str = ""
    tunnels_by: str = ""
    no_tunnels: str = ""
    mesh_keys: tuple[MeshKey, ...] = ()
    routes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    underlay_problem: str = ""


@dataclass(frozen=True, slots=True)
class BeatKey:
    """With which the host of a node signs its beats; `meta.id` is the node's. Stored for the leaders to come."""

    meta: Meta = Meta()
    key: bytes = b""
    schema: int = 1


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What the leader observed; `since` is when this state began."""

    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class PortProblem:
    """Why a published port of a service is not open on a node (`closed`), or not reached there; said by its agent."""

    service_id: str = ""
    protocol: str = ""
    published: int = 0
    host_ip: str = ""
    reason: str = ""
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A host of the cluster. `tunnels`: to the nodes that share an encrypted network with it, as it finds them."""

    meta: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    tunnels: tuple[Tunnel, ...] = ()
    port_problems: tuple[PortProblem, ...] = ()
    schema: int = 1
