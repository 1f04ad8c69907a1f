"""Forecasts of random changes: they come to rest, say the same again, and break no rule of placement."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.controller.changes import services
from argosy.controller.logic.plan_diff import plan_id, task_changes
from argosy.controller.loops.forecast import after, forecast, tasks_there
from argosy.controller.store import update
from argosy.core.node import Availability, Node, Resources
from argosy.core.service import Affinity, ContainerSpec, Placement, Service, TaskSpec
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from tests.unit.controller.objects import node, service, snapshot

NOW = 1000.0
ROOM = TaskSpec(reservations=Resources(1.0))
APART = TaskSpec(placement=Placement(affinities=(Affinity("s0", anti=True),)))


def scale(snap, draw):
    return services.scaled(snap, "default", {"s0": draw(st.integers(0, 9))}, NOW)[0]


def new_image(snap, draw):
    web = snap.get(Service, "s0")
    container = ContainerSpec("app:2", f"sha256:{'2' * 64}")
    return services.updated(snap, web, replace(web.spec, task=replace(web.spec.task, container=container)), NOW)[0]


def drain(snap, draw):
    host = snap.get(Node, draw(st.sampled_from(["n0", "n1"])))
    return [update(replace(host, spec=replace(host.spec, availability=Availability.DRAIN)))]


def remove(snap, draw):
    return services.removed(snap.get(Service, "s0"), NOW)[0]


def short(snap, without, then):
    known = frozenset(t.meta.id for t in snap.all(Task))
    names = {s.meta.id: s.spec.name for s in snap.all(Service)}
    nodes = {n.meta.id: n.spec.name for n in snap.all(Node)}
    return task_changes(tasks_there(without), tasks_there(then), known, names, nodes)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 4),
    st.sampled_from([TaskSpec(), ROOM, APART]),
    st.integers(0, 6),
    st.sampled_from([scale, new_image, drain, remove]),
    st.data(),
)
def test_a_plan_is_what_then_happens_and_what_happens_is_lawful(hosts, spec, replicas, change, data):
    snap = snapshot(*(node(f"n{i}") for i in range(hosts)), service("s0", replicas, spec), service("s1", 2))
    snap = forecast(snap, [], NOW)
    ops = change(snap, data.draw)
    planned = short(snap, forecast(snap, [], NOW), forecast(snap, ops, NOW))
    again = short(snap, forecast(snap, [], NOW), forecast(snap, ops, NOW))
    assert plan_id([], planned) == plan_id([], again)
    # What then happens, as the change is written first and the rest follows; and nothing follows on that.
    then = forecast(after(snap, ops)[0], [], NOW)
    assert short(snap, snap, then) == planned
    assert short(then, then, forecast(then, [], NOW)) == ()
    running = [t for t in then.all(Task) if t.status.state is TaskState.RUNNING]
    on = Counter((t.service_id, t.node_id) for t in running)
    if spec is ROOM:
        assert all(count <= 4 for (name, _), count in on.items() if name == "s0")
    if spec is APART:
        assert all(count == 1 for (name, _), count in on.items() if name == "s0")
