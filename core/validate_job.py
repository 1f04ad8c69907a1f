"""Validation of what makes a service a job, and of what it depends on. Called by validate.py."""

from collections import Counter
from typing import Final

from argosy.core.cron import parse_schedule, parse_zone
from argosy.core.names import service_name_problem
from argosy.core.problem import Problem, Problems, between, readable, said, when
from argosy.core.service import (
    JOB_MODES,
    Cron,
    DependencyCondition,
    Interactive,
    Overlap,
    RestartCondition,
    ServiceMode,
    ServiceSpec,
)

MOST_COMPLETIONS: Final = 100_000
MOST_DEPENDENCIES: Final = 100
"""All that a changed service waits for is compared as its change is stored, and a transaction has 128 operations."""


def job_problems(spec: ServiceSpec) -> Problems:
    """Yield what is wrong with the parts of a spec that only jobs have, and with those that jobs have not."""
    job = spec.job
    runs_once = spec.mode is ServiceMode.REPLICATED_JOB and (
        job is None or (job.total_completions <= 1 and not job.cron)
    )
    yield from when(
        spec.task.container.interactive is not Interactive.NO
        and not (runs_once and spec.task.restart.condition is RestartCondition.NONE),
        "task.container.interactive",
        "nobody is attached to a task that comes by itself: only a job of one completion that is never restarted can "
        "be interactive",
    )
    if spec.mode not in JOB_MODES:
        yield from when(
            job is not None, "job", "only jobs have completions and schedules: use mode replicated-job or global-job"
        )
        return
    yield from when(
        spec.task.restart.condition is RestartCondition.ANY,
        "task.restart.condition",
        "what a job has completed is not run again: use on-failure or none",
    )
    yield from when(
        spec.replicas > 1, "replicas", "a job has no number of replicas: set how often it completes (total_completions)"
    )
    if job is None:
        return
    yield from between("job.total_completions", job.total_completions, 1, MOST_COMPLETIONS, "the number of completions")
    yield from when(
        spec.mode is ServiceMode.GLOBAL_JOB and job.total_completions > 1,
        "job.total_completions",
        "a global job completes once on every eligible node: leave the number out, or use mode replicated-job",
    )
    yield from between("job.max_concurrent", job.max_concurrent, 0, MOST_COMPLETIONS, "max_concurrent")
    if job.cron is not None:
        yield from _cron(job.cron)


def _cron(cron: Cron) -> Problems:
    yield from readable("job.cron.schedule", parse_schedule, cron.schedule)
    yield from readable("job.cron.time_zone", parse_zone, cron.time_zone)
    yield from when(cron.overlap not in tuple(Overlap), "job.cron.overlap", "use allow, forbid or replace")


def dependency_problems(spec: ServiceSpec) -> Problems:
    """Yield what is wrong with what a service depends on, as far as it alone tells."""
    yield from between("depends_on", len(spec.depends_on), 0, MOST_DEPENDENCIES, "the number of dependencies")
    for i, wanted in enumerate(spec.depends_on):
        yield from said(f"depends_on[{i}].service", service_name_problem(wanted.service))
        yield from when(
            wanted.service == spec.name and bool(spec.name),
            f"depends_on[{i}].service",
            f"a service cannot wait for itself: {spec.name} -> {spec.name}",
        )
        yield from when(
            wanted.condition not in tuple(DependencyCondition),
            f"depends_on[{i}].condition",
            "use service_started, service_healthy or service_completed_successfully",
        )
    for name, count in Counter(d.service for d in spec.depends_on).items():
        if count > 1:
            yield Problem("depends_on", f"{name} is named more than once: keep one condition")
