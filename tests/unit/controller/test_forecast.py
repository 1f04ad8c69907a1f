"""What a forecast says: where tasks would go when a change is made, by the controller's own decisions."""

from dataclasses import replace

import pytest

from argosy.controller.changes import services
from argosy.controller.changes.static_addresses import claims
from argosy.controller.logic.plan_diff import FieldChange, TaskChange, Verb, field_changes, plan_id, task_changes
from argosy.controller.loops.forecast import after, forecast, tasks_there
from argosy.controller.store import create, update
from argosy.core.addresses import format_ipv4, parse_ipv4
from argosy.core.meta import Meta
from argosy.core.network import Attachment, Slice, slice_id
from argosy.core.node import Availability, Drain, Node, NodeState, Resources
from argosy.core.service import (
    ContainerSpec,
    Cron,
    FileRef,
    HostPort,
    JobSpec,
    JobState,
    JobStatus,
    NetworkAttachmentSpec,
    Placement,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    Tmpfs,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
)
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from tests.unit.controller.objects import network, node, service, snapshot, task

NOW = 1000.0


def diff(snap, ops):
    """Return what `ops` would do to the tasks, in short."""
    old, new = forecast(snap, [], NOW), forecast(snap, ops, NOW)
    known = frozenset(t.meta.id for t in snap.all(Task))
    names = {s.meta.id: s.spec.name for world in (old, new) for s in world.all(Service)}
    nodes = {n.meta.id: n.spec.name for n in new.all(Node)}
    changes = task_changes(tasks_there(old), tasks_there(new), known, names, nodes)
    return [(c.verb.value, c.task, c.old_node, c.new_node) for c in changes], changes, new


def three_nodes(**spec):
    web, revision = service("web", 3, **spec)
    tasks = [task("web", i, name) for i, name in enumerate("abc", 1)]
    tasks = [replace(t, running_since=1.0) for t in tasks]
    return snapshot(node("a"), node("b"), node("c"), web, revision, *tasks), web


def test_nothing_would_happen_to_a_cluster_at_rest():
    snap, _ = three_nodes()
    assert diff(snap, [])[0] == []


def test_scaling_creates_and_stops():
    snap, _ = three_nodes()
    ops, _ = services.scaled(snap, "default", {"web": 5}, NOW)
    assert diff(snap, ops)[0] == [("create", "web.4", "", "a"), ("create", "web.5", "", "b")]
    ops, _ = services.scaled(snap, "default", {"web": 1}, NOW)
    assert [d[0] for d in diff(snap, ops)[0]] == ["stop", "stop"]


def test_an_update_replaces_every_task_and_comes_to_its_end():
    snap, web = three_nodes(update=UpdateConfig(delay=30.0))
    spec = replace(web.spec, task=replace(web.spec.task, container=ContainerSpec("app:2", f"sha256:{'2' * 64}")))
    ops, _ = services.updated(snap, web, spec, NOW)
    short, _, then = diff(snap, ops)
    assert [d[0] for d in short] == ["replace"] * 3
    assert then.get(Service, "web").update.state is UpdateState.COMPLETED


def test_a_drain_moves_what_is_there():
    snap, _ = three_nodes()
    host = snap.get(Node, "b")
    drained = replace(host, spec=replace(host.spec, availability=Availability.DRAIN))
    assert diff(snap, [update(drained)])[0] == [("move", "web.2", "b", "a")]


def test_what_cannot_be_placed_waits_with_the_reason():
    snap, _ = three_nodes(task=TaskSpec(reservations=Resources(3)))
    ops, _ = services.scaled(snap, "default", {"web": 4}, NOW)
    _, changes, _ = diff(snap, ops)
    assert changes == (TaskChange(Verb.WAIT, "web", "web.4", "", "", "no node has 3 CPUs free: 3 nodes, most free 1"),)


def test_an_update_that_no_node_can_take_is_said_to_wait_and_not_to_be_rolled_back():
    snap, web = three_nodes()
    spec = replace(web.spec, task=replace(web.spec.task, placement=Placement(("node.labels.gpu exists",))))
    ops, _ = services.updated(snap, web, spec, NOW)
    short, changes, then = diff(snap, ops)
    assert short
    assert all(c.verb is Verb.WAIT and "node.labels.gpu exists" in c.reason for c in changes)
    assert then.get(Service, "web").update.state is UpdateState.UPDATING


def test_on_a_node_that_is_down_nothing_happens():
    snap, _ = three_nodes()
    host = snap.get(Node, "b")
    snap = snapshot(
        *snap.all(Node),
        *snap.all(Service),
        *snap.revisions_of_service("web"),
        *snap.all(Task),
        replace(host, status=replace(host.status, state=NodeState.DOWN)),
    )
    settled = forecast(snap, [], NOW)
    assert sorted(t.node_id for t in tasks_there(settled)) == ["a", "a", "c"] or len(tasks_there(settled)) == 3
    ops, _ = services.scaled(snap, "default", {"web": 4}, NOW)
    assert [d[:2] for d in diff(snap, ops)[0]] == [("create", "web.4")]


