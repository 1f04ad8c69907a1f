"""What publishing ports means for a request: refusing what another service has, and choosing numbers in host mode.

Ports on every node are given by the leader (logic/published_ports.py); refused here is what it could not give now. A
number in host mode is part of what tasks run, so it is chosen with the change and stands in the spec.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from argosy.controller.logic.published_ports import Taken, network_of, no_way_in
from argosy.controller.store import Snapshot
from argosy.core.errors import ExhaustedError, ExistsError, PreconditionError, about
from argosy.core.meta import DEFAULT_PROJECT
from argosy.core.network import Network
from argosy.core.ports import FIRST_CHOSEN, LAST_CHOSEN, said
from argosy.core.service import HostPort, PortSpec, Service, ServiceSpec


def with_numbers(snap: Snapshot, project: str, specs: Sequence[ServiceSpec]) -> list[ServiceSpec]:
    """Return specs with numbers for their ports in host mode that have none: the present ones, or free ones.

    `specs` are created or changed together: what one of them asks for by number no other is given.
    """
    if all(p.port or not p.target for spec in specs for p in spec.task.host_ports):
        return list(specs)
    taken = Taken.of([*snap.all(Service), *(Service(spec=spec) for spec in specs)])
    return [_with_numbers(snap.by_name(Service, project, spec.name), spec, taken) for spec in specs]


def _with_numbers(present: Service | None, spec: ServiceSpec, taken: Taken) -> ServiceSpec:
    had, asked = present.spec.task.host_ports if present else (), Taken.of([Service(spec=spec)])
    has = [p for p in had if _was_chosen(p) and not asked.has(p.protocol, p.port, p.host_ip)]
    found: list[HostPort] = []
    for port in spec.task.host_ports:
        if not port.port and port.target:
            kept = next((p for p in has if replace(p, port=0) == port), None)
            if kept is not None:
                has.remove(kept)
            number = kept.port if kept is not None else taken.free(port.protocol)
            if not number:
                with about("service", spec.name, "task.host_ports"):
                    raise ExhaustedError(
                        f"service {spec.name}: all {port.protocol} ports from {FIRST_CHOSEN} to {LAST_CHOSEN} are in "
                        "use: publish one of another number"
                    )
            port = replace(port, port=number)
            taken.by_tasks.setdefault((port.protocol, number), []).append((port.host_ip, spec.name))
        found.append(port)
    return replace(spec, task=replace(spec.task, host_ports=tuple(found)))


def _was_chosen(port: HostPort) -> bool:
    return FIRST_CHOSEN <= port.port <= LAST_CHOSEN


def check(
    snap: Snapshot,
    project: str,
    specs: Sequence[ServiceSpec],
    leaving: Collection[str] = (),
    new_networks: Mapping[str, Network] | None = None,
) -> None:
    """Refuse ports that another service has (ExistsError), and ports without a network that leads to the tasks.

    `specs` are resolved, and created or changed together; `leaving`: names of services that the same request removes.
    What a service has already, or asked for before, is not looked at again, unless it leaves the network for it.
    """
    if not any(s.endpoint.ports or s.task.host_ports for s in specs):
        return
    own = {spec.name for spec in specs} | set(leaving)
    others = [s for s in snap.all(Service) if s.meta.project != project or s.spec.name not in own]
    networks = {n.meta.id: n for n in (*snap.all(Network), *(new_networks or {}).values())}
    together = [Service(spec=spec) for spec in specs]
    taken = Taken.of([*others, *(replace(s, meta=replace(s.meta, project=project)) for s in together)])
    for spec in specs:
        present = snap.by_name(Service, project, spec.name)
        before: Sequence[PortSpec | HostPort] = ()
        if present is not None:
            before = (*present.spec.endpoint.ports, *present.spec.task.host_ports)
        wanted = dict(_published(spec))
        fresh = {field: port for field, port in wanted.items() if port not in before}
        had_a_way = present is not None and network_of(present.spec, networks)
        with about("service", spec.name, "task.networks"):
            if any(p.target for p in (wanted if had_a_way else fresh).values()) and not network_of(spec, networks):
                raise PreconditionError(no_way_in(spec))
        name = spec.name if project == DEFAULT_PROJECT else f"{project}/{spec.name}"
        for field, port in fresh.items():
            number = port.published if isinstance(port, PortSpec) else port.port
            owner = taken.owner(port, but=name) if number else ""
            with about("service", spec.name, field):
                if owner:
                    raise ExistsError(
                        f"service {spec.name}: port {said(port.protocol, number, port.host_ip)} is published by "
                        f"service {owner}: choose another, or leave the number out and the cluster chooses one"
                    )


def _published(spec: ServiceSpec) -> Iterator[tuple[str, PortSpec | HostPort]]:
    """Yield all ports that a service publishes, each after the field of its number."""
    yield from ((f"endpoint.ports[{i}].published", port) for i, port in enumerate(spec.endpoint.ports))
    yield from ((f"task.host_ports[{i}].port", port) for i, port in enumerate(spec.task.host_ports))
