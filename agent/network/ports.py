"""The node's published ports: which it was told of, which it can hold, and what stands in the way of the others.

A port that a program of the host has is left to it, and said; it is tried again whenever everything is looked at.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from argosy.agent.logic.network_ingress import Door
from argosy.agent.logic.network_ports import HostPort, LocalPort, Opening, doors_of, openings
from argosy.agent.logic.network_services import Services
from argosy.agent.network.desired import LocalTask
from argosy.agent.network.held_ports import HeldPorts
from argosy.core.assignment import NetworkAssignment, PublishedAssignment
from argosy.core.node import PortProblem


class Ports:
    """Used by the plane's worker thread alone; `problems` may be read by others."""

    def __init__(self, services: Services) -> None:
        self.problems: tuple[PortProblem, ...] = ()
        self._services = services
        self._held = HeldPorts()
        self._all: list[Opening] = []
        self._refused: dict[HostPort, str] = {}

    def want(
        self,
        published: Sequence[PublishedAssignment],
        tasks: Iterable[LocalTask],
        networks: Mapping[str, NetworkAssignment],
    ) -> None:
        """Take over which ports to answer on: everybody's, and those of this node's tasks."""
        self._all = openings(published, _local_ports(tasks, networks))
        self.try_again()

    def try_again(self) -> bool:
        """Try to hold what could not be held; tell whether anything differs now."""
        refused = self._held.want(o.port for o in self._all)
        changed, self._refused = refused.keys() != self._refused.keys(), refused
        self.problems = tuple(_problem(o, refused[o.port]) for o in self._all if o.port in refused)
        return changed

    @property
    def openings(self) -> list[Opening]:
        """The ports that the host's namespace has to translate."""
        return [o for o in self._all if o.port not in self._refused]

    def doors_of(self, network_id: str) -> tuple[Door, ...]:
        """Return the doors of a network's namespace: also of ports that are not held, which nothing comes to."""
        return doors_of(self._all, network_id, self._services)

    def close(self) -> None:
        """Let all ports go."""
        self._held.close()


def _local_ports(tasks: Iterable[LocalTask], networks: Mapping[str, NetworkAssignment]) -> Iterator[LocalPort]:
    for task in tasks:
        ways = (a for a in task.attachments if a.network_id in networks and not networks[a.network_id].internal)
        way = next(ways, None) if task.host_ports else None
        if way is not None:
            for port in task.host_ports:
                if port.target and port.port:
                    yield LocalPort(task.service_id, way.network_id, way.address, port)


def _problem(opening: Opening, reason: str) -> PortProblem:
    port = opening.port
    return PortProblem(opening.service_id, port.protocol, port.number, port.host_ip, reason, closed=True)