def test_a_job_that_runs_every_minute_lets_the_cluster_come_to_rest():
    snap, _ = three_nodes(update=UpdateConfig(delay=30.0))
    every_minute = JobSpec(cron=Cron("* * * * *"))
    tick = replace(
        service("tick", mode=ServiceMode.REPLICATED_JOB, job=every_minute)[0], job=JobStatus(next_at=NOW + 20)
    )
    snap, _ = after(snap, [create(tick)])
    ops, _ = services.scaled(snap, "default", {"web": 4}, NOW)
    short, _, then = diff(snap, ops)
    assert short == [("create", "web.4", "", "a")]
    assert then.get(Service, "tick").job == tick.job


def test_what_runs_of_a_job_stays_on_a_drained_node_and_in_no_plan():
    snap, _ = three_nodes()
    batch, revision = service("batch", mode=ServiceMode.REPLICATED_JOB, job=JobSpec())
    batch = replace(batch, job=JobStatus(iteration=1, state=JobState.RUNNING))
    snap, _ = after(snap, [create(o) for o in (batch, revision, task("batch", 1, "a", iteration=1))])
    host = snap.get(Node, "a")
    for deadline in (0.0, NOW + 3600):
        drained = replace(host.spec, availability=Availability.DRAIN, drain=Drain(deadline=deadline))
        short, _, _ = diff(snap, [update(replace(host, spec=drained))])
        assert short == [("move", "web.1", "a", "b")]


def test_fields_that_differ():
    old = ServiceSpec("web", {"a": "1"}, task=TaskSpec(ContainerSpec("app:1", env=("A=1",))))
    new = replace(
        old,
        labels={"b": "2"},
        replicas=3,
        update=UpdateConfig(delay=2.5),
        task=TaskSpec(ContainerSpec("app:2", env=("A=1", "B=2"), init=True)),
    )
    assert field_changes(old, new) == (
        FieldChange("labels.a", "1", ""),
        FieldChange("replicas", "1", "3"),
        FieldChange("task.container.image", "app:1", "app:2"),
        FieldChange("task.container.env", "[A=1]", "[A=1, B=2]"),
        FieldChange("task.container.init", "", "true"),
        FieldChange("update.delay", "0", "2.5"),
        FieldChange("labels.b", "", "2"),
    )
    assert field_changes(old, old) == ()


def test_files_are_told_as_people_know_them():
    ref = FileRef(secret=True, name="key", id="ixyz.2", uid=7, mode=0o400)
    old = TaskSpec(ContainerSpec(files=(ref,), tmpfs=(Tmpfs("/tmp", mode=0o1777),)))
    new = TaskSpec(ContainerSpec(files=(replace(ref, id="ixyz.3"), FileRef(name="conf", target="/etc/conf", id="i.1"))))
    assert field_changes(old, new) == (
        FieldChange("container.tmpfs", "[{target: /tmp, mode: 1777}]", ""),
        FieldChange(
            "secret key at /run/secrets/key", "version 2, mode 0400, owner 7:0", "version 3, mode 0400, owner 7:0"
        ),
        FieldChange("config conf at /etc/conf", "", "version 1, mode 0444"),
    )


def test_the_id_is_of_what_would_happen():
    one = [TaskChange(Verb.CREATE, "web", "web.1", "", "a")]
    other = [TaskChange(Verb.CREATE, "web", "web.1", "", "b")]
    assert plan_id([], one) == plan_id([], one) != plan_id([], other)


def test_an_update_of_a_service_with_an_address_of_its_own_comes_to_its_end():
    joined = (NetworkAttachmentSpec("net", address="10.9.0.70"),)
    net = network("net", "10.9.0.0/24")
    web, first = service("web", task=TaskSpec(networks=joined))
    claimed = claims(snapshot(net), [("web", web.spec)], {}, NOW)
    snap = forecast(snapshot(node("a"), node("b"), net, (web, first)), claimed, NOW)
    (before,) = (t for t in snap.tasks_of_service("web") if t.status.state is TaskState.RUNNING)
    assert [format_ipv4(a.address) for a in before.attachments] == ["10.9.0.70"]
    web = snap.get(Service, "web")
    spec = replace(web.spec, task=replace(web.spec.task, container=ContainerSpec("app:2", f"sha256:{'2' * 64}")))
    short, _, then = diff(snap, services.updated(snap, web, spec, NOW)[0])
    assert [d[:2] for d in short] == [("replace", "web.1")]
    assert then.get(Service, "web").update.state is UpdateState.COMPLETED


