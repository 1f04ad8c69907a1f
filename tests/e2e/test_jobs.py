"""Jobs, schedules, start order and `run` on three hosts: one stack, deployed once, and commands of their own."""

import re
import signal
import subprocess
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.dev_cluster import ARGOSY, wait_until

STACK = """
services:
  db:
    image: busybox:1
    command: sh -c 'sleep 6; touch /tmp/up; echo up; exec nc -ll -p 7000 -e echo hello'
    stop_grace_period: 200ms
    environment: {VERSION: "%(version)s"}
    healthcheck: {test: "test -e /tmp/up", interval: 500ms, start_interval: 200ms, start_period: 30s}
    deploy: {update_config: {monitor: 200ms}}
  init:
    image: busybox:1
    command: sh -c 'nc db 7000 </dev/null && sleep 1 && echo migrated'
    depends_on: {db: {condition: service_healthy}}
    deploy: {mode: replicated-job, restart_policy: {condition: none}}
  web:
    image: busybox:1
    init: true
    command: sh -c 'nc db 7000 </dev/null; exec sleep 100000'
    depends_on:
      init: {condition: service_completed_successfully}
      db: {condition: service_healthy, restart: true}
      gone: {condition: service_started, required: false}
    deploy: {update_config: {monitor: 200ms}}
  many:
    image: busybox:1
    command: sleep 0.5
    deploy: {mode: replicated-job, replicas: 5}
    x-argosy: {job: {max_concurrent: 2}}
  each:
    image: busybox:1
    command: hostname
    deploy: {mode: global-job}
  nightly:
    image: busybox:1
    command: echo done
    deploy: {mode: replicated-job}
    x-argosy: {cron: {schedule: "30 4 * * *", time_zone: Asia/Kolkata, overlap: forbid}}
"""


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    """The stack `j`, and how its deployment went."""
    path = tmp_path_factory.mktemp("jobs") / "j.yaml"

    def deploy(version):
        path.write_text(STACK % {"version": version})
        return cluster.run("deploy", "-c", str(path), "j")

    done = deploy(1)
    assert done.returncode == 0, done.stderr
    return done.stderr, deploy


def tasks(cluster, service):
    """Return all tasks of a service of the stack, in the order of their creation."""
    found = [t for t in cluster.tasks(ended=True) if t["service"] == f"j_{service}"]
    return sorted(found, key=lambda t: t["created"])


def job(cluster, name):
    return next(row for row in cluster.json("job", "ls") if row["name"] == f"j_{name}")


def first_line(cluster, task_id):
    """Return when a task wrote its first line."""
    line = cluster.argosy("logs", "-t", "--no-prefix", task_id).splitlines()[0]
    return datetime.fromisoformat(line.split()[0])


def test_argosy_job(cluster, stack):
    runs = tasks(cluster, "many")
    assert [(t["slot"], t["state"]) for t in sorted(runs, key=lambda t: t["slot"])] == [
        (slot, "COMPLETE") for slot in range(1, 6)
    ]
    for one in runs:
        at_once = [t for t in runs if t["created"] <= one["created"] < t["since"]]
        assert len(at_once) <= 2
    assert (job(cluster, "many")["state"], job(cluster, "many")["complete"]) == ("COMPLETE", 5)


def test_global_job(cluster, stack):
    assert sorted(t["node"] for t in tasks(cluster, "each")) == cluster.nodes
    assert {t["state"] for t in tasks(cluster, "each")} == {"COMPLETE"}


def test_argosy_cron(cluster, stack):
    waits = job(cluster, "nightly")
    due = datetime.fromtimestamp(waits["next"], ZoneInfo("Asia/Kolkata"))
    assert (waits["run"], due.hour, due.minute, due.second) == (0, 4, 30, 0)
    assert "run 1 is complete" in cluster.argosy("job", "run", "j_nightly")
    ran = job(cluster, "nightly")
    assert (ran["run"], ran["state"], ran["next"]) == (1, "COMPLETE", waits["next"])
    assert "done" in cluster.argosy("logs", "j_nightly")


