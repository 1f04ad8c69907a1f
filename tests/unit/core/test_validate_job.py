"""What is refused about jobs and dependencies, where, and what is said."""

from dataclasses import replace

import pytest

from argosy.core.service import (
    ContainerSpec,
    Cron,
    Dependency,
    JobSpec,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from argosy.core.validate import validate_service

SERVICE = ServiceSpec(name="web", task=TaskSpec(container=ContainerSpec(image="app")))
ONCE = TaskSpec(container=ContainerSpec(image="app"), restart=RestartPolicy(RestartCondition.ON_FAILURE))
JOB = ServiceSpec(name="web", mode=ServiceMode.REPLICATED_JOB, task=ONCE)
GLOBAL = replace(JOB, mode=ServiceMode.GLOBAL_JOB)


def cron(schedule: str = "@daily", zone: str = "") -> ServiceSpec:
    return replace(JOB, job=JobSpec(cron=Cron(schedule, zone)))


@pytest.mark.parametrize(
    "spec",
    [
        JOB,
        GLOBAL,
        replace(JOB, job=JobSpec(5, 2)),
        replace(GLOBAL, job=JobSpec(max_concurrent=1)),
        cron("*/5 9-17 * * mon-fri", "Europe/Berlin"),
        replace(SERVICE, depends_on=(Dependency("db"), Dependency("cache", optional=True))),
    ],
)
def test_accepted(spec: ServiceSpec) -> None:
    assert validate_service(spec) == []


@pytest.mark.parametrize(
    ("spec", "where", "says"),
    [
        (replace(SERVICE, job=JobSpec()), "job", "use mode replicated-job or global-job"),
        (replace(JOB, task=SERVICE.task), "task.restart.condition", "use on-failure or none"),
        (replace(JOB, replicas=3), "replicas", "total_completions"),
        (replace(JOB, job=JobSpec(0)), "job.total_completions", "from 1"),
        (replace(GLOBAL, job=JobSpec(2)), "job.total_completions", "once on every eligible node"),
        (replace(JOB, job=JobSpec(1, -1)), "job.max_concurrent", "from 0"),
        (cron("0 0 30 2 *"), "job.cron.schedule", "it would never run"),
        (cron("0 25 * * *"), "job.cron.schedule", 'hour: there is no hour "25": use 0 to 23'),
        (cron(""), "job.cron.schedule", "0 fields"),
        (cron(zone="Europe/Berlim"), "job.cron.time_zone", "Europe/Berlin"),
        (replace(SERVICE, depends_on=(Dependency("web"),)), "depends_on[0].service", "web -> web"),
        (replace(SERVICE, depends_on=(Dependency(""),)), "depends_on[0].service", ""),
        (replace(SERVICE, depends_on=(Dependency("db"), Dependency("db"))), "depends_on", "more than once"),
    ],
)
def test_refused(spec: ServiceSpec, where: str, says: str) -> None:
    problems = validate_service(spec)
    assert [p.where for p in problems] == [where]
    assert says in problems[0].what
