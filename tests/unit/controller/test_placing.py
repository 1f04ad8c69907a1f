"""What the scheduler keeps between rounds: it follows changes, and answers as if it were made anew."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.controller.loops.placing import Placing
from argosy.core.meta import Cluster, Meta, Scheduling
from argosy.core.network import Attachment
from argosy.core.node import Availability, NodeState, Resources
from argosy.core.service import (
    Affinity,
    Dependency,
    HostPort,
    NetworkAttachmentSpec,
    Placement,
    Revision,
    TaskSpec,
    UpdateState,
)
from argosy.core.task_state import TaskState
from tests.unit.controller.objects import changed, network, node, service, snapshot, task

NEW = TaskState.NEW


def on_nodes(tasks):
    return {t.meta.id: t.node_id for t in tasks if t.status.state is TaskState.ASSIGNED}


def reasons(tasks):
    return {t.meta.id: t.status.reason for t in tasks if t.status.state is TaskState.PENDING}


def test_a_task_that_got_no_address_takes_no_room():
    spec = TaskSpec(networks=(NetworkAttachmentSpec("net"),), reservations=Resources(4))
    full = network("net", "10.9.0.0/26")  # one slice for tasks
    held = [
        task("old", i, "b", TaskState.SHUTDOWN, attachments=(Attachment("net", (10 << 24) + (9 << 16) + 32 + i),))
        for i in range(32)
    ]
    snap = snapshot(
        node("a"), full, service("web", task=spec), service("db", task=TaskSpec(reservations=Resources(4))), *held
    )
    placing = Placing()
    waiting = task("web", 1, state=NEW)
    snap, changes = changed(snap, waiting)
    placing.follow(changes, snap)
    placed, _ = placing.decide(snap, [waiting], 1.0)
    assert "net is full" in reasons(placed)["web1"]
    other = task("db", 1, state=NEW)
    assert on_nodes(placing.decide(snap, [other], 1.0)[0]) == {"db1": "a"}
    snap, changes = changed(snap, gone=held[:1])
    placing.follow(changes, snap)
    placing.follow(changes, snap)
    placed, _ = placing.decide(snap, [waiting], 2.0)
    assert "lacks" in reasons(placed)["web1"] or "no node has 4 CPUs" in reasons(placed)["web1"]


def test_tasks_go_where_a_small_network_has_addresses_left():
    """One node leases the only slice: all tasks that fit go there; what is bound to another is told why not."""
    spec = TaskSpec(networks=(NetworkAttachmentSpec("net"),))
    snap = snapshot(*map(node, "abc"), network("net", "10.9.0.0/26"), service("web", task=spec))
    placing = Placing()
    waiting = [task("web", i, state=NEW) for i in range(1, 5)]
    placed, slices = placing.decide(snap, waiting, 1.0)
    assert on_nodes(placed) == dict.fromkeys((t.meta.id for t in waiting), slices[0].node_id)
    snap, changes = changed(snap, *placed, *slices)
    placing.follow(changes, snap)
    bound = task("web", 0, "b" if slices[0].node_id != "b" else "c", state=NEW)
    (reason,) = reasons(placing.decide(snap, [bound], 2.0)[0]).values()
    assert reason.startswith(
        f"node {bound.node_id} can have no address (the only slice of network net is leased to a node "
    )
    many = [task("web", i, state=NEW) for i in range(5, 50)]
    placed, _ = placing.decide(snap, many, 3.0)
    assert len(on_nodes(placed)) == 28
    assert set(reasons(placed).values()) == {"network net is full: 32 of 32 addresses used"}


def test_addresses_follow_what_is_stored():
    spec = TaskSpec(networks=(NetworkAttachmentSpec("net"),))
    snap = snapshot(node("a"), network("net"), service("web", task=spec))
    placing = Placing()
    waiting = [task("web", i, state=NEW) for i in range(1, 41)]
    placed, slices = placing.decide(snap, waiting, 1.0)
    assert len(on_nodes(placed)) == 32
    assert [s.index for s in slices] == [1]
    assert set(reasons(placed).values()) == {"network net is full: 32 of 32 addresses used"}
    done = [t for t in placed if t.status.state is TaskState.ASSIGNED]
    snap, changes = changed(snap, *done, *slices)
    placing.follow(changes, snap)
    snap, changes = changed(snap, gone=done[:3])
    placing.follow(changes, snap)
    left = [t for t in waiting if t.meta.id not in {d.meta.id for d in done}]
    placed, slices = placing.decide(snap, left, 2.0)
    assert len(on_nodes(placed)) == 3
    assert slices == []


def test_a_cluster_is_spread_or_packed_as_it_says():
    spec = TaskSpec(reservations=Resources(0.5))
    snap = snapshot(node("a"), node("b"), service("web", task=spec), service("db", task=spec), task("db", 1, "b"))
    waiting = [task("web", i, state=NEW) for i in range(1, 4)]
    placing = Placing()
    assert sorted(on_nodes(placing.decide(snap, waiting, 1.0)[0]).values()) == ["a", "a", "b"]
    packed = Cluster(Meta("cluster", version=1), scheduling=Scheduling.BINPACK)
    snap, _ = changed(snap, packed)
    assert set(on_nodes(Placing().decide(snap, waiting, 1.0)[0]).values()) == {"b"}
    wide = [task("web", i, state=NEW) for i in range(1, 9)]
    assert sorted(on_nodes(Placing().decide(snap, wide, 1.0)[0]).values()) == ["a"] + ["b"] * 7


def test_a_leader_packs_from_the_moment_that_it_is_told_to():
    """The view of its nodes' load is there already, and is not made anew for it."""
    spec = TaskSpec(reservations=Resources(0.5))
    large = TaskSpec(reservations=Resources(1))
    snap = snapshot(node("a"), node("b"), service("web", task=spec), service("db", task=large), task("db", 1, "b"))
    placing = Placing()
    assert on_nodes(placing.decide(snap, [task("web", 1, state=NEW)], 1.0)[0]) == {"web1": "a"}
    view = placing.view(snap)
    for scheduling, next_one, goes_to in ((Scheduling.BINPACK, 2, ["b", "b"]), (Scheduling.SPREAD, 4, ["a", "a"])):
        snap, changes = changed(snap, Cluster(Meta("cluster", version=next_one), scheduling=scheduling))
        placing.follow(changes, snap)
        waiting = [task("web", i, state=NEW) for i in (next_one, next_one + 1)]
        assert sorted(on_nodes(placing.decide(snap, waiting, 1.0)[0]).values()) == goes_to
    assert placing.view(snap) is view


