"""After a power cut of everything what depends on others starts after them, in whatever order all comes back.

`db` and `web` are on hosts of their own, and web waits for db to be healthy.
"""

import contextlib
from datetime import datetime

import pytest

from tests.e2e.dev_cluster import assert_throughout, wait_until

STACK = """
x-service: &service
  image: busybox:1
  init: true
  stop_grace_period: 1s
services:
  db:
    <<: *service
    command: sh -c 'sleep 3; echo up; touch /tmp/up; exec sleep 100001'
    healthcheck: {test: "test -e /tmp/up", interval: 500ms, start_interval: 200ms, start_period: 30s}
    deploy: {placement: {constraints: [node.hostname == node1]}, restart_policy: {delay: 100ms}}
  web:
    <<: *service
    command: sh -c 'echo begins; exec sleep 100002'
    depends_on: {db: {condition: service_healthy}}
    deploy: {placement: {constraints: [node.hostname == node2]}, restart_policy: {delay: 100ms}}
"""
DB, WEB = "sleep\x00100001", "sleep\x00100002"
LONG_S = 6.0
"""Longer than an agent waits for a controller before it restarts what crashed."""


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    cluster.deploy("p", STACK, tmp_path_factory.mktemp("stack"))
    return "p"


def first_line_at(cluster, task):
    lines = cluster.argosy("logs", "-t", "--no-prefix", task["id"]).splitlines()
    return datetime.fromisoformat(lines[0].split()[0]) if lines else None


def running_anew(cluster, service, before):
    found = wait_until(
        lambda: [t for t in cluster.running(service) if t["id"] not in before], 60, f"{service} runs again"
    )
    return found[0]


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize(
    "order",
    [("node2", "controllers", "node1"), ("node1", "node2", "controllers"), ("controllers", "node2", "node1")],
    ids="-".join,
)
def test_what_depends_on_others_starts_after_them(cluster, order):
    before = {t["id"] for t in cluster.running("p_db") + cluster.running("p_web")}
    assert len(before) == 2
    with contextlib.ExitStack() as rest:
        off = {name: rest.enter_context(contextlib.ExitStack()) for name in order}
        off["controllers"].enter_context(cluster.held_down("controller-1", "etcd-1"))
        off["node1"].enter_context(cluster.powered_off("node1"))
        off["node2"].enter_context(cluster.powered_off("node2"))
        assert not cluster.programs(DB)
        assert not cluster.programs(WEB)
        for name in order[:-1]:
            off[name].close()
            assert_throughout(LONG_S, lambda: not cluster.programs(WEB), f"{name} is back, and web waits")
        assert bool(cluster.programs(DB)) is (order[-1] == "controllers"), "db needs its own host alone"
        if order[-1] == "node1":
            said = [t["reason"] for t in cluster.tasks("p_web")]
            assert any(reason.startswith("waiting for p_db: healthy") for reason in said), said
    db, web = (running_anew(cluster, service, before) for service in ("p_db", "p_web"))
    wrote = wait_until(lambda: first_line_at(cluster, web), 20, "web writes")
    assert wrote > first_line_at(cluster, db)
