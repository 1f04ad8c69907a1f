"""Published ports: from anywhere, through any node, with the client's address; and back the same way."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from ingress_world import CLIENT, WEB, Published, ask
from network_world import Container, Host, Namespace, World, wait_until

from argosy.agent.logic.network_state import Link
from argosy.agent.network.kernel import KernelNamespace
from argosy.agent.network.nft import Nft
from argosy.core.assignment import EndpointAssignment, PublishedAssignment
from argosy.core.errors import TransientError
from argosy.core.service import HostPort, PortSpec

CHANGES = 500
"""Of which some meet a packet."""
PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp"])
MODES = pytest.mark.parametrize("mode", ["ingress", "host"])


def test_every_node_answers_and_the_client_keeps_its_address(wire: World, web: Published) -> None:
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    for host in wire.hosts:
        assert ask(wire.outside, server, host.address, 8080) == CLIENT
        assert host.do(host.plane.verify()) == []


def test_one_client_port_comes_in_by_two_nodes_at_once(wire: World, web: Published) -> None:
    """As those of every proxy do. The server sees the same address twice, and each connection its own answers."""
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    connections = []
    with server.listen("0.0.0.0", 80) as listening:
        for host in wire.hosts:
            calling = wire.outside.open_socket()
            calling.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            calling.bind((CLIENT, 5555))
            calling.connect((host.address, 8080))
            answering, (seen, _) = listening.accept()
            assert seen == CLIENT
            connections.append((host, calling, answering))
    for host, calling, answering in connections:
        calling.sendall(host.name.encode())
        assert answering.recv(100).decode() == host.name
    for host, calling, answering in reversed(connections):
        answering.sendall(b"for " + host.name.encode())
        assert calling.recv(100).decode() == f"for {host.name}"
        calling.close()
        answering.close()


def test_datagrams_come_in_and_are_answered(wire: World, web: Published) -> None:
    server = web.add(wire.hosts[1], "taskbbbbbbbb1", "10.64.0.65")
    web.ports = (PortSpec(protocol="udp", target=53, published=5300),)
    web.apply()
    with server.open_socket(socket.SOCK_DGRAM) as answering:
        answering.bind(("0.0.0.0", 53))
        for host in wire.hosts:
            with wire.outside.open_socket(socket.SOCK_DGRAM) as asking:
                asking.connect((host.address, 5300))
                asking.send(b"who?")
                said, who = answering.recvfrom(100)
                assert (said, who) == (b"who?", asking.getsockname())
                answering.sendto(b"me", who)
                assert asking.recv(100) == b"me"


def test_datagrams_that_came_before_the_port_was_open_find_it(wire: World, web: Published) -> None:
    """The host remembers a client that keeps on sending as one of its own."""
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.apply()
    host = wire.hosts[1]
    with server.open_socket(socket.SOCK_DGRAM) as answering, wire.outside.open_socket(socket.SOCK_DGRAM) as asking:
        answering.bind(("0.0.0.0", 53))
        asking.bind(("0.0.0.0", 6000))
        with host.namespace.open_socket(socket.SOCK_DGRAM) as before:
            before.bind(("0.0.0.0", 5300))
            asking.sendto(b"early", (host.address, 5300))
            assert before.recv(100) == b"early"
        web.ports = (PortSpec(protocol="udp", target=53, published=5300),)
        web.apply()
        asking.sendto(b"now", (host.address, 5300))
        assert answering.recvfrom(100) == (b"now", (CLIENT, 6000))


@MODES
@PROTOCOLS
def test_a_node_reaches_the_ports_itself(wire: World, web: Published, protocol: str, mode: str) -> None:
    """By 127.0.0.1, which nobody else can answer to, and by its own address, which the server sees."""
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    entries = web.publish(mode, protocol)
    for host in entries:
        assert ask(host.namespace, server, "127.0.0.1", 8080, protocol=protocol).startswith("169.254.")
        assert ask(host.namespace, server, host.address, 8080, protocol=protocol) == host.address
    for host in wire.hosts:
        assert ask(host.namespace, server, entries[-1].address, 8080, protocol=protocol) == host.address


@MODES
@PROTOCOLS
def test_containers_reach_the_ports(wire: World, web: Published, protocol: str, mode: str) -> None:
    """Their own host's and another's; also the task itself, which then must not see its own address."""
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    beside = web.add(wire.hosts[0], "taskaaaaaaaa2", "10.64.0.34", "other")
    far = web.add(wire.hosts[1], "taskbbbbbbbb1", "10.64.0.65", "other")
    entries = web.publish(mode, protocol)[:2]
    for client in (beside, far, server):
        for host in entries:
            seen = ask(client, server, host.address, 8080, protocol=protocol)
            assert seen in ({client.host.address} if client.host is not host else {seen})
            assert not seen.startswith("10.64.")


def test_no_answer_of_a_container_is_taken_for_a_tunnel(wire: World, web: Published) -> None:
    """An answer goes to the port that was asked from; at the tunnels' own it would be in any network (VXLAN).

    So a container that asks from that port is seen with another one, and gets its answer; whoever else asks from it
    gets none.
    """
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    beside = web.add(wire.hosts[0], "taskaaaaaaaa2", "10.64.0.34", "other")
    far = web.add(wire.hosts[1], "taskbbbbbbbb1", "10.64.0.65", "other")
    web.publish("ingress", "udp")
    with server.open_socket(socket.SOCK_DGRAM) as answering:
        answering.bind(("0.0.0.0", 80))
        for client in (beside, far):
            for host in wire.hosts:
                with client.open_socket(socket.SOCK_DGRAM) as asking:
                    asking.bind(("0.0.0.0", 14789))
                    asking.sendto(b"who?", (host.address, 8080))
                    who = answering.recvfrom(100)[1]
                    assert who[1] != 14789
                    answering.sendto(b"me", who)
                    assert asking.recv(100) == b"me"
        with wire.outside.open_socket(socket.SOCK_DGRAM) as stranger:
            stranger.bind((CLIENT, 14789))
            for host in wire.hosts:
                stranger.sendto(b"who?", (host.address, 8080))
                answering.sendto(b"a tunnel's packet", answering.recvfrom(100)[1])
                with wire.outside.open_socket(socket.SOCK_DGRAM) as asking:  # after it, by the same way
                    asking.sendto(b"who?", (host.address, 8080))
                    answering.sendto(b"me", answering.recvfrom(100)[1])
                    assert asking.recv(100) == b"me"
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):
                stranger.recv(100)


@MODES
@PROTOCOLS
def test_containers_of_another_network_reach_the_ports(wire: World, web: Published, protocol: str, mode: str) -> None:
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    wire.add_network("othernet00002", "10.64.0.0/16", {"h1": (1,), "h2": (2,)})
    entries = web.publish(mode, protocol)
    other = wire.hosts[0].start_container("taskcccccccc1", ("othernet00002", "10.64.0.33"))
    web.apply()
    for host in entries:
        ask(other, server, host.address, 8080, protocol=protocol)


def test_host_mode_leads_to_tasks_of_the_node_alone(wire: World, web: Published) -> None:
    one = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    two = web.add(wire.hosts[1], "taskbbbbbbbb1", "10.64.0.65")
    for host in wire.hosts[:2]:
        host.host_ports = (HostPort("tcp", 8080, 80),)
    web.apply()
    for _ in range(3):
        assert ask(wire.outside, one, wire.hosts[0].address, 8080) == CLIENT
        assert ask(wire.outside, two, wire.hosts[1].address, 8080) == CLIENT
    with wire.outside.open_socket() as calling:
        assert calling.connect_ex((wire.hosts[2].address, 8080)) == 111  # ECONNREFUSED


def test_a_port_of_one_address(wire: World, web: Published) -> None:
    """127.0.0.1 alone; and two services with one port, each at an address of its own."""
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    wire.hosts[1].sh("ip addr add 192.0.2.77/24 dev eth0")
    web.ports = (
        PortSpec(target=80, published=8080, host_ip="127.0.0.1"),
        PortSpec(target=81, published=8080, host_ip="192.0.2.77"),
    )
    web.apply()
    ask(wire.hosts[1].namespace, server, "127.0.0.1", 8080)
    with wire.outside.open_socket() as calling:
        assert calling.connect_ex((wire.hosts[1].address, 8080)) == 111
    with server.listen("0.0.0.0", 81), wire.outside.open_socket() as calling:
        calling.connect(("192.0.2.77", 8080))
    assert [p.reason for p in wire.hosts[0].plane.port_problems] == ["the host has no address 192.0.2.77"]
    assert wire.hosts[1].plane.port_problems == ()


def test_endpoints_share_and_leave(wire: World, web: Published) -> None:
    """New connections go to those that are not withdrawn; without one they are refused at once."""
    one = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    two = web.add(wire.hosts[1], "taskbbbbbbbb1", "10.64.0.65")
    web.ports = (PortSpec(target=80, published=8080), PortSpec(protocol="udp", target=80, published=8080))
    web.apply()
    entry = wire.hosts[2].address
    with one.listen("0.0.0.0", 80) as first, two.listen("0.0.0.0", 80) as second:

        def took() -> str:
            with wire.outside.open_socket() as calling:
                calling.connect((entry, 8080))
                for name, listening in (("one", first), ("two", second)):
                    listening.settimeout(0.2)
                    try:
                        listening.accept()[0].close()
                    except TimeoutError:
                        continue
                    return name
            raise AssertionError("nobody")

        assert {took() for _ in range(4)} == {"one", "two"}
        web.endpoints["taskaaaaaaaa1"] = replace(web.endpoints["taskaaaaaaaa1"], withdrawn=True)
        web.apply()
        assert {took() for _ in range(3)} == {"two"}
    web.endpoints.clear()
    web.apply()
    with wire.outside.open_socket() as calling:
        assert calling.connect_ex((entry, 8080)) == 111
    with wire.outside.open_socket(socket.SOCK_DGRAM) as calling:
        calling.connect((entry, 8080))
        calling.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            calling.recv(1)


@contextmanager
def connecting(client: Namespace, server: Container, entry: Host) -> Iterator[list[OSError]]:
    """Have a client connect to port 8080 of a host all the time; yield what went wrong, whole at the end."""
    over, failed = threading.Event(), list[OSError]()

    def call() -> None:
        while not over.is_set():
            with client.open_socket() as calling:
                calling.settimeout(5)
                try:
                    calling.connect((entry.address, 8080))
                except OSError as error:
                    failed.append(error)

    with server.listen("0.0.0.0", 80) as listening, ThreadPoolExecutor() as threads:
        listening.settimeout(None)
        threads.submit(_accept, listening)
        callers = [threads.submit(call) for _ in range(4)]
        try:
            yield failed
        finally:
            over.set()
            for caller in callers:
                caller.result()
            listening.shutdown(socket.SHUT_RDWR)


def test_no_connection_is_led_nowhere_while_endpoints_and_ports_change(wire: World, web: Published) -> None:
    """Nothing is found any more in the map of a rule, or of a table, that is replaced while a packet is half-way."""
    server, entry = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33"), wire.hosts[1]
    port, other = PortSpec(target=80, published=8080), PortSpec(target=80, published=8081)
    web.ports = (port,)
    web.apply()
    with connecting(wire.outside, server, entry) as failed:
        endpoint = web.endpoints["taskaaaaaaaa1"]
        for change in range(CHANGES):
            web.endpoints = {str(n): replace(endpoint, task_id=f"task{n}") for n in range(2 + change % 2)}
            web.ports = (port, other)[: 1 + change // 2 % 2]
            web.tell()
            entry.apply()
    assert failed == []


def test_a_port_that_goes_over_to_another_network_answers_all_along(wire: World, web: Published) -> None:
    """As in an update of the service's networks; the node may get the other network only now."""
    entry, other = wire.hosts[0], "othernet00001"
    wire.add_network(other, "10.65.0.0/16", {"h1": (1,)})
    server = entry.start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"), (other, "10.65.0.33"))
    endpoints = tuple(
        EndpointAssignment(network, "taskaaaaaaaa1", "web", 1, int(IPv4Address(address)))
        for network, address in ((WEB, "10.64.0.33"), (other, "10.65.0.33"))
    )

    def lead(network: str) -> None:
        piece = PublishedAssignment(network, "web", "web", ports=(PortSpec(target=80, published=8080),))
        wire.extra = {"endpoints": endpoints, "published": (piece,)}
        entry.apply()

    lead(WEB)
    with connecting(wire.outside, server, entry) as failed:
        for change in range(40):
            lead((other, WEB)[change % 2])
            assert entry.do(entry.plane.verify()) == []
    assert failed == []


