"""What changes of the host while the plane lives: the MTU of its link, its addresses, its routes."""

import re
from collections.abc import Callable

import pytest
from network_world import Container, World, wait_until
from test_audit import DEAF, TOLD, two_ends
from test_reach import WEB, converse

from argosy.agent.network.desired import AuditTiming, HostReport
from argosy.core.errors import PreconditionError


def mtus(container: Container) -> set[str]:
    """Return the MTUs of all links of a container's network on its host, both ends."""
    inside = container.host.in_network(WEB, "ip -o link | grep -v ' lo:'")
    return set(
        re.findall(
            r"mtu (\d+)", container.sh("ip link show eth0") + inside + container.host.sh("ip -o link | grep ' au'")
        )
    )


def reported(container: Container) -> Callable[[], HostReport]:
    """Have the plane report from now on; return what tells what it said last."""
    reports = [HostReport()]
    container.host.plane.on_host = reports.append
    return lambda: reports[-1]


@pytest.mark.parametrize("timing", [TOLD, DEAF], ids=["told", "in the period"])
def test_the_links_of_running_containers_follow_the_hosts(timing: AuditTiming, wire: World) -> None:
    one, other = two_ends(wire, timing)
    report = reported(one)
    assert mtus(one) == {"1450"}
    for mtu in (1400, 1500):
        one.host.sh(f"ip link set eth0 mtu {mtu}")
        wait_until(lambda mtu=mtu: mtus(one) == {str(mtu - 50)})
        wait_until(lambda mtu=mtu: report().underlay_mtu == mtu)
    assert one.host.plane.drift == {}, "nobody has changed what is ours"
    assert one.host.do(one.host.plane.verify()) == []
    assert converse(other, one, "10.64.0.33") == "10.64.0.161"


def test_a_link_without_its_address_says_nothing_of_the_mtu(wire: World) -> None:
    one, _ = two_ends(wire, TOLD)
    report = reported(one)
    one.host.sh("ip addr flush dev eth0; ip link set eth0 mtu 1400")
    wait_until(lambda: report().addresses == () and report().underlay_mtu)
    assert (report().underlay_mtu, mtus(one)) == (1500, {"1450"})


def test_addresses_that_come_and_go_are_told(wire: World) -> None:
    one, _ = two_ends(wire, TOLD)
    report, own = reported(one), one.host.address
    one.host.sh("ip addr add 192.0.2.77/24 dev eth0")
    wait_until(lambda: report().addresses == tuple(sorted((own, "192.0.2.77"))))
    one.host.sh("ip addr del 192.0.2.77/24 dev eth0")
    wait_until(lambda: report().addresses == (own,))


def test_what_does_not_fit_a_running_container_any_more_is_told(wire: World) -> None:
    one, _ = two_ends(wire, TOLD)
    report = reported(one)
    one.host.sh("ip route add 10.64.8.0/24 dev eth0")
    wait_until(lambda: report().problems)
    (problem,) = report().problems.values()
    assert problem.startswith(
        "network webnet (10.64.0.0/16) overlaps 10.64.8.0/24, which this host reaches over eth0: remove"
    )
    assert "10.64.8.0/24" in report().routes
    audited = one.host.do(one.host.plane.audit())
    assert ([(d.network_id, d.what) for d in audited.found], audited.problem) == ([(WEB, problem)], problem)
    one.host.sh("ip route del 10.64.8.0/24 dev eth0")
    wait_until(lambda: not report().problems and "10.64.8.0/24" not in report().routes)
    assert one.host.do(one.host.plane.audit()).found == ()
    one.host.sh("ip link set eth0 mtu 1300")
    wait_until(lambda: report().problems)
    (problem,) = report().problems.values()
    assert "takes 1300 bytes, which leaves 1250 for network webnet, and 1280 are needed" in problem


def test_a_plane_that_begins_tells_what_does_not_fit_at_once(wire: World) -> None:
    one, _ = two_ends(wire, TOLD)
    one.host.sh("ip route add 10.64.8.0/24 dev eth0")
    one.host.new_life()
    report = reported(one)
    one.host.apply()
    assert set(report().problems) == {WEB}


def test_a_running_container_is_attached_again_though_its_network_does_not_fit_any_more(wire: World) -> None:
    """Else another life of the agent could mend nothing of it. A new one is refused."""
    one, other = two_ends(wire, DEAF)
    host = one.host
    host.sh("ip route add 10.64.8.0/24 dev eth0")
    host.new_life()
    host.do(host.plane.apply(host.state))
    host.do(host.plane.attach(one.id, one.pid, one.attachments))
    assert converse(one, other, "10.64.0.161") == "10.64.0.33"
    with pytest.raises(PreconditionError, match=r"overlaps 10\.64\.8\.0/24"):
        host.start_container("tasknew000001", (WEB, "10.64.0.34"))
