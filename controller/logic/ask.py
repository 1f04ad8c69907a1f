"""What the tasks of one revision ask of a node, read once from their spec."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from argosy.core.constraints import (
    Attribute,
    Constraint,
    architecture_name,
    parse_attribute,
    parse_constraints,
    parse_spread,
)
from argosy.core.node import Node, Platform, Resources
from argosy.core.ports import plain_host_ip
from argosy.core.service import Affinity, HostPort, TaskSpec
from argosy.core.units import nano_cpus

Amounts: TypeAlias = tuple[int, int, int]
"""Billionths of a CPU, bytes of memory, processes: integers, so that sums are exact."""


class Port(NamedTuple):
    """A port of the node, at one of its addresses or ("") all of them."""

    protocol: str
    number: int
    host_ip: str = ""

    @classmethod
    def of(cls, port: HostPort) -> "Port":
        """Return what a published port takes."""
        return cls(port.protocol, port.port, plain_host_ip(port.host_ip))

    def marks(self) -> tuple["Port", ...]:
        """Return what is marked as taken where a task has it: its place, and that there is any."""
        return self, self._replace(host_ip=_SOMEWHERE)

    def obstacles(self) -> tuple["Port", ...]:
        """Return the marks beside which it cannot stand."""
        if not self.host_ip:
            return (self._replace(host_ip=_SOMEWHERE),)
        return self, self._replace(host_ip="")


_SOMEWHERE = "*"


def clashing(wanted: Iterable[HostPort], there: Iterable[HostPort]) -> list[HostPort]:
    """Return the ports among `wanted` that cannot stand beside those that are there."""
    marks = {mark for port in there for mark in Port.of(port).marks()}
    return [port for port in wanted if marks.intersection(Port.of(port).obstacles())]


def amounts(resources: Resources) -> Amounts:
    """Return resources as integers."""
    return nano_cpus(resources.cpus), resources.memory_bytes, resources.pids


def oci_platform(platform: Platform) -> Platform:
    """Return a platform in OCI's words, in which two can be compared."""
    return Platform(platform.os.lower(), architecture_name(platform.architecture))


def platform_of(node: Node) -> Platform:
    """Return what images a node can run."""
    return oci_platform(node.description.platform)


def makes_tunnels(node: Node) -> bool:
    """Return whether a node can carry encrypted networks."""
    return bool(node.description.tunnels_by)


@dataclass(frozen=True, slots=True)
class Near:
    """An affinity as the scheduler uses it. `service`: qualified name; `within` None: the node itself is the place."""

    service: str
    anti: bool = False
    preferred: bool = False
    within: Attribute | None = None

    @classmethod
    def of(cls, affinity: Affinity, own: str) -> "Near":
        """Read an affinity of the service of qualified name `own`. InvalidError when its attribute cannot be read."""
        within = parse_attribute(affinity.within) if affinity.within else None
        return cls(in_project_of(own, affinity.service), affinity.anti, affinity.preferred, within)


def qualified_name(project: str, name: str) -> str:
    """Return a service's name as it is told apart from those of other projects."""
    return f"{project}/{name}"


def in_project_of(own: str, name: str) -> str:
    """Return the qualified name of another service in the project of the service `own`."""
    project, slash, _ = own.rpartition("/")
    return f"{project}{slash}{name}"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task takes away from its node as long as it has not ended.

    `repels`: required anti-affinities, which also keep tasks of those services away from it.
    """

    room: Amounts = (0, 0, 0)
    ports: tuple[Port, ...] = ()
    repels: tuple[Near, ...] = ()

    @classmethod
    def of(cls, spec: TaskSpec, name: str) -> "Needs":
        """Return the needs of a task with that spec, of the service of that qualified name."""
        away = (a for a in spec.placement.affinities if a.anti and not a.preferred)
        ports = tuple(map(Port.of, spec.host_ports))
        return cls(amounts(spec.reservations), ports, tuple(Near.of(a, name) for a in away))


@dataclass(frozen=True, slots=True)
class Ask:
    """What the scheduler looks at: of one revision of one service, the same for all of its tasks.

    `service` is its qualified name. `networks`: all of them; `leasing`: those where it takes whatever address is free.
    """

    service: str
    needs: Needs
    constraints: tuple[Constraint, ...] = ()
    platforms: tuple[Platform, ...] = ()
    max_per_node: int = 0
    spread: tuple[Attribute, ...] = ()
    affinities: tuple[Near, ...] = ()
    networks: frozenset[str] = frozenset()
    leasing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, service: str, spec: TaskSpec) -> "Ask":
        """Read a spec of the service of that qualified name.

        InvalidError when a constraint, preference or affinity cannot be read (validation let it pass).
        """
        placement = spec.placement
        return cls(
            service,
            Needs.of(spec, service),
            parse_constraints(placement.constraints),
            tuple(map(oci_platform, placement.platforms)),
            placement.max_replicas_per_node,
            tuple(parse_spread(p.spread) for p in placement.preferences),
            tuple(Near.of(a, service) for a in placement.affinities),
            frozenset(n.target for n in spec.networks),
            frozenset(n.target for n in spec.networks if not n.address),
        )
