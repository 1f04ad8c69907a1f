"""The main job on three hosts: declare, look, scale, update, roll back, remove. Each test uses a stack of its own."""

import json

import pytest

from tests.e2e.dev_cluster import wait_until

SLEEPER = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    deploy:
      replicas: {replicas}
      restart_policy: {{delay: 100ms}}
"""

ECHO = """
services:
  api:
    image: busybox:1
    init: true
    hostname: "{{.Service.Name}}-{{.Task.Slot}}.{{.Node.Hostname}}"
    command: nc -ll -p 7000 -e hostname
    networks:
      default: {aliases: [backend]}
    deploy: {replicas: 3}
  client:
    image: busybox:1
    init: true
    command: sleep 100000
    deploy: {mode: global}
"""


@pytest.fixture
def stack(cluster, tmp_path, request):
    """A function that deploys a stack named after the test; the stack goes when the test ends."""
    name = "s" + str(abs(hash(request.node.name)) % 10**6)

    def deploy(compose, *args):
        cluster.deploy(name, compose, tmp_path, *args)
        return name

    yield deploy
    cluster.run("stack", "rm", name)


def test_tasks_are_spread_over_the_hosts(cluster, stack):
    name = stack(SLEEPER.format(replicas=6))
    nodes = [t["node"] for t in cluster.running(f"{name}_web")]
    assert sorted(nodes) == ["node1", "node1", "node2", "node2", "node3", "node3"]


def test_scaling_up_and_down_leaves_the_others_alone(cluster, stack):
    name = stack(SLEEPER.format(replicas=2))
    first = {t["id"] for t in cluster.running(f"{name}_web")}
    cluster.argosy("scale", f"{name}_web=7")
    assert first < {t["id"] for t in cluster.running(f"{name}_web")}
    cluster.argosy("scale", f"{name}_web=2")
    assert len(cluster.running(f"{name}_web")) == 2
    cluster.argosy("scale", f"{name}_web=0")
    assert cluster.tasks(f"{name}_web") == []


def test_services_call_each_other_by_name_across_hosts(cluster, stack):
    name = stack(ECHO)
    clients = cluster.running(f"{name}_client")
    assert len(clients) == 3
    for client in clients:
        for host in ("api", "backend", f"{name}_api", "tasks.api"):
            answer = wait_until(
                lambda c=client, h=host: cluster.try_inside(c, "/bin/nc", "-w", "2", h, "7000").stdout, 10, host
            )
            assert answer.startswith(f"{name}_api-"), answer
        for slot in (1, 2, 3):
            answer = cluster.inside(client, "/bin/nc", "-w", "2", f"{slot}.api", "7000")
            assert answer.split(".")[0] == f"{name}_api-{slot}"
        assert cluster.try_inside(client, "/bin/nc", "-w", "2", "nobody", "7000").returncode != 0


def test_every_pair_of_hosts_reaches_each_other(cluster, stack):
    name = stack(ECHO)
    tasks = cluster.running(f"{name}_api")
    assert {t["node"] for t in tasks} == {"node1", "node2", "node3"}
    for client in cluster.running(f"{name}_client"):
        for task in tasks:
            answer = cluster.inside(client, "/bin/nc", "-w", "2", task["addresses"][0], "7000")
            assert answer.strip().endswith(task["node"])


def test_ps_tells_the_same_as_etcd(cluster, stack):
    name = stack(SLEEPER.format(replicas=4))
    shown = {t["id"] for t in cluster.tasks(ended=True)}
    listed = cluster.etcdctl("get", "--prefix", f"/argosy/{cluster.name}/task/", "--keys-only").split()
    assert {key.rpartition("/")[2] for key in listed} == shown
    services = cluster.etcdctl("get", "--prefix", f"/argosy/{cluster.name}/service/", "--keys-only").split()
    assert {key.rpartition("/")[2] for key in services} == {s["id"] for s in cluster.json("service", "ls")}
    assert name


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_a_rolling_update_replaces_every_task_and_rollback_returns(cluster, stack, order, image_tar):
    cluster.argosy("image", "import", "busybox:2", str(image_tar))
    how = f"{{parallelism: 2, order: {order}, monitor: 0s}}"
    compose = SLEEPER.format(replicas=4) + f"      update_config: {how}\n      rollback_config: {how}\n"
    name = stack(compose)
    before = {t["id"] for t in cluster.running(f"{name}_web")}
    cluster.argosy("service", "update", "--env-add", "V=2", f"{name}_web")
    after = cluster.running(f"{name}_web")
    assert len(after) == 4
    assert before.isdisjoint(t["id"] for t in after)
    assert "V=2" in cluster.inside(after[0], "/bin/sh", "-c", "tr '\\0' '\\n' < /proc/1/environ")
    cluster.argosy("service", "rollback", f"{name}_web")
    back = cluster.running(f"{name}_web")
    assert len(back) == 4
    assert "V=2" not in cluster.inside(back[0], "/bin/sh", "-c", "tr '\\0' '\\n' < /proc/1/environ")


def test_a_failing_update_pauses_says_why_and_keeps_most_tasks(cluster, stack):
    compose = SLEEPER.format(replicas=3) + "      update_config: {monitor: 3s}\n"
    name = stack(compose)
    before = {t["id"] for t in cluster.running(f"{name}_web")}
    done = cluster.run("service", "update", "--args", "sh -c 'echo it broke; exit 7'", f"{name}_web")
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "exit code 7" in said
    assert "it broke" in said
    assert len(before & {t["id"] for t in cluster.running(f"{name}_web")}) >= 2
    assert cluster.json("service", "inspect", f"{name}_web")


def test_a_failing_update_rolls_back_when_asked_to(cluster, stack):
    compose = SLEEPER.format(replicas=2) + (
        "      update_config: {monitor: 3s, failure_action: rollback}\n      rollback_config: {monitor: 0s}\n"
    )
    name = stack(compose)
    done = cluster.run("service", "update", "--args", "sh -c 'exit 7'", f"{name}_web")
    assert done.returncode == 1
    assert "roll" in done.stdout + done.stderr
    wait_until(lambda: len(cluster.running(f"{name}_web")) == 2, 20, "both run again")


def test_a_crashed_task_is_replaced(cluster, stack):
    name = stack(SLEEPER.format(replicas=1))
    task = cluster.running(f"{name}_web")[0]
    cluster.inside(task, "/bin/kill", "-9", "2", check=False)
    wait_until(lambda: [t for t in cluster.running(f"{name}_web") if t["id"] != task["id"]], 20, "a successor runs")
    ended = next(t for t in cluster.tasks(f"{name}_web", ended=True) if t["id"] == task["id"])
    assert ended["state"] == "FAILED"
    assert ended["exit_code"] == 137


def test_logs_have_every_line_of_every_task(cluster, stack):
    name = stack(
        """
