"""Rebalancing on random clusters: it evens out, comes to an end, breaks nothing, and then has nothing left to do."""

from collections import Counter
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from argosy.controller.logic.rebalance import is_at_rest, is_movable, plan_moves
from argosy.controller.loops.forecast import forecast
from argosy.controller.loops.placing import view_of
from argosy.controller.store import update
from argosy.core.node import Node, Resources
from argosy.core.service import Affinity, HostPort, Placement, Revision, Service, SpreadPreference, TaskSpec
from argosy.core.task import Task
from tests.unit.controller.objects import changed, node, service, snapshot, task

NOW = 1000.0
SPECS = st.sampled_from(
    [
        TaskSpec(),
        TaskSpec(reservations=Resources(1)),
        TaskSpec(host_ports=(HostPort("tcp", 80),)),
        TaskSpec(placement=Placement(("node.labels.zone == x",))),
        TaskSpec(placement=Placement(max_replicas_per_node=2)),
        TaskSpec(placement=Placement(preferences=(SpreadPreference("node.labels.zone"),))),
        TaskSpec(placement=Placement(affinities=(Affinity("s0", anti=True),))),
        TaskSpec(placement=Placement(affinities=(Affinity("s0", preferred=True),))),
    ]
)


@st.composite
def clusters(draw):
    """A cluster at rest, deployed by a forecast, that some nodes have joined since."""
    names = [f"n{i}" for i in range(draw(st.integers(2, 5)))]
    hosts = [node(name, labels=draw(st.sampled_from([{}, {"zone": "x"}, {"zone": "y"}]))) for name in names]
    joined = draw(st.integers(0, 2))
    services = [service(f"s{i}", draw(st.integers(0, 6)), draw(SPECS)) for i in range(draw(st.integers(1, 3)))]
    snap = forecast(snapshot(*hosts[: len(hosts) - joined], *services), [], NOW)
    return forecast(changed(snap, *hosts[len(hosts) - joined :])[0], [], NOW)


def moves_of(snap):
    specs = {(r.service_id, r.number): r.spec.task for r in snap.all(Revision)}
    tasks = [t for t in snap.all(Task) if is_movable(t) and is_at_rest(snap.get(Service, t.service_id))]
    return plan_moves(tasks, specs, view_of(snap))


def unevenness(snap):
    """Return what each round has to lower: sums of squares of numbers of tasks, the most important first.

    A service's tasks in each value of the label that it spreads over, its tasks on each node, all tasks on each node.
    """
    zones = {n.meta.id: n.spec.labels.get("zone", "") for n in snap.all(Node)}
    spreading = {r.service_id for r in snap.all(Revision) if r.spec.task.placement.preferences}
    tasks = [t for t in snap.all(Task) if is_movable(t)]
    in_zones = Counter((t.service_id, zones[t.node_id]) for t in tasks if t.service_id in spreading)
    on_nodes = Counter((t.service_id, t.node_id) for t in tasks)
    in_all = Counter(t.node_id for t in tasks)
    return tuple(sum(n * n for n in counts.values()) for counts in (in_zones, on_nodes, in_all))


@settings(deadline=None, max_examples=60)
@given(clusters())
def test_each_round_evens_out_and_in_the_end_nothing_is_left_to_do(snap):
    """The sums are whole numbers that only fall: so the rounds come to an end, however many services follow others."""
    running = sum(is_movable(t) for t in snap.all(Task))
    while moves := moves_of(snap):
        before = unevenness(snap)
        assert len({m.task.meta.id for m in moves}) == len(moves)
        snap = forecast(snap, [update(replace(m.task, evict=True)) for m in moves], NOW)
        assert unevenness(snap) < before
    assert sum(is_movable(t) for t in snap.all(Task)) == running
    room = Counter(
        t.node_id
        for t in snap.all(Task)
        if is_movable(t) and snap.get(Service, t.service_id).spec.task.reservations.cpus
    )
    assert all(count <= 4 for count in room.values())


@example(2, 11)  # six and five: not three from the first, and one back to it
@given(st.integers(1, 4), st.integers(0, 12))
@settings(deadline=None, max_examples=25)
def test_with_nothing_in_the_way_it_moves_as_few_as_possible(old, replicas):
    hosts = [node(f"n{i}") for i in range(old + 1)]
    snap = forecast(snapshot(*hosts[:old], service("web", replicas)), [], NOW)
    snap = changed(snap, hosts[old])[0]
    moves = moves_of(snap)
    assert len(moves) == replicas // (old + 1)
    assert {m.to for m in moves} <= {f"n{old}"}
    snap = forecast(snap, [update(replace(m.task, evict=True)) for m in moves], NOW)
    counts = Counter(t.node_id for t in snap.all(Task) if is_movable(t))
    assert max(counts.values(), default=0) - min((counts[n.meta.id] for n in snap.all(Node)), default=0) <= 1
    assert moves_of(snap) == ()


def test_what_is_even_for_each_service_is_evened_out_in_all():
    hosts = [node("a"), node("b")]
    tasks = [task(name, 1, "a") for name in ("one", "two", "three", "four")]
    snap = snapshot(*hosts, *(service(name) for name in ("one", "two", "three", "four")), *tasks)
    moves = moves_of(snap)
    assert len(moves) == 2
    assert {m.to for m in moves} == {"b"}
