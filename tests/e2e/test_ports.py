"""Published ports on three hosts: a client outside of the cluster, the hosts themselves, containers; and refusals.

The servers are sockets of the test's own, in the tasks' network namespaces: they answer with the task's slot and the
client that they see.
"""

import socket
import threading
from contextlib import ExitStack, suppress

import pytest

from tests.e2e import wire
from tests.e2e.dev_cluster import wait_until
from tests.e2e.outside import Outside

COMPOSE = """
services:
  web:
    image: busybox:1
    command: [sleep, "100000"]
    init: true
    stop_grace_period: 1s
    deploy: {replicas: 2, placement: {max_replicas_per_node: 1}}
    ports:
      - "8080:80"
      - "5300:53/udp"
      - "3000-3001:9000-9001"
      - "127.0.0.1:8088:80"
      - "81"
      - {target: 82, published: "8082", mode: host, protocol: tcp, name: direct}
      - {target: 83, mode: host, host_ip: 0.0.0.0}
  guest:
    image: busybox:1
    command: [sleep, "100000"]
    init: true
    stop_grace_period: 1s
"""

SLEEP = ("--init", "--stop-grace-period", "1s", "--update-monitor", "200ms", "busybox:1", "sleep", "1000")


def create(name):
    return ("service", "create", "--name", name, "--network", "p_default")


