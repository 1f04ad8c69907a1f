"""What a host reaches by itself, from the kernel's own words."""

from argosy.agent.logic.host_routes import HostRoute, collision, host_routes, told
from argosy.core.addresses import Subnet

TABLE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t0000000A\t010200C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0
tun0\t0005000A\t010200C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
aunetwork00001\t0040FEA9\t00000000\t0001\t0\t0\t0\tFEFFFFFF\t0\t0\t0
*\t000010AC\t00000000\t0200\t0\t0\t0\t0000F0FF\t0\t0\t0
"""


def test_all_but_the_default_route_what_is_link_local_what_is_refused_and_our_own_count():
    assert host_routes(TABLE) == [
        HostRoute(Subnet.parse("10.0.0.0/8"), "tun0"),
        HostRoute(Subnet.parse("10.0.5.0/24"), "tun0"),
        HostRoute(Subnet.parse("192.0.2.0/24"), "eth0"),
    ]


def test_the_controller_is_told_the_widest_of_them():
    assert told(host_routes(TABLE)) == ("10.0.0.0/8", "192.0.2.0/24")
    many = [HostRoute(Subnet(i << 8, 24), "eth0") for i in range(1, 1000)]
    assert len(told([*many, HostRoute(Subnet.parse("172.16.0.0/12"), "eth0")])) == 64
    assert "172.16.0.0/12" in told([*many, HostRoute(Subnet.parse("172.16.0.0/12"), "eth0")])


def test_a_collision_names_the_route_and_its_device():
    routes = host_routes(TABLE)
    assert str(collision(routes, "10.64.0.0/16")) == "10.0.0.0/8, which this host reaches over tun0"
    assert collision(routes, "172.20.0.0/16") is None
