"""The commands that look: tables and JSON, what they ask for, and how errors are told."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from argosy.cli.commands.network import MTU_OPTION
from argosy.cli.main import COMMANDS, run
from argosy.core.validate_update import MOST_WEIGHT
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types
from tests.unit.cli.fake_cluster import FakeCluster, serving

Argosy = Callable[..., Any]


@pytest.fixture
def shop(argosy: Argosy, compose: Callable[[str], str]) -> None:
    text = "services: {web: {image: web, deploy: {replicas: 2}}, db: {image: db}}"
    assert argosy("deploy", "-c", compose(text), "shop").status == 0


def data(ran: Any) -> Any:
    assert ran.status == 0, ran.err
    return json.loads(ran.out)


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT])
def test_run_of_what_the_cluster_refuses_ends_with_125(
    argosy: Argosy, cluster: FakeCluster, code: grpc.StatusCode
) -> None:
    cluster.fail["CreateService"] = [(code, "nobody has the image x")]
    ran = argosy("run", "x")
    assert (ran.status, ran.err) == (125, "argosy: nobody has the image x\n")


@pytest.mark.usefixtures("shop")
def test_ps(argosy: Argosy, cluster: FakeCluster) -> None:
    rows = data(argosy("ps", "--format", "json"))
    assert [row["name"] for row in rows] == ["shop_db.1", "shop_web.1", "shop_web.2"]
    web = rows[1]
    assert {
        k: web[k] for k in ("service", "slot", "node", "state", "desired_state", "image", "addresses", "reason")
    } == {
        "service": "shop_web",
        "slot": 1,
        "node": "host-2",
        "state": "RUNNING",
        "desired_state": "RUNNING",
        "image": "web",
        "addresses": ["10.0.0.1"],
        "reason": "",
    }
    assert (web["stack"], web["exit_code"], web["revision"]) == ("shop", None, 1)
    assert argosy("ps", "-q").out.split() == [row["id"] for row in rows]
    table = argosy("ps").out.splitlines()
    assert table[0].split() == ["ID", "NAME", "NODE", "STATE", "ADDRESSES", "IMAGE", "REASON"]
    assert len(table) == 4
    assert len(data(argosy("ps", "shop_web", "--format", "json"))) == 2
    assert [r["name"] for r in data(argosy("ps", "--node", "host-3", "--format", "json"))] == ["shop_web.2"]
    argosy("scale", "shop_web=1")
    assert len(data(argosy("ps", "--format", "json"))) == 2
    assert len(data(argosy("ps", "-a", "--format", "json"))) == 3


@pytest.mark.usefixtures("shop")
def test_services_and_stacks(argosy: Argosy) -> None:
    rows = data(argosy("service", "ls", "--format", "json"))
    assert [(r["name"], r["running"], r["replicas"], r["stack"]) for r in rows] == [
        ("shop_db", 1, 1, "shop"),
        ("shop_web", 2, 2, "shop"),
    ]
    assert "shop_web" in argosy("service", "ls").out
    assert data(argosy("stack", "ls", "--format", "json")) == [
        {"name": "shop", "services": 2, "networks": 1, "running": 3, "replicas": 3}
    ]
    assert len(data(argosy("stack", "services", "shop", "--format", "json"))) == 2
    assert len(data(argosy("stack", "ps", "shop", "--format", "json"))) == 3
    assert argosy("stack", "ps", "none").err.startswith("argosy: there is no stack 'none'")
    assert len(data(argosy("service", "ps", "shop_web", "--format", "json"))) == 2
    found = data(argosy("service", "inspect", "shop_web"))[0]
    assert found["spec"]["name"] == "shop_web"
    assert found["spec"]["mode"] == "REPLICATED"
    assert found["spec"]["task"]["networks"] == [{"target": "shop_default", "aliases": ["web"], "address": ""}]


def test_none_of_several_nodes_is_drained_before_all_have_stopped_to_take_tasks(
    argosy: Argosy, cluster: FakeCluster
) -> None:
    steps = []

    def note() -> None:
        steps.append({n.spec.name: n.spec.availability for n in cluster.all("node")})

    cluster.find("node", "host-3").spec.availability = types.AVAILABILITY_DRAIN
    cluster.meanwhile["UpdateNode"] = note
    assert argosy("node", "drain", "host-1", "host-2", "host-3", "host-1").status == 0
    note()
    active, paused, drained = types.AVAILABILITY_ACTIVE, types.AVAILABILITY_PAUSE, types.AVAILABILITY_DRAIN
    assert [list(step.values()) for step in steps] == [
        [active, active, drained],
        [paused, active, drained],
        [paused, paused, drained],
        [drained, paused, drained],
        [drained, drained, drained],
        [drained, drained, drained],
    ]
    before = dict(cluster.calls)
    assert argosy("node", "drain", "host-1", "nobody").status == 1
    assert cluster.calls["UpdateNode"] == before["UpdateNode"]


@pytest.mark.usefixtures("shop")
def test_nodes(argosy: Argosy, cluster: FakeCluster) -> None:
    rows = data(argosy("node", "ls", "--format", "json"))
    assert [(r["name"], r["state"], r["availability"], r["tasks"]) for r in rows] == [
        ("host-1", "READY", "ACTIVE", 0),
        ("host-2", "READY", "ACTIVE", 2),
        ("host-3", "READY", "ACTIVE", 1),
    ]
    assert argosy("node", "drain", "host-2").out == "node host-2 is drained\n"
    assert "node2" not in {t.node_id for t in cluster.all("task") if t.status.state == types.TASK_STATE_RUNNING}
    assert argosy("node", "drain", "host-2", "host-1").out == "node host-2 is drained\nnode host-1 is drained\n"
    assert argosy("node", "activate", "host-2", "host-1").status == 0
    ran = argosy("node", "drain", "--deadline", "169h", "host-1")
    assert (ran.status, "169h is longer than 168h: leave it out" in ran.err) == (2, True)
    assert argosy("node", "pause", "host-2", "host-3").status == 0
    assert argosy("node", "update", "--label-add", "zone=eu", "host-1").status == 0
    assert "zone=eu" in argosy("node", "ls").out
    assert argosy("node", "update", "--label-rm", "nope", "host-1").status == 1
    assert argosy("node", "update", "host-1").status == 2
    assert data(argosy("node", "inspect", "host-1"))[0]["spec"]["labels"] == {"zone": "eu"}
    assert argosy("node", "rm", "host-3").out == "node host-3 is removed\n"


@pytest.mark.usefixtures("shop")
def test_networks(argosy: Argosy) -> None:
    assert (
        argosy("network", "create", "--subnet", "10.9.0.0/16", "mine").out
        == "network mine is created with 10.9.0.0/16\n"
    )
    rows = data(argosy("network", "ls", "--format", "json"))
    assert [(r["name"], r["subnet"], r["stack"]) for r in rows] == [
        ("mine", "10.9.0.0/16", ""),
        ("shop_default", "10.64.0.0/16", "shop"),
    ]
    assert data(argosy("network", "inspect", "mine"))[0]["addresses_total"] == 65000
    assert argosy("network", "rm", "mine").out == "network mine removed\n"


@pytest.mark.parametrize(
    ("options", "encrypted", "mtu"),
    [
        (("encrypted",), True, 0),
        (("encrypted=true", f"{MTU_OPTION}=1400"), True, 1400),
        (("encrypted=false",), False, 0),
    ],
)
def test_a_networks_options_as_docker_writes_them(
    argosy: Argosy, options: tuple[str, ...], encrypted: bool, mtu: int
) -> None:
    assert argosy("network", "create", *(word for text in options for word in ("--opt", text)), "mine").status == 0
    spec = data(argosy("network", "inspect", "mine"))[0]["network"]["spec"]
    assert (spec["encrypted"], spec["mtu"]) == (encrypted, mtu)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--opt", "fast"), "there is no option 'fast': there are 'encrypted' and 'com.docker.network.driver.mtu'"),
        (("--opt", "encrypted=perhaps"), "'perhaps' is no value of 'encrypted': write encrypted=true"),
        (("--opt", MTU_OPTION), f"'' is no value of '{MTU_OPTION}': write {MTU_OPTION}=1400"),
        (("--opt", f"{MTU_OPTION}=99999999999"), f"write {MTU_OPTION}=1400, or another number from 1280 to 65535"),
        (("--opt", f"{MTU_OPTION}=576"), f"write {MTU_OPTION}=1400, or another number from 1280 to 65535"),
        (("--encrypted", "--opt", "encrypted=false"), "--opt says otherwise than --encrypted or --mtu"),
        (("--mtu", "1300", "--opt", f"{MTU_OPTION}=1400"), "--opt says otherwise than --encrypted or --mtu"),
    ],
)
def test_a_networks_options_that_cannot_be_read(argosy: Argosy, given: tuple[str, ...], said: str) -> None:
    done = argosy("network", "create", *given, "mine")
    assert done.status == 2
    assert said in done.err


@pytest.mark.usefixtures("shop")
def test_logs(argosy: Argosy, cluster: FakeCluster) -> None:
    cluster.logs = [
        pb.LogEntry(slot=1, node_id="node2", output=[types.LogOutput(at=0.5, data=b"hello\n")]),
        pb.LogEntry(slot=2, node_id="node3", output=[types.LogOutput(at=1.5, data="oh é\n".encode(), stderr=True)]),
        pb.LogEntry(slot=2, node_id="node3", notice="its node is away"),
    ]
    ran = argosy("logs", "--tail", "5", "shop_web")
    assert ran.out == "shop_web.1@host-2 | hello\n"
    assert ran.err.startswith("shop_web.2@host-3 | oh é\n")
    assert ran.err.endswith("shop_web.2: its node is away\n")
    assert cluster.last_logs.service == cluster.find("service", "shop_web").meta.id
    assert cluster.last_logs.tail == 5
    assert argosy("service", "logs", "-t", "--no-prefix", "shop_web").out == "1970-01-01T00:00:00.500+00:00 hello\n"
    task = cluster.tasks_of(cluster.find("service", "shop_web"))[0]
    argosy("logs", "-f", "--since", "5m", task.meta.id)
    assert (cluster.last_logs.task, cluster.last_logs.follow) == (task.meta.id, True)
    assert cluster.last_logs.since > 0
    argosy("logs", "shop_web.2")
    assert cluster.last_logs.task == cluster.tasks_of(cluster.find("service", "shop_web"))[1].meta.id
    assert argosy("logs", "nobody").err == "argosy: there is no service 'nobody'\n"
    assert argosy("logs", "--since", "soon", "shop_web").status == 2


@pytest.mark.usefixtures("shop")
def test_logs_are_whole_lines_and_what_is_not_finished_comes_last_as_it_is(
    argosy: Argosy, cluster: FakeCluster
) -> None:
    def wrote(task: int, data: bytes, at: float) -> pb.LogEntry:
        return pb.LogEntry(task_id=f"t{task}", slot=task, output=[types.LogOutput(at=at, data=data)])

    cluster.logs = [wrote(1, b"one\ntw", 0), wrote(2, b"a\n\nb", 1), wrote(1, b"o\nthr", 2), wrote(1, b"ee", 3)]
    assert argosy("logs", "--no-prefix", "shop_web").out == "one\na\n\ntwo\nb\nthree"
    cluster.logs.insert(1, pb.LogEntry(task_id="t1", slot=1, notice="something is missing"))
    assert argosy("logs", "--no-prefix", "shop_web").out == "one\ntw\na\n\no\nb\nthree", "no line is made of two"
    del cluster.logs[1]
    stamped = argosy("logs", "-t", "shop_web").out
    assert stamped.replace("1970-01-01T00:00:0", "").replace(".000+00:00", "").replace("shop_web.", "") == (
        "1 | 0 one\n2 | 1 a\n2 | 1 \n1 | 0 two\n2 | 1 b\n1 | 2 three"
    )


def test_version(argosy: Argosy) -> None:
    assert data(argosy("version", "--format", "json")) == {
        "client": "0.1.0",
        "controller": "0.1.0",
        "leader": "c1",
        "cluster": "fake",
    }
    assert argosy("--host", "unix:///nowhere", "version").status == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(argosy: Argosy, shell: str) -> None:
    ran = argosy("completion", shell)
    assert ran.status == 0
    assert "_ARGOSY_COMPLETE" in ran.out


def test_contexts(argosy: Argosy, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARGOSY_HOST")
    assert argosy("context", "create", "here", host).status == 0
    assert argosy("--context", "here", "node", "ls").status == 0
    assert argosy("context", "use", "here").status == 0
    assert argosy("node", "ls").status == 0
    rows = data(argosy("context", "ls", "--format", "json"))
    assert {"name": "here", "host": host, "project": "default", "current": True} in rows
    assert argosy("context", "rm", "here").status == 0
    assert argosy("context", "use", "here").status == 2


# ---------------------------------------------------------------- errors


def test_no_cluster_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--host", "unix:///nowhere/at/all", "ps"]) == 3
    err = capsys.readouterr().err
    assert "no cluster answers at unix:///nowhere/at/all" in err
    assert "argosy dev up" in err


def test_the_next_controller_is_asked(argosy: Argosy, host: str) -> None:
    assert argosy("--host", f"unix:///nowhere,{host}", "node", "ls").status == 0


def test_a_controller_that_does_not_lead_is_passed_over(tmp_path: Path, host: str, argosy: Argosy) -> None:
    other = FakeCluster(nodes=0)
    other.fail["ListNodes"] = [(grpc.StatusCode.UNAVAILABLE, "this controller does not lead")] * 1000
    with serving(other, tmp_path / "other") as address:
        assert len(data(argosy("--host", f"{address},{host}", "node", "ls", "--format", "json"))) == 3


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 2, "argosy: told\n"),
        (grpc.StatusCode.FAILED_PRECONDITION, 1, "argosy: told\n"),
        (grpc.StatusCode.ALREADY_EXISTS, 1, "argosy: told\n"),
        (grpc.StatusCode.INTERNAL, 1, "the controller failed (INTERNAL): told"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 1, "told"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 3, "told"),
    ],
)
def test_codes(argosy: Argosy, cluster: FakeCluster, code: grpc.StatusCode, status: int, said: str) -> None:
    cluster.fail["ListNodes"] = [(code, "told")]
    ran = argosy("node", "ls")
    assert (ran.status, said in ran.err, "Traceback" in ran.err) == (status, True, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pss",), "no such command 'pss' (did you mean 'ps'?)"),
        (("ps", "--al"), "--all"),
        (("service", "rm"), "Missing argument"),
        (("--host", "nonsense", "ps"), "is no address of a controller"),
        (("deploy", "--timeout", "soon", "s"), "is not a duration"),
    ],
)
def test_wrong_arguments(argosy: Argosy, arguments: tuple[str, ...], said: str) -> None:
    ran = argosy(*arguments)
    assert (ran.status, said in ran.err) == (2, True), ran.err


def test_a_bug_is_told_without_a_traceback(
    argosy: Argosy, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("argosy.cli.rows.node_rows", lambda *_: 1 / 0)
    ran = argosy("node", "ls")
    assert ran.status == 70
    assert "a bug in argosy: ZeroDivisionError" in ran.err
    assert "Traceback" not in ran.err


def test_help_names_all_commands(argosy: Argosy) -> None:
    for arguments in ((), ("--help",)):
        out = argosy(*arguments).out
        assert all(name in out for name in COMMANDS)
        assert "controller" not in out.split("Commands:")[1]


# ---------------------------------------------------------------- whole processes


def argosy_process(*arguments: str, **more: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "argosy.cli.main", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_ctrl_c_ends_the_waiting_and_says_so(host: str, compose: Callable[[str], str], cluster: FakeCluster) -> None:
    import signal
    import time

    process = argosy_process("deploy", "-c", compose("services: {web: {image: pending}}"), "s")
    deadline = time.monotonic() + 20
    while cluster.calls.get("Watch", 0) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped waiting; the deployment goes on" in err
    assert cluster.find("service", "s_web") is not None


def test_events_follow_what_happens(host: str, argosy: Argosy, cluster: FakeCluster) -> None:
    import signal

    process = argosy_process("events", "--existing")
    assert process.stdout is not None
    assert "host-1" in process.stdout.readline()
    argosy("node", "pause", "host-1")
    line = ""
    while "PAUSE" not in line:
        line = process.stdout.readline()
        assert line, "the events ended"
    assert "node     host-1 READY PAUSE" in line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_nothing_heavy_is_imported_for_help_and_little_for_ps(host: str) -> None:
    program = (
        "import sys; from argosy.cli.main import run; status = run(sys.argv[1:]); "
        "print(*sorted(sys.modules), file=sys.stderr); sys.exit(status)"
    )
    for arguments, unwanted in (
        (["--help"], ("grpc", "rich", "yaml", "google.protobuf", "json.tool")),
        (["ps", "--format", "json"], ("rich", "yaml", "argosy.core", "argosy.cli.compose", "uvloop")),
    ):
        ran = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=os.environ
        )
        assert ran.returncode == 0
        loaded = set(ran.stderr.split())
        assert [name for name in unwanted if name in loaded] == []


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_what_is_closed_is_not_written_to(host: str, closed: str) -> None:
    command = f"exec '{sys.executable}' -m argosy.cli.main ps {closed}"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=os.environ)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("ScaleServices", ("scale", "shop_web=3"), "argosy: interrupted; what the cluster was asked for goes on"),
        ("ListServices", ("service", "ls"), "interrupted"),
    ],
)
def test_ctrl_c_while_the_cluster_is_asked(
    method: str,
    arguments: tuple[str, ...],
    said: str,
    argosy: Argosy,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(0.5)  # the answer must not win: an unanswered call is what is looked at

    monkeypatch.setenv("NO_COLOR", "1")
    cluster.meanwhile[method] = interrupt
    ran = argosy(*arguments)
    assert (ran.status, ran.err.split("\n")[1]) == (130, said)  # the first ends the line with the ^C


@pytest.mark.usefixtures("shop")
def test_what_is_not_there_is_no_empty_table(argosy: Argosy) -> None:
    for arguments in (("ps", "--stack", "nosuch"), ("stack", "ps", "nosuch"), ("stack", "services", "nosuch")):
        ran = argosy(*arguments)
        assert (ran.status, ran.out) == (1, "")
        assert "there is no stack 'nosuch'" in ran.err


@pytest.mark.usefixtures("shop")
def test_an_image_that_services_run_is_removed_by_force_with_a_note(argosy: Argosy, cluster: FakeCluster) -> None:
    for service in cluster.all("service"):
        service.spec.task.container.image_digest = "sha256:one"
    cluster._put("image", types.Image(name="web", digest="sha256:one"))
    assert argosy("image", "rm", "web").status == 1
    ran = argosy("image", "rm", "--force", "web")
    assert (ran.status, ran.out) == (0, "web\n")
    assert "still run by shop_db, shop_web" in ran.err


def test_the_daemons_are_started_with_their_arguments() -> None:
    process = argosy_process("controller", "--no-such-option-of-ours")
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "no such command" not in out + err


@pytest.mark.usefixtures("shop")
def test_completion_asks_the_cluster(host: str) -> None:
    def complete(words: str) -> list[str]:
        env = {
            **os.environ,
            "_ARGOSY_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        ran = subprocess.run([sys.executable, "-m", "argosy.cli.main"], capture_output=True, text=True, env=env)
        return [line.removeprefix("plain,") for line in ran.stdout.splitlines() if line]

    assert complete("argosy ser") == ["service"]
    assert complete("argosy logs shop_") == ["shop_db", "shop_web"]
    assert complete("argosy node drain ") == ["host-1", "host-2", "host-3"]
    assert complete("argosy --host unix:///nowhere logs ") == []


def test_a_network_with_two_subnets_is_refused(argosy: Argosy) -> None:
    done = argosy("network", "create", "--subnet", "10.9.0.0/16", "--subnet", "10.10.0.0/16", "mine")
    assert (done.status, done.out) == (2, "")
    assert "10.9.0.0/16 and 10.10.0.0/16: a network has one subnet; create another network" in done.err


def test_a_weight_that_cannot_be_is_refused_with_those_that_can(argosy: Argosy) -> None:
    done = argosy("service", "create", "--name", "web", "--weight", str(MOST_WEIGHT + 1), "nginx")
    assert done.status == 2
    assert f"is not in the range 1<=x<={MOST_WEIGHT}" in done.err
