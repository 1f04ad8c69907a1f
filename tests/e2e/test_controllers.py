"""Three controllers and three members of etcd: one leads, any takes commands, and none is missed for long."""

import base64
import copy
import json
import os
import signal
import struct
import subprocess
import time

import pytest

from argosy.core.fence import GRANT_S, MARGIN_S
from argosy.proto.argosy.v1 import dispatcher_pb2
from tests.e2e.dev_cluster import ARGOSY, DevCluster, assert_throughout, wait_until
from tests.e2e.host_view import is_alive
from tests.rootfs import busybox_rootfs_tar

STACK = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    deploy: {replicas: 3}
"""
FENCED = """
services:
  only:
    image: busybox:1
    init: true
    command: sleep 200000
    stop_grace_period: 1s
    x-argosy: {disconnect: fence}
"""
LONGEST_FENCE_S = GRANT_S + 1.0 + MARGIN_S + 15.0
"""From a leader's election to the replacement of a fenced task: grant, grace and margin, and time to start it."""
CONTROLLERS = ("controller-1", "controller-2", "controller-3")


@pytest.fixture(scope="module")
def cluster(image_tar, tmp_path_factory):
    """Three hosts, three controllers, and the service `c_web`."""
    with DevCluster(f"t{os.getpid() % 100_000}-three", nodes=3, controllers=3) as cluster:
        cluster.argosy("image", "import", "busybox:1", str(image_tar))
        cluster.deploy("c", STACK, tmp_path_factory.mktemp("stack"))
        yield cluster


def leader(cluster):
    """Return who leads by etcd, and the epoch; ("", 0) while nobody does."""
    answer = json.loads(cluster.etcdctl("get", f"/argosy/{cluster.name}/leader", "--write-out=json"))
    for kv in answer.get("kvs", ()):
        return json.loads(base64.b64decode(kv["value"]))["id"], kv["create_revision"]
    return "", 0


def wait_leader(cluster, after):
    """Wait until somebody leads in an epoch after `after`; return who, and the epoch."""
    return wait_until(lambda: found if (found := leader(cluster))[1] > after else None, 30, "another epoch")


def epochs(cluster, node):
    """Return the epochs of the leaders whose messages a host's agent has applied, in order, from its journal."""
    path = f"/var/lib/argosy/dev/{cluster.name}/hosts/{node}/agent/assignments.journal"
    with open(path, "rb") as file:
        data = file.read()
    found, at = [], 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        found.append(dispatcher_pb2.ControllerMessage.FromString(data[at + 4 : at + 4 + length]).leader.epoch)
        at += 4 + length
    return found


def wait_followed(cluster, epoch):
    """Wait until every agent follows the leader of an epoch."""
    for node in cluster.nodes:
        wait_until(lambda n=node: epochs(cluster, n)[-1:] == [epoch], 30, lambda n=node: (n, epochs(cluster, n), epoch))


def through(cluster, number):
    """Return the cluster as seen through one of its controllers only."""
    socket = cluster.run_dir / ("controller.sock" if number == 1 else f"controller-{number}.sock")
    one = copy.copy(cluster)
    one.environment = {k: v for k, v in cluster.environment.items() if k != "ARGOSY_CONTEXT"}
    one.environment["ARGOSY_HOST"] = f"unix://{socket}"
    return one


def revisions(cluster):
    """Return the versions of all tasks in etcd."""
    answer = json.loads(cluster.etcdctl("get", "--prefix", f"/argosy/{cluster.name}/task/", "--write-out=json"))
    return {kv["key"]: kv["mod_revision"] for kv in answer.get("kvs", ())}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_commands_work_through_any_controller(cluster, number, tmp_path):
    one = through(cluster, number)
    assert len(one.running("c_web")) == 3
    one.argosy("scale", f"c_web={3 + number}")
    assert len(one.running("c_web")) == 3 + number
    assert len(one.json("node", "ls")) == 3
    one.deploy(f"by{number}", STACK.replace("sleep 100000", "sh -c 'echo hello; exec sleep 555'"), tmp_path)
    assert wait_until(lambda: one.argosy("logs", f"by{number}_web").count("hello") == 3, 20, "logs of all three")
    one.argosy("stack", "rm", f"by{number}")
    one.argosy("scale", "c_web=3")


