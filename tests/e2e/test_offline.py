"""Without a controller: what crashes runs again on its node, what is ill is restarted, what is fenced ends in time."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from argosy.proto.argosy.v1 import types_pb2
from tests.e2e import host_view
from tests.e2e.container import Container
from tests.e2e.dev_cluster import assert_throughout, wait_until

STACK = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100001
    stop_grace_period: 1s
    deploy:
      replicas: 2
      restart_policy: {delay: 100ms, max_attempts: 3}
  moody:
    image: busybox:1
    init: true
    command: sleep 100002
    stop_grace_period: 1s
    healthcheck: {test: "test ! -e /tmp/ill", interval: 200ms, retries: 1}
    deploy:
      restart_policy: {delay: 100ms}
  away:
    image: busybox:1
    init: true
    command: sleep 100003
    stop_grace_period: 1s
    deploy:
      restart_policy: {delay: 100ms}
  only:
    image: busybox:1
    init: true
    command: sleep 100004
    stop_grace_period: 1s
    x-argosy: {disconnect: fence}
"""

WEB, MOODY, AWAY, ONLY = (f"sleep\0{number}" for number in range(100_001, 100_005))
"""The programs' command lines."""


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    cluster.deploy("o", STACK, tmp_path_factory.mktemp("stack"))
    return "o"


def ids(tasks):
    return {task["id"] for task in tasks}


def program(cluster, command, but=()):
    """Return (task id, pid) of the only program that runs a command, once it is of none of the tasks `but`."""

    def found():
        programs = {task: p for task, p in cluster.programs(command).items() if task not in but}
        return next(iter(programs.items())) if len(programs) == 1 else None

    task_id, running = wait_until(found, 60, lambda: f"one {command}: {cluster.programs(command)}")
    return task_id, running


@pytest.mark.usefixtures("stack")
def test_what_crashes_or_is_ill_without_a_controller_runs_again_on_its_node_and_is_counted(cluster):
    before = {t["id"]: t for t in cluster.running("o_web")}
    addresses = {t["slot"]: t["addresses"] for t in before.values()}
    programs = cluster.programs(WEB)
    victim = next(iter(programs))
    ill, _ = program(cluster, MOODY)
    gone, gone_program = program(cluster, AWAY)
    with cluster.held_down("controller-1"):
        Container(cluster, {"pid": cluster.programs(MOODY)[ill].pid}).inside("/bin/touch", "/tmp/ill")
        cluster.kill_pid(gone_program.pid)
        cluster.kill_pid(programs[victim].pid)
        after = wait_until(
            lambda: (now := cluster.programs(WEB)).keys() != programs.keys() and len(now) == 2 and now,
            60,
            "it runs again",
        )
        (heir,) = after.keys() - programs.keys()
        assert after[heir].node == programs[victim].node
        # The agent is restarted meanwhile, and the successor crashes as well.
        cluster.kill(f"agent-{after[heir].node}")
        cluster.kill_pid(after[heir].pid)
        latest = wait_until(
            lambda: (
                (now := cluster.programs(WEB)).keys() not in (programs.keys(), after.keys()) and len(now) == 2 and now
            ),
            60,
            "it runs once more",
        )
        (last,) = latest.keys() - programs.keys()
        well, _ = program(cluster, MOODY, but={ill})
        gone_heir, _ = program(cluster, AWAY, but={gone})
    wanted = (before.keys() - {victim}) | {last}
    for service, tasks in (("o_web", wanted), ("o_moody", {well}), ("o_away", {gone_heir})):
        wait_until(lambda s=service, t=tasks: ids(cluster.running(s)) == t, 30, f"it is told what runs of {service}")
    now = {t["id"]: t for t in cluster.running("o_web")}
    assert {t["slot"]: t["addresses"] for t in now.values()} == addresses
    assert cluster.programs(WEB).keys() == now.keys()
    history = {t["id"]: t for t in cluster.tasks("o_web", ended=True)}
    assert [history[i]["state"] for i in (victim, heir, last)] == ["FAILED", "FAILED", "RUNNING"]
    stored = {i: t for i, t in cluster.stored("task", types_pb2.Task).items() if i in history}
    assert [stored[i].attempts for i in (victim, heir, last)] == [0, 1, 2]
    assert next(t for t in cluster.tasks("o_moody", ended=True) if t["id"] == ill)["reason"].startswith("health check")
    assert_throughout(2, lambda: cluster.programs(WEB).keys() == wanted, "nothing else is started for it")
    cluster.assert_etcd_tells_the_same()


@pytest.mark.usefixtures("stack")
def test_a_successor_whose_slot_was_given_to_another_is_stopped(cluster):
    """Its host is cut off and replaced; there its program crashes and runs again, until the host comes back."""
    task, running = program(cluster, AWAY)
    cluster.cut(running.node)
    try:
        wait_until(lambda: len(cluster.programs(AWAY)) == 2, 60, "it is replaced elsewhere")
        (other,) = cluster.programs(AWAY).keys() - {task}
        cluster.kill_pid(running.pid)
        wait_until(lambda: len(cluster.programs(AWAY).keys() - {task, other}) == 1, 60, "and runs again on its host")
        (heir,) = cluster.programs(AWAY).keys() - {task, other}
    finally:
        cluster.heal(running.node)
    wait_until(lambda: cluster.programs(AWAY).keys() == {other}, 60, "it gives way")
    cluster.wait_node(running.node, "READY")
    states = {t["id"]: t["state"] for t in cluster.tasks("o_away", ended=True)}
    assert (states[task], states[heir], states[other]) == ("FAILED", "SHUTDOWN", "RUNNING")


@pytest.mark.usefixtures("stack")
def test_what_is_fenced_ends_on_time_although_agent_and_launcher_stand_still(cluster):
    task, running = program(cluster, ONLY)
    agent, launcher = cluster.pid(f"agent-{running.node}"), cluster.launcher_pid(running.node)
    stopped = (agent, launcher)
    grant_file = Path(f"/proc/{cluster.holder(running.node)}/root/run/argosy/guard/grant.json")
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        grant = json.loads(grant_file.read_text())
        assert list(grant["tasks"]) == [task]
        wait_until(lambda: not host_view.is_alive(running), 60, "the guard ends it")
        ended = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert grant["until"] <= ended + 0.2
        others = set()
        wait_until(lambda: others.update(cluster.programs(ONLY).keys() - {task}) or others, 60, "replaced")
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    cluster.wait_node(running.node, "READY")
    reason = wait_until(
        lambda: next(t["reason"] for t in cluster.tasks("o_only", ended=True) if t["id"] == task), 60, "it says why"
    )
    assert reason.startswith("fenced: no controller confirmed it for")
    cluster.argosy("stack", "rm", "o")
