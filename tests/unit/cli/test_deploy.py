"""deploy, scale, update, rollback, rm: exit 0 only when it has happened; what a failure says."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types
from tests.unit.cli.fake_cluster import FakeCluster

Argosy = Callable[..., Any]
Compose = Callable[[str], str]

TWO = "services: {web: {image: web, deploy: {replicas: 3}}, db: {image: db}}"


def test_deploy_waits_until_all_runs(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    ran = argosy("deploy", "-c", compose(TWO), "shop")
    assert (ran.status, ran.out) == (0, "stack shop runs: shop_web, shop_db\n")
    assert "shop_web: created" in ran.err
    assert "shop_web: 3/3 running" in ran.err
    assert sorted(s.spec.name for s in cluster.all("service")) == ["shop_db", "shop_web"]
    assert [n.spec.name for n in cluster.all("network")] == ["shop_default"]
    again = argosy("deploy", "-c", compose(TWO), "shop")
    assert again.status == 0
    assert "shop_web: is as wanted" in again.err
    assert argosy("scale", "shop_web=1").status == 0
    assert "shop_web: updated (revision 1)" in argosy("deploy", "-c", compose(TWO), "shop").err


def test_deploy_of_a_bad_file_sends_nothing(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    ran = argosy(
        "deploy", "-c", compose("services:\n  web: {image: web, deploy: {replicas: -1}}\n  db: {imag: x}\n"), "s"
    )
    assert ran.status == 2
    assert "compose.yaml:2:40: services.web.deploy.replicas: -1 is less than 0" in ran.err
    assert "compose.yaml:3:8: services.db.imag: there is no key 'imag'" in ran.err
    assert "argosy: 2 problems in the Compose files, nothing was sent to the cluster:\n" in ran.err
    assert cluster.calls == {}


REFUSED = """\
services:
  web:
    image: web
    ports:
    - "80"
    - "8080-8081:80-81"
    - {target: 9, published: 53, protocol: udp, host_ip: 127.0.0.1, mode: host}
    networks:
      a:
      b: {ipv4_address: 10.9.0.3}
  db: {image: db, depends_on: [web]}
networks:
  a:
    ipam:
      config:
      - subnet: 198.18.1.0/24
    driver_opts:
      com.docker.network.driver.mtu: 9000
      encrypted: "true"
  b:
