"""`argosy service`: create, stop, start, restart, history, pause, resume, promote, against a cluster in memory."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from argosy.cli.commands.service_history import differences, revision_rows
from argosy.cli.messages import plain
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types
from tests.unit.cli.fake_cluster import FakeCluster

Argosy = Callable[..., Any]


def row(argosy: Argosy, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(argosy("service", "ls", "--format", "json").out)
    return next(one for one in found if one["name"] == name)


@pytest.fixture
def web(argosy: Argosy, cluster: FakeCluster) -> types.Service:
    """A service of three replicas that tries updates in a canary."""
    assert argosy("service", "create", "--name", "web", "--replicas", "3", "--canary", "1", "web:1").status == 0
    found: types.Service = cluster.find("service", "web")
    return found


def test_create(argosy: Argosy, cluster: FakeCluster) -> None:
    ran = argosy(
        *("service", "create", "--name", "api", "--replicas", "2", "-e", "A=x=y", "--env", "B=1", "-l", "team=red"),
        *("--constraint", "node.role==worker", "--placement-pref", "spread=node.labels.zone", "--network", "net"),
        *(
            "--limit-memory",
            "64m",
            "--reserve-cpu",
            "0.5",
            "--restart-condition",
            "on-failure",
            "--restart-delay",
            "1s",
        ),
        *("--health-cmd", "test -e /ok", "--health-interval", "2s", "--update-order", "start-first"),
        *("--update-failure-action", "rollback", "--update-progress-deadline", "1m", "--rollback-parallelism", "0"),
        *("--canary", "1", "--auto-promote", "--max-unavailable", "25%", "--drain-timeout", "3s", "--weight", "2"),
        *(
            "--entrypoint",
            "sh -c",
            "--stop-grace-period",
            "4s",
            "--init",
            "--user",
            "7:7",
            "web:1",
            "exec",
            "--flag",
            "1",
        ),
    )
    assert (ran.status, ran.out) == (0, "api runs\n"), ran.err
    spec = cluster.find("service", "api").spec  # type: ignore[union-attr]
    task, container = spec.task, spec.task.container
    assert (spec.replicas, dict(spec.labels)) == (2, {"team": "red"})
    assert (container.image, list(container.command), list(container.entrypoint)) == (
        "web:1",
        ["exec", "--flag", "1"],
        ["sh", "-c"],
    )
    assert (list(container.env), container.user, container.init) == (["A=x=y", "B=1"], "7:7", True)
    assert (list(container.healthcheck.test), container.healthcheck.interval, container.healthcheck.timeout) == (
        ["CMD-SHELL", "test -e /ok"],
        2,
        30,
    )
    assert (list(task.placement.constraints), task.placement.preferences[0].spread) == (
        ["node.role==worker"],
        "node.labels.zone",
    )
    assert (task.limits.memory_bytes, task.reservations.cpus, task.networks[0].target) == (64 << 20, 0.5, "net")
    assert (task.restart.condition, task.restart.delay) == (types.RESTART_CONDITION_ON_FAILURE, 1)
    assert (task.drain_timeout, task.weight, container.stop_grace_period) == (3, 2, 4)
    assert (spec.update.order, spec.update.failure_action, spec.update.progress_deadline) == (
        types.UPDATE_ORDER_START_FIRST,
        types.FAILURE_ACTION_ROLLBACK,
        60,
    )
    assert (spec.rollback.parallelism, spec.rollback.monitor) == (0, 5)
    assert (spec.canary, spec.auto_promote, spec.max_unavailable) == (1, True, "25%")


def test_create_with_checks_of_all_kinds(argosy: Argosy, cluster: FakeCluster) -> None:
    asked = ("--health-grpc", "9000/shop.Api", "--readiness-http", "8080/ready?full=1", "--readiness-interval", "2s")
    assert argosy("service", "create", "--name", "api", *asked, "web:1").status == 0
    container = cluster.find("service", "api").spec.task.container  # type: ignore[union-attr]
    assert (container.healthcheck.grpc.port, container.healthcheck.grpc.service) == (9000, "shop.Api")
    assert (container.readiness.http.port, container.readiness.http.path) == (8080, "/ready?full=1")
    assert (container.readiness.interval, container.readiness.retries) == (2, 3)
    assert argosy("service", "update", "--readiness-tcp", "81", "--no-healthcheck", "api").status == 0
    container = cluster.find("service", "api").spec.task.container  # type: ignore[union-attr]
    assert (container.readiness.tcp.port, container.readiness.HasField("http")) == (81, False)
    assert (list(container.healthcheck.test), container.readiness.interval) == (["NONE"], 2)
    assert argosy("service", "update", "--no-readiness", "api").status == 0
    container = cluster.find("service", "api").spec.task.container  # type: ignore[union-attr]
    assert not container.HasField("readiness")


def test_ports_are_added_beside_others_and_taken_out_by_the_number_that_was_chosen(
    argosy: Argosy, cluster: FakeCluster
) -> None:
    assert argosy("service", "create", "--name", "web", "-p", "8080:80", "-p", "80", "web:1").status == 0
    service: types.Service = cluster.find("service", "web")
    assert [p.published for p in service.spec.endpoint.ports] == [8080, 0]
    service.ports.extend(types.PortSpec(protocol="tcp", target=80, published=n) for n in (8080, 30000))
    ran = argosy("service", "update", "--publish-rm", "30001:80", "web")
    assert (ran.status, "it has *:8080->80/tcp, *:30000->80/tcp" in ran.err) == (2, True), ran.err
    ran = argosy("service", "update", "--publish-rm", "30000", "web")
    assert ran.status == 2
    assert "for the nodes' port 30000 write 30000:80" in ran.err
    changes = ("--publish-rm", "30000:80", "--publish-add", "published=8081,target=80,mode=host")
    assert argosy("service", "update", *changes, "web").status == 0
    spec = cluster.find("service", "web").spec  # type: ignore[union-attr]
    assert [p.published for p in spec.endpoint.ports] == [8080]
    assert [p.port for p in spec.task.host_ports] == [8081]


def test_times_of_a_health_check_need_something_that_asks(argosy: Argosy, cluster: FakeCluster) -> None:
    cluster._put("image", types.Image(name="plain:1"))
    asking = cluster._put("image", types.Image(name="asks:1"))
    asking.config.healthcheck.test[:] = ["CMD", "true"]
    create = ("service", "create", "--detach", "--health-interval", "5s", "--name")
    ran = argosy(*create, "a", "plain:1")
    assert (ran.status, ran.err.partition("\n")[0]) == (
        2,
        "argosy: --health-interval: nothing asks whether tasks are well, so it has no effect: add --health-cmd, "
        "--health-http, --health-tcp or --health-grpc",
    )
    assert argosy(*create, "b", "--health-tcp", "80", "plain:1").status == 0
    assert argosy(*create, "c", "asks:1").status == 0
    assert argosy("service", "create", "--detach", "--name", "d", "plain:1").status == 0
    ran = argosy("service", "update", "--health-retries", "2", "d")
    assert (ran.status, "--health-retries: nothing asks" in ran.err) == (2, True), ran.err
    for name, refused in (("d", True), ("c", False)):  # switched off, and on again as the image asks: so does Docker
        assert argosy("service", "update", "--detach", "--no-healthcheck", name).status == 0
        ran = argosy("service", "update", "--detach", "--health-interval", "7s", name)
        assert (ran.status, "--health-interval: nothing asks" in ran.err) == (2 if refused else 0, refused), ran.err
    check = cluster.find("service", "c").spec.task.container.healthcheck  # type: ignore[union-attr]
    assert (list(check.test), check.interval) == ([], 7)
    assert argosy("service", "update", "--detach", "--health-retries", "2", "b").status == 0


def test_create_a_job(argosy: Argosy, cluster: FakeCluster) -> None:
    said = ("--mode", "replicated-job", "--replicas", "9", "--max-concurrent", "3", "--schedule", "30 4 * * *")
    ran = argosy("service", "create", "--name", "nightly", "-d", *said, "--overlap", "forbid", "web:1")
    assert ran.status == 0, ran.err
    spec = cluster.find("service", "nightly").spec  # type: ignore[union-attr]
    assert (spec.mode, spec.replicas, spec.job.total_completions) == (types.SERVICE_MODE_REPLICATED_JOB, 1, 9)
    assert (spec.job.max_concurrent, spec.job.cron.schedule) == (3, "30 4 * * *")
    assert (spec.job.cron.overlap, spec.task.restart.condition) == (
        types.OVERLAP_FORBID,
        types.RESTART_CONDITION_ON_FAILURE,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--name", "a", "--weight", "0", "web:1"), "0 is not in the range"),
        (("--name", "a", "--health-http", "/x", "web:1"), "does not begin with a port"),
        (("--name", "a", "--no-readiness", "--readiness-tcp", "8", "web:1"), "contradict each other"),
        (("--name", "a", "--schedule", "@daily", "web:1"), "is for jobs: add --mode"),
        (("--name", "a", "--mode", "global-job", "--overlap", "allow", "web:1"), "add --schedule"),
        (("web:1",), "Missing option '--name'"),
        (("--name", "a"), "Missing argument 'IMAGE'"),
        (("--name", "a", "--mode", "global", "--replicas", "2", "web:1"), "--replicas has no meaning"),
        (("--name", "a", "-e", "A", "web:1"), "is not NAME=VALUE (for --env)"),
        (("--name", "a", "--placement-pref", "pack=x", "web:1"), "a preference is spread=ATTRIBUTE"),
        (("--name", "a", "--update-delay", "5", "web:1"), '--update-delay: duration "5" has no unit'),
        (("--name", "a", "--entrypoint", "'x", "web:1"), "--entrypoint: No closing quotation"),
        (("--name", "a", "--no-healthcheck", "--health-cmd", "x", "web:1"), "contradict each other"),
        (
            ("--name", "a", "--health-cmd", "x", "--health-http", "8", "web:1"),
            "--health-cmd and --health-http contradict",
        ),
        (("--name", "a", "--readiness-tcp", "8", "--readiness-grpc", "8", "web:1"), "contradict each other"),
        (
            ("--name", "a", "--restart-condition", "none", "--restart-max-attempts", "3", "web:1"),
            "--restart-max-attempts: what is never restarted makes no attempts",
        ),
        (("--name", "a", "--restart-window", "2m", "web:1"), "--restart-window: attempts are counted within it"),
    ],
)
def test_create_of_nonsense(argosy: Argosy, arguments: tuple[str, ...], said: str) -> None:
    ran = argosy("service", "create", *arguments)
    assert (ran.status, said in ran.err) == (2, True), ran.err


def test_stop_and_start_keep_the_number(argosy: Argosy, web: types.Service, cluster: FakeCluster) -> None:
    assert argosy("service", "stop", "web").out == "web: stopped\n"
    assert (row(argosy, "web")["running"], row(argosy, "web")["replicas"]) == (0, 3)
    assert "0/3 stopped" in argosy("service", "ls").out
    assert argosy("service", "start", "web").out == "web: runs\n"
    assert row(argosy, "web")["running"] == 3


def test_nothing_is_restarted_where_one_of_the_services_is_stopped(argosy: Argosy, web: types.Service) -> None:
    assert argosy("service", "create", "--name", "api", "api:1").status == 0
    assert argosy("service", "stop", "api").status == 0
    for services in (("api",), ("web", "api")):
        ran = argosy("service", "restart", *services)
        assert (ran.status, ran.err) == (1, "argosy: service api is stopped: 'argosy service start api' starts it\n")
    assert web.spec.task.force_update == 0


@pytest.mark.parametrize("how", [(), ("--detach",)])
def test_a_stopped_service_is_scaled_and_stays_stopped(
    argosy: Argosy, web: types.Service, how: tuple[str, ...]
) -> None:
    assert argosy("service", "stop", "web").status == 0
    ran = argosy("scale", *how, "web=5")
    said = "web: scaled to 5, and is stopped: 'argosy service start web' runs it\n"
    assert (ran.status, ran.err if how else ran.out) == (0, said)
    assert row(argosy, "web")["running"] == 0
    argosy("service", "start", "web")
    assert argosy("scale", "web=2").out == "web: 2 running\n"


def test_a_job_gets_another_number_of_completions(argosy: Argosy, cluster: FakeCluster) -> None:
    create = ("service", "create", "--detach", "--name", "j", "--mode", "replicated-job", "--replicas", "2")
    assert argosy(*create, "job:1").status == 0
    assert argosy("service", "update", "--detach", "--replicas", "3", "j").status == 0
    spec = cluster.find("service", "j").spec
    assert (spec.job.total_completions, spec.replicas) == (3, 1)


def test_what_runs_on_every_node_gets_no_number(argosy: Argosy) -> None:
    assert argosy("service", "create", "--detach", "--name", "j", "--mode", "global-job", "job:1").status == 0
    ran = argosy("service", "update", "--replicas", "3", "j")
    assert (ran.status, "only replicated services and jobs have replicas, and this one is global-job" in ran.err) == (
        2,
        True,
    )


def test_restart_is_a_new_revision(argosy: Argosy, web: types.Service) -> None:
    assert argosy("service", "update", "--canary", "0", "web").status == 0
    assert argosy("service", "restart", "web").out == "web is restarted, as revision 2\n"
    assert web.spec.task.force_update == 1


def test_an_update_with_canaries_ends_where_a_person_has_to_decide(argosy: Argosy, web: types.Service) -> None:
    ran = argosy("service", "update", "--image", "web:2", "web")
    assert (ran.status, ran.out) == (0, "web: 1 canary did well\n")
    assert "UPDATING (to be promoted)" in argosy("service", "ls").out
    assert argosy("service", "promote", "web").out == "web runs revision 2\n"


def test_pause_and_resume(argosy: Argosy, web: types.Service) -> None:
    argosy("service", "update", "--image", "web:2", "web")
    assert argosy("service", "pause", "web").out == "web: its update is paused\n"
    assert row(argosy, "web")["update"] == "PAUSED"
    said = argosy("service", "update", "--update-delay", "1s", "web").out
    assert said == "web is changed; its update is paused: 'argosy service ps web' tells what runs\n"
    assert argosy("service", "resume", "web").out == "web runs revision 2\n"


def test_history_tells_what_each_revision_changed(argosy: Argosy, web: types.Service) -> None:
    argosy("service", "update", "--canary", "0", "--image", "web:2", "--env-add", "A=1", "web")
    argosy("service", "update", "--env-add", "A=2", "--limit-cpu", "0.5", "web")
    rows = json.loads(argosy("service", "history", "--format", "json", "web").out)
    assert [(r["revision"], r["current"], r["tasks"], r["image"]) for r in rows] == [
        (3, True, 3, "web:2"),
        (2, False, 0, "web:2"),
        (1, False, 0, "web:1"),
    ]
    assert [r["changed"] for r in rows] == [
        ["env -A=1 +A=2", "limits.cpus 0 -> 0.5"],
        ["image web:1 -> web:2", "env +A=1"],
        [],
    ]
    assert "3 (current)" in argosy("service", "history", "web").out


def test_tasks_that_a_rollback_left_alone_run_the_present_revision() -> None:
    """A rollback is a new revision with the tasks of an old one: what was not updated yet stays as it is."""
    specs = {}
    for number, image in ((1, "web:1"), (2, "web:2"), (3, "web:1"), (4, "web:1")):
        specs[number] = types.ServiceSpec(name="web")
        specs[number].task.container.image = image
    specs[1].task.container.env.append("A=1")
    specs[4].task.placement.constraints.append("node.labels.zone==eu")
    found = pb.ListRevisionsResponse(service=types.Service(revision=4))
    found.revisions.extend(types.Revision(number=number, spec=spec) for number, spec in specs.items())
    tasks = [types.Task(revision=number) for number in (1, 2, 3, 3, 4)]
    assert [(r["revision"], r["tasks"]) for r in revision_rows(found, tasks)] == [(4, 3), (3, 0), (2, 1), (1, 1)]


def test_permissions_are_told_as_files_say_them() -> None:
    old, new = types.TaskSpec(), types.TaskSpec()
    old.container.files.add(name="motd", target="/motd", mode=0o444)
    new.container.files.add(name="motd", target="/motd", mode=0o400)
    new.container.tmpfs.add(target="/tmp", mode=0o1777)
    assert differences(old, new) == [
        "tmpfs +target=/tmp,mode=1777",
        "files -name=motd,target=/motd,mode=0444 +name=motd,target=/motd,mode=0400",
    ]
    assert plain(types.FileRef())["mode"] is None


def test_switches_can_be_taken_back(argosy: Argosy, web: types.Service) -> None:
    assert argosy("service", "update", "--auto-promote", "web").status == 0
    assert web.spec.auto_promote
    assert argosy("service", "update", "--no-auto-promote", "web").status == 0
    assert not web.spec.auto_promote
    assert argosy("service", "update", "--no-healthcheck", "--detach", "web").status == 0
    assert list(web.spec.task.container.healthcheck.test) == ["NONE"]