def test_a_leader_killed_in_the_middle_of_a_scale_up(cluster):
    cluster.argosy("scale", "c_web=3")
    before = cluster.wait_programs(3, command="sleep\000100000")
    waiting = subprocess.Popen(
        [ARGOSY, "scale", "c_web=15"],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    half = wait_until(lambda: p if len(p := cluster.programs("sleep\000100000")) > 3 else None, 30, "it has begun")
    assert len(half) < 15
    old, epoch = leader(cluster)
    began = time.monotonic()
    pid = cluster.kill(old)
    new, next_epoch = wait_leader(cluster, epoch)
    print(f"{new} leads {time.monotonic() - began:.2f} s after {old} was killed")
    said, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, said
    now = cluster.wait_programs(15, command="sleep\000100000")
    assert len(cluster.wait_running("c_web", 15)) == 15
    assert {task: now[task] for task in before} == before
    assert all(is_alive(p) for p in half.values())
    assert len(cluster.tasks("c_web", ended=True)) == 15, "nothing was started that had to be stopped again"
    wait_followed(cluster, next_epoch)
    cluster.wait_restarted(old, pid)
    cluster.assert_etcd_tells_the_same()
    cluster.argosy("scale", "c_web=3")


MOVING = ("--init", "--stop-grace-period", "1s", "--update-delay", "1s", "--update-monitor", "200ms")
BACK = ("--rollback-order", "start-first", "--rollback-delay", "1s", "--rollback-monitor", "200ms")
SLOTS = range(1, 7)


def moved(cluster, revision):
    """Return the slots whose running tasks have a revision."""
    return {task["slot"] for task in cluster.running("moving") if task["revision"] == revision}


def kill_leader(cluster):
    """Kill who leads; return once another does and the old one lives again, as a follower."""
    old, epoch = leader(cluster)
    pid = cluster.kill(old)
    wait_leader(cluster, epoch)
    cluster.wait_restarted(old, pid)


def update_state(cluster):
    return next(row["update"] for row in cluster.json("service", "ls") if row["name"] == "moving")


def made(cluster):
    """Return slot and revision of every task of the service that ever was."""
    return sorted((task["slot"], task["revision"]) for task in cluster.tasks("moving", ended=True))


def test_an_update_a_rollback_and_a_pause_go_on_under_the_next_leader(cluster):
    """Two leaders die in the middle of the update, one of the rollback: no slot is done twice, and none is left out."""
    create = ("service", "create", "--name", "moving", "--replicas", str(len(SLOTS)), *MOVING, *BACK)
    cluster.argosy(*create, "-e", "V=1", "busybox:1", "sleep", "300000")
    cluster.argosy("service", "update", "--detach", "--env-add", "V=2", "moving")
    for done in (1, 3):
        wait_until(lambda n=done: len(moved(cluster, 2)) >= n, 30, lambda: f"some are new: {made(cluster)}")
        kill_leader(cluster)
    assert moved(cluster, 1), "it was killed in the middle"
    wait_until(lambda: update_state(cluster) == "COMPLETED", 60, lambda: f"it ends: {made(cluster)}")
    assert made(cluster) == [(slot, revision) for slot in SLOTS for revision in (1, 2)]

    cluster.argosy("service", "rollback", "--detach", "moving")
    wait_until(lambda: len(moved(cluster, 3)) >= 2, 30, lambda: f"two are back: {made(cluster)}")
    kill_leader(cluster)
    cluster.argosy("service", "pause", "moving")
    kill_leader(cluster)
    at_rest = moved(cluster, 3)
    assert 2 <= len(at_rest) < len(SLOTS)
    assert update_state(cluster) == "ROLLBACK_PAUSED"
    assert_throughout(3, lambda: len(moved(cluster, 3)) <= len(at_rest) + 1, lambda: f"paused: {made(cluster)}")
    cluster.argosy("service", "resume", "moving")
    assert moved(cluster, 3) == set(SLOTS)
    assert made(cluster) == [(slot, revision) for slot in SLOTS for revision in (1, 2, 3)]
    cluster.argosy("service", "rm", "moving")


def test_a_leader_that_was_paused_past_its_lease_commands_nothing(cluster):
    """What it is to see when it goes on is tempting: a service scaled up while it slept, and not yet by its view."""
    cluster.argosy("scale", "c_web=3")
    old, epoch = leader(cluster)
    pid = cluster.pid(old)
    log = cluster.run_dir / "logs" / f"{old}.log"
    other = through(cluster, next(i for i in (1, 2, 3) if f"controller-{i}" != old))
    os.kill(pid, signal.SIGSTOP)
    try:
        other.argosy("scale", "--detach", "c_web=9")
        new, next_epoch = wait_leader(cluster, epoch)
        assert new != old
        running = cluster.wait_programs(9, command="sleep\000100000")
        wait_until(lambda: len(other.running("c_web")) == 9, 30, "all run")
        wait_followed(cluster, next_epoch)
        settled = revisions(cluster)
        said_before = log.stat().st_size
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: b"leadership lost" in log.read_bytes()[said_before:], 20, "it has noticed")
    assert_throughout(2.0, lambda: revisions(cluster) == settled, "the tasks in etcd as they were")
    assert cluster.programs("sleep\000100000") == running
    assert leader(cluster) == (new, next_epoch)
    assert cluster.pid(old) == pid, "it goes on as a follower"
    for node in cluster.nodes:
        assert epochs(cluster, node) == sorted(epochs(cluster, node)), "no agent ever went back to an older leader"
        assert epochs(cluster, node)[-1] == next_epoch
    one = through(cluster, int(old[-1]))
    one.argosy("scale", "c_web=3")
    cluster.assert_etcd_tells_the_same()