"""


@pytest.mark.parametrize("method", ["ApplyStack", "GetPlan"])
@pytest.mark.parametrize(
    ("code", "text", "places", "said"),
    [
        (
            "INVALID_ARGUMENT",
            "network s_a cannot be accepted\nsubnet: 198.18.1.0/24 overlaps\nmtu: too large",
            [("network", "s_a", "subnet"), ("network", "s_a", "mtu")],
            "network s_a cannot be accepted\nFILE:16:17: networks.a.ipam.config.subnet: 198.18.1.0/24 overlaps\n"
            "FILE:18:38: networks.a.driver_opts.com.docker.network.driver.mtu: too large",
        ),
        (
            "FAILED_PRECONDITION",
            "network s_a has none",
            [("network", "s_a", "encrypted")],
            "FILE:19:18: networks.a.driver_opts.encrypted: network s_a has none",
        ),
        (
            "INVALID_ARGUMENT",
            "10.9.0.3 cannot be had",
            [("service", "s_web", "task.networks[1].address")],
            "FILE:10:25: services.web.networks.b.ipv4_address: 10.9.0.3 cannot be had",
        ),
        (
            "ALREADY_EXISTS",
            "service s_web: port 8081/tcp is taken",
            [("service", "s_web", "endpoint.ports[2].published")],
            "FILE:6:7: services.web.ports: service s_web: port 8081/tcp is taken",
        ),
        (
            "ALREADY_EXISTS",
            "port 53 is taken",
            [("service", "s_web", "task.host_ports[0].port")],
            "FILE:7:30: services.web.ports.published: port 53 is taken",
        ),
        (
            "INVALID_ARGUMENT",
            "s_a and s_b overlap",
            [("service", "s_web", "task.networks")],
            "FILE:9:7: services.web.networks: s_a and s_b overlap",
        ),
        (
            "INVALID_ARGUMENT",
            "there is no such service",
            [("service", "s_db", "depends_on[0]")],
            "FILE:11:32: services.db.depends_on.web: there is no such service",
        ),
        (
            "INVALID_ARGUMENT",
            "stack s cannot be accepted\nservice s_web: task.container.image: no\n"
            "service s_web: task.weight: too large",
            [("service", "s_web", "task.container.image"), ("service", "s_web", "task.weight")],
            "stack s cannot be accepted\nFILE:3:12: services.web.image: no\n"
            "FILE:3:5: services.web: task.weight: too large",
        ),
        (
            "NOT_FOUND",
            "nobody has the image",
            [("service", "s_web", "task.container.image")],
            "FILE:3:12: services.web.image: nobody has the image",
        ),
        ("NOT_FOUND", "service s_web: not now", [], "service s_web: not now"),
        ("INVALID_ARGUMENT", "of another\nsubnet: x", [("network", "else", "subnet")], "of another\nsubnet: x"),
        ("INVALID_ARGUMENT", "two\nlines", [("network", "s_a", "")] * 2, "two\nlines"),
    ],
)
def test_what_the_cluster_refuses_is_told_at_its_line(
    argosy: Argosy,
    compose: Compose,
    cluster: FakeCluster,
    method: str,
    code: str,
    text: str,
    places: list[tuple[str, str, str]],
    said: str,
) -> None:
    path = compose(REFUSED)
    cluster.fail[method] = [(grpc.StatusCode[code], text, *places)]
    ran = argosy("deploy", "-c", path, *(["--plan"] if method == "GetPlan" else []), "s")
    assert (ran.status, ran.err) == (2 if code == "INVALID_ARGUMENT" else 1, f"argosy: {said}\n".replace("FILE", path))


def test_deploy_shows_notices_and_goes_on(argosy: Argosy, compose: Compose) -> None:
    ran = argosy("deploy", "-c", compose("services: {web: {image: web, tty: true}}"), "s")
    assert ran.status == 0
    assert "note: " in ran.err
    assert "services.web.tty" in ran.err


def test_what_stands_in_the_way_of_published_ports_is_noted(
    argosy: Argosy, compose: Compose, cluster: FakeCluster
) -> None:
    path = compose("services: {web: {image: web, ports: ['8080:80']}, db: {image: db}}")
    assert "note:" not in argosy("deploy", "-c", path, "shop").err
    web = cluster.find("service", "shop_web")
    web.port_problems.append("port 8080 is shop_old's")
    for number in (2, 3):
        cluster.find("node", f"host-{number}").port_problems.add(service_id=web.meta.id, reason="8080 is taken")
    said = "note: shop_web: port 8080 is shop_old's\nnote: shop_web: 8080 is taken (host-2, host-3)\n"

    again = argosy("deploy", "-c", path, "shop")
    assert (again.status, again.out, said in again.err) == (0, "stack shop runs: shop_web, shop_db\n", True), again.err
    updated = argosy("service", "update", "--force", "shop_web")
    assert (updated.status, said in updated.err) == (0, True), updated.err
    assert "note:" not in argosy("deploy", "-d", "-c", path, "shop").err


def test_that_ports_cannot_be_asked_about_does_not_fail_what_runs(
    argosy: Argosy, compose: Compose, cluster: FakeCluster
) -> None:
    path = compose("services: {web: {image: web, ports: ['8080:80']}}")
    cluster.fail["ListNodes"] = [(grpc.StatusCode.INTERNAL, "it broke")] * 1000
    ran = argosy("deploy", "-c", path, "shop")
    assert (ran.status, ran.out) == (0, "stack shop runs: shop_web\n"), ran.err
    assert "note: what stands in the way of published ports is not known: " in ran.err


def test_a_plan_for_programs_has_the_notices_of_the_file_and_of_the_cluster(argosy: Argosy, compose: Compose) -> None:
    path = compose("services: {web: {image: web, container_name: x}}")
    ran = argosy("deploy", "-c", path, "--plan", "--format", "json", "shop")
    notices = json.loads(ran.out)["notices"]
    assert ran.status == 0
    assert (len(notices), notices[1]) == (2, "the cluster's")
    assert notices[0].startswith(f"{path}:1:")
    assert "services.web.container_name" in notices[0]


def test_deploy_without_a_file(argosy: Argosy, tmp_path: Any, monkeypatch: Any) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    ran = argosy("deploy", "s")
    assert ran.status == 2
    assert "no compose.yaml in this directory" in ran.err
    (empty / "compose.yaml").write_text("name: n\nservices: {web: {image: web}}")
    assert argosy("deploy").out == "stack n runs: n_web\n"


def test_deploy_names_the_line_of_a_missing_external_network(argosy: Argosy, compose: Compose) -> None:
    text = "services: {web: {image: web, networks: [x]}}\nnetworks: {x: {external: true}}"
    ran = argosy("deploy", "-c", compose(text), "s")
    assert ran.status == 2
    assert "compose.yaml:2:12: there is no network 'x' in the cluster" in ran.err
    assert "argosy network create x" in ran.err
    assert argosy("network", "create", "x").status == 0
    assert argosy("deploy", "-c", compose(text), "s").status == 0


def test_a_first_deploy_that_crashes_says_why(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    cluster.logs = [pb.LogEntry(output=[types.LogOutput(data=f"line {i}\n".encode())]) for i in range(25)]
    ran = argosy("deploy", "-c", compose("services: {web: {image: crash}}"), "s")
    assert ran.status == 1
    assert re.search(r"s_web.1 has failed \d times", ran.err)
    assert "exit code 3: exited with code 3" in ran.err
    assert "  | line 24" in ran.err
    assert "  | line 4\n" not in ran.err
    assert cluster.last_logs.tail == 20
    assert cluster.last_logs.task


def test_a_deploy_whose_tasks_are_rejected_says_why(argosy: Argosy, compose: Compose) -> None:
    ran = argosy("deploy", "-c", compose("services: {web: {image: reject}}"), "s")
    assert ran.status == 1
    assert "its tasks are rejected: the limit of open files is too high" in ran.err


def test_a_service_that_may_fail_once_only(argosy: Argosy, compose: Compose) -> None:
    text = "services: {web: {image: crash, restart: 'no'}}"
    ran = argosy("deploy", "-c", compose(text), "s")
    assert ran.status == 1
    assert "has failed once" in ran.err


def test_a_program_that_ends_well_and_may_is_done(argosy: Argosy, compose: Compose) -> None:
    assert argosy("deploy", "-c", compose("services: {web: {image: once, restart: on-failure}}"), "s").status == 0
    ran = argosy("deploy", "-c", compose("services: {web: {image: once}}"), "t")
    assert ran.status == 1
    assert re.search(r"has ended \d times instead of running", ran.err)


def test_what_waits_is_shown_with_its_reason_until_the_timeout(argosy: Argosy, compose: Compose) -> None:
    ran = argosy("deploy", "-c", compose("services: {web: {image: pending}}"), "--timeout", "0.3", "s")
    assert ran.status == 1
    assert "it has not happened within 0.3 s: s_web: 0/1 running: no node has 99 CPUs free" in ran.err


def test_detach_does_not_wait(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    assert argosy("deploy", "-d", "-c", compose("services: {web: {image: pending}}"), "s").status == 0
    assert "Watch" not in cluster.calls


def test_deploy_waits_for_what_is_slow(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    timer = threading.Timer(0.3, cluster.finish_starting)
    timer.start()
    ran = argosy("deploy", "-c", compose("services: {web: {image: slow, deploy: {replicas: 2}}}"), "s")
    timer.join()
    assert ran.status == 0
    assert "s_web.1: running on host-2" in ran.err


def test_an_update_that_fails_is_reported_as_paused(argosy: Argosy, compose: Compose) -> None:
    assert argosy("deploy", "-c", compose("services: {web: {image: web}}"), "s").status == 0
    ran = argosy("deploy", "-c", compose("services: {web: {image: crash}}"), "s")
    assert ran.status == 1
    assert "s_web: the update failed and is paused: the only replica failed" in ran.err
    assert "exit code 3" in ran.err
    assert argosy("deploy", "-c", compose("services: {web: {image: web:2}}"), "s").status == 0


def test_an_update_that_fails_and_is_rolled_back_says_so(argosy: Argosy, compose: Compose) -> None:
    text = "services: {web: {image: %s, deploy: {update_config: {failure_action: rollback}}}}"
    assert argosy("deploy", "-c", compose(text % "web"), "s").status == 0
    ran = argosy("deploy", "-c", compose(text % "crash"), "s")
    assert ran.status == 1
    assert "s_web: the update failed and was rolled back: the only replica failed" in ran.err


def test_prune_removes_what_the_file_lacks(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    argosy("deploy", "-c", compose(TWO), "shop")
    ran = argosy("deploy", "--prune", "-c", compose("services: {web: {image: web, deploy: {replicas: 3}}}"), "shop")
    assert ran.status == 0
    assert [s.spec.name for s in cluster.all("service")] == ["shop_web"]


def test_scale(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    argosy("deploy", "-c", compose(TWO), "shop")
    ran = argosy("scale", "shop_web=5", "shop_db=2")
    assert (ran.status, ran.out) == (0, "shop_db: 2 running\nshop_web: 5 running\n")
    assert argosy("service", "scale", "shop_web", "0").status == 0
    web = cluster.find("service", "shop_web")
    assert [t for t in cluster.tasks_of(web) if t.status.state == types.TASK_STATE_RUNNING] == []


def test_scale_of_nonsense(argosy: Argosy, compose: Compose) -> None:
    for wrong in ("web", "web=", "web=-1", "=3", "web=x"):
        ran = argosy("scale", wrong)
        assert (ran.status, "is not SERVICE=N" in ran.err) == (2, True), wrong
    assert argosy("scale", "web=1", "web=2").status == 2
    ran = argosy("scale", "nobody=1")
    assert (ran.status, ran.err) == (1, "argosy: there is no service 'nobody'\n")


def test_scaling_does_not_mind_an_old_paused_update(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    argosy("deploy", "-c", compose("services: {web: {image: web}}"), "s")
    cluster.find("service", "s_web").update.state = types.UPDATE_STATE_PAUSED
    assert argosy("scale", "s_web=2").status == 0


def test_service_update(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    argosy("deploy", "-c", compose("services: {web: {image: web, environment: {A: 1, B: 2}}}"), "s")
    ran = argosy(
        *("service", "update", "--image", "web:2", "--env-add", "C=x=y", "--env-rm", "A", "--limit-memory", "64m"),
        *("--constraint-add", "node.role==worker", "--replicas", "2", "--update-order", "start-first", "s_web"),
    )
    assert (ran.status, ran.out) == (0, "s_web runs revision 2\n")
    spec = cluster.find("service", "s_web").spec
    assert spec.task.container.image == "web:2"
    assert list(spec.task.container.env) == ["B=2", "C=x=y"]
    assert spec.task.limits.memory_bytes == 64 << 20
    assert list(spec.task.placement.constraints) == ["node.role==worker"]
    assert (spec.replicas, spec.update.order) == (2, types.UPDATE_ORDER_START_FIRST)
    assert argosy("service", "update", "--force", "s_web").out == "s_web runs revision 3\n"
    assert argosy("service", "update", "--constraint-rm", "node.role == worker", "s_web").status == 0


def test_service_update_tries_again_when_the_record_changed(
    argosy: Argosy, compose: Compose, cluster: FakeCluster
) -> None:
    argosy("deploy", "-c", compose("services: {web: {image: web}}"), "s")
    cluster.fail["UpdateService"] = [(grpc.StatusCode.ABORTED, "the service was changed")] * 2
    assert argosy("service", "update", "--image", "web:2", "s_web").status == 0
    assert cluster.calls["UpdateService"] == 3


def test_service_update_of_nonsense(argosy: Argosy, compose: Compose) -> None:
    argosy("deploy", "-c", compose("services: {web: {image: web}}"), "s")
    for arguments, said in (
        ((), "nothing is to be changed"),
        (("--env-add", "A"), "is not NAME=VALUE"),
        (("--env-rm", "A"), "no variable 'A'"),
        (("--limit-memory", "lots"), "is not an amount of bytes"),
        (("--constraint-add", "node.rol==x"), "did you mean"),
        (("--replicas", "-1"), "not in the range"),
    ):
        ran = argosy("service", "update", *arguments, "s_web")
        assert (ran.status, said in ran.err) == (2, True), (arguments, ran.err)


def test_service_update_that_fails(argosy: Argosy, compose: Compose) -> None:
    argosy("deploy", "-c", compose("services: {web: {image: web}}"), "s")
    ran = argosy("service", "update", "--image", "crash", "s_web")
    assert ran.status == 1
    assert "the update failed and is paused" in ran.err


def test_rollback(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    argosy("deploy", "-c", compose("services: {web: {image: web}}"), "s")
    ran = argosy("service", "rollback", "s_web")
    assert (ran.status, "has no earlier revision" in ran.err) == (1, True)
    argosy("service", "update", "--image", "web:2", "s_web")
    assert argosy("service", "rollback", "s_web").out == "s_web is rolled back\n"
    assert cluster.find("service", "s_web").spec.task.container.image == "web"


def test_removal(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    argosy("deploy", "-c", compose(TWO), "shop")
    for verb in ("rm", "stop", "restart"):
        assert argosy("service", verb, "shop_db", "nosuch").status == 1
    assert cluster.find("service", "shop_db").revision == 1, "nothing is done to the first where there is no second"
    assert argosy("service", "rm", "shop_db").out == "service shop_db removed\n"
    assert argosy("stack", "rm", "shop").out == "stack shop removed\n"
    assert cluster.all("service") == cluster.all("network") == []
    assert argosy("stack", "rm", "shop").status == 1


def test_a_lost_watch_is_taken_up_again(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    cluster.cut_watches = 2
    timer = threading.Timer(0.4, cluster.finish_starting)
    timer.start()
    ran = argosy("deploy", "-c", compose("services: {web: {image: slow}}"), "s")
    timer.join()
    assert ran.status == 0
    assert cluster.calls["Watch"] >= 3


def test_a_call_waits_for_a_leader(argosy: Argosy, compose: Compose, cluster: FakeCluster) -> None:
    cluster.fail["ApplyStack"] = [(grpc.StatusCode.UNAVAILABLE, "no controller leads at the moment")] * 2
    assert argosy("deploy", "-c", compose("services: {web: {image: web}}"), "s").status == 0
    assert cluster.calls["ApplyStack"] == 3