class Server:
    """Answers on a port of a task, until closed, with its slot and the client's address."""

    def __init__(self, task, port, kind=socket.SOCK_STREAM):
        namespace = f"/proc/{task['pid']}/ns/net"
        self._text = f"{task['slot']} {{}}".format
        if kind == socket.SOCK_STREAM:
            self._socket = wire.listen(namespace, ("0.0.0.0", port))
        else:
            self._socket = wire.datagrams(namespace, ("0.0.0.0", port))
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(kind,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _run(self, kind):
        while not self._ended.is_set():
            with suppress(TimeoutError):
                if kind == socket.SOCK_STREAM:
                    client, (address, _) = self._socket.accept()
                    with client:
                        client.sendall(self._text(address).encode())
                else:
                    _, client = self._socket.recvfrom(100)
                    self._socket.sendto(self._text(client[0]).encode(), client)


@pytest.fixture(scope="module")
def outside(cluster):
    client = Outside(cluster)
    yield client
    client.close()


def ask(namespace, address, port, kind=socket.SOCK_STREAM):
    """Return what is answered there, "refused", or "" for nothing."""
    with wire.socket_in(namespace, socket.AF_INET, kind) as asking:
        asking.settimeout(2)
        try:
            asking.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                asking.send(b"?")
            return asking.recv(100).decode()
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return ""


@pytest.fixture(scope="module")
def published(cluster, tmp_path_factory):
    """The stack: the running tasks of `web` by node, and the hosts' addresses. One of three hosts has none."""
    cluster.deploy("p", COMPOSE, tmp_path_factory.mktemp("ports"))
    addresses = {node["name"]: node["address"] for node in cluster.json("node", "ls")}
    tasks = {task["node"]: task for task in cluster.running("p_web")}
    assert len(addresses) == 3
    assert len(tasks) == 2
    return tasks, addresses


def serve(stack, tasks, port, kind=socket.SOCK_STREAM):
    for task in tasks.values():
        stack.enter_context(Server(task, port, kind))


def slots(tasks):
    return {str(task["slot"]) for task in tasks.values()}


def shown(cluster, service="p_web"):
    """Return the ports of a service as `service ls` shows them."""
    return next(s["ports"] for s in cluster.json("service", "ls") if s["name"] == service)


def test_ports(cluster, published, outside):
    """TCP and UDP, a range, a chosen number: every node leads to every task, which sees the client's address."""
    tasks, addresses = published
    chosen = next(text for text in shown(cluster) if text.endswith("->81/tcp"))
    number = int(chosen.removeprefix("*:").partition("->")[0])
    assert 30000 <= number <= 32767
    with ExitStack() as stack:
        for port in (80, 81, 9000, 9001):
            serve(stack, tasks, port)
        serve(stack, tasks, 53, socket.SOCK_DGRAM)
        for address in addresses.values():
            for port in (8080, number, 3000, 3001):
                answers = [ask(outside.namespace, address, port).split() for _ in range(4)]
                assert {seen for _, seen in answers} == {outside.address}
                assert {slot for slot, _ in answers} == slots(tasks)
            assert ask(outside.namespace, address, 5300, socket.SOCK_DGRAM).endswith(f" {outside.address}")
            assert ask(outside.namespace, address, 9000) == "refused"


def test_the_nodes_and_their_containers_reach_the_ports(cluster, published):
    """A host by 127.0.0.1 and by its own address, which the server sees; a container by any host's address."""
    tasks, addresses = published
    (guest,) = cluster.running("p_guest")
    inside = f"/proc/{guest['pid']}/ns/net"
    with ExitStack() as stack:
        serve(stack, tasks, 80)
        serve(stack, tasks, 53, socket.SOCK_DGRAM)
        for node, address in addresses.items():
            host = f"/proc/{cluster.holder(node)}/ns/net"
            assert {ask(host, "127.0.0.1", 8080)[0] for _ in range(4)} == slots(tasks)
            assert ask(host, "127.0.0.1", 5300, socket.SOCK_DGRAM)[0] in slots(tasks)
            assert ask(host, address, 8080).endswith(f" {address}")
            assert ask(inside, address, 8080)[0] in slots(tasks)


def test_ports_of_one_address(cluster, published, outside):
    tasks, addresses = published
    with ExitStack() as stack:
        serve(stack, tasks, 80)
        for node, address in addresses.items():
            assert ask(f"/proc/{cluster.holder(node)}/ns/net", "127.0.0.1", 8088)[0] in slots(tasks)
            assert ask(outside.namespace, address, 8088) == "refused"


def test_ports_in_host_mode(cluster, published, outside):
    """The host's own task answers, and a host without one does not. A third task finds no node with the port."""
    tasks, addresses = published
    own = {text for task in tasks.values() for text in task["ports"]}
    chosen = next(text for text in own if text.endswith("->83/tcp"))
    assert own == {"*:8082->82/tcp", chosen}
    number = int(chosen.removeprefix("*:").partition("->")[0])
    with ExitStack() as stack:
        serve(stack, tasks, 82)
        serve(stack, tasks, 83)
        for node, address in addresses.items():
            for port in (8082, number):
                wanted = f"{tasks[node]['slot']} {outside.address}" if node in tasks else "refused"
                assert ask(outside.namespace, address, port) == wanted
    port = ("-p", "published=8082,target=82,mode=host")
    cluster.argosy(*create("third"), *port, "--detach", "--replicas", "2", *SLEEP)
    waiting = wait_until(
        lambda: [t for t in cluster.tasks("third") if "8082/tcp" in t["reason"]], 20, lambda: cluster.argosy("ps", "-a")
    )
    assert "port 8082/tcp" in waiting[0]["reason"]
    cluster.argosy("service", "rm", "third")


def test_a_number_at_two_addresses_of_a_host_is_two_ports(cluster, published, outside):
    """Each of two services has its own task there, on one node; a third, which wants all addresses, waits."""
    _, addresses = published
    node = min(addresses)
    places = {"east": addresses[node], "west": addresses[node].rpartition(".")[0] + ".77"}
    cluster.on_host(node, "ip", "address", "add", f"{places['west']}/32", "dev", "eth0")
    there = ("--constraint", f"node.hostname=={node}", "-p")
    for name, place in places.items():
        cluster.argosy(*create(name), *there, f"published=7053,target=53,mode=host,host_ip={place}", *SLEEP)
    with ExitStack() as stack:
        for name in places:
            (task,) = cluster.running(name)
            stack.enter_context(Server({**task, "slot": name}, 53))
        for name, place in places.items():
            assert ask(outside.namespace, place, 7053) == f"{name} {outside.address}"
    cluster.argosy(*create("both"), "--detach", *there, "published=7053,target=53,mode=host", *SLEEP)
    wait_until(
        lambda: [t for t in cluster.tasks("both") if "no port 7053/tcp left" in t["reason"]],
        20,
        lambda: cluster.argosy("ps", "-a"),
    )
    cluster.argosy("service", "rm", "both", *places)
    cluster.on_host(node, "ip", "address", "del", f"{places['west']}/32", "dev", "eth0")


def test_a_port_is_given_once_kept_and_given_back(cluster, published, outside):
    """Another service is refused what one has. A chosen number stays through updates and goes with the service."""
    refused = cluster.run(*create("other"), "-p", "8080:1", *SLEEP)
    assert refused.returncode != 0
    assert "port 8080/tcp is published by service p_web" in refused.stderr
    lonely = cluster.run("service", "create", "--name", "other", "-p", "9090:1", "busybox:1")
    assert "is on no network" in lonely.stderr
    cluster.argosy(*create("other"), "-p", "85", "-p", "9090:86/udp", *SLEEP)
    before = shown(cluster, "other")
    assert before[1:] == ["*:9090->86/udp"]
    cluster.argosy("service", "update", "--publish-add", "9091:87", "--publish-rm", "86/udp", "other")
    assert shown(cluster, "other") == [before[0], "*:9091->87/tcp"]
    cluster.argosy("service", "update", "--force", "other")
    assert shown(cluster, "other") == [before[0], "*:9091->87/tcp"]
    cluster.argosy("service", "rm", "other")
    cluster.argosy(*create("again"), "-p", "85", *SLEEP)
    assert shown(cluster, "again") == before[:1]
    cluster.argosy("service", "rm", "again")


def test_a_port_that_a_program_of_a_host_has_is_a_reason(cluster, published, outside):
    """That node leaves it to the program and says so; a task in host mode is refused there."""
    tasks, addresses = published
    (free,) = addresses.keys() - tasks.keys()
    with wire.listen(f"/proc/{cluster.holder(free)}/ns/net", ("0.0.0.0", 7777)):
        cluster.argosy("service", "update", "--detach", "--publish-add", "7777:80", "p_web")

        def problems():
            return next(s["problems"] for s in cluster.json("service", "ls") if s["name"] == "p_web")

        told = wait_until(problems, 20, lambda: cluster.argosy("service", "ls"))
        assert told[0].startswith("port 7777/tcp of the host is taken by ")
        assert told[0].endswith(f"({free})")
        with ExitStack() as stack:
            serve(stack, tasks, 80)
            for node, address in addresses.items():
                assert (ask(outside.namespace, address, 7777)[:1] in slots(tasks)) is (node != free)
        cluster.argosy("service", "update", "--detach", "--publish-rm", "7777:80", "p_web")
        port = ("-p", "published=7777,target=1,mode=host")
        cluster.argosy(*create("there"), *port, "--detach", "--constraint", f"node.hostname=={free}", *SLEEP)
        rejected = wait_until(
            lambda: [t for t in cluster.tasks("there", ended=True) if t["state"] == "REJECTED"], 30, cluster.log_tails
        )
        assert rejected[0]["reason"].startswith("port 7777/tcp of the host is taken by ")
    cluster.argosy("service", "rm", "there")


def test_a_task_goes_where_its_port_can_be_had(cluster, published, outside):
    """Not to the host whose program has the port, though it is the emptiest, nor to one without the port's address."""
    tasks, addresses = published
    (free,) = addresses.keys() - tasks.keys()
    with wire.listen(f"/proc/{cluster.holder(free)}/ns/net", ("0.0.0.0", 7778)):
        cluster.argosy(*create("east"), "--replicas", "2", "-p", "published=7778,target=1,mode=host", *SLEEP)
        assert {task["node"] for task in cluster.running("east")} == set(tasks)
    for node, address in addresses.items():
        cluster.argosy(*create("west"), "-p", f"published=7779,target=1,mode=host,host_ip={address}", *SLEEP)
        assert [task["node"] for task in cluster.running("west")] == [node]
        assert not [t for t in cluster.tasks("west", ended=True) if t["state"] == "REJECTED"]
        cluster.argosy("service", "rm", "west")
    cluster.argosy("service", "rm", "east")
