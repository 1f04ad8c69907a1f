"""Placement, case by case: filters and their words, the order of spread, taking over a slot, keeping a view current."""

from dataclasses import replace

import pytest

from argosy.controller.logic.ask import Ask, Port
from argosy.controller.logic.cluster_view import ClusterView
from argosy.controller.logic.filters import fits_placement
from argosy.controller.logic.schedule import Request, place, predecessor_of, request_for
from argosy.controller.logic.shunned import shunned_nodes
from argosy.core.meta import Meta
from argosy.core.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Platform, Resources
from argosy.core.service import HostPort, Placement, SpreadPreference, TaskSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

GIB = 1 << 30
PLAIN = TaskSpec()
ACTIVE, READY = Availability.ACTIVE, NodeState.READY
LINUX = Platform("linux", "x86_64")


def node(name, cpus=4.0, memory=4 * GIB, *, pids=0, labels=None, state=READY, availability=ACTIVE, platform=LINUX):
    return Node(
        Meta(name),
        NodeSpec(name, "worker", availability, labels or {}),
        NodeDescription(name, platform, Resources(cpus, memory, pids)),
        NodeStatus(state),
    )


def task(
    task_id, node_id, service="web", *, slot=1, revision=1, state=TaskState.RUNNING, desired=TaskState.RUNNING, at=0.0
):
    return Task(
        Meta(task_id, "default", created_at=at), service, slot, node_id, revision, desired, TaskStatus(state, at)
    )


def view(nodes, tasks=(), specs=None, shunned=None):
    made = ClusterView.build(nodes, tasks, specs or {("web", 1): PLAIN})
    for service, node_ids in (shunned or {}).items():
        made.shun(service, node_ids)
    return made


def ask_for(count, spec=PLAIN, service="web"):
    return [Request(f"{service}{i}", service, 1, spec) for i in range(count)]


def nodes_of(placements):
    return list(placements.assigned.values())


def reserve(cpus=0.0, memory=0, pids=0):
    return TaskSpec(reservations=Resources(cpus, memory, pids))


# ---------------------------------------------------------------- reasons


def constrained(*constraints):
    return TaskSpec(placement=Placement(constraints))


def down(name, state=NodeState.DOWN):
    return node(name, state=state)


def drained(name, availability=Availability.DRAIN):
    return node(name, availability=availability)


ARM = Platform("linux", "aarch64")
FOR_AMD64 = TaskSpec(placement=Placement(platforms=(Platform("linux", "amd64"),)))
PORT_80 = TaskSpec(host_ports=(HostPort("tcp", 80),))
ONE_EACH = TaskSpec(placement=Placement(max_replicas_per_node=1))