def test_connections_that_came_in_go_on_when_ports_lead_over_another_network(wire: World, web: Published) -> None:
    """By another node than the task's: it carries the network on without a door, so that answers find back."""
    entry, other = wire.hosts[1], "othernet00001"
    wire.add_network(other, "10.65.0.0/16", {"h1": (1,)})
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    with server.listen("0.0.0.0", 80) as listening, wire.outside.open_socket() as calling:
        calling.connect((entry.address, 8080))
        answering, _ = listening.accept()
        before, ahead = (
            PublishedAssignment(n, "web", "web", ports=ports) for n, ports in ((WEB, ()), (other, web.ports))
        )
        wire.extra["published"] = (before, ahead)
        for host in wire.hosts:
            host.apply()
        with answering:
            calling.sendall(b"still?")
            assert answering.recv(10) == b"still?"
            answering.sendall(b"yes")
            assert calling.recv(10) == b"yes"
        with wire.outside.open_socket() as late:
            assert late.connect_ex((entry.address, 8080)) == 111, "it leads to where there is no task yet"


def _accept(listening: socket.socket) -> None:
    while True:
        try:
            listening.accept()[0].close()
        except OSError:
            return


def test_a_client_keeps_its_endpoint_by_whatever_node_it_comes(wire: World, web: Published) -> None:
    servers = [web.add(wire.hosts[i % 2], f"taskaaaaaaa{i:02}", f"10.64.{0}.{33 + 32 * (i % 2) + i}") for i in range(4)]
    web.ports, web.affinity = (PortSpec(target=80, published=8080),), True
    web.apply()
    listening = [s.listen("0.0.0.0", 80) for s in servers]
    took = []
    for host in wire.hosts * 2:
        with wire.outside.open_socket() as calling:
            calling.connect((host.address, 8080))
        took.append(wait_until(lambda: next((i for i, s in enumerate(listening) if _accepts(s)), -1) + 1))
    assert len(set(took)) == 1
    for one in listening:
        one.close()


