"""Drain, eviction by labels, and tasks that are kept: what runs is counted in the kernel, all the time."""

import subprocess
import threading
import time

import pytest

from tests.e2e.dev_cluster import ARGOSY, assert_throughout, wait_until
from tests.e2e.host_view import is_alive

STACK = """
x-program: &program
  image: busybox:1
  init: true
  stop_grace_period: 1s
services:
  moved:
    <<: *program
    command: sleep 100001
    deploy: {replicas: 6}
    x-argosy: {max_unavailable: 2}
  placed:
    <<: *program
    command: sleep 100002
    deploy: {replicas: 2, placement: {constraints: ["node.labels.zone == eu"]}}
  kept:
    <<: *program
    command: sleep 100003
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
    x-argosy: {disconnect: keep}
"""


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    """Services on three hosts; each test leaves all hosts connected, active, and labelled as they were."""
    for node in cluster.nodes:
        cluster.argosy("node", "update", "--label-add", "zone=eu", node)
    cluster.deploy("a", STACK, tmp_path_factory.mktemp("stack"))
    yield "a"
    cluster.argosy("stack", "rm", "a")


class Least:
    """Counts programs as the kernel has them, over and over, while the body runs; `seen` is the least number."""

    def __init__(self, cluster, command):
        self._count = lambda: len(cluster.programs(command))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen = self._count()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _look(self):
        while not self._over.is_set():
            self.seen = min(self.seen, self._count())
            time.sleep(0.02)


@pytest.mark.usefixtures("stack")
def test_a_drained_node_is_emptied_without_taking_anything_away_and_says_how_it_goes(cluster):
    with Least(cluster, "sleep\x00100001") as least:
        cluster.argosy("node", "drain", "--detach", "--pace", "2", "--deadline", "5m", "node1")
        cluster.wait_running("a_moved", 6, avoid=("node1",))
    assert least.seen >= 6
    node = next(n for n in cluster.json("node", "inspect", "node1"))
    assert node["spec"]["drain"]["pace"] == 2
    assert 0 < node["spec"]["drain"]["deadline"] - time.time() < 300
    cluster.argosy("node", "activate", "node1")
    node = next(n for n in cluster.json("node", "inspect", "node1"))
    assert not node["spec"].get("drain", {}).get("deadline")


@pytest.mark.usefixtures("stack")
def test_what_can_start_nowhere_else_stays_and_the_drain_tells_why(cluster):
    before = {t["id"] for t in cluster.running("a_kept")}
    drain = subprocess.Popen(
        [ARGOSY, "node", "drain", "node2"],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert drain.stdout is not None
        told = []
        for line in drain.stdout:
            told.append(line)
            if "a_kept: no other node can take it: " in line:
                break
        else:
            raise AssertionError(f"it never said what holds it up: {told}")
    finally:
        drain.kill()
        drain.communicate()
    assert {t["id"] for t in cluster.running("a_kept")} == before
    cluster.argosy("node", "activate", "node2")
    wait_until(lambda: {t["id"] for t in cluster.tasks("a_kept")} == before, 20, "what has not moved stays")
    drained = cluster.run("node", "drain", "--deadline", "2s", "node2")
    assert (drained.returncode, drained.stdout) == (0, "node node2 is drained\n"), drained.stderr
    assert drained.stderr.count("was stopped at the deadline and runs nowhere now: no suitable node") == 1, (
        drained.stderr
    )
    cluster.argosy("node", "activate", "node2")
    cluster.wait_running("a_kept", len(before))


@pytest.mark.usefixtures("stack")
def test_a_label_that_goes_evicts_what_needs_it_after_it_runs_elsewhere(cluster):
    victim = cluster.wait_running("a_placed", 2)[0]["node"]
    with Least(cluster, "sleep\x00100002") as least:
        cluster.argosy("node", "update", "--label-rm", "zone", victim)
        cluster.wait_running("a_placed", 2, avoid=(victim,))
    assert least.seen >= 2
    cluster.argosy("node", "update", "--label-add", "zone=eu", victim)


@pytest.mark.usefixtures("stack")
def test_a_task_that_is_kept_is_waited_for(cluster):
    tasks = cluster.wait_running("a_kept", 3)
    programs = cluster.wait_programs(3, command="sleep\x00100003")
    cluster.cut("node3")
    try:
        cluster.wait_node("node3", "DOWN")
        cluster.wait_running("a_moved", 6, avoid=("node3",))
        assert_throughout(1, lambda: len(cluster.tasks("a_kept")) == 3, "nothing takes the kept task's place")
        (lost,) = (t for t in cluster.tasks("a_kept") if t["node"] == "node3")
        assert "disconnect: keep" in lost["note"]
    finally:
        cluster.heal("node3")
    cluster.wait_node("node3", "READY")
    assert {t["id"] for t in cluster.wait_running("a_kept", 3)} == {t["id"] for t in tasks}
    assert all(is_alive(p) for p in programs.values())


@pytest.mark.usefixtures("stack")
def test_an_update_goes_on_without_a_task_that_is_kept_says_so_and_comes_back_to_it(cluster):
    cluster.wait_running("a_kept", 3)

    def revisions():
        return {t["node"]: t["revision"] for t in cluster.running("a_kept")}

    def shown():
        return next(s for s in cluster.json("service", "ls") if s["name"] == "a_kept")

    before = shown()["revision"]
    cluster.cut("node3")
    try:
        cluster.wait_node("node3", "DOWN")
        left = f"1 task on node node3, which is cut off, still runs revision {before}: replaced when it is back"
        updated = cluster.run("service", "update", "--update-monitor", "0s", "--env-add", "V=2", "a_kept")
        assert updated.returncode == 0, updated.stderr
        assert "a_kept: 2/3 running, 1 cut off" in updated.stderr
        assert left in updated.stderr
        assert revisions() == {"node1": before + 1, "node2": before + 1, "node3": before}
        assert (shown()["running"], shown()["kept"], shown()["update"]) == (2, 1, "COMPLETED")
        listed = cluster.run("service", "ls")
        assert "2/3 +1 cut off" in listed.stdout
        assert f"a_kept: {left}" in listed.stderr
    finally:
        cluster.heal("node3")
    wait_until(
        lambda: set(revisions().values()) == {before + 1} and len(revisions()) == 3, 60, lambda: f"{revisions()}"
    )
    wait_until(lambda: (shown()["update"], shown()["update_message"]) == ("COMPLETED", ""), 30, lambda: f"{shown()}")
