"""Stacks: the networks and services of a file, applied all or nothing in one transaction.

A stack has no object of its own: it is what carries its label.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from argosy.controller.changes import networks as network_changes
from argosy.controller.changes import services as service_changes
from argosy.controller.store import Op, Snapshot
from argosy.core.errors import ExistsError, InvalidError, NotFoundError
from argosy.core.meta import STACK_LABEL
from argosy.core.network import Network, NetworkSpec
from argosy.core.service import Service, ServiceSpec
from argosy.core.validate import validate_network, validate_service


@dataclass(frozen=True, slots=True)
class StackRequest:
    """What a deploy asks for; `ids` are fresh ones, as many as networks and services together."""

    project: str
    stack: str
    networks: Sequence[NetworkSpec]
    services: Sequence[ServiceSpec]
    prune: bool
    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class StackResult:
    """The stack's objects as applied."""

    networks: tuple[Network, ...] = ()
    services: tuple[Service, ...] = ()
    removed: tuple[Service, ...] = ()
    changed: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def applied(snap: Snapshot, request: StackRequest, now: float) -> tuple[list[Op], StackResult]:
    """Make the stack what the request says; names of other stacks' objects are refused."""
    _check_all(request)
    ids = iter(request.ids)
    net_ops, networks, notices = _networks(snap, request, ids, now)
    new = {n.spec.name: n.meta.id for n in networks}
    ops: list[Op] = list(net_ops)
    services, changed = [], []
    for spec in request.services:
        spec = replace(spec, labels={**spec.labels, STACK_LABEL: request.stack})
        resolved = service_changes.resolve(snap, request.project, spec, new)
        more, service = _service(snap, request, resolved, next(ids), now)
        ops += more
        services.append(service)
        if more:
            changed.append(service.meta.id)
    removed = []
    if request.prune:
        wanted = {s.meta.id for s in services}
        for old in services_of(snap, request.project, request.stack):
            if old.meta.id not in wanted:
                more, gone = service_changes.removed(old, now)
                ops += more
                removed.append(gone)
    return ops, StackResult(tuple(networks), tuple(services), tuple(removed), tuple(changed), tuple(notices))


def _check_all(request: StackRequest) -> None:
    problems: list[tuple[str, str]] = []
    for service in request.services:
        problems += [(f"service {service.name}: {p.where}", p.what) for p in validate_service(service)]
    for network in request.networks:
        problems += [(f"network {network.name}: {p.where}", p.what) for p in validate_network(network)]
    if problems:
        raise InvalidError(f"stack {request.stack} cannot be accepted, nothing was changed", tuple(problems))
    names = [s.name for s in request.services]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InvalidError(f"stack {request.stack} has services of the same name: {', '.join(twice)}")


def _networks(
    snap: Snapshot, request: StackRequest, ids: Iterator[str], now: float
) -> tuple[list[Op], list[Network], list[str]]:
    existing, missing, notices = [], [], []
    for spec in request.networks:
        spec = replace(spec, labels={**spec.labels, STACK_LABEL: request.stack})
        found = snap.by_name(Network, request.project, spec.name)
        if found is None:
            missing.append((next(ids), spec))
            continue
        _own(found.spec.labels, f"network {spec.name}", request.stack)
        if replace(spec, subnet=spec.subnet or found.spec.subnet) != found.spec:
            notices.append(
                f"network {spec.name} exists with other settings, which a network keeps for life: "
                "remove the stack and deploy it again to change them"
            )
        existing.append(found)
    ops, created = network_changes.created(snap, request.project, missing, now)
    return ops, [*existing, *created], notices


def _service(
    snap: Snapshot, request: StackRequest, spec: ServiceSpec, new_id: str, now: float
) -> tuple[list[Op], Service]:
    found = snap.by_name(Service, request.project, spec.name)
    if found is None:
        return service_changes.created(snap, request.project, new_id, spec, now)
    _own(found.spec.labels, f"service {spec.name}", request.stack)
    return service_changes.updated(snap, found, spec, now)


def _own(labels: Mapping[str, str], what: str, stack: str) -> None:
    owner = labels.get(STACK_LABEL, "")
    if owner != stack:
        of = f"of stack {owner}" if owner else "of no stack"
        raise ExistsError(f"{what} exists already and is {of}: choose another name")


def services_of(snap: Snapshot, project: str, stack: str) -> list[Service]:
    """Return the services of a stack that are not being removed."""
    return [s for s in snap.all(Service, project=project) if not s.removing and s.spec.labels.get(STACK_LABEL) == stack]


def removed(snap: Snapshot, project: str, stack: str, now: float) -> tuple[list[Op], StackResult]:
    """Begin to remove all of a stack; its networks follow when their last task is gone."""
    services = services_of(snap, project, stack)
    networks = [n for n in snap.all(Network, project=project) if n.spec.labels.get(STACK_LABEL) == stack]
    networks = [n for n in networks if not n.removing]
    if not services and not networks:
        known = sorted({label for s in snap.all(Service, project=project) if (label := s.spec.labels.get(STACK_LABEL))})
        have = f"there are {', '.join(known)}" if known else "there is none"
        raise NotFoundError(f"no stack {stack!r}: {have}")
    ops: list[Op] = []
    gone_services, gone_networks = [], []
    leaving = frozenset(s.meta.id for s in services)
    for service in services:
        more, gone = service_changes.removed(service, now)
        ops += more
        gone_services.append(gone)
    for network in networks:
        more, gone_network = network_changes.removed(snap, network, now, leaving)
        ops += more
        gone_networks.append(gone_network)
    return ops, StackResult(tuple(gone_networks), tuple(gone_services))
