"""Each key of a Compose file that is honoured has its effect, seen in a real container on one of three hosts.

cli/compose/verdicts.py names the test of each key. Three stacks are deployed once, all at the same time (the files are
in tests/e2e/compose), and the tests look at what became of them: `k` runs, `r` is restless, `u` is updated.
"""

import os
import platform
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.container import IS_V2, Container
from tests.e2e.dev_cluster import wait_until
from tests.e2e.wire import datagrams, listen, socket_in
from tests.rootfs import busybox_rootfs_tar

COMPOSE = Path(__file__).parent / "compose"
NET_ADMIN, NET_RAW, CHOWN = 12, 13, 0
OUTSIDE_PORT = 7999
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Outside:
    """What is not in the cluster: on a host's own address, a service (TCP) and a name server (UDP) that names it.

    The name server knows `ours.search.example` and nothing else.
    """

    def __init__(self, namespace, address):
        self.address = address
        self._service = listen(namespace, (address, OUTSIDE_PORT))
        self._names = datagrams(namespace, (address, 53))
        self._names.settimeout(None)
        self._service.settimeout(None)
        for serve in (self._serve, self._serve_names):
            threading.Thread(target=serve, name=serve.__name__, daemon=True).start()

    def close(self):
        for sock in (self._service, self._names):
            sock.close()

    def _serve(self):
        while True:
            try:
                with self._service.accept()[0] as client:
                    client.sendall(b"outside\n")
            except OSError:
                return

    def _serve_names(self):
        while True:
            try:
                query, client = self._names.recvfrom(512)
                self._names.sendto(self._answer(query), client)
            except OSError:
                return

    def _answer(self, query):
        """Return the answer to a query with one question (RFC 1035, section 4)."""
        end = query.index(b"\0", 12) + 5
        known = query[12:end] == b"\4ours\6search\7example\0\0\1\0\1"
        header = query[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, int(known), 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(self.address)
        return header + query[12:end] + (record if known else b"")


class Stacks:
    """The three stacks. `of` are the containers of services that stay as they are, from one look at all of them."""

    def __init__(self, cluster, outside):
        self.cluster = cluster
        self.outside = outside
        self._containers = {}

    def of(self, service):
        """Return the running containers of a service of `k`, by slot."""
        if not self._containers:
            for task in self.cluster.tasks():
                if task["stack"] == "k" and task["state"] == "RUNNING":
                    self._containers.setdefault(task["service"], []).append(Container(self.cluster, task))
        return sorted(self._containers[f"k_{service}"], key=lambda c: c.task["slot"])

    def one(self, service):
        """Return the only container of a service of `k`."""
        (container,) = self.of(service)
        return container

    def now(self, service):
        """Return the containers that run now of a service ("r_moody")."""
        return [Container(self.cluster, task) for task in self.cluster.running(service)]

    def history(self, service):
        """Return all tasks of a service that are remembered, the oldest first."""
        return sorted(self.cluster.tasks(service, ended=True), key=lambda t: t["created"])

    def wait(self, service, condition, what, timeout=60):
        """Wait until `condition` holds for the history of a service; return the history."""
        seen = []

        def holds():
            seen[:] = self.history(service)
            return condition(seen)

        wait_until(holds, timeout, lambda: f"{service}: {what}: {brief(seen)}")
        return seen

    def inspect(self, service):
        """Return a service as the cluster has it stored."""
        return self.cluster.json("service", "inspect", service)[0]

    def update(self, service):
        """Return the state of a service's latest update."""
        return next(s["update"] for s in self.cluster.json("service", "ls") if s["name"] == service)

    def wait_update(self, service, *states, timeout=60):
        """Wait until a service's update is in one of some states; return it."""
        return wait_until(
            lambda: (found := self.update(service)) in states and found,
            timeout,
            lambda: f"{service}: {states}, it is {self.update(service)}: {brief(self.history(service))}",
        )

    def wait_versions(self, service, wanted, timeout=60):
        """Wait until the programs of a service that run have these V, by slot."""

        def found():
            return {
                version: {c.task["slot"] for c in containers} for version, containers in versions(self, service).items()
            }

        wait_until(lambda: found() == wanted, timeout, lambda: f"{service}: {wanted}, there are {found()}")


def brief(tasks):
    """Return what matters of tasks, for messages."""
    keys = ("slot", "node", "revision", "state", "desired_state", "exit_code", "reason")
    return [{key: task[key] for key in keys} for task in tasks]


def by_state(tasks, *states):
    return [task for task in tasks if task["state"] in states]


@pytest.fixture(scope="module")
def stacks(cluster, tmp_path_factory):
    """Deploy everything: `k` runs when this returns, the others are on their way."""
    work = tmp_path_factory.mktemp("compose")
    nodes = cluster.json("node", "ls")
    address = next(node["address"] for node in nodes if node["name"] == "node1")
    import_images(cluster, work)
    for node, zone in (("node1", "a"), ("node2", "b"), ("node3", "b")):
        cluster.argosy("node", "update", "--label-add", f"zone={zone}", node)
    cluster.argosy("network", "create", "--subnet", "10.202.0.0/16", "keys-outer")
    cluster.environment |= {
        "KEYS_FROM_SHELL": "from the shell",
        "KEYS_ARCHITECTURE": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "KEYS_NAMESERVER": address,
        "KEYS_MOST_CPUS": str(round(nodes[0]["cpus"] * 0.6, 2)),
        "KEYS_MOST_MEMORY": f"{int(nodes[0]['memory_bytes'] * 0.6)}b",
        "V": "1",
    }
    (work / "plain.env").write_text('# a comment\nFROM_FILE="quoted ${KEYS_FROM_SHELL}"\nBOTH=file\n')
    (work / "raw.env").write_text('RAW="kept" $NOT\n')
    (work / "labels.txt").write_text("shape=round\nfrom.both=file\n")
    outside = Outside(f"/proc/{cluster.holder('node1')}/ns/net", address)
    try:
        cluster.deploy("r", (COMPOSE / "restless.yaml").read_text(), work, "--detach")
        cluster.deploy("u", (COMPOSE / "updates.yaml").read_text(), work, "--detach")
        cluster.deploy("k", (COMPOSE / "keys.yaml").read_text(), work)
        cluster.deploy("u", (COMPOSE / "updates.yaml").read_text(), work)
        cluster.environment["V"] = "2"
        cluster.deploy("u", (COMPOSE / "updates.yaml").read_text(), work, "--detach")
        yield Stacks(cluster, outside)
    finally:
        outside.close()


def import_images(cluster, work):
    """Import `keys:1`, and `keys-sick:1`, which is the same but always ill."""
    tar = busybox_rootfs_tar(work / "keys.tar", {"etc/keys": b"keys\n"})
    settings = ("--entrypoint", "env FROM_ENTRYPOINT=image", "--command", "sleep 100000", "--workdir", "/home")
    variables = ("--env", "WHERE=image", "--env", "FROM_IMAGE=yes")
    sick = ("--change", "HEALTHCHECK --interval=100ms --retries=1 CMD false")
    cluster.argosy("image", "import", *settings, *variables, "keys:1", str(tar))
    cluster.argosy("image", "import", *settings, *variables, *sick, "keys-sick:1", str(tar))


# ---------------------------------------------------------------- the program


def test_image(stacks):
    plain, other = stacks.one("plain"), stacks.one("other_image")
    assert plain.path("/etc/keys").read_text() == "keys\n"
    assert not other.path("/etc/keys").exists()
    assert plain.arguments() == ["sleep", "100000"]
    assert plain.environment()["FROM_IMAGE"] == "yes"
    assert "FROM_IMAGE" not in other.environment()


def test_command(stacks):
    container = stacks.one("commanded")
    assert container.arguments() == ["sh", "-c", "sleep 100001; true"]
    assert container.environment()["FROM_ENTRYPOINT"] == "image"


def test_entrypoint(stacks):
    container = stacks.one("entered")
    assert container.arguments() == ["sleep", "100002"]
    assert "FROM_ENTRYPOINT" not in container.environment()


def test_environment(stacks):
    found = stacks.of("me")[0].environment()
    assert {name: found.get(name) for name in ("WHERE", "FROM_IMAGE", "EMPTY", "COUNT", "KEYS_FROM_SHELL", "BOTH")} == {
        "WHERE": "service",
        "FROM_IMAGE": "yes",
        "EMPTY": "",
        "COUNT": "3",
        "KEYS_FROM_SHELL": "from the shell",
        "BOTH": "environment",
    }
    assert "KEYS_NOT_SET" not in found


def test_env_file(stacks):
    found = stacks.of("me")[0].environment()
    assert found["FROM_FILE"] == "quoted from the shell"
    assert found["RAW"] == '"kept" $NOT'


def test_user(stacks):
    me, named, plain = stacks.of("me")[0], stacks.one("named"), stacks.one("plain")
    assert (me.own_id("uid"), me.own_id("gid")) == (1234, 2345)
    assert (named.own_id("uid"), named.own_id("gid")) == (1000, 65534)
    assert (plain.own_id("uid"), plain.own_id("gid")) == (0, 0)


def test_working_dir(stacks):
    assert stacks.of("me")[0].inside("/bin/readlink", "/proc/1/cwd") == "/var/tmp\n"
    assert stacks.one("plain").inside("/bin/readlink", "/proc/1/cwd") == "/home\n"


def test_hostname(stacks):
    for container in stacks.of("me"):
        name = f"k_me-{container.task['slot']}.{container.task['node']}"
        assert container.inside("/bin/hostname") == f"{name}\n"
        assert container.path("/etc/hostname").read_text() == f"{name}\n"
        assert f"{container.task['addresses'][0]}\t{name}" in container.path("/etc/hosts").read_text()
    plain = stacks.one("plain")
    assert plain.inside("/bin/hostname").strip() == plain.task["id"]


def test_labels(stacks):
    labels = stacks.inspect("k_me")["spec"]["task"]["container"]["labels"]
    assert labels["colour"] == "red"
    assert labels["from.both"] == "labels"


def test_label_file(stacks):
    assert stacks.inspect("k_me")["spec"]["task"]["container"]["labels"]["shape"] == "round"


def test_init(stacks):
    with_init, without = stacks.one("tight"), stacks.one("plain")
    assert with_init.program != with_init.pid
    assert without.program == without.pid
    for container in (with_init, without):
        container.inside("/bin/sh", "-c", "(sleep 0 &)")
    wait_until(lambda: zombies(without), 10, "a process that nobody waits for stays")
    wait_until(lambda: not zombies(with_init), 10, "the init waits for it")


def zombies(container):
    """Return the children of a container's first process that have ended."""
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
    return [pid for pid in children if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"]


# ---------------------------------------------------------------- what it may, and what it has


def test_ulimits(stacks):
    lines = Path(f"/proc/{stacks.of('me')[0].pid}/limits").read_text().splitlines()
    found = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert found["Max open files"] == ["111", "222"]
    assert found["Max processes"] == ["3333", "3333"]


def test_cap_add(stacks):
    assert NET_ADMIN in stacks.one("tight").capabilities()
    assert NET_ADMIN not in stacks.one("plain").capabilities()


def test_cap_drop(stacks):
    assert {NET_RAW, CHOWN} <= stacks.one("plain").capabilities()
    assert {NET_RAW, CHOWN}.isdisjoint(stacks.one("tight").capabilities())
    assert stacks.one("powerless").capabilities() == set()


def test_read_only(stacks):
    refused = stacks.one("tight").try_inside("/bin/touch", "/etc/written")
    assert "Read-only file system" in refused.stderr
    stacks.one("plain").inside("/bin/touch", "/etc/written")


def test_tmpfs(stacks):
    container = stacks.one("tight")
    assert {"nosuid", "nodev", "noexec"} <= container.mount_options("/run")
    container.inside("/bin/sh", "-c", "echo written > /run/file")
    assert {"size=2048k", "mode=1750"} <= container.mount_options("/scratch")
    assert container.inside("/bin/stat", "-c", "%a %u", "/scratch") == "1750 1000\n"
    full = container.try_inside("/bin/dd", "if=/dev/zero", "of=/scratch/big", "bs=1M", "count=3")
    assert "No space left on device" in full.stderr
    write_and_run = "rm -f $0/big; printf '#!/bin/sh\\necho ran' > $0/program && chmod 755 $0/program && $0/program"
    assert container.inside("/bin/sh", "-c", write_and_run, "/scratch") == "ran\n"
    assert "Permission denied" in container.try_inside("/bin/sh", "-c", write_and_run, "/run").stderr
    assert "Read-only" in container.try_inside("/bin/touch", "/sealed/file").stderr


def test_shm_size(stacks):
    shm = os.statvfs(stacks.one("tight").path("/dev/shm"))
    assert shm.f_blocks * shm.f_frsize == 3 << 20


def test_sysctls(stacks):
    container = stacks.of("me")[0]
    assert container.inside("/bin/cat", "/proc/sys/net/ipv4/tcp_keepalive_time") == "111\n"
    assert container.inside("/bin/cat", "/proc/sys/net/ipv4/ip_local_port_range").split() == ["30000", "40000"]
    assert stacks.one("plain").inside("/bin/cat", "/proc/sys/net/ipv4/tcp_keepalive_time") != "111\n"


def test_deploy_resources_limits_cpus(stacks):
    assert stacks.one("tight").cpus() == 0.5
    assert stacks.one("plain").cpus() is None


def test_deploy_resources_limits_memory(stacks):
    assert stacks.one("tight").cgroup("memory", "memory.limit_in_bytes", "memory.max") == str(48 << 20)


def test_deploy_resources_limits_pids(stacks):
    assert stacks.one("tight").cgroup("pids", "pids.max", "pids.max") == "77"


def test_older_resource_keys(stacks):
    older = stacks.one("older")
    assert older.cpus() == 0.5
    assert stacks.one("old_cpus").cpus() == 0.25
    assert older.cgroup("memory", "memory.limit_in_bytes", "memory.max") == str(40 << 20)
    assert older.cgroup("pids", "pids.max", "pids.max") == "55"
    assert stacks.inspect("k_older")["spec"]["task"]["reservations"]["memory_bytes"] == 8 << 20


# ---------------------------------------------------------------- names and networks


def test_networks(stacks):
    server, guest, secluded = (stacks.one(name) for name in ("server", "guest", "secluded"))
    links = guest.inside("/bin/ip", "-o", "-4", "address", "show")
    assert [line.split()[1] for line in links.splitlines()] == ["lo", "eth0", "eth1", "eth2", "eth3"]
    assert [line.split()[3].partition("/")[0] for line in links.splitlines()][1:] == guest.task["addresses"]
    assert guest.call("server") == "server"
    assert secluded.call("guest") == "guest"
    assert secluded.call("server") == ""
    assert secluded.call(server.task["addresses"][0]) == ""


def test_networks_aliases(stacks):
    assert stacks.one("guest").call("helper") == "server"
    assert stacks.one("secluded").call("helper") == ""


def test_network_subnet(stacks):
    assert stacks.one("server").task["addresses"][0].startswith("10.201.")


def test_network_internal(stacks):
    plain, secluded = stacks.one("plain"), stacks.one("secluded")
    assert plain.call(stacks.outside.address, OUTSIDE_PORT) == "outside"
    assert secluded.call(stacks.outside.address, OUTSIDE_PORT) == ""
    assert "default" not in secluded.inside("/bin/ip", "route")


def test_network_external(stacks):
    assert stacks.one("guest").task["addresses"][2].startswith("10.202.")
    names = [network["name"] for network in stacks.cluster.json("network", "ls")]
    assert names.count("keys-outer") == 1
    assert "k_outer" not in names


def test_network_settings(stacks):
    network = stacks.cluster.json("network", "inspect", "keys-by-name")[0]["network"]
    assert network["spec"]["attachable"]
    assert network["spec"]["labels"]["colour"] == "blue"
    prefix = network["subnet"].rsplit(".", 2)[0]
    assert stacks.one("guest").task["addresses"][3].startswith(prefix)


def test_extra_hosts(stacks):
    container = stacks.of("me")[0]
    lines = [line.split() for line in container.path("/etc/hosts").read_text().splitlines()]
    assert ["192.0.2.77", "far.example"] in lines
    assert ["::7", "six.example"] in lines
    assert container.call("outside.example", OUTSIDE_PORT) == "outside"


def test_dns(stacks):
    container = stacks.one("resolving")
    assert container.call("ours.search.example", OUTSIDE_PORT) == "outside"
    assert container.call("ours", OUTSIDE_PORT) == "outside"
    assert container.call("server") == "server"
    options = [line for line in container.path("/etc/resolv.conf").read_text().splitlines() if "options" in line]
    assert options == ["options timeout:3 ndots:0"]


# ---------------------------------------------------------------- how many, and where


def test_deploy_mode(stacks):
    assert sorted(c.task["node"] for c in stacks.of("everywhere")) == ["node1", "node2", "node3"]


def test_deploy_replicas(stacks):
    assert [c.task["slot"] for c in stacks.of("several")] == [1, 2, 3, 4]


def test_scale(stacks):
    assert [c.task["slot"] for c in stacks.of("me")] == [1, 2]


def test_deploy_labels(stacks):
    assert stacks.inspect("k_named")["spec"]["labels"]["tier"] == "gold"
    assert stacks.one("named").inside("/bin/hostname") == "tier-gold\n"


def test_platform(stacks):
    assert stacks.one("native").inside("/bin/uname", "-m").strip() == platform.machine()
    stacks.wait("r_foreign", lambda tasks: pending(tasks, 1, "s390x"), "waits for a node of its platform")


def test_deploy_placement_constraints(stacks):
    assert [c.task["node"] for c in stacks.of("placed")] == ["node3", "node3"]
    stacks.wait("r_nowhere", lambda tasks: pending(tasks, 1, "node.labels.zone"), "waits for such a node")


def test_deploy_placement_preferences(stacks):
    nodes = [c.task["node"] for c in stacks.of("preferring")]
    assert nodes.count("node1") == 3, "half of them in zone a, which is node1"


def test_deploy_placement_max_replicas_per_node(stacks):
    assert_one_on_each_host(stacks, "r_apart", "replicas")


def test_argosy_affinity(stacks):
    assert [c.task["node"] for c in stacks.of("beside")] == ["node3", "node3"], "where 'placed' is"


def test_argosy_anti_affinity(stacks):
    """Required away from its own tasks; preferred away from 'placed', which is on node3."""
    assert_one_on_each_host(stacks, "r_loner", "keeps away from")
    assert stacks.of("averse")[0].task["node"] != "node3"


def test_deploy_resources_reservations_cpus(stacks):
    assert_one_on_each_host(stacks, "r_wide", "cpu")
    container = stacks.now("r_wide")[0]
    weight = int(container.cgroup("cpu", "cpu.shares", "cpu.weight"))
    assert weight > (100 if IS_V2 else 1024)


def test_deploy_resources_reservations_memory(stacks):
    assert_one_on_each_host(stacks, "r_big", "memory")


def pending(tasks, count, reason):
    """Whether exactly `count` tasks wait for a node, and say why."""
    waiting = by_state(tasks, "PENDING")
    return len(waiting) == count and all(reason in task["reason"].lower() for task in waiting)


def assert_one_on_each_host(stacks, service, reason):
    """Check that of four replicas three run, one on each host, and the fourth says why it waits."""
    tasks = stacks.wait(
        service,
        lambda tasks: len(by_state(tasks, "RUNNING")) == 3 and pending(tasks, 1, reason),
        f"three run, and one waits for {reason}",
    )
    assert sorted(task["node"] for task in by_state(tasks, "RUNNING")) == ["node1", "node2", "node3"]


# ---------------------------------------------------------------- health, restarts, stopping


def test_healthcheck(stacks):
    """Every time is seen by being other than its default: 30 s between checks, 30 s for one, no start period."""
    # start_period, start_interval: checks fail often, and count for nothing.
    task = stacks.wait("r_moody", lambda tasks: by_state(tasks, "STARTING"), "waits to be well")[-1]
    moody = Container(stacks.cluster, task)
    wait_until(lambda: checks(moody) > 5, 30, "it is checked more often than it may fail")
    assert [t["id"] for t in by_state(stacks.history("r_moody"), "STARTING")] == [task["id"]]
    # test: it is running once it is well.
    moody.inside("/bin/touch", "/tmp/well")
    stacks.wait("r_moody", lambda tasks: by_state(tasks, "RUNNING"), "runs when it is well")
    # interval, retries: ill twice in a row, soon after; another takes its place.
    moody.inside("/bin/rm", "/tmp/well")
    tasks = stacks.wait("r_moody", lambda tasks: by_state(tasks, "FAILED") and len(tasks) > 1, "is replaced when ill")
    assert "failed 2 times: not well" in tasks[0]["reason"]
    # timeout: a check that goes on for long is a failure.
    tasks = stacks.wait("r_hasty", lambda tasks: by_state(tasks, "FAILED"), "is ill, as the check takes too long")
    assert "failed 3 times: it took longer than 0.2 s" in tasks[0]["reason"]
    # interval: after the first check that found it well, the next comes in an hour.
    seldom = Container(stacks.cluster, by_state(stacks.history("r_seldom"), "RUNNING")[0])
    assert checks(seldom) == 1


def checks(container):
    """Return how many checks were made, as the check itself counts them."""
    file = container.path("/tmp/checks")
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_healthcheck_disable(stacks):
    (task,) = stacks.history("k_sick_image")
    assert task["state"] == "RUNNING"


def test_argosy_liveness(stacks):
    """What a check is answered over http decides, in the container's own network; then it is as with healthcheck."""
    task = stacks.wait("r_probed", lambda tasks: by_state(tasks, "RUNNING"), "runs when it has answered")[-1]
    Container(stacks.cluster, task).inside("/bin/rm", "/tmp/www/health")
    tasks = stacks.wait("r_probed", lambda tasks: by_state(tasks, "FAILED") and len(tasks) > 1, "is replaced when ill")
    assert tasks[0]["reason"].startswith("health check failed 2 times: GET :8080/health answered 404")
    check = stacks.inspect("r_probed")["spec"]["task"]["container"]["healthcheck"]
    assert check["http"] == {"port": 8080, "path": "/health", "headers": {"X-Asked-By": "argosy"}}


def test_argosy_readiness(stacks):
    """A task that is not ready runs, and neither its service's name nor its address leads to it; it goes on."""
    unready = stacks.wait("r_shy", lambda tasks: "refused" in tasks[-1]["reason"], "was asked")[-1]
    assert (unready["state"], unready["ready"]) == ("RUNNING", False)
    assert unready["reason"] == "not ready: tcp :7000: connection refused"
    shy = Container(stacks.cluster, unready)
    assert not finds(shy, "tasks.shy")
    (address,) = unready["addresses"]
    (other,) = stacks.now("r_deaf")
    assert answers(other, address)
    assert not answers(other, "shy")
    assert "(not ready)" in stacks.cluster.argosy("ps", "r_shy")
    shy.inside("/bin/sh", "-c", "nc -ll -p 7000 -e true >/dev/null 2>&1 & echo $! > /tmp/pid")
    wait_until(lambda: finds(shy, "tasks.shy"), 30, "the name leads to it once it is ready")
    wait_until(lambda: answers(other, "shy"), 30, "so does the virtual address")
    shy.inside("/bin/sh", "-c", "kill $(cat /tmp/pid)")
    wait_until(lambda: not finds(shy, "tasks.shy"), 30, "the name leads to it no more")
    wait_until(lambda: not answers(other, "shy"), 30, "nor does the virtual address")
    assert answers(other, address)
    assert [task["id"] for task in stacks.history("r_shy")] == [unready["id"]]
    deaf = stacks.wait("r_deaf", lambda tasks: "grpc" in tasks[-1]["reason"], "was asked")[-1]
    assert deaf["reason"] == "not ready: grpc :7000 of shop: connection refused"


def answers(container, place):
    """Whether a container is answered there on port 7001."""
    return container.try_inside("/bin/nc", "-w", "2", place, "7001").stdout != ""


def finds(container, name):
    """Whether a name leads to a container, as itself finds."""
    (address,) = container.task["addresses"]
    return address in container.try_inside("/bin/nslookup", name).stdout.split()


def test_deploy_restart_policy(stacks):
    # window: one attempt each half second, and it takes longer to fail; when it goes on, others have had the time.
    stacks.wait("r_forgiven", lambda tasks: len(by_state(tasks, "FAILED")) >= 4, "is started again and again")
    # condition
    stacks.wait("r_always", lambda tasks: len(by_state(tasks, "COMPLETE")) >= 2, "is started again")
    (never,) = stacks.history("r_never")
    assert (never["state"], never["exit_code"]) == ("FAILED", 3)
    (finished,) = stacks.history("r_finished")
    assert (finished["state"], finished["exit_code"]) == ("COMPLETE", 0)
    # max_attempts: the first and two more; delay: doubles, as it fails.
    limited = stacks.wait("r_limited", lambda tasks: len(by_state(tasks, "FAILED")) == 3, "is tried three times")
    assert len(limited) == 3
    first, second, third = sorted(
        float(line.split()[-1]) for line in stacks.cluster.argosy("logs", "r_limited").splitlines()
    )
    assert second - first >= 0.5
    assert third - second >= 1.0


def test_restart(stacks):
    tasks = stacks.wait("r_old_limited", lambda tasks: len(by_state(tasks, "FAILED")) == 2, "is tried twice")
    assert len(tasks) == 2
    assert [task["state"] for task in stacks.history("r_old_never")] == ["FAILED"]


def test_stop_signal(stacks):
    assert replaced(stacks, "r_graceful")["exit_code"] == 7
    assert "heard USR1" in stacks.cluster.argosy("logs", "r_graceful")


def test_stop_grace_period(stacks):
    old = replaced(stacks, "r_stubborn")
    assert old["exit_code"] == 137
    asked = float(stacks.cluster.argosy("logs", "r_stubborn").split()[-1])
    ended_after = old["since"] - (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)) - asked
    assert 1.9 < ended_after < 10, "it is killed after its grace period of 2 s, not after the usual 10 s"


def replaced(stacks, service):
    """Have the only task of a service replaced; return what became of it."""
    (old,) = stacks.cluster.running(service)
    stacks.cluster.argosy("service", "update", "--force", "--detach", service)
    tasks = stacks.wait(service, lambda tasks: ended(tasks, old), "the old task has ended")
    return ended(tasks, old)[0]


def ended(tasks, task):
    return [t for t in tasks if t["id"] == task["id"] and t["state"] in ("SHUTDOWN", "FAILED", "COMPLETE")]


# ---------------------------------------------------------------- updates and rollbacks


def test_deploy_update_config(stacks):
    """All these services are being updated to V=2 at once; each has one setting that is not as by default."""
    # failure_action: pause leaves the others alone, continue goes on with them, rollback returns.
    stacks.wait_update("u_paused", "PAUSED")
    assert_left_alone(stacks, "u_paused", "1")
    stacks.wait(
        "u_onward", lambda tasks: {t["slot"] for t in by_state(tasks, "FAILED")} == {1, 2}, "fails in both slots"
    )
    assert stacks.update("u_onward") == "UPDATING"
    stacks.wait_update("u_returned", "ROLLBACK_COMPLETED")
    assert list(versions(stacks, "u_returned")) == ["1"]
    # max_failure_ratio: one of three may fail.
    stacks.wait_versions("u_tolerant", {"2": {2, 3}})
    assert by_state(stacks.history("u_tolerant"), "FAILED")
    assert stacks.update("u_tolerant") == "UPDATING"
    # monitor: what ends later than that is no failure of the update.
    stacks.wait_update("u_careful", "PAUSED")
    stacks.wait_update("u_careless", "COMPLETED")
    # parallelism, delay
    stacks.wait_update("u_waves", "COMPLETED")
    assert_waves_of_two(stacks, "u_waves", "2")
    # order
    stacks.wait_update("u_swapped", "COMPLETED")
    assert_order(stacks, "u_swapped", start_first=False)
    assert_order(stacks, "u_waves", start_first=True)


def test_deploy_rollback_config(stacks):
    """As above, on the way back from V=2 to V=1, which fails now where it did not before."""
    services = [
        f"u_back_{name}" for name in ("waves", "swapped", "paused", "onward", "tolerant", "careful", "careless")
    ]
    for service in services:
        stacks.wait_update(service, "COMPLETED")
    stacks.cluster.argosy("scale", "u_doom=1")
    for service in services:
        for container in stacks.now(service):
            wait_until(lambda c=container: c.call("doom"), 30, f"doom answers on {container.task['node']}")
    for service in services:
        stacks.cluster.argosy("service", "rollback", "--detach", service)
    # failure_action
    stacks.wait_update("u_back_paused", "ROLLBACK_PAUSED")
    assert_left_alone(stacks, "u_back_paused", "2")
    stacks.wait(
        "u_back_onward", lambda tasks: {t["slot"] for t in by_state(tasks, "FAILED")} == {1, 2}, "fails in both slots"
    )
    assert stacks.update("u_back_onward") == "ROLLBACK_STARTED"
    # max_failure_ratio
    stacks.wait_versions("u_back_tolerant", {"1": {2, 3}})
    assert by_state(stacks.history("u_back_tolerant"), "FAILED")
    assert stacks.update("u_back_tolerant") == "ROLLBACK_STARTED"
    # monitor
    stacks.wait_update("u_back_careful", "ROLLBACK_PAUSED")
    stacks.wait_update("u_back_careless", "ROLLBACK_COMPLETED")
    # parallelism, delay
    stacks.wait_update("u_back_waves", "ROLLBACK_COMPLETED")
    assert_waves_of_two(stacks, "u_back_waves", "1")
    # order
    stacks.wait_update("u_back_swapped", "ROLLBACK_COMPLETED")
    assert_order(stacks, "u_back_swapped", start_first=False)
    assert_order(stacks, "u_back_waves", start_first=True)


def assert_left_alone(stacks, service, version):
    """Check that of two tasks one goes on with the V that it had."""
    found = versions(stacks, service)
    assert len(found.get(version, ())) == 1, (found.keys(), brief(stacks.history(service)))


def versions(stacks, service):
    """Return the running containers of a service by the V that their programs have."""
    found = {}
    for container in stacks.now(service):
        found.setdefault(container.environment()["V"], []).append(container)
    return found


def assert_waves_of_two(stacks, service, version):
    """Check that of four programs the third was started 2 s after the first, and the second before that."""
    first, second, third, _ = sorted(c.started_at() for c in versions(stacks, service)[version])
    assert second - first < 2 <= third - first


def assert_order(stacks, service, *, start_first):
    """Check which came first in the latest change of a service's slots: that the old ended, or that the new began."""
    history = stacks.history(service)
    for container in stacks.now(service):
        slot = [task for task in history if task["slot"] == container.task["slot"]]
        old = max(by_state(slot, "SHUTDOWN"), key=lambda task: task["since"])
        before = container.started_at() + 0.01 < old["since"]  # it is known to a hundredth
        assert before == start_first, brief(slot)


def test_argosy_canary(stacks):
    """canary: one new task beside the old ones until it is promoted. auto_promote: until it has done well."""
    stacks.wait_versions("u_canaried", {"1": {1, 2}, "2": {3}})
    assert stacks.update("u_canaried") == "UPDATING"
    stacks.cluster.argosy("service", "promote", "--detach", "u_canaried")
    for service in "u_canaried", "u_trusted":
        stacks.wait_update(service, "COMPLETED")
        stacks.wait_versions(service, {"2": {1, 2}})


def test_argosy_progress_deadline(stacks):
    stacks.wait_update("u_stuck", "PAUSED")
    assert "no progress for 2s" in stacks.inspect("u_stuck")["update"]["message"]


def test_argosy_max_unavailable(stacks):
    """Where all three might move at once, and one may be missing, each waits for the one before."""
    stacks.wait_update("u_budgeted", "COMPLETED")
    stopped = sorted(task["since"] for task in by_state(stacks.history("u_budgeted"), "SHUTDOWN"))
    started = sorted(container.started_at() for container in stacks.now("u_budgeted"))
    assert len(stopped) == len(started) == 3
    assert all(start <= stop for start, stop in zip(started, stopped[1:], strict=False))


def test_argosy_disconnect(stacks):
    assert stacks.inspect("u_stuck")["spec"]["disconnect"] == "KEEP"


def test_argosy_drain_timeout(stacks):
    """A task that is to go serves the connections that it has: to their end, or until the time is over."""
    with connected(stacks, "r_patient") as held:
        began = time.monotonic()
        old = drained(stacks, "r_patient")
        held.close()
        stacks.wait("r_patient", lambda tasks: ended(tasks, old), "it ends with its connection")
        assert time.monotonic() - began < 25, "not only when its time was over"
    with connected(stacks, "r_hurried"):
        began = time.monotonic()
        old = drained(stacks, "r_hurried")
        stacks.wait("r_hurried", lambda tasks: ended(tasks, old), "it ends though it is connected")
        assert time.monotonic() - began >= 2


def connected(stacks, service):
    """Return a connection from another container to the only task of a service."""
    (client,), (task,) = stacks.now("r_deaf"), stacks.cluster.running(service)
    held = socket_in(f"/proc/{client.pid}/ns/net", socket.AF_INET, socket.SOCK_STREAM)
    held.settimeout(10)
    held.connect((task["addresses"][0], 7002))
    return held


def drained(stacks, service):
    """Have the only task of a service replaced; return it, once it says that it waits for a connection."""
    (old,) = stacks.cluster.running(service)
    stacks.cluster.argosy("service", "update", "--force", "--detach", service)

    def says(tasks):
        return [t for t in tasks if (t["id"], t["reason"]) == (old["id"], "draining 1 connection")]

    stacks.wait(service, says, "it finishes what it has")
    return old


def test_argosy_weight(stacks):
    assert stacks.inspect("u_stuck")["spec"]["task"]["weight"] == 3
