"""Affinities, case by case: who may run where, what both sides have to say, and what a refusal tells."""

from dataclasses import replace

import pytest

from argosy.controller.logic.ask import Ask
from argosy.controller.logic.cluster_view import ClusterView
from argosy.controller.logic.explain import summary, verdicts
from argosy.controller.logic.schedule import Request, place
from argosy.core.meta import Meta, Scheduling
from argosy.core.node import Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Resources
from argosy.core.service import Affinity, Placement, TaskSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

RACK = "node.labels.rack"


def node(name, rack=""):
    labels = {"rack": rack} if rack else {}
    return Node(
        Meta(name),
        NodeSpec(name, labels=labels),
        NodeDescription(name, resources=Resources(4.0, 1 << 30)),
        NodeStatus(NodeState.READY),
    )


NODES = [node("a", "1"), node("b", "1"), node("c", "2"), node("d")]


def spec(*affinities, cpus=0.0):
    return TaskSpec(placement=Placement(affinities=affinities), reservations=Resources(cpus))


def running(*there, state=TaskState.RUNNING, desired=TaskState.RUNNING):
    """Return tasks of "service on node"."""
    tasks = []
    for i, text in enumerate(there):
        service, _, node_id = text.partition(" on ")
        tasks.append(Task(Meta(f"old{i}"), service, i + 1, node_id, 1, desired, TaskStatus(state)))
    return tasks


def placed(wanted, count, tasks=(), others=None, nodes=NODES, **more):
    """Return the nodes of `count` tasks of web, sorted, and the reason of those that got none."""
    specs = {("web", 1): wanted, **{(name, 1): one for name, one in (others or {}).items()}}
    view = ClusterView.build(nodes, tasks, specs, **more)
    result = place([Request(f"web{i}", "web", 1, wanted) for i in range(count)], view)
    return sorted(result.assigned.values()), "".join(sorted(set(result.refused.values())))


@pytest.mark.parametrize(
    ("affinities", "count", "there", "nodes", "why"),
    [
        ([Affinity("db")], 2, ["db on c"], ["c", "c"], ""),
        ([Affinity("db")], 1, [], [], "no node has a task of db to run beside"),
        ([Affinity("db", within=RACK)], 4, ["db on a"], ["a", "a", "b", "b"], ""),
        ([Affinity("db", within=RACK)], 1, ["db on d"], ["d"], ""),
        ([Affinity("db"), Affinity("cache")], 1, ["db on a", "cache on b"], [], "no suitable node: "
         "3 of 4 have no task of db, which this service runs beside, "
         "1 has no task of cache, which this service runs beside"),
        ([Affinity("db", anti=True)], 6, ["db on a", "db on d"], ["b", "b", "b", "c", "c", "c"], ""),
        ([Affinity("db", anti=True, within=RACK)], 2, ["db on a"], ["c", "d"], ""),
        ([Affinity("web", anti=True)], 5, [], ["a", "b", "c", "d"],
         "all 4 nodes have a task of web, which this service keeps away from"),
        ([Affinity("web", anti=True, within=RACK)], 4, [], ["a", "c", "d"], "all 4 nodes have a task of web in its "
         "node.labels.rack, which this service keeps away from"),
        ([Affinity("web")], 3, [], ["a", "a", "a"], ""),
        ([Affinity("web", within=RACK)], 3, ["web on b"], ["a", "a", "b"], ""),
        ([Affinity("db", preferred=True)], 3, ["db on d"], ["d", "d", "d"], ""),
        ([Affinity("db", preferred=True)], 2, [], ["a", "b"], ""),
        ([Affinity("db", anti=True, preferred=True)], 4, ["db on a"], ["b", "c", "c", "d"], ""),
        ([Affinity("web", anti=True, preferred=True, within=RACK)], 5, [], ["a", "a", "b", "c", "d"], ""),
    ],
)  # fmt: skip
def test_where_tasks_go(affinities, count, there, nodes, why):
    found, reason = placed(spec(*affinities), count, running(*there))
    if affinities[0].preferred and affinities[0].anti:
        assert set(found) == set(nodes)
    else:
        assert found == nodes
    assert reason == why


