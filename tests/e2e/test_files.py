"""Configs and secrets on three hosts: who gets them, as what, what a new version does, and where no secret ever is."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.container import Container
from tests.e2e.dev_cluster import wait_until

COMPOSE = """
services:
  web:
    image: busybox:1
    command: [sleep, "1000"]
    stop_grace_period: 0s
    deploy:
      placement: {constraints: ["node.hostname==node1"]}
      update_config: {monitor: 100ms}
      rollback_config: {monitor: 100ms}
      restart_policy: {delay: 100ms}
    read_only: true
    user: "1000:1001"
    configs:
      - motd
      - {source: inline, target: /etc/app/deep/conf.ini, uid: "1000", gid: "1001", mode: "0640"}
      - from_env
      - outside
      - renamed
    secrets:
      - token
      - {source: pass, target: db, uid: "1000", mode: "0400"}
      - source: outer
        target: /srv/outer
  other:
    image: busybox:1
    command: [sleep, "1000"]
    stop_grace_period: 0s
    deploy: {placement: {constraints: ["node.hostname==node2"]}}
configs:
  motd: {file: ./motd.txt, labels: {a: b}}
  inline: {content: "name=${HOME:+x}\\n"}
  from_env: {environment: FILES_E2E}
  outside: {external: true}
  renamed: {name: another, content: renamed}
secrets:
  token: {file: ./token.txt, labels: {a: b}}
  pass: {environment: FILES_E2E_SECRET}
  outer: {external: true, name: outside}
