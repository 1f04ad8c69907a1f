"""Placement on random clusters: nothing oversubscribed, filters respected, refusals true, spread even.

The judge is the benchmark's validator, which shares no code with the scheduler; the last test shows that it catches
wrong placements.
"""

import importlib.util
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from argosy.controller.logic.ask import Ask
from argosy.controller.logic.cluster_view import ClusterView
from argosy.controller.logic.filters import FILTERS
from argosy.controller.logic.node_set import first, from_flags, from_positions, positions
from argosy.controller.logic.schedule import Placements, Request, place
from argosy.core.meta import Meta
from argosy.core.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Platform, Resources
from argosy.core.service import Affinity, HostPort, Placement, SpreadPreference, TaskSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

_PATH = Path(__file__).parents[2] / "bench" / "schedule.py"
_SPEC = importlib.util.spec_from_file_location("bench_schedule", _PATH)
bench = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(bench)

PLATFORMS = st.sampled_from([Platform("linux", "amd64"), Platform("linux", "arm64")])
LABELS = st.dictionaries(st.sampled_from(["zone", "rack"]), st.sampled_from(["", "x", "y"]))
CONSTRAINTS = st.sampled_from(["node.labels.zone == x", "node.labels.rack != y", "node.platform.arch == amd64"])
AMOUNTS = st.builds(
    Resources, st.sampled_from([0.0, 0.1, 8.0, 16.0, 20.0]), st.sampled_from([0, bench.GIB, 100 * bench.GIB])
)


AFFINITIES = st.builds(
    Affinity,
    service=st.sampled_from(["s0", "s1", "s2", "s3"]),
    anti=st.just(True),
    preferred=st.booleans(),
    within=st.sampled_from(bench.PLACES),
)
"""Those that attract are in tests/unit/logic/test_affinity.py: one that is refused may be possible a moment later."""


@st.composite
def nodes(draw):
    return [
        Node(
            Meta(f"n{i}"),
            NodeSpec(
                f"n{i}", "worker", draw(st.sampled_from([Availability.ACTIVE] * 4 + [*Availability])), draw(LABELS)
            ),
            NodeDescription(f"n{i}", draw(PLATFORMS), Resources(bench.CPUS, bench.MEMORY)),
            NodeStatus(draw(st.sampled_from([NodeState.READY] * 6 + [*NodeState]))),
        )
        for i in range(draw(st.integers(0, 7)))
    ]


@st.composite
def specs(draw):
    preferences = draw(st.sampled_from([(), ("zone",), ("zone", "rack")]))
    return TaskSpec(
        reservations=draw(AMOUNTS),
        host_ports=tuple(
            HostPort("tcp", number, host_ip=draw(st.sampled_from(["", "10.0.0.1", "10.0.0.2"])))
            for number in draw(st.sets(st.sampled_from([80, 443]), max_size=2))
        ),
        placement=Placement(
            tuple(draw(st.sets(CONSTRAINTS, max_size=2))),
            tuple(SpreadPreference(f"node.labels.{label}") for label in preferences),
            draw(st.sampled_from([0, 0, 1, 2])),
            tuple(draw(st.sets(PLATFORMS, max_size=2))),
            tuple(draw(st.sets(AFFINITIES, max_size=2))),
        ),
    )


@st.composite
def scenes(draw):
    """A cluster whose running tasks fit, made by placing them, and requests in any order."""
    hosts = draw(nodes())
    services = {(f"s{i}", 1): draw(specs()) for i in range(draw(st.integers(1, 4)))}
    keys = st.sampled_from(sorted(services))
    old = [Request(f"o{i}", *k, services[k]) for i, k in enumerate(draw(st.lists(keys, max_size=8)))]
    there = place(old, ClusterView.build(hosts, [], services)).assigned
    running = [
        Task(Meta(r.task_id), r.service_id, 1, there[r.task_id], 1, status=TaskStatus(TaskState.RUNNING))
        for r in old
        if r.task_id in there
    ]
    new = [Request(f"t{i}", *k, services[k]) for i, k in enumerate(draw(st.lists(keys, max_size=14)))]
    return bench.Scene(hosts, running, services, new)


@given(scenes())
def test_every_placement_refusal_and_spread_is_right(scene):
    result = place(scene.requests, ClusterView.build(scene.nodes, scene.tasks, scene.specs))
    assert bench.problems(scene, result) == []
    assert all(result.refused.values())


@given(scenes(), st.randoms())
def test_the_order_of_nodes_and_tasks_does_not_matter(scene, chance):
    hosts, running = list(scene.nodes), list(scene.tasks)
    chance.shuffle(hosts)
    chance.shuffle(running)
    one = place(scene.requests, ClusterView.build(scene.nodes, scene.tasks, scene.specs))
    assert place(scene.requests, ClusterView.build(hosts, running, scene.specs)) == one