def test_a_node_on_which_a_service_keeps_failing_comes_last_for_it_until_that_is_long_ago():
    def failed(number):
        one = task("web", 1, "a", TaskState.FAILED)
        return replace(one, meta=replace(one.meta, id=f"f{number}"), status=replace(one.status, at=1000.0 + number))

    snap = snapshot(node("a"), node("b"), service("web"), service("db"), task("db", 1, "b"))
    placing = Placing()
    assert on_nodes(placing.decide(snap, [task("web", 1, state=NEW)], 1000.0)[0]) == {"web1": "a"}
    placing.reset()
    for number, goes_to in ((1, "a"), (2, "a"), (3, "b")):
        snap, changes = changed(snap, failed(number))
        placing.follow(changes, snap)
        placing.reset()
        assert on_nodes(placing.decide(snap, [task("web", 1, state=NEW)], 1010.0)[0]) == {"web1": goes_to}
    assert on_nodes(placing.decide(snap, [task("db", 2, state=NEW)], 1010.0)[0]) == {"db2": "a"}
    placing.reset()
    assert on_nodes(placing.decide(snap, [task("web", 1, state=NEW)], 1310.0)[0]) == {"web1": "a"}
    only_there, changes = changed(snap, node("b", availability=Availability.PAUSE))
    assert on_nodes(Placing().decide(only_there, [task("web", 1, state=NEW)], 1010.0)[0]) == {"web1": "a"}