def test_an_image_outlives_the_controller_that_took_it(cluster, tmp_path):
    importer, epoch = leader(cluster)
    tar = busybox_rootfs_tar(tmp_path / "other.tar", {"etc/told": b"by the first one\n"})
    through(cluster, int(importer[-1])).argosy("image", "import", "other:1", str(tar))
    with cluster.held_down(importer):
        wait_leader(cluster, epoch)
        blobs = f"/var/lib/argosy/dev/{cluster.name}/{importer}/blobs"
        os.rename(blobs, blobs + ".away")
        try:
            compose = STACK.replace("busybox:1", "other:1").replace("replicas: 3", "mode: global")
            cluster.deploy("img", compose, tmp_path)
            for task in cluster.wait_running("img_web", 3):
                assert cluster.inside(task, "/bin/cat", "/etc/told") == "by the first one\n"
        finally:
            os.rename(blobs + ".away", blobs)
        cluster.argosy("stack", "rm", "img")


def test_one_controller_and_two_members_of_etcd_are_enough(cluster):
    gone = sorted(set(CONTROLLERS) - {leader(cluster)[0]})
    _, epoch = leader(cluster)
    with cluster.held_down(gone[0], leader(cluster)[0], "etcd-3"):
        wait_leader(cluster, epoch)
        cluster.argosy("scale", "c_web=6")
        assert len(cluster.running("c_web")) == 6
    cluster.argosy("scale", "c_web=3")
    for node in cluster.nodes:
        cluster.wait_node(node, "READY")


@pytest.mark.long  # how long a command goes on trying
def test_without_a_majority_of_etcd_nothing_happens_and_nothing_is_lost(cluster):
    before = cluster.wait_programs(3, command="sleep\000100000")
    with cluster.held_down("etcd-2", "etcd-3"):
        began = time.monotonic()
        done = cluster.run("scale", "--detach", "c_web=5", timeout=90)
        print(f"after {time.monotonic() - began:.1f} s: {done.stderr}")
        assert done.returncode != 0
        assert "Traceback" not in done.stdout + done.stderr
        assert cluster.programs("sleep\000100000") == before
    cluster.argosy("scale", "c_web=4")
    assert len(cluster.running("c_web")) == 4
    assert all(is_alive(p) for p in before.values())
    for node in cluster.nodes:
        cluster.wait_node(node, "READY")
    cluster.assert_etcd_tells_the_same()


