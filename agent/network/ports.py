"""The node's published ports: which it was told of, which it can hold, and what stands in the way of the others.

A port that a program of the host has is left to it, and said; it is tried again whenever everything is looked at.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from argosy.agent.logic.network_ingress import Door
from argosy.agent.logic.network_ports import (
    HostPort,
    LocalPort,
    Opening,
    doors_of,
    host_port,
    lost_ports,
    openings,
)
from argosy.agent.logic.network_services import Services
from argosy.agent.network.desired import LocalTask
from argosy.agent.network.foreign import ForeignFirewall
from argosy.agent.network.held_ports import HeldPorts
from argosy.core.assignment import NetworkAssignment, PublishedAssignment
from argosy.core.node import PortProblem


class Ports:
    """Used by the plane's worker thread alone; `problems` may be read by others.

    `tunnels`: the UDP ports that tunnels are at, also while there are none: services cannot have them.
    """

    def __init__(self, services: Services, firewall: ForeignFirewall, tunnels: Collection[int]) -> None:
        self.problems: tuple[PortProblem, ...] = ()
        self._services = services
        self._firewall = firewall
        self._held = HeldPorts(tunnels)
        self._all: list[Opening] = []
        self._ways_in: set[str] = set()
        self._refused: dict[HostPort, str] = {}
        self._looked = True
        self._lost: list[PortProblem] = []
        self._for_datagrams: set[Opening] = set()

    def want(
        self,
        published: Sequence[PublishedAssignment],
        tasks: Iterable[LocalTask],
        networks: Mapping[str, NetworkAssignment],
    ) -> None:
        """Take over which ports to answer on: everybody's, and those of this node's tasks."""
        local = list(_local_ports(tasks, networks))
        self._ways_in = {piece.network_id for piece in published}
        wanted = openings(published, local)
        lost = _lost(local, wanted)
        if (wanted, lost) != (self._all, self._lost):
            self._all, self._lost, self._looked = wanted, lost, False
            self.try_again()
        elif self._refused and self.try_again():
            self._looked = False

    def try_again(self) -> bool:
        """Try to hold what could not be held; tell whether anything differs now."""
        refused = self._held.want(o.port for o in self._all)
        changed, self._refused = refused.keys() != self._refused.keys(), refused
        return changed

    def changed_for_datagrams(self) -> set[Opening]:
        """Return the UDP ports that opened, closed, or lead elsewhere, and datagrams do not know: as before and now."""
        return {o for o in self.openings if o.port.protocol == "udp"} ^ self._for_datagrams

    def doubt_datagrams(self) -> None:
        """Have datagrams to every UDP port be looked at: they may have begun while it led nowhere.

        To those that closed, too, of which they do not know yet.
        """
        self._for_datagrams.difference_update(self.openings)

    def datagrams_know(self, changed: Collection[Opening]) -> None:
        """Take note that datagrams find where these lead."""
        self._for_datagrams.symmetric_difference_update(changed)

    def look(self, *, again: bool = False) -> None:
        """Find out what stands in the way of ports; unless `again`, only once for the same ports."""
        if self._looked and not again:
            return
        self._looked = True
        closed = [_problem(o, self._refused[o.port], closed=True) for o in self._all if o.port in self._refused]
        outer = [o for o in self.openings if not o.port.host_ip.startswith("127.")]
        dropped = self._firewall.look() if outer else ""
        self.problems = (*self._lost, *closed, *(_problem(o, dropped, closed=False) for o in outer if dropped))

    @property
    def openings(self) -> list[Opening]:
        """The ports that the host's namespace has to translate."""
        return [o for o in self._all if o.port not in self._refused]

    def doors_of(self, network_id: str) -> tuple[Door, ...]:
        """Return the doors of a network's namespace: also of ports that are not held, which nothing comes to."""
        return doors_of(self._all, network_id, self._services)

    def leads_into(self, network_id: str) -> bool:
        """Tell whether ports of every node lead into a network, or did, or are about to."""
        return network_id in self._ways_in

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


def _lost(local: Iterable[LocalPort], wanted: Iterable[Opening]) -> list[PortProblem]:
    found = []
    for one, reason in lost_ports(local, wanted):
        port = host_port(one.port)
        found.append(PortProblem(one.service_id, port.protocol, port.number, port.host_ip, reason, closed=True))
    return found


def _problem(opening: Opening, reason: str, *, closed: bool) -> PortProblem:
    port = opening.port
    return PortProblem(opening.service_id, port.protocol, port.number, port.host_ip, reason, closed)
