"""Which service has which port on every node (ingress mode): a plan over all services. Pure.

A port that a service has it keeps, through updates of all else, until it no longer publishes it or is removed; a number
that the cluster chose as well. Where two want one, who was there first has it: the other one's record says so. Ports in
host mode belong to tasks and are the scheduler's; here they count only as taken.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from argosy.core.meta import DEFAULT_PROJECT
from argosy.core.network import Network
from argosy.core.ports import FIRST_CHOSEN, LAST_CHOSEN, said, same_place
from argosy.core.service import HostPort, PortSpec, Service, ServiceSpec
from argosy.core.task import Task


@dataclass(frozen=True, slots=True)
class Granted:
    """The ports that a service has, and why it has not got others."""

    ports: tuple[PortSpec, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class Taken:
    """Which ports are whose: by protocol and number, the addresses and the services' names."""

    everywhere: dict[tuple[str, int], list[tuple[str, str]]] = field(default_factory=dict)
    by_tasks: dict[tuple[str, int], list[tuple[str, str]]] = field(default_factory=dict)
    _tried: dict[str, int] = field(default_factory=dict)
    """By protocol: all numbers below are in use, since nothing is ever taken out."""

    @classmethod
    def of(cls, services: Iterable[Service]) -> "Taken":
        """Return what services that are not being removed have, or say in so many words that they want."""
        taken = cls()
        for service in services:
            if not service.removing:
                for port in (*service.ports, *service.spec.endpoint.ports):
                    taken.add(port, service)
                taken.add_tasks(service)
        return taken

    def add(self, port: PortSpec, service: Service) -> None:
        """Note a port that a service has on every node."""
        if port.published:
            self.everywhere.setdefault((port.protocol, port.published), []).append((port.host_ip, _name(service)))

    def add_tasks(self, service: Service) -> None:
        """Note the ports that a service's tasks have on their nodes."""
        for port in service.spec.task.host_ports:
            if port.port:
                self.by_tasks.setdefault((port.protocol, port.port), []).append((port.host_ip, _name(service)))

    def owner(self, port: PortSpec | HostPort, but: str = "") -> str:
        """Return who has a port, or one that cannot stand beside it; "" if nobody. `but`: a service's own name."""
        ingress = isinstance(port, PortSpec)
        key = (port.protocol, port.published if isinstance(port, PortSpec) else port.port)
        holders = [*self.everywhere.get(key, ()), *(self.by_tasks.get(key, ()) if ingress else ())]
        return next((name for host_ip, name in holders if name != but and same_place(host_ip, port.host_ip)), "")

    def has(self, protocol: str, number: int, host_ip: str) -> bool:
        """Whether anybody has a port, or one at the same place, in either mode."""
        holders = *self.everywhere.get((protocol, number), ()), *self.by_tasks.get((protocol, number), ())
        return any(same_place(other, host_ip) for other, _ in holders)

    def free(self, protocol: str) -> int:
        """Return the lowest number of those that the cluster chooses from which nobody has; 0 if there is none."""
        for number in range(self._tried.get(protocol, FIRST_CHOSEN), LAST_CHOSEN + 1):
            self._tried[protocol] = number
            if (protocol, number) not in self.everywhere and (protocol, number) not in self.by_tasks:
                return number
        return 0


def network_of(spec: ServiceSpec, networks: Mapping[str, Network]) -> str:
    """Return the network that a service asks its ports to lead over: its first that leads outside; "" none."""
    joined = (n.target for n in spec.task.networks)
    return next((i for i in joined if i in networks and not networks[i].spec.internal), "")


def leads_over(service: Service, networks: Mapping[str, Network], serving: Mapping[str, int]) -> str:
    """Return the network over which a service's ports lead to its tasks now; "" if it has none.

    Where they are to, unless more of its tasks are ready on another: those that an update has not replaced yet go on
    until as many are on the new network. `serving`: by network, how many are ready (`count_ready`).
    """
    wanted = network_of(service.spec, networks) if service.ports and not service.removing else ""
    if not wanted:
        return ""
    outside = (i for i in sorted(serving) if i in networks and not networks[i].spec.internal)
    return max((wanted, *outside), key=lambda i: serving.get(i, 0))