def _accepts(listening: socket.socket) -> bool:
    listening.setblocking(False)
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_a_port_that_a_program_of_the_host_has_is_left_to_it(wire: World, web: Published) -> None:
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    host = wire.hosts[1]
    web.ports = (PortSpec(target=80, published=8080),)
    with host.namespace.listen("0.0.0.0", 8080) as program:
        web.apply()
        [problem] = host.plane.port_problems
        assert (problem.service_id, problem.published) == ("web", 8080)
        assert problem.reason.startswith("port 8080/tcp of the host is taken by ")
        assert "(pid " in problem.reason
        with wire.outside.open_socket() as calling:
            calling.connect((host.address, 8080))
            program.accept()[0].close()
    host.do(host.plane.repair())
    assert host.plane.port_problems == ()
    assert ask(wire.outside, server, host.address, 8080) == CLIENT
    with pytest.raises(OSError, match="in use"):
        host.namespace.listen("0.0.0.0", 8080)


def test_the_ports_of_tunnels_are_kept_for_them(wire: World, web: Published) -> None:
    """Also while the node has no tunnels: there may be some tomorrow, and those of new keys take the other port."""
    web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    host = wire.hosts[1]
    web.ports = tuple(PortSpec(protocol="udp", target=80, published=number) for number in (51820, 51821, 51822))
    web.apply()
    reason = "port {}/udp of the host is kept for the tunnels of encrypted networks".format
    assert [p.reason for p in host.plane.port_problems] == [reason(51820), reason(51821)]
    with host.namespace.open_socket(socket.SOCK_DGRAM) as tunnel:
        tunnel.bind(("0.0.0.0", 51820))


