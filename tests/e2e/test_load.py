"""Under constant load, nothing that is done on purpose costs a request: updates, rollbacks, drains, fewer replicas.

The server exits at once when it is asked to stop. The client is on another host, calls the virtual address, and never
tries twice. Connections that are kept end in time with an answer that says so, and their tasks wait for that
(`drain_timeout`); one that nobody ends could only end under a request (docs/network.md).
"""

import time

import pytest

from tests.e2e.dev_cluster import wait_until
from tests.e2e.load import Keepers, Load
from tests.e2e.outside import Outside

pytestmark = [pytest.mark.timeout(600), pytest.mark.alone]
RATE = 200
"""Requests a second, and as many over connections that are kept."""
PATIENCE_S = 2.0
"""What a request may take. TCP repeats what was lost once or twice in that time, and no client or server does."""
KEPT_FOR = 5
"""Requests, until a server that keeps connections ends one with its answer, as nginx and Apache do after a number."""
COMPOSE = """
configs:
  keep:
    content: |
      n=0
      while read -r line; do
        if [ $${{#line}} -le 1 ]; then
          n=$$((n + 1)); last=; [ $$n -lt {kept_for} ] || last='Connection: close\\r\\n'
          printf "HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n$$last\\r\\nhello\\n"
          [ -z "$$last" ] || exit 0
        fi
      done
services:
  web:
    image: busybox:1
    init: true
    configs: [keep]
    command:
      - sh
      - -c
      - >-
        mkdir /tmp/www; echo hello >/tmp/www/hello; nc -ll -p 8001 -e sh /keep &
        until grep -q :1F41 /proc/net/tcp*; do :; done;
        exec httpd -f -p 8000 -h /tmp/www
    deploy:
      replicas: {replicas}
      update_config: {{parallelism: 5, monitor: 0s, order: start-first}}
      rollback_config: {{parallelism: 5, monitor: 0s}}
    x-argosy:
      readiness: {{tcp: {{port: 8000}}, interval: 200ms, start_interval: 50ms}}
  plain:
    image: busybox:1
    init: true
    command: nc -ll -p 8000 -e hostname
    deploy: {{replicas: 2, endpoint_mode: dnsrr}}
  sticky:
    image: busybox:1
    init: true
    hostname: "slot-{{{{.Task.Slot}}}}"
    command: nc -ll -p 8000 -e hostname
    deploy: {{replicas: 3, endpoint_mode: vip}}
    x-argosy: {{client_affinity: true}}
  client:
    image: busybox:1
    init: true
    command: sleep 100000
    deploy:
      placement: {{constraints: [node.hostname == node3]}}
"""


@pytest.fixture(scope="module")
def client(cluster, tmp_path_factory):
    """The stack runs; its client's task."""
    cluster.deploy("load", COMPOSE.format(replicas=20, kept_for=KEPT_FOR), tmp_path_factory.mktemp("load"))
    cluster.wait_running("load_web", 20)
    (client,) = cluster.running("load_client")
    return client


def virtual_address(cluster, service):
    """Return where a service is called."""
    (attachment,) = cluster.json("service", "inspect", service)[0]["virtual_addresses"]
    return attachment["address"]


def namespace(client):
    return f"/proc/{client['pid']}/ns/net"


def addresses(cluster, client, name):
    """Return what a name means to the client."""
    said = cluster.inside(client, "/bin/nslookup", "-type=a", name).partition("Name:")[2]
    return {line.split()[-1] for line in said.splitlines() if line.startswith("Address")}


def is_ready(cluster, service, count):
    tasks = cluster.running(service)
    return len(tasks) == count and not any(t.get("reason") for t in tasks)


STEPS = {
    "update": ["service", "update", "--env-add", "V={new}", "load_web"],
    "stop-first": ["service", "update", "--update-order", "stop-first", "--env-add", "V={new}", "load_web"],
    "rollback": ["service", "rollback", "load_web"],
    "drain": ["node", "drain", "node1"],
    "return": ["node", "activate", "node1"],
    "half": ["scale", "load_web=10"],
}


@pytest.mark.parametrize("step", STEPS)
def test_no_request_is_lost(cluster, client, step):
    change_under_load(cluster, client, step)


