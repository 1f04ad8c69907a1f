"""Stacks: the networks, configs, secrets and services of a file, applied all or nothing in one transaction.

A stack has no object of its own: it is what carries its label.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from argosy.controller.changes import dependencies, images, published_ports, static_addresses
from argosy.controller.changes import files as file_changes
from argosy.controller.changes import networks as network_changes
from argosy.controller.changes import services as service_changes
from argosy.controller.secrets.keyring import Keyring
from argosy.controller.store import MAX_OPS, Check, Op, Put, Snapshot
from argosy.core.errors import ExistsError, InvalidError, NotFoundError, Place, about
from argosy.core.files import Config, NamedFile, NewFile, Secret, kind_name, version_id
from argosy.core.meta import STACK_LABEL
from argosy.core.network import Network, NetworkSpec
from argosy.core.service import Service, ServiceSpec
from argosy.core.validate import validate_network, validate_service
from argosy.core.validate_health import asks_nothing


@dataclass(frozen=True, slots=True)
class StackRequest:
    """What a deploy asks for; `ids` are fresh ones, as many as objects together. `keys` seal the secrets."""

    project: str
    stack: str
    networks: Sequence[NetworkSpec]
    services: Sequence[ServiceSpec]
    prune: bool
    ids: Sequence[str]
    configs: Sequence[NewFile] = ()
    secrets: Sequence[NewFile] = ()
    keys: Keyring = Keyring()


@dataclass(frozen=True, slots=True)
class StackResult:
    """The stack's objects as applied."""

    networks: tuple[Network, ...] = ()
    services: tuple[Service, ...] = ()
    removed: tuple[Service, ...] = ()
    changed: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    files: tuple[NamedFile, ...] = ()


def applied(snap: Snapshot, request: StackRequest, now: float) -> tuple[list[Op], StackResult]:
    """Make the stack what the request says; names of other stacks' objects are refused."""
    _check_all(request)
    ids = iter(request.ids)
    net_ops, networks, notices = _networks(snap, request, ids, now)
    new = {n.spec.name: n for n in networks}
    file_ops, files = _files(snap, request, ids, now)
    new_files = {(isinstance(f, Secret), f.name): version_id(f.meta.id, f.number) for f in files}
    ops: list[Op] = [*net_ops, *file_ops]
    services, changed, resolved = [], [], []
    leaving = _leaving(snap, request)
    for spec in request.services:
        spec = _as_forced(snap, request, replace(spec, labels={**spec.labels, STACK_LABEL: request.stack}))
        with about("service", spec.name):
            resolved.append(service_changes.resolve(snap, request.project, spec, new, new_files=new_files))
    notices += [text for spec in resolved if (text := _idle_check(snap, request.project, spec))]
    resolved = published_ports.with_numbers(snap, request.project, resolved)
    published_ports.check(snap, request.project, resolved, leaving, new)
    ops += dependencies.check(snap, request.project, resolved, leaving)
    resolved, moved = dependencies.with_restarts(snap, request.project, resolved)
    ops += dependencies.restart_all(snap, [s for s in moved if s.spec.name not in leaving], now)
    own: dict[str, list[Op]] = {}
    for spec in resolved:
        with about("service", spec.name):
            more, service = _service(snap, request, spec, next(ids), now)
        own[spec.name] = more
        services.append(service)
        if more:
            changed.append(service.meta.id)
    asking = [(s.meta.id, s.spec) for s in services if s.meta.id in changed]
    ops += static_addresses.claims(snap, asking, {n.meta.id: n for n in networks}, now)
    removed = []
    if request.prune:
        wanted = {s.meta.id for s in services}
        for old in services_of(snap, request.project, request.stack):
            if old.meta.id not in wanted:
                more, gone = service_changes.removed(old, now)
                ops += more
                removed.append(gone)
        ops += _pruned_files(snap, request, files, services, now)
    result = StackResult(
        tuple(networks), tuple(services), tuple(removed), tuple(changed), tuple(notices), files=tuple(files)
    )
    return _together(request.stack, ops, own), result


def _idle_check(snap: Snapshot, project: str, spec: ServiceSpec) -> str:
    """Say of a service's health check that it has no effect; "" where it has."""
    container = spec.task.container
    image = images.by_digest(snap, project, container.image_digest)
    if not asks_nothing(container.healthcheck, image.config.healthcheck if image is not None else None):
        return ""
    return (
        f"service {spec.name}: its health check says how often to ask, not how, and its image has none: it has no "
        "effect; add a test"
    )


