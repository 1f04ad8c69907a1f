"""Hundreds of real tasks live and end while controllers and agents are killed: nothing of them is left anywhere.

The ten thousand lives are in tests/controller/test_lives.py, without containers; a few lives end every chaos.
"""

import os

import pytest

from tests.e2e.dev_cluster import wait_until
from tests.e2e.leftovers import in_etcd, on_host

COMPOSE = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    networks: [one, two]
    deploy: {replicas: 15, update_config: {parallelism: 15, monitor: 0s}}
    x-argosy: {drain_timeout: 300ms}
  dice:
    image: busybox:1
    command: sh -c 'exit 0'
    networks: [one]
    deploy: {replicas: 3, restart_policy: {delay: 500ms}}
networks:
  one: {}
  two: {internal: true}
"""
LIVES = 500
VICTIMS = ("controller-1", "agent-node1", "controller-1", "agent-node2", "agent-node3")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_is_left_of_hundreds_of_lives(make_cluster, tmp_path):
    cluster = make_cluster()
    seen = set()
    path = tmp_path / "leaks.yaml"
    path.write_text(COMPOSE)
    cluster.argosy("deploy", "-d", "-c", str(path), "l")  # the dice end again and again: that is never done
    cluster.wait_running("l_web", 15)
    before = descriptors(cluster)
    number = 0
    while len(seen) < LIVES:
        cluster.argosy("service", "update", "-d", "--env-add", f"N={number}", "l_web")
        victim = VICTIMS[number % len(VICTIMS)]
        if number % 3 == 0:
            cluster.wait_restarted(victim, cluster.kill(victim), timeout=60)
        cluster.argosy("service", "update", "--env-add", f"M={number}", "l_web")
        cluster.wait_running("l_web", 15, timeout=60)
        seen |= {t["id"] for t in cluster.tasks(ended=True)}
        number += 1
    wait_until(lambda: descriptors(cluster) < before + 60, 30, lambda: (before, descriptors(cluster)))
    cluster.argosy("stack", "rm", "l")
    for host in cluster.nodes:
        wait_until(lambda h=host: not on_host(cluster, h), 20, lambda h=host: on_host(cluster, h))
    wait_until(lambda: not in_etcd(cluster), 20, lambda: in_etcd(cluster))


def descriptors(cluster):
    """Return how many files the agents have open."""
    return sum(len(os.listdir(f"/proc/{cluster.pid(f'agent-{node}')}/fd")) for node in cluster.nodes)
