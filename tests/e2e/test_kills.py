"""kill -9 of every part in the middle of its work: what was declared comes true, and what is healthy goes on.

The kills happen when the kernel shows that a scale-up is half done. Programs are told apart by process id and start.
"""

import os
import signal
import socket
import subprocess

import pytest

from tests.e2e import wire
from tests.e2e.dev_cluster import ARGOSY, assert_throughout, wait_until
from tests.e2e.host_view import catches, container_pids, is_alive

STACK = """
services:
  still:
    image: busybox:1
    init: true
    command: sleep 7777
    stop_grace_period: 1s
    deploy: {mode: global}
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    deploy: {replicas: 0}
"""
ALL = 12


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    """`k_still`, a task on every host that nothing here may disturb, and `k_web`, which is scaled."""
    cluster.deploy("k", STACK, tmp_path_factory.mktemp("stack"))
    yield cluster.wait_programs(3, command="sleep\0007777")
    cluster.argosy("stack", "rm", "k")


@pytest.fixture
def scaling(cluster, stack):
    """A scale-up from 0 to 12 of which the first containers run; ends with all 12 running and nothing disturbed.

    The test kills something meanwhile. The waiting `argosy scale` itself has to come through, or say what to do.
    """
    waiting = subprocess.Popen(
        [ARGOSY, "scale", f"k_web={ALL}"],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    first = wait_until(lambda: cluster.programs("sleep\000100000"), 30, "the first containers run")
    yield first
    try:
        said, _ = waiting.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        waiting.kill()
        pytest.fail(f"{waiting.communicate()[0]}\n{cluster.argosy('ps', '-a')}\n{cluster.log_tails(60)}")
    assert waiting.returncode == 0, said
    assert "Traceback" not in said
    tasks = cluster.wait_running("k_web", ALL, timeout=60)
    web = cluster.wait_programs(ALL, command="sleep\000100000")
    assert set(web) == {t["id"] for t in tasks}
    assert all(is_alive(p) for p in first.values()), "what ran already goes on"
    assert cluster.programs("sleep\0007777") == stack, "who had nothing to do with it goes on"
    assert len({a for t in tasks for a in t["addresses"]}) == ALL
    for node in cluster.nodes:
        cluster.wait_node(node, "READY")
    cluster.assert_etcd_tells_the_same()
    cluster.argosy("scale", "k_web=0")
    wait_until(lambda: not cluster.programs("sleep\000100000"), 20, "all are gone again")
    for node in cluster.nodes:
        wait_until(lambda n=node: len(container_pids(cluster.name, n)) == 1, 20, f"no container is left on {node}")


@pytest.mark.parametrize("victim", ["controller-1", "agent-node2", "etcd-1"])
def test_a_part_killed_in_the_middle_of_a_scale_up(cluster, scaling, victim):
    assert len(scaling) < ALL
    old = cluster.kill(victim)
    cluster.wait_restarted(victim, old)


def test_a_launcher_killed_in_the_middle_of_a_scale_up(cluster, scaling):
    assert len(scaling) < ALL
    old = cluster.launcher_pid("node2")
    cluster.kill_pid(old)
    wait_until(lambda: cluster.launcher_pid("node2") != old, 20, "the agent has started another launcher")


def test_agent_and_launcher_of_a_host_killed_together_in_the_middle_of_a_scale_up(cluster, scaling):
    assert len(scaling) < ALL
    launcher, agent = cluster.launcher_pid("node3"), cluster.kill("agent-node3")
    cluster.kill_pid(launcher)
    cluster.wait_restarted("agent-node3", agent)


def test_everything_but_the_containers_killed_in_the_middle_of_a_scale_up(cluster, scaling):
    assert len(scaling) < ALL
    launchers = [cluster.launcher_pid(node) for node in cluster.nodes]
    victims = ["controller-1", "etcd-1", *(f"agent-{node}" for node in cluster.nodes)]
    killed = {victim: cluster.kill(victim) for victim in victims}
    for launcher in launchers:
        cluster.kill_pid(launcher)
    for victim, old in killed.items():
        cluster.wait_restarted(victim, old)


DRAINING = """
services:
  patient:
    image: busybox:1
    init: true
    command: nc -ll -p 7002 -e cat
    deploy: {placement: {constraints: [node.hostname == node1]}}
    x-argosy: {drain_timeout: 300s}
  guest:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    deploy: {placement: {constraints: [node.hostname == node2]}}
"""


def test_a_task_that_drains_keeps_its_connection_while_its_agent_begins_anew(cluster, tmp_path):
    cluster.deploy("d", DRAINING, tmp_path)
    (task,), (guest,) = cluster.running("d_patient"), cluster.running("d_guest")

    def received():
        return int(cluster.inside(task, "/bin/cat", "/sys/class/net/eth0/statistics/rx_packets"))

    def answers(held, count):
        for number in range(count):
            held.sendall(b"%04d" % number)
            assert held.recv(4) == b"%04d" % number

    def drains():
        return [t["reason"] for t in cluster.tasks("d_patient") if t["id"] == task["id"]] == ["draining 1 connection"]

    with wire.socket_in(f"/proc/{guest['pid']}/ns/net", socket.AF_INET, socket.SOCK_STREAM) as held:
        held.settimeout(10)
        held.connect((task["addresses"][0], 7002))
        cluster.argosy("service", "update", "--force", "--detach", "d_patient")
        wait_until(drains, 60, "it finishes what it has")
        for _ in range(3):
            answers(held, 200)
            before, agent = received(), cluster.kill("agent-node1")
            cluster.wait_restarted("agent-node1", agent)
            wait_until(lambda: cluster.run("network", "verify", "d_default").returncode == 0, 60, "the agent is back")
            assert received() >= before, "it has the link that it had: another would begin to count anew"
            answers(held, 1)
            assert drains()
    wait_until(lambda: task["id"] not in {t["id"] for t in cluster.running("d_patient")}, 60, "it ends with it")
    cluster.argosy("stack", "rm", "d")


COUNTING = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


def test_who_follows_output_misses_no_line_whatever_is_killed(cluster, stack, tmp_path):
    """Of a run that is a program's whole output, and of a service's log it is what people wait for at night."""
    cluster.argosy("service", "create", "--name", "counts", "busybox:1", "sh", "-c", COUNTING)
    commands = {
        "run": ("run", "--name", "errand", "busybox:1", "sh", "-c", COUNTING),
        "logs": ("logs", "-f", "--no-prefix", "counts"),
    }
    output = {name: tmp_path / name for name in commands}
    followers = {}
    for name, command in commands.items():
        with output[name].open("wb") as file:
            followers[name] = subprocess.Popen([ARGOSY, *command], env=cluster.environment, stdout=file)

    def counted(name):
        return [int(line) for line in output[name].read_text().splitlines(keepends=True) if line.endswith("\n")]

    try:
        wait_until(lambda: all(counted(name) for name in followers), 30, "both begin")
        for victim in ("controller-1", *(f"agent-{node}" for node in cluster.nodes)):
            before = {name: len(counted(name)) for name in followers}
            cluster.wait_restarted(victim, cluster.kill(victim))
            for name in followers:
                wait_until(lambda n=name, b=before: len(counted(n)) > b[n] + 40, 30, f"{name} goes on after {victim}")
        for name in followers:
            assert counted(name) == list(range(1, len(counted(name)) + 1))
    finally:
        for process in followers.values():
            process.send_signal(signal.SIGINT)
        for process in followers.values():
            assert process.wait(timeout=60) == 130
    cluster.argosy("service", "rm", "counts")


RETRIED = """
services:
  again:
    image: busybox:1
    command: sh -c 'exit 3'
    networks: [way]
    deploy: {restart_policy: {delay: 3s, max_attempts: 1}}
networks: {way: {}}
"""


def test_a_container_that_waits_for_its_start_is_made_anew_with_its_launcher(cluster, stack, tmp_path):
    cluster.deploy("q", RETRIED, tmp_path, "--detach")

    def tasks():
        return [t for t in cluster.json("ps", "-a") if t["service"] == "q_again"]

    waiting = wait_until(lambda: [t for t in tasks() if t["state"] == "READY"], 20, tasks)[0]
    cluster.kill_pid(cluster.launcher_pid(waiting["node"]))
    ended = wait_until(lambda: [t for t in tasks() if t["id"] == waiting["id"] and t["state"] == "FAILED"], 20, tasks)
    assert ended[0]["exit_code"] == 3, "it was started after all"
    cluster.argosy("stack", "rm", "q")
    assert cluster.programs("sleep\0007777") == stack


# ------------------------------------------------------------------ away for a while

WRITER = """
services:
  job:
    image: busybox:1
    hostname: "{{.Task.Slot}}"
    command:
      - sh
      - -c
      - |
        trap go=1 USR1
        echo begin
        while [ -z "$$go" ]; do sleep 0.2; done
        i=0
        while [ $$i -lt 3000 ]; do i=$$((i+1)); echo "line $$i of $$HOSTNAME, long enough to fill a pipe"; done
        exit $$((10 + HOSTNAME))
    stop_grace_period: 1s
    deploy:
      replicas: 6
      restart_policy: {condition: none}
"""


@pytest.fixture
def writers(cluster, tmp_path):
    """Six tasks that wait for a sign to write 3000 lines and to exit with 10 and their slot's number."""
    cluster.deploy("w", WRITER, tmp_path)
    yield {t["id"]: t for t in cluster.running("w_job")}
    cluster.argosy("stack", "rm", "w")


def let_go(cluster, tasks):
    """Give the tasks the sign, from outside, once they listen for it."""
    for task in tasks.values():
        pid = container_pids(cluster.name, task["node"])[task["id"]][0]
        wait_until(lambda pid=pid: catches(pid, signal.SIGUSR1), 30, f"{task['name']} listens for the sign")
        os.kill(pid, signal.SIGUSR1)


def assert_nothing_was_lost(cluster, tasks):
    """Check the exit code and every line of the tasks."""

    def ended():
        shown = {t["id"]: t["exit_code"] for t in cluster.tasks("w_job", ended=True)}
        return all(shown[task] == 10 + t["slot"] for task, t in tasks.items())

    wait_until(ended, 60, lambda: f"all exit codes are told: {cluster.argosy('ps', '-a')}")
    for task, t in tasks.items():
        lines = cluster.argosy("logs", "--no-prefix", task).splitlines()
        expected = [f"line {i} of {t['slot']}, long enough to fill a pipe" for i in range(1, 3001)]
        assert lines == ["begin", *expected], f"{t['name']}: {len(lines)} lines"


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.long)])
def test_an_agent_that_is_away_loses_no_exit_and_no_line(cluster, stack, writers, seconds):
    mine = {task: t for task, t in writers.items() if t["node"] == "node1"}
    assert len(mine) == 2
    with cluster.held_down("agent-node1"):
        cluster.wait_node("node1", "AGENT_LOST")
        let_go(cluster, writers)
        wait_until(lambda: len(container_pids(cluster.name, "node1")) == 1, 60, "they have ended")
        still_away(cluster, "agent-node1", seconds)
    assert_nothing_was_lost(cluster, writers)
    cluster.wait_node("node1", "READY")
    assert cluster.programs("sleep\0007777") == stack
    cluster.assert_etcd_tells_the_same()