@pytest.mark.long
@pytest.mark.parametrize("number", range(10))
def test_no_request_is_lost_ten_times_over(cluster, client, number):
    for step in STEPS:
        change_under_load(cluster, client, step)


def change_under_load(cluster, client, step):
    """Begin with 20 that are ready; carry a step out, and see every request answered from before it until after it.

    There are so many over connections of their own, and as many over connections that are kept.
    """
    cluster.argosy("scale", "load_web=20")
    wait_until(lambda: is_ready(cluster, "load_web", 20), 60, "all ready")
    address = virtual_address(cluster, "load_web")
    load = Load(namespace(client), (address, 8000), RATE, PATIENCE_S)
    keepers = Keepers(namespace(client), (address, 8001), RATE, PATIENCE_S, count=RATE // 10)

    def answered(more):
        counted = [one.answered + more for one in (load, keepers)]
        wait_until(
            lambda: all(one.answered > n for one, n in zip((load, keepers), counted, strict=True)), 30, "answers"
        )

    with load, keepers:
        answered(RATE / 4)
        before = {t["id"] for t in cluster.running("load_web")}
        cluster.argosy(*(word.format(new=time.time_ns()) for word in STEPS[step]))
        answered(RATE / 2)
        after = {t["id"] for t in cluster.running("load_web")}
    for one in (load, keepers):
        what = f"of {type(one).__name__} {len(one.failures)} failed, {one.answered} answered"
        assert one.failures == [], f"{what}: {one.failures[:3]}"
        assert one.asked > 0.9 * one.rate * one.lasted_s, what
    assert keepers.connections > keepers.answered / (KEPT_FOR + 1)
    assert step == "return" or before != after


def test_no_request_to_a_port_is_lost_while_an_update_takes_its_tasks_to_another_network(cluster, tmp_path):
    """From outside, over a node; there and back, first in front of the one that it has, then in its place."""
    compose = """
networks: {{one: {{}}, other: {{}}}}
services:
  web:
    image: busybox:1
    init: true
    command: sh -c "mkdir /tmp/www; echo hello >/tmp/www/hello; exec httpd -f -p 8000 -h /tmp/www"
    ports: ["8095:8000"]
    networks: [{networks}]
    deploy:
      replicas: 3
      update_config: {{monitor: 0s, order: start-first}}
    x-argosy:
      readiness: {{tcp: {{port: 8000}}, interval: 200ms, start_interval: 50ms}}
"""

    def deploy(networks):
        cluster.deploy("moving", compose.format(networks=networks), tmp_path)
        wait_until(lambda: is_ready(cluster, "moving_web", 3), 60, "all ready")

    deploy("one")
    (node,) = (n for n in cluster.json("node", "ls") if n["name"] == "node3")
    client = Outside(cluster)
    try:
        for networks in ("other, one", "other", "one"):
            before = {t["id"] for t in cluster.running("moving_web")}
            load = Load(client.namespace, (node["address"], 8095), RATE, PATIENCE_S)
            with load:
                wait_until(lambda load=load: load.answered > RATE / 4, 30, "answers")
                deploy(networks)
                counted = load.answered
                wait_until(lambda load=load, n=counted: load.answered > n + RATE / 2, 30, "answers")
            what = f"to {networks}: {len(load.failures)} failed, {load.answered} answered"
            assert load.failures == [], f"{what}: {load.failures[:3]}"
            assert not before & {t["id"] for t in cluster.running("moving_web")}
    finally:
        client.close()
        cluster.argosy("stack", "rm", "moving")


def test_deploy_endpoint_mode(cluster, client):
    endpoints = {t["addresses"][0] for t in cluster.running("load_plain")}
    assert addresses(cluster, client, "plain") == addresses(cluster, client, "tasks.plain") == endpoints
    web = {t["addresses"][0] for t in cluster.running("load_web")}
    assert addresses(cluster, client, "web") == {virtual_address(cluster, "load_web")}
    assert addresses(cluster, client, "tasks.web") == web


def test_argosy_client_affinity(cluster, client):
    answers = {cluster.inside(client, "/bin/nc", "-w", "5", "sticky", "8000") for _ in range(6)}
    assert len(answers) == 1
