"""Plans as people use them: read, applied, refused when stale; and a node that joins gets its share of the tasks."""

import json
import re
from collections import Counter

COMPOSE = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    environment: {V: "1"}
    deploy: {replicas: 4}
"""


def nodes_of(cluster):
    return Counter(task["node"] for task in cluster.running("p_web"))


def test_the_life_of_a_plan(cluster, tmp_path):
    """Read, applied, stale; then a node has joined and gets its share; then a constraint says why nodes are refused."""
    a_plan_is_read_applied_and_refused_when_it_is_stale(cluster, tmp_path)
    a_node_that_joined_gets_its_share(cluster)
    the_reason_of_each_node_is_told(cluster)


def a_plan_is_read_applied_and_refused_when_it_is_stale(cluster, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(COMPOSE)
    deploy = ("deploy", "-c", str(file), "p")
    cluster.argosy("node", "pause", "node3")

    planned = cluster.run(*deploy, "--plan")
    assert planned.returncode == 4, planned.stderr
    assert "+ service p_web" in planned.stdout
    assert re.search(r"\+ p_web\.1: create on node[12]", planned.stdout)  # which of the two goes by their ids
    plan = json.loads(cluster.run(*deploy, "--plan", "--format", "json").stdout)
    assert {task["new_node"] for task in plan["tasks"]} == {"node1", "node2"}
    assert cluster.tasks() == [], "a plan changes nothing"
    cluster.argosy(*deploy, "--plan-id", plan["id"])
    assert nodes_of(cluster) == Counter(task["new_node"] for task in plan["tasks"])
    again = cluster.run(*deploy, "--plan")
    assert (again.returncode, again.stdout) == (0, "nothing would change\n")

    scale = ("scale", "p_web=5")
    identity = json.loads(cluster.run(*scale, "--plan", "--format", "json").stdout)["id"]
    cluster.argosy("node", "activate", "node3")
    stale = cluster.run(*scale, "--plan-id", identity)
    assert stale.returncode == 1
    assert "stale" in stale.stderr
    assert "create p_web.5 (node3)" in stale.stderr
    assert len(cluster.running("p_web")) == 4

    changed = cluster.run("service", "update", "--env-add", "V=2", "--plan", "p_web")
    assert changed.returncode == 4
    assert "[V=1] -> [V=2]" in changed.stdout
    drain = json.loads(cluster.run("node", "drain", "node1", "--plan", "--format", "json").stdout)
    assert [task["verb"] for task in drain["tasks"]] == ["move", "move"]
    assert cluster.run(*scale, "--plan", "--plan-id", "x").returncode == 2


def a_node_that_joined_gets_its_share(cluster):
    assert nodes_of(cluster) == {"node1": 2, "node2": 2}
    planned = cluster.run("rebalance", "--plan")
    assert planned.returncode == 4
    assert "-> node3" in planned.stdout
    assert "moved 1 task of p_web" in cluster.argosy("rebalance")
    cluster.wait_running("p_web", 4)
    assert sorted(nodes_of(cluster).values()) == [1, 1, 2]
    assert cluster.run("rebalance", "--plan").returncode == 0
    assert "nothing to move: every service is spread as evenly as it can be" in cluster.argosy("rebalance")


def the_reason_of_each_node_is_told(cluster):
    cluster.argosy("service", "update", "--constraint-add", "node.hostname in (node1, node2)", "--detach", "p_web")
    cluster.argosy("node", "pause", "node2")
    told = cluster.argosy("service", "explain", "p_web")
    lines = {line.split()[0]: line for line in told.splitlines()[1:]}
    assert " next" in lines["node1"]
    assert "is paused" in lines["node2"]
    assert "does not meet node.hostname in (node1, node2)" in lines["node3"]


def test_the_cluster_can_be_packed(cluster):
    assert json.loads(cluster.argosy("cluster", "inspect"))["scheduling"] == "spread"
    cluster.argosy("cluster", "update", "--scheduling", "binpack")
    assert json.loads(cluster.argosy("cluster", "inspect"))["scheduling"] == "binpack"
    assert "packed" in cluster.argosy("rebalance")
    cluster.argosy("cluster", "update", "--scheduling", "spread")