services:
  talk:
    image: busybox:1
    init: true
    command: sh -c 'for i in 1 2 3 4 5; do echo "line $$i"; done; echo oops >&2; sleep 100000'
    deploy: {replicas: 3}
"""
    )
    lines = cluster.argosy("logs", f"{name}_talk").splitlines()
    assert len([line for line in lines if "line 3" in line]) == 3
    last = cluster.run("logs", "--tail", "2", f"{name}_talk")
    assert len((last.stdout + last.stderr).splitlines()) == 6
    assert last.stderr.count("oops") == 3


def test_drain_moves_tasks_and_activate_lets_them_come(cluster, stack):
    name = stack(SLEEPER.format(replicas=6))
    try:
        cluster.argosy("node", "drain", "node2")
        tasks = cluster.wait_running(f"{name}_web", 6)
        assert "node2" not in {t["node"] for t in tasks}
    finally:
        cluster.argosy("node", "activate", "node2")
    cluster.argosy("scale", f"{name}_web=9")
    assert "node2" in {t["node"] for t in cluster.running(f"{name}_web")}


def test_removing_a_stack_leaves_nothing_of_it(cluster, tmp_path):
    before = state(cluster)
    cluster.deploy("gone", ECHO, tmp_path)
    assert state(cluster) != before
    cluster.argosy("stack", "rm", "gone")
    wait_until(lambda: state(cluster) == before, 15, lambda: f"as before: {before}\nnow: {state(cluster)}")


def state(cluster):
    """What etcd and the hosts' kernels hold of services."""
    keys = cluster.etcdctl("get", "--prefix", f"/argosy/{cluster.name}/", "--keys-only").split()
    kinds = ("task", "service", "revision", "slice", "network")
    kept = [key for key in keys if key.split("/")[3] in kinds]
    links = {
        host: [x["ifname"] for x in json.loads(cluster.on_host(host, "ip", "-j", "link"))] for host in cluster.nodes
    }
    return {"keys": kept, "links": links}


def test_waiting_can_be_left_and_says_that_the_deployment_goes_on(cluster, stack, tmp_path):
    import signal
    import subprocess

    from tests.e2e.dev_cluster import ARGOSY

    name = stack(SLEEPER.format(replicas=1))
    cluster.argosy("service", "update", "--detach", "--constraint-add", "node.hostname==nowhere", f"{name}_web")
    child = subprocess.Popen(
        [ARGOSY, "scale", f"{name}_web=3"],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: len(cluster.tasks(f"{name}_web")) >= 3, 20, "the scaling has reached the cluster")
    child.send_signal(signal.SIGINT)
    said, _ = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "goes on" in said or "continues" in said
