"""What a change of a service's spec means for its stored objects: pure functions, used by the API and the updater.

A *revision* is a version of the part of a spec that tasks run (`spec.task`): scaling, labels and update settings
take effect at once and make none. Numbers only grow: a rollback makes a new revision with an old one's tasks.
A changed job is not updated but run again (logic/cron.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from argosy.controller.logic import cron
from argosy.controller.logic.update import ROLLING_BACK
from argosy.core.errors import PreconditionError
from argosy.core.meta import Meta
from argosy.core.ports import same_place
from argosy.core.service import (
    JOB_MODES,
    ROLLED_BACK_BY_HAND,
    PortSpec,
    Revision,
    Service,
    ServiceSpec,
    TaskSpec,
    UpdateState,
    UpdateStatus,
    revision_id,
)

REVISIONS_KEPT = 10
_UNFINISHED: Final = frozenset({UpdateState.UPDATING, UpdateState.PAUSED})


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """The service after the change, the revision to add (if any) and those that are too old to keep."""

    service: Service
    revision: Revision | None = None
    outdated: tuple[Revision, ...] = ()


def create(service_id: str, project: str, spec: ServiceSpec, now: float) -> ServiceChange:
    """Return a new service at revision 1."""
    meta = Meta(service_id, project, created_at=now, updated_at=now)
    service = Service(meta=meta, spec=spec, revision=1, job=cron.declared(spec, now))
    return ServiceChange(service, _revision(service, previous=0, now=now))


def update(
    service: Service, spec: ServiceSpec, revisions: Sequence[Revision], in_use: frozenset[int], now: float
) -> ServiceChange:
    """Return the service with another spec. `in_use`: numbers of the revisions that tasks still run."""
    if spec.task == service.spec.task:
        job = cron.changed(service, spec, now)
        return ServiceChange(replace(service, spec=spec, job=job, meta=replace(service.meta, updated_at=now)))
    started = UpdateStatus(UpdateState.UPDATING, started_at=now)
    previous = service.revision if _came_through(service, revisions) else service.previous_revision
    return _next_revision(service, spec, started, revisions, in_use, now, previous, previous)


def roll_back(
    service: Service,
    to_number: int,
    status: UpdateStatus,
    revisions: Sequence[Revision],
    in_use: frozenset[int],
    now: float,
) -> ServiceChange:
    """Return the service with the tasks of an earlier revision (0: the previous one).

    Replicas, labels and update settings stay as they are, and so do the ports of every node but those that its tasks
    have themselves again (host mode). PreconditionError where there is no such revision, and where
    the previous one is what the cluster has just rolled back from.
    """
    number = to_number or service.previous_revision
    name, before = service.spec.name, service.update
    if not to_number and before.state in ROLLING_BACK and before.message != ROLLED_BACK_BY_HAND:
        raise PreconditionError(
            f"service {name} has already been rolled back, from revision {number}: "
            f"--to {number} tries that again, `argosy service history {name}` lists the others"
        )
    if not number:
        raise PreconditionError(f"service {name} has no earlier revision to roll back to")
    target = next((r for r in revisions if r.number == number), None)
    if target is None:
        have = ", ".join(str(r.number) for r in sorted(revisions, key=lambda r: r.number))
        raise PreconditionError(f"service {name} has no revision {number} any more: it has {have}")
    if target.spec.task == service.spec.task:
        raise PreconditionError(f"service {name} runs what revision {number} says already")
    ports = tuple(p for p in service.spec.endpoint.ports if not _have(target.spec.task, p))
    spec = replace(service.spec, task=target.spec.task, endpoint=replace(service.spec.endpoint, ports=ports))
    return _next_revision(service, spec, status, revisions, in_use, now, service.revision, target.previous)


def _have(tasks: TaskSpec, port: PortSpec) -> bool:
    """Whether tasks have a port themselves, on their nodes, so that it cannot be one of every node."""
    own = (p for p in tasks.host_ports if (p.protocol, p.port) == (port.protocol, port.published))
    return port.published > 0 and any(same_place(p.host_ip, port.host_ip) for p in own)


def _came_through(service: Service, revisions: Sequence[Revision]) -> bool:
    """Whether rollbacks may return to the present revision by themselves: no update that brought it is unfinished.

    One that began later only brings it to slots that could not be reached before.
    """
    brought_at = next((r.meta.created_at for r in revisions if r.number == service.revision), service.meta.updated_at)
    return service.update.state not in _UNFINISHED or service.update.started_at > brought_at


def _next_revision(
    service: Service,
    spec: ServiceSpec,
    status: UpdateStatus,
    revisions: Sequence[Revision],
    in_use: frozenset[int],
    now: float,
    previous: int,
    came_through: int,
) -> ServiceChange:
    number = max([r.number for r in revisions] + [service.revision]) + 1
    changed = replace(
        service,
        spec=spec,
        revision=number,
        previous_revision=previous,
        update=UpdateStatus() if spec.mode in JOB_MODES else status,
        job=cron.changed(service, spec, now),
        meta=replace(service.meta, updated_at=now),
    )
    keep = {service.revision, previous, came_through, *in_use}
    old = sorted((r for r in revisions if r.number not in keep), key=lambda r: r.number)
    outdated = tuple(old[: max(0, len(revisions) + 1 - REVISIONS_KEPT)])
    return ServiceChange(changed, _revision(changed, came_through, now), outdated)


def _revision(service: Service, previous: int, now: float) -> Revision:
    number = service.revision
    meta = Meta(revision_id(service.meta.id, number), service.meta.project, created_at=now, updated_at=now)
    return Revision(meta=meta, service_id=service.meta.id, number=number, spec=service.spec, previous=previous)
