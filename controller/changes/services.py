"""Changes of services: turns a request into store operations. Pure but for ids and the time, which are given.

Every function takes a snapshot and returns (operations, objects); commit.py commits them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from argosy.controller.changes import files, images, published_ports, refs, static_addresses
from argosy.controller.logic import change_service
from argosy.controller.logic.change_service import ServiceChange
from argosy.controller.store import Claim, Op, Put, Release, Snapshot, create, delete, update
from argosy.controller.store import check as check_unchanged
from argosy.core.addresses import overlaps
from argosy.core.errors import ConflictError, InvalidError, NotFoundError, PreconditionError, about
from argosy.core.image import Image
from argosy.core.network import Network
from argosy.core.oci.names import normalise
from argosy.core.service import (
    ROLLED_BACK_BY_HAND,
    NetworkAttachmentSpec,
    Service,
    ServiceMode,
    ServiceSpec,
    UpdateState,
    UpdateStatus,
)
from argosy.core.task import Task
from argosy.core.validate import Problem, validate_service


def check(spec: ServiceSpec) -> None:
    """Refuse a spec that cannot be; all its problems at once."""
    _refuse(validate_service(spec), f"service {spec.name or '(without a name)'} cannot be accepted")


def _refuse(problems: Sequence[Problem], text: str) -> None:
    if problems:
        raise InvalidError(text, tuple((p.where, p.what) for p in problems))


def resolve(
    snap: Snapshot,
    project: str,
    spec: ServiceSpec,
    new_networks: Mapping[str, Network],
    present: Service | None = None,
    new_files: files.NewIds | None = None,
) -> ServiceSpec:
    """Return the spec with the image's digest and platform, networks' ids and files' versions put in.

    NotFoundError for unknown ones. `new_networks` are those that the same request creates, by name; `new_files` so
    as well, with the present versions of the others that it has. `present`: the service that is being changed; a
    spec that names the very image and digest which it has keeps them, so that no tag moves an update of something else.
    """
    with about("service", spec.name, "task.container.image"):
        image = _kept_image(snap, project, spec, present) or _image(snap, project, spec)
    found = files.resolved(snap, project, spec, new_files or {}, present)
    container = replace(spec.task.container, image_digest=image.digest, files=found)
    placement = spec.task.placement
    if not placement.platforms and image.platform.os:
        placement = replace(placement, platforms=(image.platform,))
    with about("service", spec.name, "task.networks"):
        networks = tuple(
            replace(n, target=_network_id(snap, project, spec.name, n.target, new_networks)) for n in spec.task.networks
        )
        _check_overlaps(snap, spec.name, networks, new_networks)
    return replace(spec, task=replace(spec.task, container=container, networks=networks, placement=placement))


def _kept_image(snap: Snapshot, project: str, spec: ServiceSpec, present: Service | None) -> Image | None:
    wanted = spec.task.container
    if present is None or not wanted.image_digest:
        return None
    has = present.spec.task.container
    if (wanted.image, wanted.image_digest) != (has.image, has.image_digest):
        return None
    return images.by_digest(snap, project, wanted.image_digest)


def _image(snap: Snapshot, project: str, spec: ServiceSpec) -> Image:
    container = spec.task.container
    image = snap.by_name(Image, project, normalise(container.image))
    if image is None:
        present = snap.by_name(Service, project, spec.name)
        had = present is not None and normalise(present.spec.task.container.image) == normalise(container.image)
        what = (
            f"its image {container.image!r} was removed, and only what runs now keeps its content: add it again"
            if had
            else f"nobody has the image {container.image!r}: add it"
        )
        raise NotFoundError(f"service {spec.name}: {what} with `argosy image import {container.image} FILE`")
    return image


def _network_id(snap: Snapshot, project: str, service: str, ref: str, new: Mapping[str, Network]) -> str:
    if ref in new:
        return new[ref].meta.id
    try:
        found = refs.network(snap, project, ref)
    except NotFoundError as e:
        raise NotFoundError(f"service {service}: {e}") from None
    if found.removing:
        raise PreconditionError(f"service {service}: network {ref} is being removed")
    return found.meta.id


def _check_overlaps(
    snap: Snapshot, service: str, networks: Sequence[NetworkAttachmentSpec], new: Mapping[str, Network]
) -> None:
    by_id = {n.meta.id: n for n in new.values()}
    known = [n for n in (by_id.get(a.target) or snap.get(Network, a.target) for a in networks) if n is not None]
    for i, one in enumerate(known):
        for other in known[i + 1 :]:
            if one.meta.id == other.meta.id:
                raise InvalidError(f"service {service} joins network {one.spec.name} twice")
            if overlaps(one.subnet, other.subnet):
                raise InvalidError(
                    f"service {service} joins {one.spec.name} ({one.subnet}) and {other.spec.name} ({other.subnet}), "
                    "whose subnets overlap: give one of them another subnet"
                )


def created(snap: Snapshot, project: str, service_id: str, spec: ServiceSpec, now: float) -> tuple[list[Op], Service]:
    """Create a service from a resolved spec."""
    change = change_service.create(service_id, project, spec, now)
    ops: list[Op] = [Claim(Service, project, spec.name, service_id), create(change.service)]
    assert change.revision is not None
    compared = [*files.checks(snap, spec), *images.checks(snap, project, spec.task.container), *_joined(snap, spec)]
    return [*ops, create(change.revision), *compared], change.service


def updated(
    snap: Snapshot, service: Service, spec: ServiceSpec, now: float, version: int = 0
) -> tuple[list[Op], Service]:
    """Give a service another (resolved) spec; no operations when it is the same. `version` 0: of any version."""
    if service.removing:
        raise PreconditionError(f"service {service.spec.name} is being removed")
    if version and version != service.meta.version:
        raise ConflictError(f"service {service.spec.name} was changed since version {version}: read it again")
    if spec.name != service.spec.name:
        raise InvalidError(f"service {service.spec.name} cannot be renamed: create {spec.name} and remove the old one")
    if spec.mode != service.spec.mode:
        raise InvalidError(f"service {service.spec.name}: its mode cannot be changed: remove it and create it anew")
    if spec == service.spec:
        return [], service
    change = change_service.update(
        service, spec, snap.revisions_of_service(service.meta.id), revisions_in_use(snap, service), now
    )
    ops, new, old = operations(change), spec.task.container, service.spec.task.container
    if new.files != old.files:
        ops += files.checks(snap, spec)
    if new.image_digest != old.image_digest:
        ops += images.checks(snap, service.meta.project, new)
    return [*ops, *_joined(snap, spec, service.spec)], change.service


def _joined(snap: Snapshot, spec: ServiceSpec, before: ServiceSpec | None = None) -> list[Op]:
    """Return the operations that let a service join networks only while these are as they were read."""
    had = {n.target for n in before.task.networks} if before else set()
    joined = (snap.get(Network, n.target) for n in spec.task.networks if n.target not in had)
    return [check_unchanged(network) for network in joined if network]  # the others the same request creates


def _refuse_to_scale(spec: ServiceSpec, count: int) -> None:
    """Raise InvalidError unless a service has a number of tasks that can change while it runs."""
    if spec.mode is ServiceMode.REPLICATED_JOB:
        scheduled = spec.job is not None and spec.job.cron is not None
        since = "from its next run on" if scheduled else "which begins another run"
        raise InvalidError(
            f"service {spec.name} is a job, and is not scaled: give it another number of completions with "
            f"`argosy service update --replicas {count} {spec.name}`, {since}"
        )
    if spec.mode is not ServiceMode.REPLICATED:
        what = "global" if spec.mode is ServiceMode.GLOBAL else "a global job"
        raise InvalidError(f"service {spec.name} is {what}: it runs once on every node and has no replicas")


def scaled(snap: Snapshot, project: str, replicas: Mapping[str, int], now: float) -> tuple[list[Op], list[Service]]:
    """Set the number of replicas of several services, all or none."""
    ops: list[Op] = []
    services: list[Service] = []
    for ref, count in replicas.items():
        service = refs.service(snap, project, ref)
        if any(s.meta.id == service.meta.id for s in services):
            raise InvalidError(f"service {service.spec.name} is named twice: give one number of replicas")
        _refuse_to_scale(service.spec, count)
        spec = replace(service.spec, replicas=count)
        check(replace(spec, canary=min(spec.canary, count)))
        more, changed = updated(snap, service, spec, now)
        ops += more
        services.append(changed)
    return ops, services


def rolled_back(snap: Snapshot, service: Service, to_number: int, now: float) -> tuple[list[Op], Service]:
    """Return a service to an earlier revision, by hand.

    It is judged as a deploy of it would be: what else was said of the service since, and what other services have
    taken, may leave no room for it. What is wrong with the service already is not held against it.
    """
    status = UpdateStatus(UpdateState.ROLLBACK_STARTED, started_at=now, message=ROLLED_BACK_BY_HAND)
    change = change_service.roll_back(
        service, to_number, status, snap.revisions_of_service(service.meta.id), revisions_in_use(snap, service), now
    )
    spec, number = change.service.spec, to_number or service.previous_revision
    known = validate_service(service.spec)
    _refuse(
        [p for p in validate_service(spec) if p not in known],
        f"service {spec.name} cannot be rolled back to revision {number} as it is now: deploy it anew",
    )
    networks = [snap.get(Network, n.target) for n in spec.task.networks]
    if any(n is None or n.removing for n in networks):
        raise PreconditionError(
            f"revision {number} of service {spec.name} joins a network that was removed: deploy it anew with "
            "the networks that there are"
        )
    published_ports.check(snap, service.meta.project, [spec])
    claimed = static_addresses.claims(snap, [(service.meta.id, spec)], {}, now)
    return [*operations(change), *claimed, *_joined(snap, spec, service.spec)], change.service


def removed(service: Service, now: float) -> tuple[list[Op], Service]:
    """Begin to remove a service; its name is free at once."""
    if service.removing:
        return [], service
    gone = replace(service, removing=True, meta=replace(service.meta, updated_at=now))
    return [update(gone), Release(Service, service.meta.project, service.spec.name, service.meta.id)], gone


def operations(change: ServiceChange) -> list[Op]:
    """Return the store operations of a change to an existing service."""
    ops: list[Op] = [update(change.service)]
    if change.revision:
        ops.append(Put(change.revision, expect=0))
    return [*ops, *(delete(old) for old in change.outdated)]


def revisions_in_use(snap: Snapshot, service: Service) -> frozenset[int]:
    """Return the numbers of the revisions that tasks of a service run or ran."""
    tasks: Sequence[Task] = snap.tasks_of_service(service.meta.id)
    return frozenset(t.revision for t in tasks)
