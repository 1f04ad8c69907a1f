"""Dev clusters come and go without a trace, however they end, and do not disturb each other."""

import re
import signal
import time

import pytest

from tests.e2e import host_view
from tests.e2e.dev_cluster import wait_until
from tests.e2e.machine import Machine

COMPOSE = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    read_only: true
    tmpfs: /tmp
    deploy: {replicas: 4}
networks:
  default:
    driver_opts: {encrypted: "true"}  # so that there are tunnels and their processes, too
"""
ONE, OTHER = "t-one", "t-other"


@pytest.fixture
def machine(tmp_path):
    """A machine that nobody else uses."""
    with Machine(tmp_path, ONE, OTHER) as machine:
        yield machine


def up(machine, name, nodes=2):
    """Start a dev cluster; return the seconds that it said it took."""
    status, said = machine.argosy("dev", "up", "--name", name, "--nodes", str(nodes))
    assert status == 0, said
    return float(re.search(r"ready after ([\d.]+) s", said).group(1))


def down(machine, name):
    """End a dev cluster."""
    status, said = machine.argosy("dev", "down", "--name", name)
    assert status == 0, said
    assert f"The dev cluster {name} is gone." in said


def assert_as_before(machine, before):
    """Check that there is what there was; what has ended may still be waiting to be reaped."""
    wait_until(lambda: machine.processes() == before["processes"], 20, machine.processes)
    after = machine.state()
    for kind, there in before.items():
        now = after[kind]
        if isinstance(there, list):
            there, now = sorted(set(there) - set(now)), sorted(set(now) - set(there))
            assert (there, now) == ([], []), f"{kind}: gone, and new"
        assert now == there, kind
    assert after == before


def deploy(machine, name, image_tar, tmp_path):
    """Deploy four replicas; return their programs."""
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    on = ("--context", f"dev/{name}")
    for args in (
        ("image", "import", "busybox:1", str(image_tar)),
        ("deploy", "-c", str(tmp_path / "compose.yaml"), "s"),
    ):
        status, said = machine.argosy(*on, *args)
        assert status == 0, said
    return wait_programs(name, 4)


def wait_programs(name, count):
    """Wait until so many programs run: the program itself is started by its container's init, a moment after that."""
    nodes = ["node1", "node2", "node3"]

    def counted():
        return found if len(found := host_view.programs(name, nodes)) == count else None

    return wait_until(counted, 30, f"{count} programs")


def test_a_cluster_that_had_work_leaves_nothing_when_it_is_taken_down(machine, image_tar, tmp_path):
    before = machine.state()
    seconds = up(machine, ONE, nodes=3)
    print(f"three hosts were ready after {seconds} s")
    assert seconds < 20  # 5 s on an idle machine
    deploy(machine, ONE, image_tar, tmp_path)
    busy = machine.state()
    assert all(busy[kind] != before[kind] for kind in ("processes", "namespaces", "files", "cgroups"))
    for kind in ("mounts", "devices", "addresses", "routes", "rules", "nft", "forwarding", "host name"):
        assert busy[kind] == before[kind], "not even while it is up does the machine itself look different"
    began = time.monotonic()
    down(machine, ONE)
    print(f"down took {time.monotonic() - began:.2f} s")
    assert_as_before(machine, before)
    status, said = machine.argosy("dev", "down", "--name", ONE)
    assert (status, said.strip()) == (0, f"There is no dev cluster {ONE}.")


def test_a_cluster_whose_every_process_was_killed_leaves_nothing(machine, image_tar, tmp_path):
    before = machine.state()
    up(machine, ONE)
    deploy(machine, ONE, image_tar, tmp_path)
    machine.kill_all(ONE)
    wait_until(lambda: machine.processes() == before["processes"], 20, machine.processes)
    status, said = machine.argosy("dev", "status", "--name", ONE)
    assert status != 0
    assert "is not up" in said
    down(machine, ONE)
    assert_as_before(machine, before)
    # And one that is not taken down first is begun anew, without anything of the former.
    up(machine, ONE)
    machine.kill_all(ONE)
    up(machine, ONE)
    down(machine, ONE)
    assert_as_before(machine, before)


def test_a_cluster_whose_supervisor_was_killed_leaves_nothing(machine, image_tar, tmp_path):
    before = machine.state()
    up(machine, ONE)
    running = deploy(machine, ONE, image_tar, tmp_path)
    supervisor = next(pid for pid, line in machine.processes().items() if "supervisor.py" in line)
    host_view.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not host_view.exists(supervisor), 10, "it is gone")
    assert all(map(host_view.is_alive, running.values())), "containers do not depend on it"
    down(machine, ONE)
    assert_as_before(machine, before)


@pytest.mark.parametrize("moment", ["supervisor.py", "argosy-dev-host", "etcd", "argosy.agent", "launcher"])
def test_an_up_that_is_interrupted_leaves_nothing(machine, moment):
    """Ctrl-C at several moments: after the first process whose command line has a word."""
    before = machine.state()
    process = machine.start("dev", "up", "--name", ONE, "--nodes", "2")
    wait_until(lambda: any(moment in line for line in machine.processes().values()), 30, f"{moment} runs")
    inner = next(pid for pid, line in machine.processes().items() if "dev up" in line)
    host_view.kill(inner, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert_as_before(machine, before)


def test_a_cluster_that_is_up_is_not_started_again(machine):
    up(machine, ONE, nodes=1)
    running = machine.processes()
    status, said = machine.argosy("dev", "up", "--name", ONE)
    assert status == 1
    assert f"the dev cluster {ONE} is up already" in said
    assert f"argosy dev down --name {ONE}" in said
    assert machine.processes() == running
    for command in (("cut", "--name", ONE, "node7"), ("exec", "--name", ONE, "node7", "true")):
        status, said = machine.argosy("dev", *command)
        assert status == 1
        assert "has no host node7" in said
    status, said = machine.argosy("dev", "exec", "--name", ONE, "node1", "sh", "-c", "hostname; ip -4 addr; exit 4")
    assert status == 4
    assert said.startswith("node1\n")
    assert "198.18.1.1/" in said
    for wrong in (("up", "--name", "Not A Name"), ("up", "--nodes", "0"), ("up", "--nodes", "many"), ("status",)):
        status, said = machine.argosy("dev", *wrong)
        assert status in (1, 2)
        assert "Traceback" not in said


def test_two_clusters_side_by_side_do_not_disturb_each_other(machine, image_tar, tmp_path):
    before = machine.state()
    both = [machine.start("dev", "up", "--name", name, "--nodes", "2") for name in (ONE, OTHER)]
    for process in both:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    running = deploy(machine, ONE, image_tar, tmp_path)
    deploy(machine, OTHER, image_tar, tmp_path)
    machine.kill_all(OTHER)
    assert host_view.programs(ONE, ["node1", "node2"]) == running
    down(machine, OTHER)
    assert host_view.programs(ONE, ["node1", "node2"]) == running
    status, said = machine.argosy("--context", f"dev/{ONE}", "scale", "s_web=6")
    assert status == 0, said
    wait_programs(ONE, 6)
    down(machine, ONE)
    assert_as_before(machine, before)