@pytest.mark.parametrize(
    ("policy", "rules", "words"),
    [
        ("drop", (), "chain fw of table inet wall (policy drop, and no rule lets it pass)"),
        (
            "drop",
            ("ct state established,related accept",),
            "chain fw of table inet wall (policy drop, and no rule lets it pass)",
        ),
        ("drop", ("tcp dport 1 accept",), "chain fw of table inet wall (policy drop)"),
        ("accept", ("tcp dport 8080 counter drop",), "chain fw of table inet wall (rule 'tcp dport 8080 drop')"),
        (
            "accept",
            ("ct state established accept", "reject with icmpx admin-prohibited"),
            "(rule 'reject with icmpx admin-prohibited', and none before it lets it pass)",
        ),
        ("accept", ("jump others",), "chain fw of table inet wall (rule 'tcp dport { 1, 8080 } drop' of chain others)"),
        ("accept", ("tcp dport 1 drop",), ""),
        ("drop", ('oifname "au*" accept', "ct state established accept"), ""),
    ],
)
def test_a_firewall_that_drops_is_named(
    wire: World, web: Published, policy: str, rules: tuple[str, ...], words: str
) -> None:
    """At once where nothing can pass, else when something came that did not; and no more when it is let through."""
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    host = wire.hosts[1]
    hook = f"{{ type filter hook forward priority 0; policy {policy}; }}"
    host.sh(f"nft add table inet wall; nft 'add chain inet wall fw {hook}'")
    host.sh("nft 'add chain inet wall others; add rule inet wall others tcp dport { 1, 8080 } drop'")
    for rule in rules:
        host.sh(f"nft 'add rule inet wall fw {rule}'")
    web.ports = (PortSpec(target=80, published=8080), PortSpec(target=80, published=8081, host_ip="127.0.0.1"))
    web.apply()
    if not words:
        assert ask(wire.outside, server, host.address, 8080) == CLIENT
    elif "lets it pass" not in words:
        assert host.plane.port_problems == ()
        with wire.outside.open_socket() as calling:
            calling.settimeout(0.3)
            with pytest.raises(TimeoutError):
                calling.connect((host.address, 8080))
        host.do(host.plane.repair())
    said = [(p.published, p.closed, p.reason) for p in host.plane.port_problems]
    if words:
        assert said[0][:2] == (8080, False)
        assert words in said[0][2]
        host.sh("nft 'insert rule inet wall fw accept'")
        assert ask(wire.outside, server, host.address, 8080) == CLIENT
        host.do(host.plane.repair())
        assert host.plane.port_problems == ()
    else:
        assert said == []