def test_agent_and_launcher_that_are_away_lose_no_exit_and_no_line(cluster, stack, writers):
    """The host is silent meanwhile: if that lasts long, tasks are replaced, but what they left is told all the same."""
    mine = {task: t for task, t in writers.items() if t["node"] == "node2"}
    launcher = cluster.launcher_pid("node2")
    with cluster.held_down("agent-node2"):
        cluster.kill_pid(launcher)
        let_go(cluster, mine)
    let_go(cluster, {task: t for task, t in writers.items() if task not in mine})
    assert_nothing_was_lost(cluster, writers)
    assert cluster.programs("sleep\0007777") == stack


def test_a_controller_and_etcd_that_are_away_lose_no_exit_and_no_line(cluster, stack, writers):
    with cluster.held_down("etcd-1", "controller-1"):
        let_go(cluster, writers)
        wait_until(
            lambda: not any(t in container_pids(cluster.name, n) for t in writers for n in cluster.nodes), 60, "end"
        )
    assert_nothing_was_lost(cluster, writers)
    assert cluster.programs("sleep\0007777") == stack
    cluster.assert_etcd_tells_the_same()


def still_away(cluster, process, seconds):
    """Let some time pass in which a process stays away."""
    assert_throughout(seconds, lambda: not cluster.processes()["processes"][process]["pid"], f"{process} is away")


def test_logs_of_all_parts_tell_of_no_bug(cluster):
    """At the end of all this: no part of the cluster has met an error that it did not expect."""
    for path in sorted((cluster.run_dir / "logs").glob("[ac]*.log")):
        assert "Traceback" not in path.read_text(errors="replace"), path
