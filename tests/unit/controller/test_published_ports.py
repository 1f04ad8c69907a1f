"""Published ports in the controller: what nodes are told, what requests are refused, which numbers tasks' ports get."""

from dataclasses import replace

import pytest

from argosy.controller.api.network_usage import ingress_networks
from argosy.controller.changes import published_ports
from argosy.controller.logic.assign import assignments_for, network_pieces
from argosy.controller.session.drains import Drains
from argosy.controller.session.endpoints import EndpointIndex
from argosy.controller.session.objects import SnapshotObjects
from argosy.controller.store import Change
from argosy.core.assignment import PeerAssignment, PublishedAssignment
from argosy.core.errors import ExistsError, PreconditionError
from argosy.core.meta import Meta
from argosy.core.network import Attachment, NetworkSpec, Slice, slice_id
from argosy.core.node import NodeState
from argosy.core.service import EndpointSpec, HostPort, NetworkAttachmentSpec, PortSpec, Service, TaskSpec
from argosy.core.task import Task
from tests.unit.controller.objects import network, node, service, snapshot, task

WEB = PortSpec("", "tcp", 80, 8080)


def publishing(name="web", *ports, has=(), own=(), networks=("net",), project="default"):
    joined = tuple(NetworkAttachmentSpec(n) for n in networks)
    made, _ = service(name, task=TaskSpec(networks=joined, host_ports=tuple(own)))
    spec = replace(made.spec, endpoint=EndpointSpec(ports=ports))
    return replace(made, spec=spec, ports=tuple(has), meta=replace(made.meta, project=project))


def told(snap, node_id):
    index = EndpointIndex()
    list(index.fill(snap))
    objects = SnapshotObjects(snap, index, Drains(None))
    return {n: list(network_pieces(n, objects)) for n in assignments_for(node_id, objects).networks}


INNER = replace(network("inner"), spec=NetworkSpec("inner", internal=True))
OBJECTS = (
    network("net"),
    INNER,
    node("a"),
    node("b"),
    Slice(Meta(slice_id("net", 1)), "net", 1, "a"),
    task("web", 1, "a", attachments=(Attachment("net", 5),)),
)


def test_every_node_carries_the_network_that_its_ports_lead_into():
    snap = snapshot(*OBJECTS, publishing("web", WEB, has=[WEB], networks=("inner", "net")))
    for node_id in ("a", "b"):
        pieces = told(snap, node_id)["net"]
        assert PublishedAssignment("net", "web", "web", ports=(WEB,)) in pieces
        slices = {p.node_id: p.slices for p in pieces if isinstance(p, PeerAssignment)}
        assert slices == {"a": (1,), "b": ()}


@pytest.mark.parametrize(
    "other",
    [
        publishing("web", WEB),  # nothing is granted yet
        publishing("web", WEB, has=[WEB], networks=("inner",)),
        replace(publishing("web", WEB, has=[WEB]), removing=True),
        publishing("web", own=[HostPort("tcp", 8080, 80)]),
    ],
)
def test_else_only_the_nodes_of_its_tasks_do(other):
    snap = snapshot(*OBJECTS, other)
    assert told(snap, "b") == {}
    assert not any(isinstance(p, PublishedAssignment) for p in told(snap, "a")["net"])


def test_the_index_follows_what_services_get_and_lose():
    before = publishing("web", WEB)
    steps = [
        (replace(before, ports=(WEB,)), [("net", True)]),
        (replace(before, ports=(WEB,)), []),
        (publishing("web", WEB, has=[WEB], networks=("other", "net")), [("net", False), ("other", True)]),
        (replace(before, removing=True, ports=(WEB,)), [("other", False)]),
        (None, []),
    ]
    nobody = OBJECTS[:-1]  # without the task: its port would go on leading to where it is
    index, old = EndpointIndex(), before
    list(index.fill(snapshot(*nobody, network("other"), before)))
    for new, news in steps:
        snap = snapshot(*nobody, network("other"), *([new] if new else []))
        found = list(index.apply([Change(Service, "web", old, new)], snap))
        assert [(n.network_id, n.piece is not None) for n in found if n.key.startswith("published/")] == news
        old = new
    assert not index.ingress_networks