def test_what_is_fenced_runs_at_most_once_also_when_the_leader_dies_while_its_host_is_cut_off(cluster, tmp_path):
    """The new leader does not know what the old one granted: it counts every host as granted at its own election."""
    cluster.deploy("f", FENCED, tmp_path)
    ((task, before),) = cluster.wait_programs(1, command="sleep\000200000").items()
    old, epoch = leader(cluster)
    cluster.cut(before.node)
    try:
        pid = cluster.kill(old)
        wait_leader(cluster, epoch)
        led_at = time.monotonic()
        alive_at, after = 0.0, {}
        while not after:
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            running = cluster.programs("sleep\000200000")
            assert len(running) < 2, running
            alive_at = now if task in running else alive_at
            after = {i: program for i, program in running.items() if i != task}
            took_s = time.monotonic() - led_at
            assert took_s < LONGEST_FENCE_S, f"not replaced: {cluster.tasks('f_only', ended=True)}"
            time.sleep(0.01)
    finally:
        cluster.heal(before.node)
    ((heir, program),) = after.items()
    assert not is_alive(before)
    assert program.node != before.node
    assert program.started / os.sysconf("SC_CLK_TCK") > alive_at
    print(f"replaced {took_s:.1f} s after another led; ended {program.started / 100 - alive_at:.1f} s before")
    cluster.wait_restarted(old, pid)
    cluster.wait_node(before.node, "READY")
    assert cluster.programs("sleep\000200000") == {heir: program}
    history = {t["id"]: t for t in cluster.tasks("f_only", ended=True)}
    assert history[task]["reason"].startswith("fenced: no controller confirmed it for")
    cluster.argosy("stack", "rm", "f")


def test_logs_of_all_parts_tell_of_no_bug(cluster):
    """At the end of all this: no part of the cluster has met an error that it did not expect."""
    for path in sorted((cluster.run_dir / "logs").glob("[ac]*.log")):
        assert "Traceback" not in path.read_text(errors="replace"), path


MINUTELY = """
services:
  tick:
    image: busybox:1
    init: true
    command: sh -c 'echo fired; sleep 3'
    deploy: {mode: replicated-job, restart_policy: {condition: none}}
    x-argosy: {cron: {schedule: "* * * * *"}}
"""


@pytest.mark.long
def test_a_schedule_fires_once_a_minute_though_leaders_die_as_it_does(cluster, tmp_path):
    """One leader dies the moment before it is due, the next one while it runs: nothing is run twice, or left out."""
    cluster.deploy("m", MINUTELY, tmp_path)

    def job():
        return next(row for row in cluster.json("job", "ls") if row["name"] == "m_tick")

    def runs():
        return [t for t in cluster.tasks(ended=True) if t["service"] == "m_tick"]

    first = job()["next"]
    if first - time.time() < 5:  # too close to find out who leads
        wait_until(lambda: job()["next"] > first and job()["state"] != "RUNNING", 30, "the next one")
        first = job()["next"]
    began, due = len(runs()), first
    old, epoch = leader(cluster)
    wait_until(lambda: time.time() > due - 0.2, 65, "it is nearly due")
    pid = cluster.kill(old)
    wait_leader(cluster, epoch)
    cluster.wait_restarted(old, pid)
    wait_until(lambda: len(runs()) > began, 30, lambda: f"it fires late rather than not at all: {job()}")
    assert job()["next"] == due + 60

    wait_until(lambda: len(runs()) > began + 1, 75, lambda: f"it fires again: {job()}")
    kill_leader(cluster)
    wait_until(lambda: [t["state"] for t in runs()] == ["COMPLETE"] * (began + 2), 40, lambda: f"{runs()}")
    found = job()
    assert (found["run"], found["state"]) == (began + 2, "COMPLETE")
    assert found["next"] == due + 120
    assert cluster.argosy("logs", "--no-prefix", "m_tick").split() == ["fired"] * (began + 2)
    cluster.argosy("stack", "rm", "m")
