"""The audit repairs by itself what somebody changed by hand: told by the kernel, or in its period.

What is there is read with `ip` and `nft`, and when it was there is told by one who looks on (onlooker.py): through
all of it datagrams flow, and the kernel tells of changes. Nobody asks the plane.
"""

import os
import re
import time
from collections.abc import Callable

import pytest
from mesh_world import Secret, mesh_of
from network_world import Container, Host, World, wait_until
from onlooker import Onlooker, Way
from test_life import BREAKAGES, break_it, renaming
from test_mesh import BREAKAGES as BREAKAGES_OF_TUNNELS
from test_mesh import break_tunnels, in_mesh
from test_reach import WEB, converse

from argosy.agent.network.desired import AuditTiming
from argosy.agent.network.netlink import Message, Netlink
from argosy.agent.network.nft import Nft
from argosy.core.addresses import parse_ipv4
from argosy.core.assignment import EndpointAssignment, NamesAssignment, PublishedAssignment
from argosy.core.service import PortSpec

TOLD_S = 5.0
"""A repair that the kernel's notifications lead to is complete within this time (issue C)."""
NAMESPACE_DELETED = "namespace deleted"
UNTOLD = {breakage for breakage, steps in BREAKAGES.items() if steps[::2] == ("container",)}
"""What nobody listens to: a socket in a container's namespace would keep it alive."""
TOLD = AuditTiming(period=3600)
"""All as it is by default, but that nothing is found in the period."""
PERIOD_S = 0.3
DEAF = AuditTiming(period=PERIOD_S, silent=3600, events=False)
"""Only the period is left."""


def two_ends(wire: World, timing: AuditTiming, **settings: object) -> tuple[Container, Container]:
    """A container on each of two hosts, on one network; the first host is audited, and has these settings."""
    hosts = wire.add_host(dns=False, audit=timing, **settings), wire.add_host(dns=False)
    wire.add_network(WEB, "10.64.0.0/16", {"h1": (1,), "h2": (2, 5)})
    one = hosts[0].start_container("taskaaaaaaaa1", (WEB, "10.64.0.33"))
    hosts[1].apply()
    return one, hosts[1].start_container("taskbbbbbbbb1", (WEB, "10.64.0.161"))