def _together(stack: str, ops: list[Op], own: Mapping[str, list[Op]]) -> list[Op]:
    """Return all operations of a deploy; `own`: those of each service. InvalidError for more than can be made at once.

    What is as wanted has none: so a stack that is too large is deployed in parts.
    """
    together = _without_needless_checks([*ops, *(op for more in own.values() for op in more)])
    if len(together) <= MAX_OPS:
        return together
    changed = [name for name, more in own.items() if more]
    fit, taken = 0, list(ops)
    for name in changed:
        taken += own[name]
        if len(_without_needless_checks(taken)) > MAX_OPS:
            break
        fit += 1
    if not fit:
        raise InvalidError(
            f"stack {stack} has too much besides its services for one deploy, nothing was changed: make some of its "
            "networks, configs and secrets beforehand, remove services in smaller steps, and write 'external: true'"
        )
    raise InvalidError(
        f"this deploy of stack {stack} changes {len(changed)} services, more than go into one, and nothing was "
        f"changed: deploy the first {fit} of them (up to {changed[fit - 1]}), then the whole file; what is as the file "
        "says already takes no room"
    )


def _files(snap: Snapshot, request: StackRequest, ids: Iterator[str], now: float) -> tuple[list[Op], list[NamedFile]]:
    """Make the new versions, and return the files with all that the request has of them."""
    ops: list[Op] = []
    found, new = [], []
    for secret, wanted in ((False, request.configs), (True, request.secrets)):
        for one in wanted:
            what = kind_name(secret=secret)
            present = snap.by_name(file_changes.type_of(secret=secret), request.project, one.name)
            if present is not None:
                _own(present.labels, f"{what} {one.name}", request.stack)
            one = replace(one, labels={**one.labels, STACK_LABEL: request.stack})
            more, written = file_changes.written(
                snap, request.project, one, next(ids), request.keys, now, secret=secret
            )
            ops += more
            found.append(written.file)
            if written.changed:
                new.append(one)
    file_changes.check_amount(new)
    return ops, found


def _pruned_files(
    snap: Snapshot, request: StackRequest, kept: Sequence[NamedFile], services: Sequence[Service], now: float
) -> list[Op]:
    """Remove the stack's files that the request no longer has, but for those that other services use."""
    ours = {s.meta.id for s in (*services, *services_of(snap, request.project, request.stack))}
    names = {(type(f), f.name) for f in kept}
    ops: list[Op] = []
    for file in files_of(snap, request.project, request.stack):
        if (type(file), file.name) not in names and not any(
            s.meta.id not in ours for s in file_changes.users_of(snap, file)
        ):
            ops += file_changes.removed(snap, file, now, frozenset(ours))[0]
    return ops


def _without_needless_checks(ops: list[Op]) -> list[Op]:
    """Leave out checks of what is written under a version anyway, and repeated ones."""
    written = {(type(op.obj), op.obj.meta.id) for op in ops if isinstance(op, Put)}
    found: list[Op] = []
    for op in ops:
        if isinstance(op, Check):
            if (op.kind, op.id) in written:
                continue
            written.add((op.kind, op.id))
        found.append(op)
    return found


def _check_all(request: StackRequest) -> None:
    problems: list[tuple[Place, str]] = []
    for service in request.services:
        problems += [(Place("service", service.name, p.where), p.what) for p in validate_service(service)]
    for network in request.networks:
        problems += [(Place("network", network.name, p.where), p.what) for p in validate_network(network)]
    for secret, files in ((False, request.configs), (True, request.secrets)):
        for file in files:
            found = file_changes.problems(file, secret=secret)
            problems += [(Place(kind_name(secret=secret), file.name, where), what) for where, what in found]
    if problems:
        refused = InvalidError(
            f"stack {request.stack} cannot be accepted, nothing was changed",
            tuple((f"{at.kind} {at.name}: {at.field}", what) for at, what in problems),
        )
        refused.places = tuple(at for at, _ in problems)
        raise refused
    for what, named in (
        ("networks", request.networks),
        ("configs", request.configs),
        ("secrets", request.secrets),
        ("services", request.services),
    ):
        twice = sorted(name for name, count in Counter(one.name for one in named).items() if count > 1)
        if twice:
            raise InvalidError(f"stack {request.stack} has {what} of the same name: {', '.join(twice)}")


