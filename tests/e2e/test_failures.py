"""Hosts that are cut off, agents that die, switches that restart: what is replaced, what is left alone, and when.

What runs where is looked at in the kernel (cgroups and /proc), from outside; the commands are asked afterwards.
"""

import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.dev_cluster import assert_throughout, wait_until
from tests.e2e.host_view import HIERARCHY, AddressWatch, container_pids, is_alive

STACK = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    deploy: {replicas: 6}
  each:
    image: busybox:1
    init: true
    command: nc -ll -p 7000 -e hostname
    stop_grace_period: 1s
    deploy: {mode: global}
"""
NOTICED_S = 2.7
"""Three missed beats: from then on a silent host counts as lost."""
BRAKE_S = 30.0
"""How long replacing waits when most hosts are lost at once."""


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    """Six replicas of `f_web` and one `f_each` on every host; tests end as they began, with all hosts connected."""
    cluster.deploy("f", STACK, tmp_path_factory.mktemp("stack"))
    yield "f"
    cluster.argosy("stack", "rm", "f")


@pytest.fixture
def whole(cluster, stack):
    """Begin with two replicas on every host."""
    for node in cluster.nodes:
        cluster.wait_node(node, "READY")
    cluster.argosy("scale", "f_web=0")
    cluster.argosy("scale", "f_web=6")
    yield
    for node in cluster.nodes:
        cluster.heal(node)
        cluster.wait_node(node, "READY")


def on(programs, *nodes):
    """Return those of the programs that are on some hosts."""
    return {task: p for task, p in programs.items() if p.node in nodes}


@pytest.mark.usefixtures("whole")
def test_what_a_cut_off_host_ran_runs_elsewhere_within_seconds_and_is_stopped_there_on_return(cluster):
    web, each = cluster.wait_programs(6), cluster.wait_programs(3, command="nc")
    others = ("node1", "node2")
    with AddressWatch(cluster.name, cluster.nodes) as watch:
        began = time.monotonic()
        cluster.cut("node3")
        now = cluster.wait_programs(6, timeout=20, nodes=others)
        took = time.monotonic() - began
        print(f"replicas of the cut off host ran elsewhere {took:.2f} s after the cut")
        assert took < 8  # 5 s on an idle machine
        cluster.wait_running("f_web", 6, avoid=("node3",))
        assert cluster.node_state("node3") == "DOWN"
        assert all(is_alive(p) for p in on(web, *others).values()), "what was not lost goes on"
        assert all(is_alive(p) for p in on(web, "node3").values()), "nobody could tell the lost ones to stop"
        cluster.heal("node3")
        wait_until(lambda: set(container_pids(cluster.name, "node3")) == set(on(each, "node3")), 30, "old ones gone")
    assert not any(is_alive(p) for p in on(web, "node3").values())
    parent = HIERARCHY / f"argosy/dev-{cluster.name}/node3"
    wait_until(
        lambda: {path.name for path in parent.iterdir() if path.is_dir()} == set(on(each, "node3")),
        20,
        "the groups of what has ended are gone",
    )
    assert watch.samples > 20
    assert len(watch.held) == 6 + 3 + 2
    assert not watch.twice
    # What has not been replaced was never restarted: the others' replicas, and the global service's task on the host.
    cluster.wait_node("node3", "READY")
    assert cluster.programs() == now
    assert cluster.programs("nc") == each
    cluster.wait_running("f_web", 6)
    cluster.assert_etcd_tells_the_same()
    client = on(now, "node1")
    task = next(t for t in cluster.running("f_web") if t["id"] in client)
    answers = {cluster.inside(task, "nc", "-w", "5", t["addresses"][0], "7000") for t in cluster.running("f_each")}
    assert len(answers) == 3, "the host that is back is reached over the overlay, and the others still are"


@pytest.mark.usefixtures("whole")
def test_a_short_interruption_replaces_nothing(cluster):
    before = cluster.wait_programs(6)
    cluster.cut("node2")
    assert_throughout(1.0, lambda: cluster.programs() == before, "what ran before")
    cluster.heal("node2")
    assert_throughout(NOTICED_S + 1, lambda: cluster.programs() == before, "what ran before")
    cluster.wait_node("node2", "READY")
    assert cluster.programs() == before
    assert len(cluster.running("f_web")) == 6


@pytest.mark.usefixtures("whole")
def test_nothing_is_replaced_while_only_an_agent_is_dead(cluster):
    before = {**cluster.wait_programs(6), **cluster.wait_programs(3, command="nc")}
    known = {t["id"] for t in cluster.tasks(ended=True)}

    def same():
        return {**cluster.programs(), **cluster.programs("nc")} == before

    with cluster.held_down("agent-node1"):
        cluster.wait_node("node1", "AGENT_LOST")
        node = next(n for n in cluster.json("node", "ls") if n["name"] == "node1")
        assert "agent is away" in node["message"]
        assert_throughout(NOTICED_S + 1.5, same, "what ran before")
        assert {t["id"] for t in cluster.tasks(ended=True)} == known, "no task was made in the meantime"
        assert cluster.node_state("node1") == "AGENT_LOST"
    cluster.wait_node("node1", "READY")
    assert same()
    assert {t["id"] for t in cluster.tasks(ended=True)} == known
    cluster.argosy("scale", "f_web=9")
    assert [t["node"] for t in cluster.running("f_web")].count("node1") == 3, "the agent takes new tasks again"


FULL_DISK = """
set -e
cd /var/lib/argosy
cp -a agent agent.full
mount -t tmpfs -o size=1m tmpfs agent
cp -a agent.full/. agent
rm -r agent.full
head -c 2M /dev/zero > agent/filler || true
"""


@pytest.mark.usefixtures("whole")
def test_a_node_whose_agent_ended_since_its_disk_is_full_says_so(cluster):
    enter = ["nsenter", f"--target={cluster.holder('node1')}", "--mount", "--"]
    before = cluster.wait_programs(len(cluster.running("f_web")))

    def message():
        return next(n["message"] for n in cluster.json("node", "ls") if n["name"] == "node1")

    with cluster.held_down("agent-node1"):
        cluster.wait_node("node1", "AGENT_LOST")
        subprocess.run([*enter, "sh", "-c", FULL_DISK], check=True, timeout=30, capture_output=True)
    try:
        wait_until(lambda: "No space left on device" in message(), 20, message)
        assert "make room for --state-dir" in message()
        assert cluster.node_state("node1") == "AGENT_LOST"
    finally:
        subprocess.run([*enter, "umount", "--lazy", "/var/lib/argosy/agent"], check=True, timeout=30)
    cluster.wait_node("node1", "READY")
    assert (message(), cluster.programs()) == ("", before)


@pytest.mark.usefixtures("whole")
def test_a_host_whose_agent_and_launcher_are_dead_is_lost_and_stops_what_was_replaced_when_they_are_back(cluster):
    before = cluster.wait_programs(6)
    launcher = cluster.launcher_pid("node2")
    with cluster.held_down("agent-node2"):
        cluster.kill_pid(launcher)
        cluster.wait_programs(6, timeout=30, nodes=("node1", "node3"))
        assert cluster.node_state("node2") == "DOWN"
        assert all(is_alive(p) for p in before.values()), "containers go on without agent and launcher"
    cluster.wait_node("node2", "READY")
    wait_until(lambda: not on(cluster.programs(), "node2"), 30, "what was replaced is stopped")
    cluster.wait_running("f_web", 6, avoid=("node2",))
    assert all(is_alive(p) for p in on(before, "node1", "node3").values())


@pytest.mark.usefixtures("whole")
def test_when_most_hosts_are_lost_at_once_replacing_waits(cluster):
    """As when a switch restarts: to replace everything at once would make it worse."""
    before = cluster.wait_programs(6)
    known = {t["id"] for t in cluster.tasks(ended=True)}
    for node in ("node2", "node3"):
        cluster.cut(node)
    for node in ("node2", "node3"):
        cluster.wait_node(node, "UNKNOWN")
    message = next(n["message"] for n in cluster.json("node", "ls") if n["name"] == "node2")
    assert "lost together with many other nodes" in message
    assert_throughout(1.5, lambda: cluster.programs() == before, "what ran before")
    for node in ("node2", "node3"):
        cluster.heal(node)
    for node in ("node2", "node3"):
        cluster.wait_node(node, "READY")
    assert cluster.programs() == before
    assert {t["id"] for t in cluster.tasks(ended=True)} == known


@pytest.mark.long
@pytest.mark.usefixtures("whole")
def test_when_most_hosts_stay_lost_their_tasks_are_replaced_after_the_brakes_time(cluster):
    before = cluster.wait_programs(6)
    for node in ("node2", "node3"):
        cluster.cut(node)
    wait_until(
        lambda: {cluster.node_state(n) for n in ("node2", "node3")} == {"UNKNOWN"},
        20,
        lambda: f"lost together: {cluster.json('node', 'ls')}",
    )
    began = time.monotonic()
    for node in ("node2", "node3"):
        cluster.wait_node(node, "DOWN", timeout=60)
    took = time.monotonic() - began
    print(f"the brake held for {took:.1f} s")
    assert took > BRAKE_S / 2, "it let go too soon"  # when it began is seen a little late
    now = cluster.wait_programs(6, timeout=60, nodes=("node1",))
    assert on(before, "node1").items() <= now.items(), "what was not lost goes on"


@pytest.mark.usefixtures("whole")
def test_an_exit_on_a_cut_off_host_is_reported_when_it_is_back(cluster):
    each = cluster.wait_programs(3, command="nc")
    task = next(task for task, p in each.items() if p.node == "node3")
    cluster.cut("node3")
    cluster.wait_node("node3", "DOWN")
    cluster.kill_pid(each[task].pid)
    wait_until(lambda: task not in container_pids(cluster.name, "node3"), 20, "the container has ended")

    def shown():
        return next(t for t in cluster.tasks("f_each", ended=True) if t["id"] == task)

    assert shown()["state"] == "RUNNING", "as far as is known"
    cluster.heal("node3")
    wait_until(lambda: shown()["state"] == "FAILED", 40, lambda: cluster.argosy("ps", "-a"))
    assert shown()["exit_code"] == 137
    wait_until(lambda: len(cluster.running("f_each")) == 3, 40, lambda: cluster.argosy("ps", "-a"))
    assert task not in cluster.programs("nc")


@pytest.mark.usefixtures("whole")
def test_an_update_does_not_wait_for_balancers_of_a_host_that_is_down(cluster):
    """Its agent confirms nothing, and its stream breaks only after most of a minute: longer than all of the update."""
    cluster.argosy("service", "update", "--drain-timeout", "2m", "--update-monitor", "0s", "f_web")
    cluster.cut("node3")
    cluster.wait_node("node3", "DOWN")
    cluster.wait_running("f_web", 6, avoid=("node3",))
    began = time.monotonic()
    cluster.argosy("service", "update", "--env-add", "V=2", "f_web")
    took = time.monotonic() - began
    print(f"six tasks were replaced one by one in {took:.2f} s")
    assert took < 25  # 5 s on an idle machine


def test_logs_of_all_parts_tell_of_no_bug(cluster):
    """At the end of all this: no part of the cluster has met an error that it did not expect."""
    for path in sorted((cluster.run_dir / "logs").glob("[ac]*.log")):
        assert "Traceback" not in Path(path).read_text(errors="replace"), path