def seen(container: Container) -> dict[str, list[str]]:
    """Return the kernel's state of a container, of its network there and of the host, as tools print it.

    Without what always differs.
    Without IPv6, too: its addresses are still being tried out when the first look is taken.
    """
    look = (  # with few programs: on an emulated machine each takes a quarter of a second to start
        r"printf 'link\naddr\nroute show table all\nrule\nneigh show nud permanent\n' | ip -4 -d -batch -; bridge fdb;"
        "nft list ruleset;"
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/conf/*/forwarding"
    )
    texts = {
        "host": container.host.sh(look, check=False),
        "net": container.host.in_network(WEB, look, check=False),
        "container": container.sh(look, check=False),
    }
    return {
        where: sorted(
            re.sub(r"^\d+: |@\w+|link-netnsid \d+|if\d+|packets \d+ bytes \d+", "", line) for line in text.splitlines()
        )
        for where, text in texts.items()
    }


def wait_as_before(container: Container, before: dict[str, list[str]]) -> None:
    """Wait until the kernel shows what it showed before; AssertionError with what differs."""
    try:
        wait_until(lambda: seen(container) == before, 20)
    except AssertionError:
        now = seen(container)
        for where in before:
            assert now[where] == before[where]


def delete_namespace(host: Host) -> None:
    pin = host.run_dir / "netns" / f"{host.name}.{WEB}"
    host.in_mounts(lambda: os.system(f"umount -l {pin} && rm {pin}"))


def time_the_repair(wire: World, timing: AuditTiming, breakage: str) -> float:
    """Break something while traffic flows; return how long it took until all was as before and traffic was back.

    What is timed is the repair: the last change that the kernel tells of before all is seen to be as it was, and the
    datagram since which none is lost. That is looked for at leisure.
    """
    one, other = two_ends(wire, timing)
    host = one.host
    before = seen(one)
    network = host.network(WEB)
    try:
        ways = (
            Way(one, other, "10.64.0.161", 7, 7, newcomers=False),
            Way(one, wire.outside, "192.0.2.254", 7, 7, newcomers=False),
        )
        with Onlooker(ways, (host.namespace, network)) as onlooker:
            wait_until(onlooker.open_since)
            began = time.monotonic()
            delete_namespace(host) if breakage == NAMESPACE_DELETED else break_it(one, breakage)
            wait_until(lambda: is_pinned(host) and host.plane.drift)
            wait_as_before(one, before)
            repaired = onlooker.changed_at()
            back = wait_until(onlooker.open_since)
            assert is_pinned(host)
            assert converse(other, one, "10.64.0.33") == "10.64.0.161"
    finally:
        network.close()
    return told(repaired - began, *(at - began for at in back))


def told(repaired: float, *back: float) -> float:
    """Say how long it took until all was as before, and until traffic was back each way; return the longest."""
    print(f"repaired after {repaired:.2f} s, traffic back after", *(f"{seconds:.2f}" for seconds in back))
    return max(repaired, *back)


SERVICE_BREAKAGES = {
    "balancing deleted": ("net", "nft delete table ip argosy-balance"),
    "balancing flushed": ("net", "nft flush table ip argosy-balance"),
    "a service's chain flushed": (
        "net",
        "nft flush chain ip argosy-balance $(nft list table ip argosy-balance | grep -o 'chain s-[^ ]*' | cut -c7-)",
    ),
    "doors deleted": ("net", "nft delete table ip argosy-ingress"),
    "doors flushed": ("net", "nft flush map ip argosy-ingress doors"),
    "the way back deleted": ("net", "nft delete table netdev argosy-ingress"),
    "the way back's marks flushed": ("net", "nft flush map ip argosy-ingress marks"),
    "the way back's rule deleted": ("net", "ip rule del fwmark 0x80000000/0x80000000"),
    "the way back's routes flushed": ("net", "ip route flush table 14789"),
    "ports deleted": ("host", "nft delete table ip $(nft list tables | cut -d' ' -f3 | grep /ports)"),
    "ports flushed": ("host", "nft flush map ip $(nft list tables | cut -d' ' -f3 | grep /ports) published"),
}


def time_the_repair_of_services(wire: World, timing: AuditTiming, breakage: str) -> float:
    """As `time_the_repair`, for those who come anew to a virtual address, or to a published port of either host.

    The ports lead to the other host's service each: the first host, which is audited, passes one on, and sends answers
    of the other back to where they were asked.
    """
    one, other = two_ends(wire, timing)
    host, entry = one.host, other.host
    near, far = parse_ipv4("10.64.0.33"), parse_ipv4("10.64.0.161")
    wire.extra = {
        "names": (NamesAssignment(WEB, "far", ("far",), parse_ipv4("10.64.0.4")),),
        "endpoints": (
            EndpointAssignment(WEB, one.id, "near", 1, near),
            EndpointAssignment(WEB, other.id, "far", 1, far),
        ),
        "published": (
            PublishedAssignment(WEB, "near", "near", False, (PortSpec(protocol="udp", target=7001, published=7001),)),
            PublishedAssignment(WEB, "far", "far", False, (PortSpec(protocol="udp", target=7002, published=7002),)),
        ),
    }
    for each in wire.hosts:
        each.apply()
    before = seen(one)
    network = host.network(WEB)
    try:
        ways = (
            Way(one, other, "10.64.0.4", 7000, 7000, newcomers=True),
            Way(wire.outside, one, entry.address, 7001, 7001, newcomers=True),
            Way(wire.outside, other, host.address, 7002, 7002, newcomers=True),
        )
        with Onlooker(ways, (host.namespace, network)) as onlooker:
            wait_until(onlooker.open_since)
            began = time.monotonic()
            where, command = SERVICE_BREAKAGES[breakage]
            host.in_network(WEB, command) if where == "net" else host.sh(command)
            wait_until(lambda: host.plane.drift)
            wait_as_before(one, before)
            repaired = onlooker.changed_at()
            back = wait_until(onlooker.open_since)
    finally:
        network.close()
    return told(repaired - began, *(at - began for at in back))


@pytest.mark.parametrize("breakage", SERVICE_BREAKAGES)
def test_services_are_reached_again_at_once(breakage: str, wire: World) -> None:
    assert time_the_repair_of_services(wire, TOLD, breakage) < TOLD_S


@pytest.mark.parametrize("breakage", SERVICE_BREAKAGES)
def test_without_notifications_services_are_reached_again_in_the_period(breakage: str, wire: World) -> None:
    assert time_the_repair_of_services(wire, DEAF, breakage) < PERIOD_S + TOLD_S


TUNNEL_BREAKAGES = {**BREAKAGES_OF_TUNNELS, "deleted": "ip link delete DEVICE", "renamed": renaming("DEVICE")}


def time_the_repair_of_tunnels(wire: World, timing: AuditTiming, what: str) -> float:
    """As `time_the_repair`, for an encrypted network, whose tunnels have a namespace of their own."""
    secret = Secret(wire, audit=timing)
    secret.exchange()
    one, other = secret.start(1), secret.start(2)
    secret.up()
    host = one.host
    look = "ip -4 addr | grep -v valid_lft; ip -4 route; cat /proc/sys/net/ipv4/conf/*/forwarding"

    def shown() -> tuple[list[str], bool]:
        lines = in_mesh(host, look).splitlines()
        return sorted(re.sub(r"^\d+: |qlen \d+", "", line) for line in lines), host.in_mounts(
            lambda: os.path.ismount(host.run_dir / "mesh" / "namespace")
        )

    before = shown()
    way = Way(one, other, "10.64.0.65", 7, 7, newcomers=False)
    with mesh_of(host) as mesh, Onlooker([way], [mesh]) as onlooker:
        wait_until(onlooker.open_since)
        began = time.monotonic()
        break_tunnels(host, what, TUNNEL_BREAKAGES[what])
        wait_until(lambda: host.plane.drift)
        wait_until(lambda: shown() == before, 20)
        changed_at = onlooker.changed_at()
        repaired = changed_at if changed_at > began else time.monotonic()  # of peers and pins the kernel does not tell
        back = wait_until(onlooker.open_since)
    return told(repaired - began, *(at - began for at in back))


@pytest.mark.parametrize("what", TUNNEL_BREAKAGES)
def test_tunnels_are_repaired_at_once(what: str, wire: World) -> None:
    assert time_the_repair_of_tunnels(wire, TOLD, what) < TOLD_S


@pytest.mark.parametrize("what", TUNNEL_BREAKAGES)
def test_without_notifications_tunnels_are_repaired_in_the_period(what: str, wire: World) -> None:
    assert time_the_repair_of_tunnels(wire, DEAF, what) < PERIOD_S + TOLD_S


def is_pinned(host: Host) -> bool:
    return host.in_mounts(lambda: os.path.ismount(host.run_dir / "netns" / f"{host.name}.{WEB}"))


@pytest.mark.parametrize("breakage", sorted({*BREAKAGES, NAMESPACE_DELETED} - UNTOLD))
def test_what_the_kernel_tells_of_is_repaired_at_once(breakage: str, wire: World) -> None:
    assert time_the_repair(wire, TOLD, breakage) < TOLD_S


@pytest.mark.parametrize("breakage", sorted({*BREAKAGES, NAMESPACE_DELETED}))
def test_without_notifications_it_is_repaired_in_the_period(breakage: str, wire: World) -> None:
    assert time_the_repair(wire, DEAF, breakage) < PERIOD_S + TOLD_S


def test_a_link_that_flaps_is_brought_up_again(wire: World) -> None:
    one, other = two_ends(wire, TOLD)
    for _ in range(3):
        one.host.in_network(WEB, "ip link set vtep down; ip link set vtep up; ip link set vtep down")
        wait_until(lambda: "UP" in one.host.in_network(WEB, "ip link show vtep"))
        assert converse(other, one, "10.64.0.33") == "10.64.0.161"


def test_a_host_that_was_told_nothing_yet_has_nothing_wrong(wire: World) -> None:
    host = wire.add_host(dns=False)
    assert host.do(host.plane.verify()) == []


@pytest.mark.parametrize("timing", [TOLD, DEAF], ids=["as is told", "in the period"])
def test_tables_that_nobody_changed_are_not_listed(
    timing: AuditTiming, wire: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes longer the more is in them; once after each change, also by others to what is theirs.

    A notification has them listed whatever was listed before it came: a look that it leads to is waited for.
    """
    one, _ = two_ends(wire, timing)
    host = one.host
    commands: list[str] = []
    run = Nft.run
    monkeypatch.setattr(Nft, "run", lambda nft, text, **how: commands.append(text) or run(nft, text, **how))

    def listed() -> list[str]:
        return [text for text in commands if text.startswith("list table ip ")]

    def audited() -> list[str]:
        assert host.do(host.plane.verify()) == []
        return listed()

    def nothing_is_listed() -> bool:
        commands.clear()
        return audited() == []

    def listed_after(change: Callable[[], object]) -> list[str]:
        commands.clear()
        change()
        wait_until(lambda: len(listed()) >= 2)
        return audited()

    wait_until(nothing_is_listed)
    for change in (
        lambda: host.sh("nft add table ip stranger"),  # then that of forwarding, and of who may send
        lambda: host.in_network(WEB, "nft add table ip stranger"),  # that of sources, and of balancing
    ):
        assert len(listed_after(change)) == 2
        assert len(audited()) == 2  # no more
        assert nothing_is_listed()


@pytest.mark.parametrize("where", ["host", "net"])
def test_tables_that_were_looked_at_while_somebody_changed_them_are_looked_at_again(
    where: str, wire: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells a transaction's number before all of it is carried out, and when it is carried out."""
    one, _ = two_ends(wire, TOLD)
    host, request = one.host, Netlink.request
    told: dict[Netlink, tuple[int, bytes] | None] = {}

    def of_what_comes(netlink: Netlink, message: Message) -> tuple[int, bytes] | None:
        if message.about == "the generation":
            return told.setdefault(netlink, request(netlink, message))
        return request(netlink, message)

    monkeypatch.setattr(Netlink, "request", of_what_comes)
    assert host.do(host.plane.verify()) == []
    if where == "host":
        host.sh("nft flush table ip $(nft list tables | cut -d' ' -f3 | grep /peers)")
    else:
        host.in_network(WEB, "nft flush table ip argosy-balance")
    wait_until(lambda: host.plane.drift)


def test_what_the_plane_and_its_containers_do_is_no_drift(wire: World) -> None:
    """Coming and going of containers, also of some that end by themselves, and of networks."""
    one, _ = two_ends(wire, AuditTiming(period=0.05, settle=0.0))
    host = one.host
    for number in range(6):
        name = f"taskcccccccc{number}"
        container = host.start_container(name, (WEB, f"10.64.0.{40 + number}"))
        if number % 2:
            container.process.kill()
            container.process.wait()
        wire.add_network("fleeting00001", "10.70.0.0/16", {"h1": (1,)})
        host.apply()
        host.stop_container(name)
        del wire.networks["fleeting00001"]
        host.apply()
    assert host.plane.drift == {}