def _networks(
    snap: Snapshot, request: StackRequest, ids: Iterator[str], now: float
) -> tuple[list[Op], list[Network], list[str]]:
    ops: list[Op] = []
    existing, missing, notices = [], [], []
    for spec in request.networks:
        spec = replace(spec, labels={**spec.labels, STACK_LABEL: request.stack})
        found = snap.by_name(Network, request.project, spec.name)
        if found is None:
            missing.append((next(ids), spec))
            continue
        with about("network", spec.name):
            _own(found.spec.labels, f"network {spec.name}", request.stack)
            more, network, notice = network_changes.named_again(found, spec, now)
        ops += more
        notices += [notice] if notice else []
        existing.append(network)
    more, created = network_changes.created(snap, request.project, missing, now)
    return [*ops, *more], [*existing, *created], notices


def _service(
    snap: Snapshot, request: StackRequest, spec: ServiceSpec, new_id: str, now: float
) -> tuple[list[Op], Service]:
    found = snap.by_name(Service, request.project, spec.name)
    if found is None:
        return service_changes.created(snap, request.project, new_id, spec, now)
    _own(found.spec.labels, f"service {spec.name}", request.stack)
    return service_changes.updated(snap, found, spec, now)


def _as_forced(snap: Snapshot, request: StackRequest, spec: ServiceSpec) -> ServiceSpec:
    """Return the spec with the count of forced restarts that the service has: a file does not know of them."""
    found = snap.by_name(Service, request.project, spec.name)
    if found is None:
        return spec
    return replace(spec, task=replace(spec.task, force_update=found.spec.task.force_update))


def _leaving(snap: Snapshot, request: StackRequest) -> set[str]:
    """Return the names of the services that go because the file no longer has them."""
    if not request.prune:
        return set()
    return {s.spec.name for s in services_of(snap, request.project, request.stack)} - {s.name for s in request.services}


def _own(labels: Mapping[str, str], what: str, stack: str) -> None:
    owner = labels.get(STACK_LABEL, "")
    if owner != stack:
        of = f"of stack {owner}" if owner else "of no stack"
        raise ExistsError(f"{what} exists already and is {of}: choose another name")


def services_of(snap: Snapshot, project: str, stack: str) -> list[Service]:
    """Return the services of a stack that are not being removed."""
    return [s for s in snap.all(Service, project=project) if not s.removing and s.spec.labels.get(STACK_LABEL) == stack]


def files_of(snap: Snapshot, project: str, stack: str) -> list[NamedFile]:
    """Return the configs and secrets of a stack that are not being removed."""
    found = file_changes.files_of(snap, project)
    return [f for f in found if not f.removing and f.labels.get(STACK_LABEL) == stack]


def removed(snap: Snapshot, project: str, stack: str, now: float) -> tuple[list[Op], StackResult]:
    """Begin to remove all of a stack; its networks, configs and secrets follow when nothing has them.

    As much of it as one transaction takes, services first: ask again until there is nothing left (`is_gone`).
    """
    services = services_of(snap, project, stack)
    networks = [n for n in snap.all(Network, project=project) if n.spec.labels.get(STACK_LABEL) == stack]
    networks = [n for n in networks if not n.removing]
    files = files_of(snap, project, stack)
    if not services and not networks and not files:
        known = sorted({label for s in snap.all(Service, project=project) if (label := s.spec.labels.get(STACK_LABEL))})
        have = f"there are {', '.join(known)}" if known else "there is none"
        raise NotFoundError(f"no stack {stack!r}: {have}")
    ops: list[Op] = []
    gone: list[Service | Network | NamedFile] = []
    leaving = frozenset(s.meta.id for s in services)
    for one in (*services, *networks, *files):  # all of them, so that a refusal comes before anything is done
        more, changed = _begun_to_remove(snap, one, now, leaving)
        if len(ops) + len(more) <= MAX_OPS:
            ops += more
            gone.append(changed)
    return ops, StackResult(
        tuple(n for n in gone if isinstance(n, Network)),
        tuple(s for s in gone if isinstance(s, Service)),
        files=tuple(f for f in gone if isinstance(f, Config | Secret)),
    )


def is_gone(snap: Snapshot, project: str, stack: str) -> bool:
    """Whether nothing is left of a stack whose removal has not begun."""
    networks = (n for n in snap.all(Network, project=project) if n.spec.labels.get(STACK_LABEL) == stack)
    return (
        not services_of(snap, project, stack)
        and not files_of(snap, project, stack)
        and all(n.removing for n in networks)
    )


def _begun_to_remove(
    snap: Snapshot, one: Service | Network | NamedFile, now: float, leaving: frozenset[str]
) -> tuple[list[Op], Service | Network | NamedFile]:
    if isinstance(one, Service):
        return service_changes.removed(one, now)
    if isinstance(one, Network):
        return network_changes.removed(snap, one, now, leaving)
    return file_changes.removed(snap, one, now, leaving)