def publishing_on(*networks):
    return publishing("web", WEB, has=[WEB], networks=networks)


def leading(index):
    """Return the networks that ports lead over, of those that every node carries."""
    return {i for i in index.ingress_networks if any(piece.ports for piece in index.published(i))}


def on(slot, *networks, **status):
    made = task("web", slot, "a", attachments=tuple(Attachment(n, slot) for n in networks))
    return replace(made, status=replace(made.status, **status))


def test_ports_lead_to_the_tasks_there_are_until_as_many_are_on_another_network():
    """An update takes three tasks from one network to another; it fails, and is begun again by another controller."""
    old = [on(slot, "net") for slot in (1, 2, 3)]
    new = [replace(on(slot, "front"), meta=Meta(f"new{slot}", "default", version=1)) for slot in (1, 2, 3)]
    starting = [replace(t, status=replace(t.status, unready=True)) for t in new]
    steps = [
        (old, [], "net"),
        (old, [starting[0]], "net"),
        (old, [new[0]], "net"),
        (old[1:], [new[0], starting[1]], "net"),
        (old[1:], [starting[0], starting[1]], "net"),
        (old[1:], new[:2], "front"),  # two of each
        (old[2:], new[:2], "front"),
        (old[2:], starting, "net"),
        ([], new, "front"),
        ([], starting, "front"),
    ]
    nets = network("net"), network("front"), node("a")
    before = snapshot(*nets, publishing_on("net"), *old)
    index = EndpointIndex()
    list(index.fill(before))
    for here, there, leads in [(old, [], "net"), *steps]:
        snap = snapshot(*nets, publishing_on("front"), *here, *there)
        kinds = [(k, o.meta.id) for s in (before, snap) for k in (Service, Task) for o in s.all(k)]
        changes = [Change(k, i, before.get(k, i), snap.get(k, i)) for k, i in dict.fromkeys(kinds)]
        list(index.apply([c for c in changes if c.old != c.new], snap))
        assert leading(index) == {leads}
        assert set(index.ingress_networks) == {"front", *(["net"] if here else [])}  # connections may have come over it
        afresh = EndpointIndex()
        list(afresh.fill(snap))
        assert leading(afresh) == {leads}
        assert ingress_networks(snap) == {leads}
        before = snap


def test_a_network_that_is_added_in_front_takes_over_when_all_tasks_are_on_it():
    nets = network("net"), network("front"), node("a"), publishing_on("front", "net")
    both = [on(1, "front", "net"), on(2, "front", "net")]
    assert ingress_networks(snapshot(*nets, on(1, "net"), on(2, "net"))) == {"net"}
    assert ingress_networks(snapshot(*nets, both[0], on(2, "net"))) == {"net"}
    assert ingress_networks(snapshot(*nets, *both)) == {"front"}


def test_ports_never_lead_into_an_internal_network_nor_to_tasks_of_a_node_that_is_down():
    nets = network("net"), INNER, publishing_on("inner", "net")
    assert ingress_networks(snapshot(*nets, node("a"), on(1, "inner"), on(2, "inner"), on(3, "net"))) == {"net"}
    moved = network("net"), network("front"), node("a", state=NodeState.DOWN), publishing_on("front")
    assert ingress_networks(snapshot(*moved, on(1, "net"))) == {"front"}


def check(spec, *others, leaving=()):
    published_ports.check(snapshot(network("net"), INNER, *others), "default", [spec], leaving)


