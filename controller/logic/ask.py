"""What the tasks of one revision ask of a node, read once from their spec."""

from dataclasses import dataclass
from typing import TypeAlias

from argosy.core.constraints import Attribute, Constraint, architecture_name, parse_constraints, parse_spread
from argosy.core.node import Node, Platform, Resources
from argosy.core.service import TaskSpec
from argosy.core.units import nano_cpus

Port: TypeAlias = tuple[str, int]
"""Protocol and number of a port of the node."""
Amounts: TypeAlias = tuple[int, int, int]
"""Billionths of a CPU, bytes of memory, processes: integers, so that sums are exact."""


def amounts(resources: Resources) -> Amounts:
    """Return resources as integers."""
    return nano_cpus(resources.cpus), resources.memory_bytes, resources.pids


def oci_platform(platform: Platform) -> Platform:
    """Return a platform in OCI's words, in which two can be compared."""
    return Platform(platform.os.lower(), architecture_name(platform.architecture))


def platform_of(node: Node) -> Platform:
    """Return what images a node can run."""
    return oci_platform(node.description.platform)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task takes away from its node as long as it has not ended."""

    room: Amounts = (0, 0, 0)
    ports: tuple[Port, ...] = ()

    @classmethod
    def of(cls, spec: TaskSpec) -> "Needs":
        """Return the needs of a task with that spec."""
        return cls(amounts(spec.reservations), tuple((p.protocol, p.port) for p in spec.host_ports))


@dataclass(frozen=True, slots=True)
class Ask:
    """What the scheduler looks at: of one revision of one service, the same for all of its tasks."""

    service_id: str
    needs: Needs
    constraints: tuple[Constraint, ...] = ()
    platforms: tuple[Platform, ...] = ()
    max_per_node: int = 0
    spread: tuple[Attribute, ...] = ()

    @classmethod
    def of(cls, service_id: str, spec: TaskSpec) -> "Ask":
        """Read a spec. InvalidError when a constraint or preference cannot be read (validation let it pass)."""
        placement = spec.placement
        return cls(
            service_id,
            Needs.of(spec),
            parse_constraints(placement.constraints),
            tuple(map(oci_platform, placement.platforms)),
            placement.max_replicas_per_node,
            tuple(parse_spread(p.spread) for p in placement.preferences),
        )