@given(scenes())
def test_placing_in_two_rounds_on_a_view_that_is_kept_or_built_anew_is_the_same(scene):
    half = len(scene.requests) // 2
    kept = ClusterView.build(scene.nodes, scene.tasks, scene.specs)
    done = place(scene.requests[:half], kept).assigned
    new = [
        Task(Meta(r.task_id), r.service_id, 1, done[r.task_id], 1, status=TaskStatus(TaskState.ASSIGNED))
        for r in scene.requests[:half]
        if r.task_id in done
    ]
    built = ClusterView.build(scene.nodes, scene.tasks + new, scene.specs)
    assert place(scene.requests[half:], kept) == place(scene.requests[half:], built)


@given(scenes())
def test_each_filter_says_the_same_of_all_nodes_as_of_each_and_explains_each_once(scene):
    view = ClusterView.build(scene.nodes, scene.tasks, scene.specs)
    for (service, _), spec in scene.specs.items():
        ask = Ask.of(service, spec)
        for one in FILTERS:
            passed = one.nodes(ask, view)
            assert passed == from_flags(one.check(ask, view, info) for info in view.infos)
            refused = view.all & ~passed
            if refused:
                assert sum(r.nodes for r in one.explain(ask, view, refused)) == refused.bit_count()


@given(st.integers(1, 9), st.integers(0, 40))
def test_where_nothing_speaks_against_it_tasks_are_spread_within_one(count, tasks):
    hosts = [Node(Meta(f"n{i}"), NodeSpec(f"n{i}"), status=NodeStatus(NodeState.READY)) for i in range(count)]
    requests = [Request(f"t{i}", "web", 1, TaskSpec()) for i in range(tasks)]
    placed = Counter(place(requests, ClusterView.build(hosts, [], {})).assigned.values())
    assert placed.total() == tasks
    assert max(placed.values(), default=0) - min((placed[n.meta.id] for n in hosts), default=0) <= 1


@given(scenes(), st.data())
def test_taking_over_leaves_no_trace_but_the_placement(scene, data):
    assume(scene.tasks and scene.requests)
    view = ClusterView.build(scene.nodes, scene.tasks, scene.specs)
    requests = [
        replace(r, replaces=data.draw(st.sampled_from(scene.tasks)).meta.id, after_stop=data.draw(st.booleans()))
        for r in scene.requests
    ]
    done = place(requests, view).assigned
    for task_id in done:
        view.forget(task_id)
    fresh = ClusterView.build(scene.nodes, scene.tasks, scene.specs)
    for one, other in zip(view.infos, fresh.infos, strict=True):
        assert (one.cpus, one.memory, one.pids) == (other.cpus, other.memory, other.pids)
        assert (one.tasks, one.services) == (other.tasks, other.services)
    for spec in scene.specs.values():
        ask = Ask.of("s0", spec)
        assert view.roomy(ask.needs.room) == fresh.roomy(ask.needs.room)
        assert all(view.with_port(port) == fresh.with_port(port) for port in ask.needs.ports)
    assert place(scene.requests, view) == place(scene.requests, fresh)


@given(st.sets(st.integers(0, 200)))
def test_sets_of_nodes(members):
    made = from_positions(members)
    assert made == from_flags(p in members for p in range(201))
    assert list(positions(made)) == sorted(members, reverse=True)
    assert first(made) == max(members, default=-1)


def test_the_benchmark_in_small():
    scene = bench.scene(random.Random(1), 120, 600, 25)
    assert bench.problems(scene, bench.run(scene)[2]) == []


def _moved_to(scene, placements, task_id, node_id):
    return Placements({**placements.assigned, task_id: node_id}, placements.refused)


@pytest.mark.parametrize("kind", ["anywhere", "refused", "twice", "crowded"])
def test_the_judge_catches_wrong_placements(kind):
    scene = bench.scene(random.Random(3), 120, 600, 25)
    good = bench.run(scene)[2]
    task_id = scene.requests[0].task_id
    node_id = good.assigned[task_id]
    wrong = {
        "anywhere": _moved_to(
            scene, good, task_id, next(n.meta.id for n in scene.nodes if n.status.state is NodeState.DOWN)
        ),
        "refused": Placements(
            {k: v for k, v in good.assigned.items() if k != task_id}, {**good.refused, task_id: "no"}
        ),
        "twice": Placements(good.assigned, {**good.refused, task_id: "no"}),
        "crowded": Placements(dict.fromkeys(good.assigned, node_id), good.refused),
    }[kind]
    assert bench.problems(scene, good) == []
    assert bench.problems(scene, wrong) != []