def test_depends_on(cluster, stack):
    said, _ = stack
    assert "j_init.1: pending: waiting for j_db: healthy" in said
    because = r"j_init is waiting for j_db: healthy \(its health check fails: exit code 1\)"
    assert re.search(rf"j_web.1: pending: waiting for j_init: completed \({because}\)", said)
    (init,) = tasks(cluster, "init")  # which has found the database, the first time that it was run
    (web,) = tasks(cluster, "web")
    assert init["state"] == "COMPLETE"
    assert first_line(cluster, web["id"]).timestamp() > init["since"]


def test_depends_on_restart(cluster, stack):
    _, deploy = stack
    done = deploy(2)
    assert done.returncode == 0, done.stderr
    before, after = tasks(cluster, "web")
    (db,) = cluster.running("j_db")
    assert first_line(cluster, after["id"]) > first_line(cluster, db["id"])
    assert before["since"] > first_line(cluster, db["id"]).timestamp(), "it served until the database was new"
    assert [t["state"] for t in tasks(cluster, "init")] == ["COMPLETE"], "what has not changed is not run again"


def test_a_job_that_fails_fails_its_deployment_and_says_why(cluster, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text(
        "services:\n  bad:\n    image: busybox:1\n    command: sh -c 'echo broken; exit 3'\n"
        "    deploy: {mode: replicated-job, restart_policy: {condition: none}}\n"
    )
    done = cluster.run("deploy", "-c", str(path), "f")
    assert done.returncode == 1
    assert "exit code 3" in done.stderr
    assert "broken" in done.stderr
    again = cluster.run("job", "run", "f_bad")
    assert again.returncode == 1
    cluster.argosy("stack", "rm", "f")


# ---------------------------------------------------------------- run


def test_run_gives_output_and_status_and_leaves_nothing(cluster):
    done = cluster.run(
        "run", "--name", "once", "-w", "/tmp", "-e", "A=1", "busybox:1", "sh", "-c", "pwd; echo $A >&2; exit 42"
    )
    assert (done.returncode, done.stdout, done.stderr) == (42, "/tmp\n", "1\n")
    wait_until(lambda: "once" not in [s["name"] for s in cluster.json("service", "ls")], 20, "the service to be gone")


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [(["no-such-program"], 127, "no-such-program"), (["/etc/passwd"], 126, "Permission denied")],
)
def test_run_of_what_cannot_be_started(cluster, command, status, said):
    done = cluster.run("run", "busybox:1", *command)
    assert done.returncode == status
    assert said in done.stderr


def test_run_of_a_program_that_a_signal_ends(cluster):
    """No process of its own can kill the first one of a container: here the kernel does, as its memory is used up."""
    done = cluster.run("run", "--limit-memory", "16m", "busybox:1", "tail", "/dev/zero")
    assert done.returncode == 128 + signal.SIGKILL
    assert "memory" in done.stderr


def test_run_of_an_unknown_image(cluster):
    done = cluster.run("run", "nobody-has-it", "true")
    assert done.returncode == 125
    assert "nobody has the image" in done.stderr


def test_ctrl_c_stops_a_run_that_waits_for_a_node_or_runs(cluster):
    for options, command, first in (
        (["--constraint", "node.labels.x==y"], ["true"], "waiting: no node meets"),
        ([], ["sh", "-c", "trap 'echo bye; exit' TERM; echo up >&2; while :; do sleep 0.1; done"], "up"),
    ):
        process = subprocess.Popen(
            [ARGOSY, "run", "--name", "stoppable", *options, "busybox:1", *command],
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert first in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130
        assert "stoppable: stopped and removed" in said


def test_what_runs_on_a_drained_node_goes_on_to_its_end(cluster):
    cluster.argosy("run", "-d", "--name", "long", "busybox:1", "sh", "-c", "sleep 4; echo done")

    def all_of_it():
        return [t for t in cluster.tasks(ended=True) if t["service"] == "long"]

    try:
        wait_until(lambda: [t["state"] for t in all_of_it()] == ["RUNNING"], 20, "the job to run")
        (task,) = all_of_it()
        try:
            drained = cluster.run("node", "drain", "--timeout", "60s", task["node"])
            assert drained.returncode == 0, drained.stderr
            assert "long: a job's task goes on to its end" in drained.stderr
        finally:
            cluster.argosy("node", "activate", task["node"])
        assert [(t["id"], t["state"]) for t in all_of_it()] == [(task["id"], "COMPLETE")]
    finally:
        cluster.argosy("service", "rm", "long")
