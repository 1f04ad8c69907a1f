"""Jobs and start order: `deploy.mode` of jobs with `x-argosy`'s `job` and `cron`, and `depends_on`."""

from collections.abc import Collection, Mapping
from typing import Final

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.extension import own
from argosy.core.dependencies import find_cycle, spell
from argosy.core.names import stack_name
from argosy.core.service import Cron, Dependency, DependencyCondition, JobSpec, Overlap, ServiceMode

JOBS: Final = {"replicated-job": ServiceMode.REPLICATED_JOB, "global-job": ServiceMode.GLOBAL_JOB}
_CONDITIONS: Final = {
    "service_started": DependencyCondition.STARTED,
    "service_healthy": DependencyCondition.HEALTHY,
    "service_completed_successfully": DependencyCondition.COMPLETED,
}
_OVERLAPS: Final = {overlap.name.lower(): overlap for overlap in Overlap}


def job_spec(service: Cursor, mode: ServiceMode, replicas: int | None) -> JobSpec | None:
    """Return how a job runs; None for what is no job and says nothing of one. `replicas` are `deploy.replicas`."""
    job, cron = own(service, "job"), own(service, "cron")
    if mode not in JOBS.values() and job is None and cron is None:
        return None
    total_at = job.get("total_completions") if job is not None and job.mapping() else None
    most_at = job.get("max_concurrent") if job is not None else None
    total = total_at.integer(least=1) if total_at is not None else None
    if total_at is not None and None not in (total, replicas) and total != replicas:
        total_at.problem(f"total_completions is {total} and deploy.replicas is {replicas}", "keep one of them")
    return JobSpec(
        total_completions=next((n for n in (total, replicas) if n is not None), 1),
        max_concurrent=(most_at.integer(least=0) or 0) if most_at is not None else 0,
        cron=_cron(cron) if cron is not None and cron.mapping() else None,
    )


def _cron(at: Cursor) -> Cron:
    schedule, zone, overlap = at.get("schedule"), at.get("time_zone"), at.get("overlap")
    if schedule is None:
        at.problem("the schedule is missing", "write one, such as schedule: '30 4 * * mon'")
    return Cron(
        schedule=(schedule.text() or "") if schedule is not None else "",
        time_zone=(zone.text() or "") if zone is not None else "",
        overlap=(overlap.choice(_OVERLAPS) or Overlap.ALLOW) if overlap is not None else Overlap.ALLOW,
    )


def depends_on(service: Cursor, stack: str) -> tuple[Dependency, ...]:
    """Return what a service waits for, under the names that the stack's services have in the cluster."""
    at = service.get("depends_on")
    if at is None or not at.mapping(names=True):
        return ()
    return tuple(_dependency(name, value, stack) for name, value in at.own_entries())


def _dependency(name: str, at: Cursor, stack: str) -> Dependency:
    condition, required, restart = at.get("condition"), at.get("required"), at.get("restart")
    wanted = condition.choice(_CONDITIONS) if condition is not None else None
    return Dependency(
        service=stack_name(stack, name),
        condition=DependencyCondition.STARTED if wanted is None else wanted,
        optional=required is not None and required.boolean() is False,
        restart=restart is not None and restart.boolean() is True,
    )


def awaited(services: Mapping[str, Cursor]) -> frozenset[str]:
    """Return the names of the services whose completion others wait for."""
    names = set()
    for at in services.values():
        depends = at.get("depends_on")
        for name, value in depends.own_entries() if depends is not None else ():
            condition = value.get("condition")
            if condition is not None and condition.is_text and condition.text() == "service_completed_successfully":
                names.add(name)
    return frozenset(names)


def check_order(services: Mapping[str, Cursor], known: Collection[str]) -> None:
    """Report dependencies on services that are not deployed, and services that wait for each other.

    `services` are those that are deployed; `known` are all names in the file.
    """
    edges: dict[str, list[str]] = {}
    for name, at in services.items():
        depends = at.get("depends_on")
        edges[name] = []
        for other, value in depends.own_entries() if depends is not None else ():
            if other in services:
                edges[name] += [other] if other != name else []  # what waits for itself is refused as such
                continue
            required = value.get("required")
            if required is not None and required.boolean() is False:
                continue
            why = "is left out by its profiles" if other in known else "is not in the file"
            value.findings.problem(value.key_position, value.path, f"the service '{other}' {why}")
    cycle = find_cycle(edges)
    if cycle:
        depends = services[cycle[0]].get("depends_on")
        edge = depends.find(cycle[1]) if depends is not None else None
        assert edge is not None
        edge.findings.problem(
            edge.key_position, edge.path, f"services wait for each other: {spell(cycle)}", "take one of these out"
        )