NET = NetworkAttachmentSpec("net")
FIXED = NetworkAttachmentSpec("net", address="10.9.0.70")
WEB_PORT = HostPort("tcp", 80, 8080)


def one_updated(before, after_, order, *others):
    """Return what a service with one task on node `a` (4 CPUs) comes to, when its task spec is changed."""
    web, revision = service("web", 1, task=before, update=UpdateConfig(order=order))
    fixed = before.networks == (FIXED,)
    address = parse_ipv4("10.9.0.70" if fixed else "10.9.0.33")
    held = (Attachment("net", address, fixed=fixed),) if before.networks else ()
    old = replace(task("web", 1, "a", attachments=held), running_since=1.0)
    lease = [] if fixed or not held else [Slice(Meta(slice_id("net", 1), version=1), "net", 1, "a")]
    snap = snapshot(node("a"), network("net", "10.9.0.0/24"), web, revision, old, *lease, *others)
    if fixed:
        snap, _ = after(snap, claims(snap, [("web", web.spec)], {}, NOW))
    changed = replace(after_, container=ContainerSpec("app:2", f"sha256:{'2' * 64}"))
    ops, _ = services.updated(snap, web, replace(web.spec, task=changed), NOW)
    then = forecast(snap, ops, NOW)
    runs = [t for t in tasks_there(then) if t.status.state is TaskState.RUNNING]
    return then, [t.revision for t in runs if t.service_id == "web"]


@pytest.mark.parametrize("order", UpdateOrder)
@pytest.mark.parametrize(
    ("before", "after_"),
    [
        (TaskSpec(), TaskSpec(reservations=Resources(500))),
        (TaskSpec(), TaskSpec(placement=Placement(("node.labels.gpu exists",)))),
        (TaskSpec(), TaskSpec(host_ports=(HostPort("tcp", 81, 80),))),  # which another service has
        (TaskSpec(host_ports=(WEB_PORT,)), TaskSpec(host_ports=(WEB_PORT,), reservations=Resources(500))),
        (TaskSpec(networks=(FIXED,)), TaskSpec(networks=(FIXED,), reservations=Resources(500))),
        (TaskSpec(reservations=Resources(2)), TaskSpec(reservations=Resources(3.5))),  # others have 1
    ],
)
def test_no_update_stops_a_task_whose_heir_would_find_no_node_without_it_either(before, after_, order):
    db = service("db", 1, task=TaskSpec(host_ports=(HostPort("tcp", 81, 81),), reservations=Resources(1)))
    then, running = one_updated(before, after_, order, *db, task("db", 1, "a"))
    assert running == [1]
    (heir,) = (t for t in tasks_there(then) if t.revision == 2)
    assert (heir.status.state, heir.status.waits_for_old) == (TaskState.PENDING, False)
    assert heir.status.reason


@pytest.mark.parametrize(
    ("before", "after_", "order"),
    [
        (TaskSpec(reservations=Resources(3)), TaskSpec(reservations=Resources(4)), UpdateOrder.STOP_FIRST),
        *(
            (TaskSpec(**old), TaskSpec(**new), order)
            for order in UpdateOrder
            for old, new in (
                ({"host_ports": (WEB_PORT,)}, {"host_ports": (WEB_PORT,)}),
                ({"host_ports": (WEB_PORT,)}, {"host_ports": (HostPort("tcp", 80, 9090),)}),
                (
                    {"host_ports": (WEB_PORT,), "reservations": Resources(4)},
                    {"host_ports": (WEB_PORT,), "reservations": Resources(3)},
                ),
                ({"networks": (FIXED,)}, {"networks": (FIXED,)}),
                ({"networks": (FIXED,)}, {}),
                ({}, {"networks": (NET,)}),
            )
        ),
    ],
)
def test_an_old_task_makes_room_where_its_heir_fits_once_it_is_gone(before, after_, order):
    then, running = one_updated(before, after_, order)
    assert running == [2]
    assert then.get(Service, "web").update.state is UpdateState.COMPLETED


def test_an_old_task_makes_room_for_its_heir_on_a_network_that_is_full():
    others = [
        task("old", i, "a", TaskState.SHUTDOWN, attachments=(Attachment("net", parse_ipv4("10.9.0.32") + i),))
        for i in range(32)
        if i != 1
    ]
    leases = [Slice(Meta(slice_id("net", i), version=1), "net", i, "b") for i in range(2, 8)]
    spec = TaskSpec(networks=(NET,))
    _, running = one_updated(spec, spec, UpdateOrder.STOP_FIRST, *others, *leases, *service("old"), node("b"))
    assert running == [2]