def test_a_task_that_keeps_others_away_does_so_when_it_was_there_first():
    found, why = placed(TaskSpec(), 4, running("loner on a", "loner on c"), {"loner": spec(Affinity("web", anti=True))})
    assert set(found) == {"b", "d"}
    found, why = placed(
        TaskSpec(), 1, running("loner on a"), {"loner": spec(Affinity("web", anti=True))}, nodes=[node("a")]
    )
    assert (found, why) == ([], "the only node has a task that keeps this service away")
    within = spec(Affinity("web", anti=True, within=RACK))
    assert set(placed(TaskSpec(), 4, running("loner on a"), {"loner": within})[0]) == {"c", "d"}


def test_a_task_that_is_stopping_still_repels_but_attracts_no_more():
    stopping = running("db on a", desired=TaskState.SHUTDOWN)
    assert set(placed(spec(Affinity("db", anti=True)), 3, stopping)[0]) == {"b", "c", "d"}
    assert placed(spec(Affinity("db")), 1, stopping)[0] == []
    ended = running("db on a", state=TaskState.SHUTDOWN, desired=TaskState.SHUTDOWN)
    assert "a" in placed(spec(Affinity("db", anti=True)), 4, ended)[0]


def test_a_successor_takes_the_place_of_the_task_that_ends_before_it_starts():
    alone = spec(Affinity("web", anti=True))
    view = ClusterView.build([node("a")], running("web on a"), {("web", 1): alone})
    request = Request("new", "web", 1, alone, replaces="old0")
    assert place([request], view).assigned == {}
    assert place([replace(request, after_stop=True)], view).assigned == {"new": "a"}


def test_names_are_of_the_same_project():
    specs = {("1", 1): TaskSpec(), ("2", 1): TaskSpec(), ("web", 1): spec(Affinity("db", anti=True))}
    names = {"1": "blue/db", "2": "red/db", "web": "red/web"}
    view = ClusterView.build(NODES[:2], running("1 on a", "2 on b"), specs, names)
    assert place([Request("t", "web", 1, specs["web", 1])], view).assigned == {"t": "a"}


def test_a_changed_label_changes_who_is_near():
    wanted = spec(Affinity("db", within=RACK))
    view = ClusterView.build(NODES, running("db on c"), {("web", 1): wanted})
    assert place([Request("t", "web", 1, wanted)], view).assigned == {"t": "c"}
    view.put_node(node("d", "2"))
    assert place([Request("u", "web", 1, wanted)], view).assigned == {"u": "d"}


def test_packing_fills_the_fullest_node_that_has_room():
    wanted = spec(cpus=1.0)
    there = running("db on b", "db on b", "db on c")
    nodes, _ = placed(wanted, 4, there, {"db": spec(cpus=1.0)}, scheduling=Scheduling.BINPACK)
    assert nodes == ["b", "b", "c", "c"]
    assert placed(TaskSpec(), 2, running("db on c"), scheduling=Scheduling.BINPACK)[0] == ["c", "c"]


def test_an_explanation_is_of_each_node():
    wanted = spec(Affinity("db", within=RACK), cpus=3.0)
    view = ClusterView.build(NODES, running("db on a", "db on b"), {("db", 1): spec(cpus=2.0), ("web", 1): wanted})
    ask = Ask.of("web", wanted)
    assert [(v.node, v.reason, v.next) for v in verdicts(ask, view)] == [
        ("a", "lacks 3 CPUs (2 free)", False),
        ("b", "lacks 3 CPUs (2 free)", False),
        ("c", "has no task of db in its node.labels.rack, which this service runs beside", False),
        ("d", "has no task of db in its node.labels.rack, which this service runs beside", False),
    ]
    assert summary(ask, view).startswith("no suitable node: 2 of 4 have no task of db")
    easy = Ask.of("web", spec(cpus=1.0))
    assert summary(easy, view) == ""
    assert [v.node for v in verdicts(easy, view) if v.next] == ["c"]


def test_a_node_that_comes_last_says_why_though_it_fits():
    wanted = spec()
    view = ClusterView.build(NODES, (), {("web", 1): wanted})
    view.shun("web", ["a"])
    first, *others = verdicts(Ask.of("web", wanted), view)
    assert (first.node, first.fits, first.next) == ("a", True, False)
    assert first.reason == "comes last: within 300 s it rejected a task of the service, or 3 or more failed there"
    assert all(v.fits and not v.reason for v in others)
