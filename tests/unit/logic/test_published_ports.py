"""Who gets which port on every node: as a table, and whatever happens in whatever order."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.controller.logic.published_ports import grants
from argosy.core.meta import Meta
from argosy.core.network import Network, NetworkSpec
from argosy.core.ports import same_place
from argosy.core.service import (
    EndpointSpec,
    HostPort,
    NetworkAttachmentSpec,
    PortSpec,
    Service,
    ServiceSpec,
    TaskSpec,
)

INNER = (
    "service a is on internal networks only: to publish ports it has to join one that is not internal "
    "(--network, or networks in a Compose file)"
)
NETWORKS = {
    "n": Network(Meta("n", "default"), NetworkSpec("n")),
    "inner": Network(Meta("inner", "default"), NetworkSpec("inner", internal=True)),
}


def service(name, *ports, has=(), at=1.0, networks=("n",), own=(), project="default", removing=False):
    task = TaskSpec(networks=tuple(NetworkAttachmentSpec(n) for n in networks), host_ports=tuple(own))
    spec = ServiceSpec(name, task=task, endpoint=EndpointSpec(ports=ports))
    return Service(Meta(name, project, created_at=at), spec, ports=tuple(has), removing=removing)


def port(published=0, target=80, protocol="tcp", host_ip=""):
    return PortSpec("", protocol, target, published, host_ip)


def granted(*services):
    return {name: ([p.published for p in g.ports], list(g.problems)) for name, g in grants(services, NETWORKS).items()}


@pytest.mark.parametrize(
    ("services", "wanted"),
    [
        ((service("a", port(80)),), {"a": ([80], [])}),
        ((service("a", port(), port(target=81)),), {"a": ([30000, 30001], [])}),
        # what the cluster chose stays, also when a lower number is free again
        ((service("a", port(), has=[port(30007)]),), {"a": ([30007], [])}),
        ((service("a", port(81), has=[port(80)]),), {"a": ([81], [])}),
        # but where the service itself asks for that number: then another one is chosen
        ((service("a", port(), port(30000), has=[port(30000)]),), {"a": ([30001, 30000], [])}),
        ((service("a", port(), port(30000, 81), has=[port(30000)]),), {"a": ([30001, 30000], [])}),
        ((service("a", port(), own=[HostPort("tcp", 30000, 81)], has=[port(30000)]),), {"a": ([30001], [])}),
        ((service("a", port(), port(30000, protocol="udp"), has=[port(30000)]),), {"a": ([30000, 30000], [])}),
        # a number is taken from those of all: also of tasks' own ports, of another protocol it is another
        ((service("a", port(30000)), service("b", port())), {"a": ([30000], []), "b": ([30001], [])}),
        ((service("a", own=[HostPort("tcp", 30000, 80)]), service("b", port())), {"a": ([], []), "b": ([30001], [])}),
        ((service("a", port(30000)), service("b", port(protocol="udp"))), {"a": ([30000], []), "b": ([30000], [])}),
        # first come, first served; whoever has it keeps it
        (
            (service("b", port(80), at=2.0), service("a", port(80))),
            {"a": ([80], []), "b": ([], ["port 80/tcp is published by service a"])},
        ),
        (
            (service("b", port(80), at=2.0, has=[port(80)]), service("a", port(80))),
            {"b": ([80], []), "a": ([], ["port 80/tcp is published by service b"])},
        ),
        (
            (service("a", port(80), project="shop"), service("b", port(80), at=2.0)),
            {"a": ([80], []), "b": ([], ["port 80/tcp is published by service shop/a"])},
        ),
        (
            (service("a", own=[HostPort("tcp", 80, 80)]), service("b", port(80), at=2.0)),
            {"a": ([], []), "b": ([], ["port 80/tcp is published by service a"])},
        ),
        # one that is being removed has none any more
        ((service("a", port(80), has=[port(80)], removing=True), service("b", port(80))), {"b": ([80], [])}),
        # addresses
        (
            (service("a", port(80, host_ip="10.0.0.1")), service("b", port(80, host_ip="10.0.0.2"))),
            {"a": ([80], []), "b": ([80], [])},
        ),
        (
            (service("a", port(80, host_ip="10.0.0.1")), service("b", port(80, host_ip="0.0.0.0"), at=2.0)),
            {"a": ([80], []), "b": ([], ["port 80/tcp is published by service a"])},
        ),
        # a way in
        ((service("a", port(80), networks=("inner",)),), {"a": ([], [INNER])}),
        ((service("a", port(80), networks=("inner", "n")),), {"a": ([80], [])}),
        ((service("a", networks=()),), {"a": ([], [])}),
    ],
)
def test_grants(services, wanted):
    assert granted(*services) == wanted


def test_when_all_numbers_are_in_use_it_is_said():
    full = [service(f"s{i:04}", port(), at=float(i)) for i in range(2769)]
    last = granted(*full)["s2768"]
    assert last == ([], ["all tcp ports from 30000 to 32767 are in use: publish one of another number"])


NUMBERS = st.sampled_from([0, 80, 81, 30000, 30001])
PORTS = st.builds(
    port,
    published=NUMBERS,
    target=st.sampled_from([1, 2]),
    protocol=st.sampled_from(["tcp", "udp"]),
    host_ip=st.sampled_from(["", "10.0.0.1", "10.0.0.2"]),
)


@given(st.lists(st.lists(PORTS, max_size=3, unique=True), min_size=1, max_size=5), st.data())
def test_no_port_is_anybodys_twice_and_what_is_given_stays(wishes, data):
    services = [service(f"s{i}", *ports, at=float(i)) for i, ports in enumerate(wishes)]
    for _ in range(3):
        due = grants(services, NETWORKS)
        services = [replace(s, ports=due[s.meta.id].ports) for s in services]
        again = grants(services, NETWORKS)
        assert {i: g.ports for i, g in again.items()} == {i: g.ports for i, g in due.items()}
        has = [(s.meta.id, p) for s in services for p in s.ports]
        for k, (owner, one) in enumerate(has):
            for other, two in has[k + 1 :]:
                alike = (one.protocol, one.published) == (two.protocol, two.published)
                assert owner == other or not (alike and same_place(one.host_ip, two.host_ip))
        # Somebody changes its mind; the others keep what they have.
        k = data.draw(st.integers(0, len(services) - 1))
        spec = services[k].spec
        fresh = tuple(data.draw(st.lists(PORTS, max_size=3, unique=True)))
        before = {s.meta.id: s.ports for s in services}
        services[k] = replace(services[k], spec=replace(spec, endpoint=EndpointSpec(ports=fresh)))
        after = grants(services, NETWORKS)
        assert all(set(before[s.meta.id]) <= set(after[s.meta.id].ports) for s in services if s is not services[k])
