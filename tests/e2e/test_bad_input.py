"""Wrong files, commands and wishes: one clear message that names where, nothing half applied, no traceback, ever."""

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.dev_cluster import DevCluster, wait_until
from tests.e2e.host_view import HIERARCHY
from tests.rootfs import busybox_rootfs_tar

GOOD = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
"""


@pytest.fixture(scope="module")
def cluster(image_tar, tmp_path_factory):
    """One host, on which the stack `good` runs."""
    with DevCluster(f"t{os.getpid() % 100_000}-bad", nodes=1) as cluster:
        cluster.argosy("image", "import", "busybox:1", str(image_tar))
        cluster.deploy("good", GOOD, tmp_path_factory.mktemp("stack"))
        cluster.wait_programs(1)
        yield cluster


def refused(cluster, *args, status=None, **options):
    """Run `argosy ARGS`, which must fail with a message to a person; return what it said."""
    done = cluster.run(*args, **options)
    said = done.stdout + done.stderr
    assert done.returncode not in (0, 70), f"exit {done.returncode}: {said}"
    assert status is None or done.returncode == status, f"exit {done.returncode}: {said}"
    assert "Traceback" not in said
    assert "bug in argosy" not in said
    assert "internal error" not in said
    assert "argosy: " in done.stderr
    return said


def state(cluster):
    """All objects in etcd, and what runs."""
    answer = json.loads(cluster.etcdctl("get", "--prefix", f"/argosy/{cluster.name}/", "--write-out=json"))
    return answer["kvs"], cluster.programs()


# ------------------------------------------------------------------ files

WRONG_FILES = {
    "an unknown key": (
        GOOD + "    imagee: busybox:1\n",
        ["compose.yaml:8", "imagee", "image"],
    ),
    "an unknown key below deploy": (
        GOOD + "    deploy:\n      replica: 3\n",
        ["compose.yaml:9", "replica", "replicas"],
    ),
    "a wrong type": (
        GOOD + "    deploy:\n      replicas: lots\n",
        ["compose.yaml:9", "replicas", "lots"],
    ),
    "a list where a mapping belongs": (
        "services:\n  - web\n",
        ["compose.yaml:2", "services"],
    ),
    "negative replicas": (
        GOOD + "    deploy:\n      replicas: -1\n",
        ["compose.yaml:9", "replicas", "-1"],
    ),
    "a memory limit that is none": (
        GOOD + "    deploy:\n      resources: {limits: {memory: plenty}}\n",
        ["compose.yaml:9", "memory", "plenty"],
    ),
    "a duration that is none": (
        GOOD.replace("period: 1s", "period: soon"),
        ["compose.yaml:7", "stop_grace_period", "soon"],
    ),
    "a signal that does not exist": (
        GOOD + "    stop_signal: SIGNOTHING\n",
        ["compose.yaml:8", "SIGNOTHING"],
    ),
    "a subnet that is too small": (
        GOOD + "    networks: [tiny]\nnetworks:\n  tiny:\n    ipam: {config: [{subnet: 10.99.0.0/30}]}\n",
        ["compose.yaml:11", "10.99.0.0/30"],
    ),
    "a subnet that is none": (
        GOOD + "    networks: [tiny]\nnetworks:\n  tiny:\n    ipam: {config: [{subnet: 10.99.0.0.0/16}]}\n",
        ["compose.yaml:11", "10.99.0.0.0"],
    ),
    "a constraint that cannot be read": (
        GOOD + "    deploy:\n      placement: {constraints: ['node.hostname is node1']}\n",
        ["node.hostname is node1"],
    ),
    "a network that is not declared": (
        GOOD + "    networks: [nowhere]\n",
        ["nowhere"],
    ),
    "no image": (
        "services:\n  web:\n    command: sleep 1\n",
        ["web", "image"],
    ),
    "a variable that must be set": (
        GOOD.replace("busybox:1", "${NOT_SET_HERE:?set it to the image}"),
        ["NOT_SET_HERE", "set it to the image"],
    ),
    "a key that a cluster cannot honour": (
        GOOD + "    network_mode: host\n",
        ["compose.yaml:8", "network_mode"],
    ),
    "broken YAML": (
        "services:\n  web: {image: busybox:1\n  other: [\n",
        ["compose.yaml:"],
    ),
    "an empty file": ("", ["compose.yaml"]),
    "bytes that are no text": (b"\xff\xfe\x00services", ["compose.yaml"]),
    "an alias bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{n}: &{n} [*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p},*{p}]\n"
            for p, n in zip("abcdefg", "bcdefgh", strict=True)
        )
        + "services: {web: {image: x, command: *h}}\n",
        ["compose.yaml"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG_FILES)
def test_a_wrong_file_is_refused_where_it_is_wrong(cluster, tmp_path, wrong):
    text, expected = WRONG_FILES[wrong]
    path = tmp_path / "compose.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = refused(cluster, "deploy", "-c", str(path), "bad", status=2, timeout=20)
    for words in expected:
        assert words in said, said


def test_several_mistakes_are_told_at_once_and_nothing_is_applied(cluster, tmp_path):
    before = state(cluster)
    text = (
        GOOD
        + "    deploy: {replicas: -1}\n"
        + "  other:\n    image: busybox:1\n    cap_add: [NOT_A_CAPABILITY]\n    hostnam: x\n"
    )
    path = tmp_path / "compose.yaml"
    path.write_text(text)
    said = refused(cluster, "deploy", "-c", str(path), "bad", status=2)
    assert "nothing was sent" in said
    for words in ("replicas", "NOT_A_CAPABILITY", "hostnam"):
        assert words in said, said
    assert state(cluster) == before


@pytest.mark.parametrize("stack", ["bad", "good"])
def test_a_file_of_which_half_is_wrong_for_the_cluster_is_not_applied_at_all(cluster, tmp_path, stack):
    """The first service and the network are fine; also when the stack exists, and would only be changed."""
    before = state(cluster)
    text = GOOD.replace("sleep 100000", "sleep 100001") + (
        "    networks: [fine]\n  other: {image: nobody-has/this:1}\nnetworks: {fine: {}}\n"
    )
    path = tmp_path / "compose.yaml"
    path.write_text(text)
    said = refused(cluster, "deploy", "-c", str(path), stack)
    assert "nobody-has/this:1" in said
    assert "import" in said, "it says how to bring the image in"
    assert state(cluster) == before


def test_files_that_are_not_there(cluster, tmp_path):
    assert "none.yaml" in refused(cluster, "deploy", "-c", "none.yaml", "bad", cwd=tmp_path)
    assert str(tmp_path) in refused(cluster, "deploy", "-c", str(tmp_path), "bad")
    assert "compose.yaml" in refused(cluster, "deploy", "bad", cwd=tmp_path)
    assert "none.tar" in refused(cluster, "image", "import", "x:1", "none.tar", cwd=tmp_path)


# ------------------------------------------------------------------ images


def archives(directory):
    """Return broken archives of several kinds, by what is wrong with them."""
    whole = busybox_rootfs_tar(directory / "whole.tar").read_bytes()
    compressed = busybox_rootfs_tar(directory / "whole.tar.gz").read_bytes()
    flipped = bytearray(compressed)
    flipped[len(flipped) // 2] ^= 0xFF
    return {
        "cut off": whole[: len(whole) // 2],
        "cut off in a header": whole[:700],
        "a compressed one cut off": compressed[: len(compressed) // 2],
        "a compressed one with a wrong byte": bytes(flipped),
        "no archive": b"this is no archive at all\n" * 100,
        "empty": b"",
    }


def test_broken_archives_are_refused_and_leave_nothing(cluster, tmp_path):
    before = state(cluster)
    for what, content in archives(tmp_path).items():
        path = tmp_path / "broken.tar"
        path.write_bytes(content)
        said = refused(cluster, "image", "import", "broken:1", str(path))
        assert "broken.tar" in said, (what, said)
    assert state(cluster) == before
    assert "broken:1" not in {i["name"] for i in cluster.json("image", "ls")}
    assert "No Such Name" in refused(cluster, "image", "import", "No Such Name", str(tmp_path / "whole.tar"), status=2)


# ------------------------------------------------------------------ names


def test_names_that_are_taken_unknown_or_in_use(cluster, tmp_path):
    cluster.argosy("network", "create", "taken")
    assert "taken" in refused(cluster, "network", "create", "taken")
    cluster.argosy("network", "rm", "taken")
    before = state(cluster)
    for args in (
        ("service", "ps", "nosuch"),
        ("service", "inspect", "nosuch"),
        ("service", "rm", "nosuch"),
        ("service", "rollback", "nosuch"),
        ("service", "update", "--env-add", "A=1", "nosuch"),
        ("scale", "nosuch=3"),
        ("logs", "nosuch"),
        ("stack", "rm", "nosuch"),
        ("node", "inspect", "nosuch"),
        ("node", "drain", "nosuch"),
        ("network", "inspect", "nosuch"),
        ("network", "rm", "nosuch"),
        ("image", "rm", "nosuch:1"),
    ):
        assert "nosuch" in refused(cluster, *args), args
    assert "good_default" in refused(cluster, "network", "rm", "good_default")
    assert state(cluster) == before


def test_a_service_name_that_another_stack_has(cluster, tmp_path):
    cluster.deploy("x", GOOD.replace("web:", "y_web:"), tmp_path)
    cluster.wait_programs(2)
    before = state(cluster)
    said = refused(cluster, "deploy", "-c", str(_file(tmp_path, GOOD)), "x_y")
    assert "x_y_web exists already and is of stack x" in said
    assert state(cluster) == before
    cluster.argosy("stack", "rm", "x")


def test_an_image_whose_name_was_removed_stays_with_who_runs_it(cluster, image_tar, tmp_path):
    assert "service good_web uses the image busybox:1" in refused(cluster, "image", "rm", "busybox:1")
    cluster.argosy("image", "rm", "--force", "busybox:1")
    assert cluster.json("image", "ls") == []
    cluster.argosy("scale", "good_web=2")
    assert "busybox:1" in refused(cluster, "deploy", "-c", str(_file(tmp_path, GOOD)), "bad")
    cluster.argosy("image", "import", "busybox:1", str(image_tar))
    cluster.argosy("scale", "good_web=1")


def test_wrong_arguments(cluster, tmp_path):
    before = state(cluster)
    for args, words in {
        ("scale", "good_web=-1"): "-1",
        ("scale", "good_web=many"): "many",
        ("scale", "good_web"): "good_web",
        ("scale",): "scale",
        ("service", "update", "--env-add", "=x", "good_web"): "",
        ("service", "update", "--constraint-add", "nonsense", "good_web"): "nonsense",
        ("network", "create", "tiny", "--subnet", "10.99.0.0/30"): "10.99.0.0/30",
        ("network", "create", "Not A Name"): "Not A Name",
        ("deploy", "-c", str(_file(tmp_path, GOOD)), "Not A Stack"): "Not A Stack",
        ("deploi", "x"): "deploy",
        ("ps", "--nonsense"): "--nonsense",
        ("logs", "--tail", "-3", "good_web"): "-3",
    }.items():
        assert words in refused(cluster, *args), args
    assert state(cluster) == before


def _file(directory, text):
    path = directory / "compose.yaml"
    path.write_text(text)
    return path


# ------------------------------------------------------------------ wishes that only show later


@pytest.fixture
def wish(cluster, tmp_path):
    """A function that deploys a service nobody can run; returns what the command said and its tasks as they are."""

    def deploy(lines, timeout="3s"):
        path = _file(tmp_path, GOOD + lines)
        said = refused(cluster, "deploy", "--timeout", timeout, "-c", str(path), "wish", timeout=60)
        return said, cluster.json("service", "ps", "wish_web")

    yield deploy
    cluster.argosy("stack", "rm", "wish")


def test_a_constraint_that_no_node_meets_is_a_reason_on_the_task(cluster, wish):
    said, tasks = wish("    deploy: {placement: {constraints: [node.hostname==nowhere]}}\n")
    assert tasks[0]["state"] == "PENDING"
    assert "node.hostname" in tasks[0]["reason"]
    assert "nowhere" in tasks[0]["reason"]
    assert tasks[0]["reason"] in said
    assert tasks[0]["reason"][:20] in cluster.argosy("service", "ps", "wish_web")


def test_resources_that_no_node_has_are_a_reason_on_the_task(wish):
    said, tasks = wish("    deploy: {resources: {reservations: {cpus: '512'}}}\n")
    assert tasks[0]["state"] == "PENDING"
    assert "512" in tasks[0]["reason"]
    assert tasks[0]["reason"] in said


def test_a_ulimit_above_the_hosts_is_a_reason_on_the_task(cluster, wish):
    wanted = "    ulimits: {nofile: 99999999}\n    deploy: {restart_policy: {condition: none}}\n"
    said, tasks = wish(wanted, timeout="20s")
    assert tasks[0]["state"] == "REJECTED"
    assert "nofile" in tasks[0]["reason"]
    assert "99999999" in tasks[0]["reason"]
    assert tasks[0]["reason"] in said
    assert cluster.node_state("node1") == "READY"


def test_a_program_that_is_not_in_the_image_is_a_reason_on_the_task(cluster, tmp_path):
    text = GOOD.replace("sleep 100000", "nosuchprogram").replace("    init: true\n", "")
    text += "    deploy: {restart_policy: {condition: none}}\n"
    said = refused(cluster, "deploy", "--timeout", "20s", "-c", str(_file(tmp_path, text)), "wish", timeout=60)
    tasks = cluster.json("service", "ps", "wish_web")
    assert tasks[0]["state"] in ("FAILED", "REJECTED")
    assert "nosuchprogram" in tasks[0]["reason"]
    assert tasks[0]["reason"] in said
    cluster.argosy("stack", "rm", "wish")


def test_a_service_that_fails_shows_its_exit_code_and_last_lines(cluster, tmp_path):
    text = GOOD.replace("sleep 100000", "sh -c 'echo no database >&2; exit 3'")
    text += "    deploy: {restart_policy: {condition: none}}\n"
    said = refused(cluster, "deploy", "--timeout", "20s", "-c", str(_file(tmp_path, text)), "wish", timeout=60)
    assert "exit code 3" in said
    assert "no database" in said
    cluster.argosy("stack", "rm", "wish")


# ------------------------------------------------------------------ no cluster


@pytest.mark.parametrize("args", [("ps",), ("deploy", "-c", "compose.yaml", "x"), ("node", "ls"), ("image", "ls")])
def test_without_a_cluster_it_says_how_to_start_one(cluster, tmp_path, args):
    _file(tmp_path, GOOD)
    for setting in (
        {"ARGOSY_CONTEXT": "dev/nosuch"},
        {"ARGOSY_HOST": "unix:///run/nosuch.sock"},
        {"ARGOSY_HOST": "127.0.0.1:1"},
    ):
        alone = DevCluster("nosuch")
        alone.environment = {k: v for k, v in cluster.environment.items() if k != "ARGOSY_CONTEXT"} | setting
        said = refused(alone, *args, cwd=tmp_path, status=3)
        assert "argosy dev up" in said


def test_a_node_name_that_is_taken_is_refused_to_the_second_agent(cluster, tmp_path):
    """Another host that calls itself node1 does not take the first one's place."""
    before = cluster.json("node", "ls")
    command = [sys.executable, "-m", "argosy.agent", "--name", "node1", "--advertise", "198.18.0.1"]
    command += ["--controller", "198.18.0.1:7070", "--state-dir", str(tmp_path / "s"), "--run-dir", str(tmp_path / "r")]
    command += ["--cgroup-parent", f"/argosy/dev-{cluster.name}/second"]
    # A process of the cluster, so that what it starts ends with the cluster.
    join = f'echo $$ > {HIERARCHY}/argosy/dev-{cluster.name}/system/cgroup.procs && exec "$@"'
    enter = ["nsenter", f"--target={cluster.holder('switch')}", "--net", "--", "sh", "-c", join, "sh"]
    agent = subprocess.Popen([*enter, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = ""
        while "the name node1 belongs to node" not in said:
            line = agent.stdout.readline()
            assert line, said
            said += line
        assert "Traceback" not in said
        assert [n["id"] for n in cluster.json("node", "ls")] == [n["id"] for n in before]
    finally:
        agent.terminate()
        agent.wait(20)
        # Its memory for secrets stays mounted, as it should: pytest could never delete the directory around it.
        subprocess.run(["umount", "-l", str(tmp_path / "r" / "secrets")], check=True)


def test_after_all_this_the_good_stack_runs_as_before(cluster):
    assert len(cluster.running("good_web")) == 1
    assert [s["name"] for s in cluster.json("service", "ls")] == ["good_web"]
    wait_until(lambda: len(cluster.programs()) == 1, 10, "one program")
    for path in sorted((cluster.run_dir / "logs").glob("[ac]*.log")):
        assert "Traceback" not in path.read_text(errors="replace"), path