"""
TOKEN = "tok-5f1c-do-not-show-this"
PASSWORD = "pw-77aa-do-not-show-this"
OUTER = "out-91ee-do-not-show-this"
ALL_SECRETS = (TOKEN, PASSWORD, OUTER)


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    """The stack `f`, deployed; returns its directory."""
    directory = tmp_path_factory.mktemp("files")
    (directory / "motd.txt").write_text("first\n")
    (directory / "token.txt").write_text(TOKEN)
    cluster.environment |= {"FILES_E2E": "from here", "FILES_E2E_SECRET": PASSWORD}
    cluster.argosy("config", "create", "outside", "-", stdin="external\n")
    said = cluster.argosy("secret", "create", "outside", "-", stdin=OUTER)
    said += cluster.deploy("f", COMPOSE, directory)
    assert not any(secret in said for secret in ALL_SECRETS)
    return directory


def web(cluster):
    """Return the container of f_web."""
    return Container(cluster, cluster.wait_running("f_web", 1)[0])


def facts(container, path):
    """Return (mode, uid, gid) of a file in a container."""
    return tuple(container.inside("stat", "-c", "%a %u %g", path).split())


def test_configs(cluster, stack):
    box = web(cluster)
    assert box.inside("cat", "/motd", "/etc/app/deep/conf.ini", "/from_env", "/outside", "/renamed") == (
        "first\nname=x\nfrom hereexternal\nrenamed"
    )
    assert facts(box, "/motd") == ("444", "0", "0")
    assert facts(box, "/etc/app/deep/conf.ini") == ("640", "1000", "1001")
    assert "Read-only file system" in box.try_inside("sh", "-c", "echo x >/motd").stderr
    names = {c["name"]: c for c in cluster.json("config", "ls")}
    assert set(names) == {"outside", "f_motd", "f_inline", "f_from_env", "another"}
    assert names["f_motd"]["labels"] == {"a": "b", "argosy.stack": "f"}
    shown = cluster.json("config", "inspect", "f_motd")[0]
    assert (shown["data"], shown["services"], shown["versions"]) == ("first\n", ["f_web"], [1])


def test_secrets(cluster, stack):
    box = web(cluster)
    assert box.inside("cat", "/run/secrets/token", "/run/secrets/db", "/srv/outer") == TOKEN + PASSWORD + OUTER
    assert facts(box, "/run/secrets/token") == ("444", "0", "0")
    assert facts(box, "/run/secrets/db") == ("400", "1000", "0")
    assert "ramfs" in [line.split()[2] for line in box.inside("cat", "/proc/mounts").splitlines() if "secrets/" in line]
    assert "Read-only file system" in box.try_inside("sh", "-c", "echo x >/run/secrets/token").stderr
    shown = cluster.argosy("secret", "inspect", "f_token", "f_pass", "outside")
    shown += cluster.argosy("secret", "ls") + cluster.argosy("service", "inspect", "f_web") + cluster.argosy("ps", "-a")
    assert not any(secret in shown for secret in ALL_SECRETS)


def kept(cluster, host, what="all"):
    """Return the names of the secrets that a host's agent keeps; of "tasks" those of the tasks that have some."""
    look = ["nsenter", f"--target={cluster.holder(host)}", "--mount", "--", "ls", f"/run/argosy/secrets/{what}"]
    done = subprocess.run(look, capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def test_a_secret_is_only_where_a_task_uses_it_and_nowhere_else(cluster, stack):
    web(cluster)
    assert len(kept(cluster, "node1")) == 3
    assert not kept(cluster, "node2") | kept(cluster, "node3")
    for root in (cluster.run_dir, Path("/var/lib/argosy/dev") / cluster.name):
        grep = ["grep", "-rlaF", *(f"-e{secret}" for secret in ALL_SECRETS), str(root)]
        assert subprocess.run(grep, capture_output=True, text=True, check=False).stdout == ""
    environments = b"".join(read(path) for path in Path("/proc").glob("[0-9]*/environ") if of_cluster(path, cluster))
    assert environments
    assert not any(secret.encode() in environments for secret in ALL_SECRETS)


def read(path):
    """Return a file of /proc, whose process may end meanwhile."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def of_cluster(path, cluster):
    """Whether a process is one of the cluster's, its containers' included."""
    groups = [line.split(b"/") for line in read(path.with_name("cgroup")).splitlines()]
    return any(f"dev-{cluster.name}".encode() in parts for parts in groups)


def test_an_agent_started_anew_without_a_controller_still_has_the_secrets(cluster, stack):
    before = web(cluster)
    cluster.kill("controller-1", signal.SIGSTOP)
    try:
        agent = cluster.kill("agent-node1")
        wait_until(lambda: cluster.pid("agent-node1") != agent, 30, "another agent")
        assert Path(f"/proc/{before.pid}").exists()
        os.kill(before.pid, signal.SIGKILL)
        wait_until(lambda: kept(cluster, "node1", "tasks") - {before.task["id"]}, 60, "a successor got its secrets")
    finally:
        cluster.kill("controller-1", signal.SIGCONT)
    after = wait_until(lambda: [t for t in cluster.running("f_web") if t["id"] != before.task["id"]], 60, "a successor")
    assert Container(cluster, after[0]).inside("cat", "/run/secrets/token") == TOKEN


def test_a_new_version_updates_the_service_and_a_rollback_brings_the_old_one_back(cluster, stack):
    first = web(cluster).task
    assert "holds that already" in cluster.argosy("config", "create", "outside", "-", stdin="external\n")
    assert "f_web" in cluster.argosy("config", "create", "outside", "-", stdin="second\n")

    def has(text, but):
        tasks = [t for t in cluster.running("f_web") if t["id"] != but["id"]]
        return tasks if tasks and Container(cluster, tasks[0]).try_inside("cat", "/outside").stdout == text else None

    second = wait_until(lambda: has("second\n", first), 60, "f_web has the second version")[0]
    cluster.argosy("service", "rollback", "f_web")
    third = wait_until(lambda: has("external\n", second), 60, "f_web has the first version again")[0]
    cluster.kill("controller-1")  # who leads next must not take the rollback for unfinished
    wait_until(lambda: cluster.run("node", "ls").returncode == 0, 30, "a controller leads")
    (stack / "motd.txt").write_text("changed\n")
    (stack / "token.txt").write_text(TOKEN + "2")
    assert cluster.running("f_web")[0]["id"] == third["id"]
    cluster.deploy("f", COMPOSE, stack)
    box = web(cluster)
    assert box.inside("cat", "/motd", "/run/secrets/token", "/outside") == f"changed\n{TOKEN}2second\n"


def test_what_is_used_stays_and_a_stack_takes_its_own_along(cluster, stack):
    refused = cluster.run("secret", "rm", "outside")
    assert refused.returncode != 0
    assert "is used by f_web" in refused.stderr
    cluster.argosy("stack", "rm", "f")
    assert [c["name"] for c in cluster.json("config", "ls")] == ["outside"]
    wait_until(lambda: not kept(cluster, "node1"), 30, "the secrets are gone from node1")
    cluster.argosy("secret", "rm", "outside")
    cluster.argosy("config", "rm", "outside")
    assert cluster.json("secret", "ls") == cluster.json("config", "ls") == []


def test_a_bind_of_a_file_is_refused_and_can_be_shipped(cluster, tmp_path):
    (tmp_path / "a.conf").write_text("shipped\n")
    text = (
        'services: {s: {image: "busybox:1", command: [sleep, "99"], stop_grace_period: 0s, '
        'volumes: ["./a.conf:/etc/a.conf:ro"]}}'
    )
    (tmp_path / "s.yaml").write_text(text)
    refused = cluster.run("deploy", "-c", str(tmp_path / "s.yaml"), "s")
    assert refused.returncode != 0
    assert "--ship-files" in refused.stderr
    cluster.deploy("s", text, tmp_path, "--ship-files")
    assert Container(cluster, cluster.wait_running("s_s", 1)[0]).inside("cat", "/etc/a.conf") == "shipped\n"
    cluster.argosy("stack", "rm", "s")