def test_a_firewall_that_was_opened_is_not_blamed_for_what_it_dropped_before(wire: World, web: Published) -> None:
    web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    host = wire.hosts[1]
    host.sh(
        "nft add table inet wall; nft 'add chain inet wall fw { type filter hook forward priority 0; policy drop; }'"
    )
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    [problem] = host.plane.port_problems
    assert "chain fw of table inet wall (policy drop" in problem.reason
    with wire.outside.open_socket() as calling:
        calling.settimeout(0.3)
        with pytest.raises(TimeoutError):
            calling.connect((host.address, 8080))
    host.sh("nft 'chain inet wall fw { policy accept; }'")
    host.do(host.plane.repair())
    assert host.plane.port_problems == ()


def test_a_firewall_is_named_also_once_another_went_with_its_owner(wire: World, web: Published) -> None:
    """Whose table the kernel removes when its socket is closed, without a transaction."""
    web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    host = wire.hosts[1]
    hook = "{ type filter hook forward priority 0; policy %s; }"
    with closing(host.namespace.run(Nft)) as owner:
        owner.run("add table inet owned { flags owner; }\n" + f"add chain inet owned fw {hook % 'accept'}")
        host.sh(f"nft add table inet wall; nft 'add chain inet wall fw {hook % 'drop'}'")
        web.ports = (PortSpec(target=80, published=8080),)
        web.apply()
        assert "chain fw of table inet wall" in host.plane.port_problems[0].reason
    for _ in range(2):  # the first look finds that something is being changed
        host.do(host.plane.repair())
    assert "chain fw of table inet wall" in host.plane.port_problems[0].reason


def test_of_several_chains_all_that_may_have_dropped_are_named(wire: World, web: Published) -> None:
    """One whose policy is to drop and that lets it pass, one that drops it by a rule, and one that drops nothing."""
    web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    host = wire.hosts[1]
    host.sh("nft add table inet wall")
    for name, policy, rule in (
        ("first", "drop", "tcp dport 8080 accept"),
        ("second", "accept", "tcp dport 8080 drop"),
        ("third", "accept", "counter"),
    ):
        hook = f"{{ type filter hook forward priority 0; policy {policy}; }}"
        host.sh(f"nft 'add chain inet wall {name} {hook}; add rule inet wall {name} {rule}'")
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    with wire.outside.open_socket() as calling:
        calling.settimeout(0.3)
        with pytest.raises(TimeoutError):
            calling.connect((host.address, 8080))
    host.do(host.plane.repair())
    (problem,) = host.plane.port_problems
    first, second = (f"chain {name} of table inet wall" for name in ("first", "second"))
    assert f"firewall, {first} (policy drop) or {second} (rule 'tcp dport 8080 drop'): let pass" in problem.reason


