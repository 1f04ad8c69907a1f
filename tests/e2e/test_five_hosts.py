"""Five hosts: every task of a network talks to every other, in the clear and encrypted, also after a host was away.

An independent observer (observer.py) finds out from the hosts' kernels who there is.
"""

import itertools
from collections import Counter

import pytest

from tests.e2e.dev_cluster import wait_until
from tests.e2e.observer import GONE_S, Observer
from tests.e2e.test_chaos import assert_who_talks_to_whom

HOSTS = 5
UNDERLAY = {f"node{number}": f"198.18.1.{number}" for number in range(1, HOSTS + 1)}
NAMES = ["tasks.open", "tasks.closed", "tasks.both"]
COMPOSE = """
services:
  open: &service
    image: busybox:1
    init: true
    command: nc -ll -p 7000 -e hostname
    stop_grace_period: 1s
    networks: [open]
    deploy: {mode: global}
  closed: {<<: *service, networks: [closed]}
  both: {<<: *service, networks: [open, closed]}
networks:
  open: {}
  closed: {driver_opts: {encrypted: "true"}}
"""


@pytest.mark.timeout(300)
def test_on_five_hosts_everybody_talks_to_everybody(make_cluster, tmp_path):
    cluster = make_cluster(nodes=HOSTS)
    with Observer(cluster, UNDERLAY, NAMES) as observer:
        cluster.deploy("f", COMPOSE, tmp_path)
        assert_who_talks_to_whom(observer.look)
        assert_everybody_is_known(observer)

        with observer.cut_off("node5"):
            cluster.cut("node5")
            cluster.wait_node("node5", "DOWN")
            wait_until(lambda: named(observer)["node1", "tasks.open"] == HOSTS - 1, GONE_S, "its task is named no more")
            cluster.heal("node5")
            cluster.wait_node("node5", "READY")
        for service in ("f_open", "f_closed", "f_both"):
            cluster.wait_running(service, HOSTS)
        assert_who_talks_to_whom(observer.look)
        assert_everybody_is_known(observer)
        assert not observer.violations
        wait_until(
            lambda: cluster.run("network", "verify").returncode == 0, 20, lambda: cluster.run("network", "verify")
        )
        told = cluster.argosy("network", "verify")
        assert told.count(f"{HOSTS * (HOSTS - 1)} ways between {HOSTS} nodes, all good") == 2, told


def named(observer):
    """Return how many addresses each name has on each host, by (host, name)."""
    found = Counter()
    for asker, names in observer.look().named.items():
        for name, addresses in names.items():
            found[asker.host, name] = max(found[asker.host, name], len(addresses))
    return found


def assert_everybody_is_known(observer):
    """Wait until each name stands for the tasks of all hosts, on each of them."""
    everywhere = dict.fromkeys(itertools.product(UNDERLAY, NAMES), HOSTS)
    wait_until(lambda: named(observer) == everywhere, 20, lambda: f"all are named on all hosts: {named(observer)}")
