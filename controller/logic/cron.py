"""When runs of a job begin: what the job's stored status becomes as it is declared, changed, asked to run, or due.

A run is an *iteration*. It begins when `Service.job` is written with the next number, the time, and the time of the
next run, all in one compare-and-swap of the service; the tasks follow from that. So each begins once, whoever leads:
of two writers one loses, and plans again from what the other wrote. Times that passed while nobody led are one run, the
one that was due first: the next is counted from now.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from argosy.core.cron import next_time, parse_schedule, parse_zone
from argosy.core.errors import PreconditionError
from argosy.core.service import JOB_MODES, Cron, JobSpec, JobState, JobStatus, Overlap, Service, ServiceSpec

MOST_AT_ONCE: Final = 10
"""Runs of a job that its schedule lets go on side by side: one that never ends must not fill the cluster."""


def job_of(spec: ServiceSpec) -> JobSpec:
    """Return how a service of a job mode runs; without a word about it: once."""
    return spec.job or JobSpec()


def declared(spec: ServiceSpec, now: float) -> JobStatus:
    """Return the status of a new service: a job begins its first iteration at once, or waits for its time."""
    if spec.mode not in JOB_MODES:
        return JobStatus()
    cron = job_of(spec).cron
    return _begun(JobStatus(), now) if cron is None else JobStatus(next_at=_next(cron, now))


def changed(service: Service, spec: ServiceSpec, now: float) -> JobStatus:
    """Return the status once the service has another spec.

    A job without a schedule runs again when what its tasks run has changed, or how many have to complete; a changed
    schedule counts from now.
    """
    if spec.mode not in JOB_MODES:
        return service.job
    old, new = job_of(service.spec), job_of(spec)
    if new.cron is not None:
        return service.job if new.cron == old.cron else replace(service.job, next_at=_next(new.cron, now), message="")
    same = spec.task == service.spec.task and new.total_completions == old.total_completions and old.cron is None
    return service.job if same else _begun(replace(service.job, next_at=0.0), now)


def asked(service: Service, now: float) -> JobStatus:
    """Return the status with another iteration begun by hand. PreconditionError where that cannot be now."""
    name = service.spec.name
    if service.spec.mode not in JOB_MODES:
        raise PreconditionError(f"service {name} is no job: `argosy service restart {name}` replaces its tasks")
    if service.removing:
        raise PreconditionError(f"service {name} is being removed")
    if service.spec.stopped:
        raise PreconditionError(f"service {name} is stopped: `argosy service start {name}` first")
    if _overlap(service.spec) is Overlap.FORBID and service.job.state is JobState.RUNNING:
        raise PreconditionError(
            f"run {service.job.iteration} of job {name} still goes on, and its overlap policy forbids a second one: "
            "wait for it"
        )
    return _begun(service.job, now)


def due(service: Service, now: float, going_on: int) -> JobStatus | None:
    """Return what the status becomes now by the job's schedule; None when nothing is due.

    `going_on`: how many of its runs have not ended.
    """
    cron, job = job_of(service.spec).cron, service.job
    if cron is None or not 0 < job.next_at <= now:
        return None
    following = _next(cron, now)
    if service.spec.stopped:
        why = "the service was stopped"
    elif cron.overlap is Overlap.FORBID and job.state is JobState.RUNNING:
        why = f"run {job.iteration} still went on"
    elif cron.overlap is Overlap.ALLOW and going_on >= MOST_AT_ONCE:
        why = f"{going_on} runs still went on, and no more may at once"
    else:
        return _begun(replace(job, next_at=following), now)
    left_out = datetime.fromtimestamp(job.next_at, parse_zone(cron.time_zone)).strftime("%Y-%m-%d %H:%M %Z")
    return replace(job, next_at=following, message=f"the run of {left_out} was left out: {why}")


def runs_side_by_side(spec: ServiceSpec) -> bool:
    """Whether an iteration goes on when the next one begins."""
    return _overlap(spec) is Overlap.ALLOW


def _overlap(spec: ServiceSpec) -> Overlap:
    """Return the overlap policy; a job without a schedule has one run at a time, the last one begun."""
    cron = job_of(spec).cron
    return cron.overlap if cron is not None else Overlap.REPLACE


def _begun(job: JobStatus, now: float) -> JobStatus:
    return JobStatus(job.iteration + 1, started_at=now, next_at=job.next_at, state=JobState.RUNNING)


def _next(cron: Cron, now: float) -> float:
    return next_time(parse_schedule(cron.schedule), parse_zone(cron.time_zone), now)
