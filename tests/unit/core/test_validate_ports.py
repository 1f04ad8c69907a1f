"""Published ports in a spec: what is accepted, and what is said of what is not."""

import pytest

from argosy.core.ports import said, same_place
from argosy.core.service import EndpointSpec, HostPort, PortSpec, ServiceSpec, TaskSpec
from argosy.core.validate_ports import ports_problems


def service(*ports, own=()):
    return ServiceSpec("web", task=TaskSpec(host_ports=tuple(own)), endpoint=EndpointSpec(ports=ports))


def port(target=80, published=0, protocol="tcp", host_ip=""):
    return PortSpec("", protocol, target, published, host_ip)


@pytest.mark.parametrize(
    "spec",
    [
        service(),
        service(port(), port(81), port(published=8080), port(published=8080, protocol="udp")),
        service(port(published=80, host_ip="10.0.0.1"), port(published=80, host_ip="127.0.0.1")),
        service(port(published=80), own=[HostPort("tcp", 81, 80), HostPort("udp", 80, 80), HostPort("tcp", 0, 80)]),
        service(own=[HostPort("tcp", 80)]),
    ],
)
def test_accepted(spec):
    assert list(ports_problems(spec)) == []


@pytest.mark.parametrize(
    ("spec", "where", "what"),
    [
        (service(port(0)), "endpoint.ports[0].target", "from 1"),
        (service(port(published=65536)), "endpoint.ports[0].published", "to 65,535"),
        (service(port(protocol="sctp")), "endpoint.ports[0].protocol", "use tcp or udp"),
        (service(port(published=14789, protocol="udp")), "endpoint.ports[0].published", "VXLAN"),
        (service(port(host_ip="web")), "endpoint.ports[0].host_ip", "is no address of a host"),
        (service(port(host_ip="::1")), "endpoint.ports[0].host_ip", "IPv4 addresses alone"),
        (
            service(port(published=80), port(81, 80)),
            "endpoint.ports[1].published",
            "port 80/tcp is given more than once",
        ),
        (
            service(port(published=80, host_ip="10.0.0.1"), port(81, 80)),
            "endpoint.ports[1].published",
            "more than once",
        ),
        (service(port(published=80), own=[HostPort("tcp", 80, 80)]), "task.host_ports[0].port", "more than once"),
        (service(port(), port()), "endpoint.ports[1]", "without a number more than once"),
        (service(own=[HostPort("tcp", 0, 80)] * 2), "task.host_ports[1]", "without a number more than once"),
        (service(own=[HostPort("tcp", 0)]), "task.host_ports[0].port", "from 1"),
        (service(*(port(i, i) for i in range(1, 1002))), "endpoint.ports", "1,001"),
    ],
)
def test_refused(spec, where, what):
    problems = [(p.where, p.what) for p in ports_problems(spec)]
    assert [p for p in problems if p[0] == where and what in p[1]], problems


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("", "0.0.0.0", True), ("", "10.0.0.1", True), ("10.0.0.1", "10.0.0.1", True), ("10.0.0.1", "10.0.0.2", False)],
)
def test_places(one, other, same):
    assert same_place(one, other) is same_place(other, one) is same


def test_said():
    assert said("tcp", 80) == said("tcp", 80, "0.0.0.0") == "80/tcp"
    assert said("udp", 53, "127.0.0.1") == "127.0.0.1:53/udp"