def test_ports_that_another_service_has_are_refused():
    wanted = publishing("new", PortSpec("", "tcp", 81, 8080)).spec
    for other in (publishing("web", WEB), publishing("web", own=[HostPort("tcp", 8080, 1)])):
        with pytest.raises(ExistsError, match="port 8080/tcp is published by service web: choose another"):
            check(wanted, other)
        check(wanted, other, leaving=["web"])
        check(wanted, replace(other, removing=True))
    with pytest.raises(ExistsError, match="by service shop/web"):
        check(wanted, publishing("web", WEB, project="shop"))
    check(publishing("new", replace(WEB, protocol="udp")).spec, publishing("web", WEB))
    own = publishing("new", own=[HostPort("tcp", 8080, 80)]).spec
    check(own, publishing("web", own=[HostPort("tcp", 8080, 80)]))  # each on nodes of its own
    with pytest.raises(ExistsError, match="published by service web"):
        check(own, publishing("web", PortSpec("", "tcp", 80), has=[WEB]))


def test_what_a_service_asked_for_before_is_not_looked_at_again():
    check(publishing("new", WEB).spec, publishing("new", WEB), publishing("web", WEB, has=[WEB]))


@pytest.mark.parametrize(("networks", "why"), [((), "is on no network"), (("inner",), "is on internal networks only")])
def test_ports_need_a_way_in(networks, why):
    with pytest.raises(PreconditionError, match=why):
        check(publishing("new", WEB, networks=networks).spec)
    check(publishing("new", own=[HostPort("tcp", 80)], networks=networks).spec)
    with pytest.raises(PreconditionError, match=why):  # it leaves the one that it had
        check(publishing("new", WEB, networks=networks).spec, publishing("new", WEB))
    check(publishing("new", WEB, networks=networks).spec, publishing("new", WEB, networks=networks))


def numbered(snap, *specs):
    """Return the numbers of each spec's ports in host mode, after checks that a deploy of all of them makes."""
    got = published_ports.with_numbers(snap, "default", specs)
    published_ports.check(snap, "default", got)
    return [[p.port for p in spec.task.host_ports] for spec in got]


def test_ports_of_tasks_get_numbers_and_keep_them():
    asked = (HostPort("tcp", 0, 80), HostPort("tcp", 0, 81), HostPort("udp", 0, 80), HostPort("tcp", 90, 90))
    new = publishing("new", own=asked).spec
    snap = snapshot(network("net"), publishing("web", PortSpec("", "tcp", 80), has=[replace(WEB, published=30000)]))
    assert numbered(snap, new) == [[30001, 30002, 30000, 90]]
    present = publishing("new", own=(HostPort("tcp", 30009, 81), HostPort("tcp", 40000, 80)))
    assert numbered(snapshot(network("net"), present), new) == [[30000, 30009, 30000, 90]]


def test_ports_of_services_that_are_deployed_together_get_numbers_of_their_own():
    any_number = HostPort("tcp", 0, 80)
    a, b = (publishing(name, own=[any_number]).spec for name in "ab")
    empty = snapshot(network("net"))
    assert numbered(empty, a, b) == [[30000], [30001]]
    assert numbered(empty, a, publishing("e", replace(WEB, published=30000)).spec) == [[30001], []]
    assert numbered(empty, publishing("e", own=[HostPort("tcp", 30000, 1)]).spec, a) == [[30000], [30001]]
    mine = publishing("a", own=[HostPort("tcp", 0, 81), HostPort("tcp", 30000, 80)]).spec
    assert numbered(empty, mine) == [[30001, 30000]]
    both = publishing("a", replace(WEB, published=30000), own=[any_number]).spec
    assert numbered(empty, both) == [[30001]]
    had = snapshot(network("net"), publishing("a", own=[HostPort("tcp", 30000, 80)]))
    assert numbered(had, both) == [[30001]]
    assert numbered(had, a, b) == [[30000], [30001]]


@pytest.mark.parametrize("present", [(), (HostPort("tcp", 30000, 80),)])
def test_no_port_of_tasks_gets_a_number_that_its_service_asks_for(present):
    snap = snapshot(network("net"), publishing("new", own=present))
    asked = HostPort("tcp", 30000, 80), HostPort("tcp", 0, 80)
    assert numbered(snap, publishing("new", own=asked).spec) == [[30000, 30001]]
    assert numbered(snap, publishing("new", replace(WEB, published=30000), own=asked[1:]).spec) == [[30001]]