def count_ready(tasks: Iterable[Task], is_down: Callable[[str], bool]) -> Counter[str]:
    """Return by network how many tasks are ready to serve; `is_down` tells of a node that it is."""
    ready = (t for t in tasks if t.takes_requests and not is_down(t.node_id))
    return Counter(a.network_id for t in ready for a in t.attachments)


def no_way_in(spec: ServiceSpec) -> str:
    """Return why a service without such a network cannot publish ports."""
    what = "is on internal networks only" if spec.task.networks else "is on no network"
    how = "to publish ports it has to join one that is not internal (--network, or networks in a Compose file)"
    return f"service {spec.name} {what}: {how}"


def grants(services: Iterable[Service], networks: Mapping[str, Network]) -> dict[str, Granted]:
    """Return what each service should have; all services are needed, since they compete."""
    alive = sorted((s for s in services if not s.removing), key=lambda s: (s.meta.created_at, s.meta.id))
    wishing = [s for s in alive if s.spec.endpoint.ports]
    taken = Taken()
    for service in alive:
        taken.add_tasks(service)
    found: dict[str, dict[PortSpec, PortSpec]] = {}
    for service in wishing:
        if network_of(service.spec, networks):
            found[service.meta.id] = kept = dict(_kept(service))
            for port in kept.values():
                taken.add(port, service)
    problems: dict[str, list[str]] = {}
    for chosen in (False, True):  # what was asked for by number goes before what can be any
        for service in wishing:
            mine = found.get(service.meta.id)
            for port in service.spec.endpoint.ports if mine is not None else ():
                if mine is None or port in mine or bool(port.published) is chosen:
                    continue
                got = _give(port, service, taken)
                if isinstance(got, str):
                    problems.setdefault(service.meta.id, []).append(got)
                else:
                    mine[port] = got
                    taken.add(got, service)
    return {s.meta.id: _granted(s, found.get(s.meta.id), problems.get(s.meta.id, [])) for s in alive}


def _kept(service: Service) -> Iterator[tuple[PortSpec, PortSpec]]:
    """Yield each wish that is met already, with the port that it got.

    A number that was chosen is given up where the service asks for it by now, for another port of its own.
    """
    has, asked = list(service.ports), Taken.of([Service(spec=service.spec)])
    for wish in service.spec.endpoint.ports:
        for port in has:
            chosen = not wish.published and replace(port, published=0) == wish and _was_chosen(port)
            if port == wish or (chosen and not asked.has(port.protocol, port.published, port.host_ip)):
                has.remove(port)
                yield wish, port
                break


def _was_chosen(port: PortSpec) -> bool:
    return FIRST_CHOSEN <= port.published <= LAST_CHOSEN


def _give(port: PortSpec, service: Service, taken: Taken) -> PortSpec | str:
    if not port.published:
        number = taken.free(port.protocol)
        if number:
            return replace(port, published=number)
        return (
            f"all {port.protocol} ports from {FIRST_CHOSEN} to {LAST_CHOSEN} are in use: publish one of another number"
        )
    owner = taken.owner(port, but=_name(service))
    if owner:
        return f"port {said(port.protocol, port.published, port.host_ip)} is published by service {owner}"
    return port


def _granted(service: Service, found: Mapping[PortSpec, PortSpec] | None, problems: list[str]) -> Granted:
    wishes = service.spec.endpoint.ports
    if wishes and found is None:
        return Granted((), (no_way_in(service.spec),))
    return Granted(tuple(found[w] for w in wishes if w in found) if found else (), tuple(problems))


def _name(service: Service) -> str:
    project, name = service.meta.project, service.spec.name
    return name if project == DEFAULT_PROJECT else f"{project}/{name}"