SPECS = [
    TaskSpec(reservations=Resources(1)),
    TaskSpec(host_ports=(HostPort("tcp", 80),)),
    TaskSpec(placement=Placement(("node.labels.zone == x",))),
    TaskSpec(placement=Placement(affinities=(Affinity("s0", anti=True, within="node.labels.zone"),))),
    TaskSpec(placement=Placement(affinities=(Affinity("s4", anti=True),))),
    TaskSpec(placement=Placement(affinities=(Affinity("s1"),))),
]
NAMES = st.sampled_from(["a", "b", "c", "d"])
NODES = st.builds(
    lambda name, zone, state, availability, cpus: node(
        name, cpus=cpus, labels={"zone": zone} if zone else {}, state=state, availability=availability
    ),
    NAMES,
    st.sampled_from(["", "x", "y"]),
    st.sampled_from([NodeState.READY] * 5 + [NodeState.DOWN]),
    st.sampled_from([Availability.ACTIVE] * 5 + [Availability.DRAIN]),
    st.sampled_from([1.0, 2.0]),
)
TASKS = st.builds(
    lambda of, slot, on, state: replace(
        task(f"s{of}", slot, on, state), meta=Meta(f"t{of}{slot}", "default", version=1)
    ),
    st.integers(0, len(SPECS) - 1),
    st.integers(1, 3),
    NAMES,
    st.sampled_from([TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED, TaskState.SHUTDOWN]),
)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.booleans(), st.one_of(NODES, TASKS)), max_size=25), st.data())
def test_following_changes_is_the_same_as_looking_at_everything_anew(history, data):
    snap = snapshot(*(service(f"s{i}", task=spec) for i, spec in enumerate(SPECS)))
    kept = Placing()
    for stays, one in history:
        known = snap.get(type(one), one.meta.id)
        if stays:
            snap, changes = changed(snap, one)
        elif known is not None:
            snap, changes = changed(snap, gone=[known])
        kept.follow(changes if stays or known is not None else [], snap)
        asked = data.draw(st.lists(st.integers(0, len(SPECS) - 1), max_size=2, unique=True))
        waiting = [replace(task(f"s{i}", 9, state=NEW), meta=Meta(f"w{i}", "default", created_at=i)) for i in asked]
        placed = kept.decide(snap, waiting, 1.0)
        assert placed == Placing().decide(snap, waiting, 1.0)
        done = [replace(t, meta=replace(t.meta, version=1)) for t in placed[0] if t.node_id]
        snap, changes = changed(snap, *done)
        kept.follow(changes, snap)
        snap, changes = changed(snap, gone=done)
        kept.follow(changes, snap)


def test_when_a_task_was_let_go_is_kept_with_it():
    """The progress deadline of an update counts from then."""
    web = service("web", depends_on=(Dependency("db"),))
    held = task("web", 1, state=TaskState.PENDING)
    held = replace(held, status=replace(held.status, reason="waiting for db: started", held=True))
    (still,), _ = Placing().decide(snapshot(node("a"), service("db"), web, held), [held], 5.0)
    assert (still.status.held, still.held_until) == (True, 0.0)
    snap = snapshot(node("a"), service("db"), task("db", 1, "a"), web, held)
    (placed,), _ = Placing().decide(snap, [held], 6.0)
    assert (placed.node_id, placed.status.held, placed.held_until) == ("a", False, 6.0)


def test_since_when_what_a_task_waits_for_comes_no_further_is_kept_with_it_too():
    def seen(state, waiting, now):
        """Return the waiting task as it is when the update of what it waits for is in a state."""
        db, _ = service("db")
        db = replace(db, revision=2, update=replace(db.update, state=state))
        web, _ = service("web", depends_on=(Dependency("db"),))
        together = [Revision(Meta(f"{i}.{n}", "default", created_at=7.0), i, n) for i, n in (("db", 2), ("web", 1))]
        snap = snapshot(node("a"), db, task("db", 1, "a"), web, waiting, *together)
        (found,), _ = Placing().decide(snap, [waiting], now)
        return found

    held = seen(UpdateState.UPDATING, task("web", 1, state=NEW), 5.0)
    assert (held.status.held, held.held_until) == (True, 0.0)
    paused = seen(UpdateState.PAUSED, held, 6.0)
    assert (paused.status.held, paused.held_until) == (True, 6.0)
    resumed = seen(UpdateState.UPDATING, paused, 7.0)
    assert (resumed.status.held, resumed.held_until) == (True, 0.0)