@pytest.mark.parametrize(
    ("nodes", "spec", "reason"),
    [
        ([], PLAIN, "the cluster has no nodes: join one"),
        ([node("a", 1.5), node("b", 1), node("c", 0.5)], reserve(4), "no node has 4 CPUs free: 3 nodes, most free 1.5"),
        ([node("a", 0.5)], reserve(1), "no node has 1 CPU free: 1 node, most free 0.5"),
        (
            [node("a", memory=GIB // 2), node("b", memory=GIB // 4)],
            reserve(memory=GIB),
            "no node has 1 GiB of memory free: 2 nodes, most free 512 MiB",
        ),
        ([node("a", pids=50)], reserve(pids=100), "no node has 100 processes (pids) free: 1 node, most free 50"),
        (
            [node("a", 1), node("b", memory=GIB), node("c", 2)],
            reserve(3, 2 * GIB),
            "no suitable node: 2 of 3 lack 3 CPUs (most free 2), 1 lacks 2 GiB of memory (1 GiB free)",
        ),
        (
            [node("a"), node("b", labels={"zone": "us"}), node("c")],
            constrained("node.labels.zone == eu"),
            "no node meets node.labels.zone == eu (0 of 3)",
        ),
        (
            [node("a", labels={"zone": "eu"}), node("b", labels={"zone": "us"}), node("c")],
            constrained("node.labels.zone==eu", "node.hostname != a"),
            "no suitable node: 2 of 3 do not meet node.labels.zone == eu, 1 does not meet node.hostname != a",
        ),
        (
            [drained("a"), drained("b"), *[node(x, memory=GIB // 2) for x in "cde"]],
            reserve(memory=GIB),
            "no suitable node: 2 of 5 are drained, 3 lack 1 GiB of memory (most free 512 MiB)",
        ),
        ([drained("a")], PLAIN, "the only node is drained"),
        ([drained("a", Availability.PAUSE), drained("b", Availability.PAUSE)], PLAIN, "both nodes are paused"),
        ([down("a"), down("b"), down("c")], PLAIN, "all 3 nodes are down"),
        (
            [down("a"), down("b", NodeState.UNKNOWN), down("c", NodeState.AGENT_LOST), drained("d")],
            PLAIN,
            "no suitable node: 1 of 4 is not heard from yet, 1 is without an agent, 1 is down, 1 is drained",
        ),
        (
            [node("a", platform=ARM), node("b", platform=ARM)],
            FOR_AMD64,
            "no node has the image's platform linux/amd64 (0 of 2; there is linux/arm64)",
        ),
        (
            [node("a", platform=ARM), down("b")],
            FOR_AMD64,
            "no suitable node: 1 of 2 is down, 1 is linux/arm64, and the image is for linux/amd64",
        ),
    ],
)
def test_a_refusal_is_counted_and_says_what_is_lacking(nodes, spec, reason):
    result = place(ask_for(2, spec), view(nodes))
    assert result.assigned == {}
    assert result.refused == {"web0": reason, "web1": reason}


def test_ports_and_maximum_are_reasons_once_used_up():
    nodes = [node("a"), node("b")]
    result = place(ask_for(3, PORT_80), view(nodes))
    assert sorted(nodes_of(result)) == ["a", "b"]
    assert result.refused == {"web2": "port 80/tcp is taken on both nodes"}
    result = place(ask_for(3, ONE_EACH), view(nodes))
    assert sorted(nodes_of(result)) == ["a", "b"]
    assert result.refused == {"web2": "both nodes already have 1 task of this service (max_replicas_per_node is 1)"}
    result = place(ask_for(2, PORT_80), view([node("a"), drained("b")]))
    assert result.refused == {"web1": "no suitable node: 1 of 2 is drained, 1 has no port 80/tcp left"}


def test_the_same_number_of_another_protocol_is_another_port():
    udp = TaskSpec(host_ports=(HostPort("udp", 80),))
    cluster = view([node("a")])
    assert nodes_of(place(ask_for(1, PORT_80, "x"), cluster)) == ["a"]
    assert nodes_of(place(ask_for(1, udp, "y"), cluster)) == ["a"]


@pytest.mark.parametrize(
    ("first", "second", "fit"),
    [
        ("10.0.0.1", "10.0.0.2", True),
        ("10.0.0.1", "10.0.0.1", False),
        ("10.0.0.1", "", False),
        ("", "10.0.0.1", False),
        ("0.0.0.0", "10.0.0.1", False),
        ("10.0.0.1", "0.0.0.0", False),
    ],
)
def test_the_same_number_at_another_address_is_another_port(first, second, fit):
    one, other = (TaskSpec(host_ports=(HostPort("tcp", 53, host_ip=ip),)) for ip in (first, second))
    cluster = view([node("a")])
    assert nodes_of(place(ask_for(1, one, "x"), cluster)) == ["a"]
    result = place(ask_for(1, other, "y"), cluster)
    assert nodes_of(result) == (["a"] if fit else [])
    place_of = "" if second in ("", "0.0.0.0") else f"{second}:"
    assert result.refused == ({} if fit else {"y0": f"port {place_of}53/tcp is taken on the only node"})


def test_a_constraint_that_cannot_be_read_is_the_reason():
    result = place(ask_for(1, constrained("node.zone == eu")), view([node("a")]))
    assert 'nodes have no attribute "node.zone"' in result.refused["web0"]


@pytest.mark.parametrize(
    ("bound_to", "spec", "reason"),
    [
        ("a", PLAIN, None),
        ("b", PLAIN, "node b is drained"),
        ("c", reserve(1), "node c lacks 1 CPU (0.5 free)"),
        ("a", constrained("node.labels.zone == eu"), "node a does not meet node.labels.zone == eu"),
        ("gone", PLAIN, "node gone does not exist any more"),
    ],
)
def test_a_task_bound_to_its_node_is_only_checked(bound_to, spec, reason):
    cluster = view([node("a"), drained("b"), node("c", 0.5)])
    result = place([Request("t", "web", 1, spec, bound_to)], cluster)
    assert (result.assigned, result.refused) == (({"t": bound_to}, {}) if reason is None else ({}, {"t": reason}))


# ---------------------------------------------------------------- room


def test_reservations_are_exact_and_limits_do_not_count():
    cluster = view([node("a", cpus=1)])
    result = place(ask_for(11, replace(reserve(0.1), limits=Resources(4))), cluster)
    assert len(result.assigned) == 10
    assert result.refused == {"web10": "no node has 0.1 CPUs free: 1 node, most free 0"}


@pytest.mark.parametrize(
    ("state", "desired", "is_free"),
    [
        (TaskState.RUNNING, TaskState.RUNNING, False),
        (TaskState.ASSIGNED, TaskState.READY, False),
        (TaskState.RUNNING, TaskState.SHUTDOWN, False),
        (TaskState.RUNNING, TaskState.REMOVE, False),
        (TaskState.SHUTDOWN, TaskState.SHUTDOWN, True),
        (TaskState.FAILED, TaskState.RUNNING, True),
        (TaskState.ORPHANED, TaskState.SHUTDOWN, True),
        (TaskState.PENDING, TaskState.RUNNING, True),
    ],
)
def test_a_task_takes_room_from_its_assignment_to_its_end(state, desired, is_free):
    spec = replace(reserve(4), host_ports=PORT_80.host_ports)
    cluster = view([node("a")], [task("old", "a", "db", state=state, desired=desired)], {("db", 1): spec})
    assert bool(place(ask_for(1, spec), cluster).assigned) is is_free


def test_other_services_pay_for_what_earlier_ones_got():
    cluster = view([node("a", 2), node("b", 2)])
    requests = ask_for(2, reserve(1.5), "first") + ask_for(2, reserve(1), "second")
    result = place(requests, cluster)
    assert set(result.assigned) == {"first0", "first1"}
    assert set(result.refused.values()) == {"no node has 1 CPU free: 2 nodes, most free 0.5"}


# ---------------------------------------------------------------- spread


def test_tasks_of_a_service_are_spread_before_nodes_are_balanced():
    busy = [task(f"x{i}", "a", "other") for i in range(5)]
    result = place(ask_for(4), view([node("a"), node("b")], busy))
    assert sorted(nodes_of(result)) == ["a", "a", "b", "b"]
    assert nodes_of(result)[0] == "b"  # the emptier node first


def test_among_equals_the_node_with_the_fewest_tasks_then_the_lowest_id():
    busy = [task("x", "a", "other"), task("y", "b", "other")]
    assert nodes_of(place(ask_for(3), view([node("c"), node("b"), node("a")], busy))) == ["c", "a", "b"]


def test_a_task_that_is_asked_to_stop_attracts_no_other():
    old = [task("x", "a", desired=TaskState.SHUTDOWN)]
    assert nodes_of(place(ask_for(1), view([node("a"), node("b")], old))) == ["a"]


def spread_over(*labels):
    return TaskSpec(placement=Placement(preferences=tuple(SpreadPreference(f"node.labels.{n}") for n in labels)))


def test_values_of_a_label_get_equally_many_however_many_nodes_they_have():
    nodes = [node("a", labels={"zone": "x"}), *[node(f"b{i}", labels={"zone": "y"}) for i in range(5)], node("c")]
    placed = nodes_of(place(ask_for(9, spread_over("zone")), view(nodes)))
    assert (placed.count("a"), placed.count("c"), sum(p.startswith("b") for p in placed)) == (3, 3, 3)


def test_no_label_and_an_empty_one_are_the_same_value():
    nodes = [node("a"), node("b", labels={"zone": ""}), node("c", labels={"zone": "x"})]
    placed = nodes_of(place(ask_for(4, spread_over("zone")), view(nodes)))
    assert sorted(placed) == ["a", "b", "c", "c"]


def test_the_second_level_spreads_within_each_value_of_the_first():
    nodes = [node("a", labels={"zone": "x", "rack": "1"})]
    nodes += [node(f"b{i}", labels={"zone": "x", "rack": "2"}) for i in range(3)]
    nodes += [node("c", labels={"zone": "y", "rack": "1"})]
    placed = nodes_of(place(ask_for(8, spread_over("zone", "rack")), view(nodes)))
    assert (placed.count("a"), placed.count("c"), sum(p.startswith("b") for p in placed)) == (2, 4, 2)


def test_tasks_that_are_there_count_also_on_nodes_that_take_no_more():
    nodes = [node("a", labels={"zone": "x"}), drained("b"), node("c", labels={"zone": "y"})]
    nodes[1] = replace(nodes[1], spec=replace(nodes[1].spec, labels={"zone": "x"}))
    running = [task("o1", "b"), task("o2", "b")]
    assert nodes_of(place(ask_for(2, spread_over("zone")), view(nodes, running))) == ["c", "c"]


def test_a_full_value_is_passed_over():
    nodes = [node("a", 1, labels={"zone": "x"}), node("b", 8, labels={"zone": "y"})]
    spec = replace(spread_over("zone"), reservations=Resources(1))
    placed = nodes_of(place(ask_for(5, spec), view(nodes)))
    assert (placed.count("a"), placed.count("b")) == (1, 4)


def test_nodes_where_the_service_keeps_failing_come_last():
    cluster = view([node("a"), node("b", 1)], shunned={"web": {"a"}})
    assert nodes_of(place(ask_for(2, reserve(1)), cluster)) == ["b", "a"]


def test_which_nodes_are_shunned():
    def failed(task_id, node_id, at, state=TaskState.FAILED):
        return task(task_id, node_id, state=state, at=at)

    tasks = [failed("1", "a", 900), failed("2", "a", 950), failed("3", "a", 1000)]
    tasks += [failed("4", "b", 900), failed("5", "b", 950), failed("6", "b", 600)]  # one of these is too old
    tasks += [failed(str(i), "c", 990, TaskState.SHUTDOWN) for i in range(7, 12)]
    tasks += [failed("12", "d", 990, TaskState.REJECTED), failed("13", "e", 600, TaskState.REJECTED)]
    assert shunned_nodes(tasks, 1000.0) == {"web": frozenset({"a", "d"})}


def test_a_node_that_has_the_address_of_a_port_comes_first_and_last_once_it_rejected():
    def host(name, *addresses):
        made = node(name)
        return replace(made, description=replace(made.description, addresses=addresses))

    spec = TaskSpec(host_ports=(HostPort("tcp", 443, host_ip="192.0.2.7"),))
    nodes = [host("a", "192.0.2.6"), host("b", "10.0.0.2", "192.0.2.7"), host("c")]
    assert nodes_of(place(ask_for(2, spec), view(nodes))) == ["b", "a"]
    assert nodes_of(place(ask_for(2, spec), view(nodes, shunned={"web": {"b"}}))) == ["a", "c"]
    everywhere = TaskSpec(host_ports=(HostPort("tcp", 443, host_ip="127.0.0.1"),))
    assert nodes_of(place(ask_for(1, everywhere), view(nodes))) == ["a"]


# ---------------------------------------------------------------- taking over a slot


def full_cluster(desired=TaskState.READY):
    """Return a request that takes over from the one task that fills node a."""
    spec = replace(reserve(4), host_ports=PORT_80.host_ports)
    old = task("old", "a")
    new = task("new", "", state=TaskState.NEW, desired=desired, revision=2, at=1.0)
    return view([node("a")], [old], {("web", 1): spec}), request_for(new, spec, predecessor_of(new, [old, new]))


def test_an_update_in_place_works_on_a_full_node_when_the_old_task_stops_first():
    cluster, request = full_cluster()
    assert place([request], cluster).assigned == {"new": "a"}


def test_with_start_first_both_have_to_fit():
    cluster, request = full_cluster(TaskState.RUNNING)
    assert place([request], cluster).refused == {"new": "port 80/tcp is taken on the only node"}


def test_what_the_old_task_leaves_is_for_its_successor_only():
    cluster, request = full_cluster()
    result = place([request, Request("stranger", "db", 1, reserve(1))], cluster)
    assert result.assigned == {"new": "a"}
    assert result.refused == {"stranger": "no node has 1 CPU free: 1 node, most free 0"}


def test_an_update_of_all_slots_leaves_the_spread_as_it_was():
    nodes = [node(name) for name in "abc"]
    cluster = view(nodes, [task(f"old{name}", name, slot=i) for i, name in enumerate("cba", 1)])
    placed = []
    for i, name in enumerate("cba", 1):
        request = Request(f"new{i}", "web", 2, PLAIN, replaces=f"old{name}", after_stop=True)
        placed += nodes_of(place([request], cluster))
        cluster.forget(f"old{name}")
    assert placed == ["c", "b", "a"]


def test_who_the_predecessor_is():
    new = task("new", "", slot=2, state=TaskState.NEW)
    others = [
        task("1", "a", slot=1),
        task("2", "a", slot=2, at=1.0),
        task("3", "b", slot=2, at=2.0, desired=TaskState.SHUTDOWN),
        task("4", "c", slot=2, at=3.0, state=TaskState.FAILED),
        task("5", "", slot=2, at=4.0, state=TaskState.PENDING),
    ]
    assert predecessor_of(new, [new, *others]).meta.id == "3"
    assert predecessor_of(new, [new, others[0]]) is None
    bound = task("new", "b", slot=0, state=TaskState.NEW)
    assert predecessor_of(bound, [task("x", "a", slot=0), task("y", "b", slot=0)]).meta.id == "y"


@pytest.mark.parametrize(
    ("others", "spec", "goes_to"),
    [
        pytest.param(3, PLAIN, "b", id="elsewhere, though it would be even at home"),
        pytest.param(3, reserve(4), "a", id="home, where nothing else has room"),
    ],
)
def test_the_node_that_a_task_is_to_leave_is_the_last_choice_for_its_heir(others, spec, goes_to):
    old = replace(task("old", "a"), evict=True)
    new = task("new", "", state=TaskState.NEW, desired=TaskState.READY, at=1.0)
    there = [task(f"other{i}", "b", slot=2 + i) for i in range(others)]
    request = request_for(new, spec, predecessor_of(new, [old, new]))
    cluster = view([node("a"), node("b")], [old, *there], {("web", 1): reserve(1)})
    assert nodes_of(place([request], cluster)) == [goes_to]


def test_a_predecessor_that_is_gone_changes_nothing():
    assert place([Request("t", "web", 1, PLAIN, replaces="gone", after_stop=True)], view([node("a")])).assigned == {
        "t": "a"
    }


# ---------------------------------------------------------------- the view


def test_a_view_that_is_kept_current_is_the_one_that_is_built_anew():
    nodes, spec = [node("a"), node("b")], replace(reserve(1), host_ports=PORT_80.host_ports)
    specs = {("web", 1): spec}
    kept = view(nodes, [task("1", "a")], specs)
    kept.put(task("2", "b"))
    kept.put(task("2", "b"))
    kept.put(task("1", "a", state=TaskState.FAILED))
    kept.put(task("3", "a", desired=TaskState.SHUTDOWN))
    kept.put(task("4", "a"))
    kept.forget("4")
    kept.forget("4")
    built = view(nodes, [task("2", "b"), task("3", "a", desired=TaskState.SHUTDOWN)], specs)
    for one, other in zip(kept.infos, built.infos, strict=True):
        busy = [{p for p, users in i.ports.items() if users} for i in (one, other)]
        assert (one.cpus, one.memory, one.tasks, one.services, busy[0]) == (
            other.cpus,
            other.memory,
            other.tasks,
            other.services,
            busy[1],
        )
    ask = Ask.of("web", spec)
    assert kept.with_port(Port("tcp", 80)) == built.with_port(Port("tcp", 80)) == built.all
    assert kept.roomy(ask.needs.room) == built.roomy(ask.needs.room)


def test_placements_stay_in_the_view():
    cluster = view([node("a", 1)])
    assert place(ask_for(1, reserve(1)), cluster).assigned
    assert place(ask_for(1, reserve(1), "db"), cluster).refused
    cluster.forget("web0")
    assert place(ask_for(1, reserve(1), "db"), cluster).assigned


def test_fits_placement_looks_at_constraints_and_platform_only():
    placement = Placement(("node.labels.zone == eu",), platforms=(Platform("linux", "amd64"),))
    fits = fits_placement(placement)
    assert fits(node("a", 0, labels={"zone": "EU"}, state=NodeState.DOWN, availability=Availability.DRAIN))
    assert not fits(node("a", labels={"zone": "us"}))
    assert not fits(node("a", labels={"zone": "eu"}, platform=ARM))
    assert not fits_placement(Placement(("nonsense",)))(node("a"))