def test_a_client_within_the_networks_own_range_is_served(wire: World, web: Published) -> None:
    """It cannot be told from a container there, so it loses its address."""
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    wire.outside.sh("ip addr add 10.64.9.9/32 dev br0")
    for host in wire.hosts:
        host.sh("ip route add 10.64.9.9/32 via 192.0.2.254")
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    for host in wire.hosts:
        assert ask(wire.outside, server, host.address, 8080, ("10.64.9.9", 0)).startswith("169.254.")


@pytest.mark.parametrize(
    ("place", "damage"),
    [
        (WEB, "nft delete table ip argosy-ingress"),
        (WEB, "nft delete table netdev argosy-ingress"),
        (WEB, "nft flush chain netdev argosy-ingress egress"),
        (WEB, "nft flush map ip argosy-ingress marks"),
        (WEB, "ip rule del fwmark 0x80000000/0x80000000"),
        (WEB, "ip route flush table 14789"),
        (WEB, "ip link del vtep"),
        (WEB, "sysctl -qw net.ipv4.conf.all.src_valid_mark=0"),
        ("", "nft flush ruleset"),
    ],
)
def test_what_is_broken_by_hand_is_found_and_mended(wire: World, web: Published, place: str, damage: str) -> None:
    """On the node with the task, and on one by which the client comes in."""
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    for host in wire.hosts[:2]:
        assert host.do(host.plane.verify()) == []
        host.in_network(place, damage) if place else host.sh(damage)
        assert host.do(host.plane.repair()) != []
        assert host.do(host.plane.verify()) == []
    assert ask(wire.outside, server, wire.hosts[1].address, 8080) == CLIENT


def test_a_link_that_a_failed_repair_made_is_watched(
    wire: World, web: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.16 the chain of what leaves by a device goes with it, and begins no generation of nftables."""
    web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    host, settle, failures = wire.hosts[0], KernelNamespace._settle, [OSError("not now")]
    look = "nft -a list table netdev argosy-ingress"  # with numbers: another one is not told apart else
    before = host.in_network(WEB, look)

    def settle_or_fail(kernel: KernelNamespace, link: Link) -> None:
        if link.name == "vtep" and failures:
            raise failures.pop()
        settle(kernel, link)

    monkeypatch.setattr(KernelNamespace, "_settle", settle_or_fail)
    host.in_network(WEB, "ip link del vtep")
    with pytest.raises(TransientError, match="not now"):
        host.do(host.plane.repair())
    host.do(host.plane.repair())
    assert host.do(host.plane.verify()) == []
    assert host.in_network(WEB, look) != before


def test_each_broken_table_is_told_by_its_own_name(wire: World, web: Published) -> None:
    web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    host = wire.hosts[0]
    of_host = [f"argosy-{host.name}", f"argosy-{host.name}/peers", f"argosy-{host.name}/ports"]
    of_network = ["argosy", "argosy-balance", "argosy-ingress"]
    for network_id, tables in (("", of_host), (WEB, of_network)):
        for table in tables:
            damage = f"nft delete table ip {table}"
            host.in_network(network_id, damage) if network_id else host.sh(damage)
            found = host.do(host.plane.repair())
            assert [(d.network_id, d.what) for d in found] == [(network_id, f"nft table {table}")]
    assert host.do(host.plane.verify()) == []


def test_another_life_and_the_end_of_publishing(wire: World, web: Published) -> None:
    server = web.add(wire.hosts[0], "taskaaaaaaaa1", "10.64.0.33")
    web.ports = (PortSpec(target=80, published=8080),)
    web.apply()
    host = wire.hosts[1]
    host.new_life()
    web.apply()
    assert host.apply(synced=True) == 0
    assert ask(wire.outside, server, host.address, 8080) == CLIENT
    assert host.apply() == 0
    web.ports = ()
    web.apply()
    for each in wire.hosts:
        assert "argosy-ingress" not in each.in_network(WEB, "nft list tables")
        assert "14789" not in each.in_network(WEB, "ip rule")
        assert each.do(each.plane.verify()) == []
    with wire.outside.open_socket() as calling:
        assert calling.connect_ex((host.address, 8080)) == 111
