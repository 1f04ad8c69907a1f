"""Jobs, schedules and start order in Compose files: what they become, and what is refused at which line."""

import pytest

from argosy.core.service import (
    Cron,
    Dependency,
    DependencyCondition,
    JobSpec,
    Overlap,
    RestartCondition,
    ServiceMode,
)
from tests.unit.compose.files import Files


@pytest.mark.parametrize(
    ("body", "mode", "job"),
    [
        ("deploy: {mode: replicated-job}", ServiceMode.REPLICATED_JOB, JobSpec()),
        ("deploy: {mode: replicated-job, replicas: 5}", ServiceMode.REPLICATED_JOB, JobSpec(5)),
        ("deploy: {mode: global-job}", ServiceMode.GLOBAL_JOB, JobSpec()),
        (
            "deploy: {mode: replicated-job}\nx-argosy: {job: {total_completions: 5, max_concurrent: 2}}",
            ServiceMode.REPLICATED_JOB,
            JobSpec(5, 2),
        ),
        (
            "deploy: {mode: replicated-job}\n"
            "x-argosy: {cron: {schedule: '30 4 * * mon', time_zone: Europe/Berlin, overlap: forbid}}",
            ServiceMode.REPLICATED_JOB,
            JobSpec(cron=Cron("30 4 * * mon", "Europe/Berlin", Overlap.FORBID)),
        ),
        (
            "deploy: {mode: replicated-job}\nx-argosy: {cron: {schedule: '@daily'}}",
            ServiceMode.REPLICATED_JOB,
            JobSpec(cron=Cron("@daily")),
        ),
    ],
)
def test_jobs(files: Files, body: str, mode: ServiceMode, job: JobSpec) -> None:
    spec = files.service(body)
    assert (spec.mode, spec.job, spec.replicas) == (mode, job, 1)
    assert spec.task.restart.condition is RestartCondition.ON_FAILURE


def test_a_job_may_say_how_it_restarts(files: Files) -> None:
    body = "deploy: {mode: replicated-job, restart_policy: {condition: none}}"
    assert files.service(body).task.restart.condition is RestartCondition.NONE


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "deploy: {mode: replicated-job, restart_policy: {condition: any}}",
            "compose.yaml:4:64: services.web.deploy.restart_policy.condition: what a job has completed",
        ),
        (
            "deploy: {mode: global-job, replicas: 3}",
            "services.web.deploy.replicas: a global-job service completes once",
        ),
        (
            "deploy: {mode: replicated-job, replicas: 3}\nx-argosy: {job: {total_completions: 2}}",
            "total_completions is 2 and deploy.replicas is 3; keep one of them",
        ),
        ("x-argosy: {job: {max_concurrent: 2}}", "services.web.x-argosy.job: only jobs have completions"),
        ("x-argosy: {cron: {schedule: '@daily'}}", "use mode replicated-job or global-job"),
        ("deploy: {mode: replicated-job}\nx-argosy: {cron: {time_zone: UTC}}", "the schedule is missing"),
        (
            "deploy: {mode: replicated-job}\nx-argosy: {cron: {schedule: '0 0 30 2 *'}}",
            "compose.yaml:5:33: services.web.x-argosy.cron.schedule: it would never run",
        ),
        (
            "deploy: {mode: replicated-job}\nx-argosy: {cron: {schedule: '@daily', time_zone: Berlin}}",
            'services.web.x-argosy.cron.time_zone: there is no time zone "Berlin"',
        ),
        (
            "deploy: {mode: replicated-job}\nx-argosy: {cron: {schedule: '@daily', overlap: maybe}}",
            "write 'allow', 'forbid' or 'replace'",
        ),
        (
            "deploy: {mode: replicated-job}\nx-argosy: {cron: {shedule: '@daily'}}",
            "did you mean 'schedule'?",
        ),
        ("deploy: {mode: job}", "write 'replicated', 'global', 'replicated-job' or 'global-job'"),
    ],
)
def test_jobs_refused(files: Files, body: str, said: str) -> None:
    text = "services:\n  web:\n    image: web\n    " + body.replace("\n", "\n    ") + "\n"
    found = files.problems(text)
    assert any(said in problem for problem in found), found


def depending(files: Files, depends: str, *others: str) -> tuple[Dependency, ...]:
    more = "".join(f"\n  {other}: {{image: i}}" for other in others)
    stack = files.load(f"services:\n  web: {{image: i, depends_on: {depends}}}{more}\n")
    return next(service.depends_on for service in stack.services if service.depends_on)


def test_depends_on_in_its_short_form(files: Files) -> None:
    assert depending(files, "[db, cache]", "db", "cache") == (Dependency("shop_db"), Dependency("shop_cache"))


def test_depends_on_in_its_long_form(files: Files) -> None:
    found = depending(
        files,
        "{db: {condition: service_healthy, restart: true}, init: {condition: service_completed_successfully},"
        " gone: {condition: service_started, required: false}}",
        "db",
        "init",
    )
    assert found == (
        Dependency("shop_db", DependencyCondition.HEALTHY, restart=True),
        Dependency("shop_init", DependencyCondition.COMPLETED),
        Dependency("shop_gone", optional=True),
    )


def test_what_is_awaited_to_complete_is_not_run_again(files: Files) -> None:
    stack = files.load(
        """
        services:
          web: {image: i, depends_on: {init: {condition: service_completed_successfully}}}
          init: {image: i}
        """
    )
    assert stack.services[1].task.restart.condition is RestartCondition.ON_FAILURE
    assert "others wait for it to complete" in str(stack.notices[0])


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ("a: {image: i, depends_on: [b]}", "services.a.depends_on.b: the service 'b' is not in the file"),
        (
            "a: {image: i, depends_on: [b]}, b: {image: i, profiles: [x]}",
            "services.a.depends_on.b: the service 'b' is left out by its profiles",
        ),
        ("a: {image: i, depends_on: [a]}", "1:39: services.a.depends_on.a: a service cannot wait for itself: "),
        (
            "a: {image: i, depends_on: [b]}, b: {image: i, depends_on: {a: {condition: service_healthy}}}",
            "compose.yaml:1:39: services.a.depends_on.b: services wait for each other: a -> b -> a; take one",
        ),
        (
            "a: {image: i, depends_on: {b: {condition: service_completed_successfully}}}, "
            "b: {image: i, restart: always}",
            "services.a.depends_on.b.condition: 'b' restarts whenever it ends, so it never completes",
        ),
        ("a: {image: i, depends_on: {b: {condition: running}}}, b: {image: i}", "'service_healthy' or"),
    ],
)
def test_start_order_refused(files: Files, services: str, said: str) -> None:
    found = files.problems(f"services: {{{services}}}")
    assert any(said in problem for problem in found), found
