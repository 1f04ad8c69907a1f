"""Snapshots against a plain model: any sequence of changes leaves tables and indexes as rebuilt from scratch."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.controller.store.history import History, Step
from argosy.controller.store.snapshot import Change, Snapshot
from argosy.controller.store.subscription import Subscription, merged
from argosy.core.image import Image
from argosy.core.meta import Meta
from argosy.core.network import Slice
from argosy.core.node import Node, NodeSpec
from argosy.core.service import Revision, Service, ServiceSpec
from argosy.core.task import Task

ids = st.sampled_from(["a", "b", "c", "d"])
groups = st.sampled_from(["", "g1", "g2"])
tasks = st.builds(lambda i, s, n: Task(Meta(i, "p"), service_id=s, node_id=n), ids, groups, groups)
services = st.builds(lambda i, n: Service(Meta(i, "p"), ServiceSpec(name=n)), ids, groups)
images = st.builds(lambda i, p, n: Image(Meta(i, p), name=n), ids, st.sampled_from(["p", "q"]), groups)
steps = st.lists(st.tuples(st.booleans(), tasks | services | images), max_size=40)


def run(actions):
    """Apply (put?, object) actions one by one; return every snapshot, the model and all changes."""
    model, snapshots, changes = {}, [Snapshot()], []
    for revision, (put, obj) in enumerate(actions, 1):
        key = (type(obj), obj.meta.project, obj.meta.id)
        old = model.pop(key, None)
        new = replace(obj, meta=replace(obj.meta, version=revision)) if put else None
        if new is not None:
            model[key] = new
        if old is None and new is None:
            continue
        change = Change(type(obj), obj.meta.id, old, new)
        changes.append(change)
        snapshots.append(snapshots[-1].apply(revision, [change]))
    return snapshots, model, changes


def same(found, expected):
    return sorted(found, key=repr) == sorted(expected, key=repr)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_a_snapshot_is_what_its_changes_say(actions):
    snapshots, model, _ = run(actions)
    last = snapshots[-1]
    for kind in (Task, Service, Image):
        assert same(last.all(kind), [o for (k, _, _), o in model.items() if k is kind])
        assert last.count(kind) == len(last.all(kind))
    for (kind, project, id), obj in model.items():
        assert last.get(kind, id, project) == obj
    for group in ("", "g1", "g2"):
        assert same(last.tasks_of_service(group), [t for t in last.all(Task) if t.service_id == group])
        assert same(last.tasks_on_node(group), [t for t in last.all(Task) if t.node_id == group])
        named = [s for s in last.all(Service) if s.spec.name == group]
        assert last.by_name(Service, "p", group) == max(named, key=lambda s: s.meta.version, default=None)
        for project in ("p", "q"):
            named = [i for i in last.all(Image, project) if i.name == group]
            assert last.by_name(Image, project, group) == max(named, key=lambda i: i.meta.version, default=None)


@settings(max_examples=50, deadline=None)
@given(steps)
def test_an_old_snapshot_never_changes(actions):
    def contents(snapshot):
        return [snapshot.all(Task), snapshot.all(Service), [snapshot.tasks_on_node(g) for g in ("", "g1", "g2")]]

    kept, snapshot = [], Snapshot()
    for revision, change in enumerate(run(actions)[2], 1):
        snapshot = snapshot.apply(revision, [change])
        kept.append((snapshot, contents(snapshot)))
    assert [contents(s) for s, _ in kept] == [c for _, c in kept]


@settings(max_examples=100, deadline=None)
@given(steps)
def test_merged_changes_lead_to_the_same_snapshot(actions):
    snapshots, _, changes = run(actions)
    merged_changes = merged(changes)
    at_once = Snapshot().apply(snapshots[-1].revision, merged_changes)
    for kind in (Task, Service, Image):
        assert same(at_once.all(kind), snapshots[-1].all(kind))
    assert all(c.old is None for c in merged_changes)


def test_the_other_indexes():
    objects = [
        Slice(Meta("n1.1"), "n1", 1, "a"),
        Slice(Meta("n1.2"), "n1", 2, "b"),
        Revision(Meta("s1.1", "p"), "s1", 1),
        Revision(Meta("s1.2", "p"), "s1", 2),
        Node(Meta("a"), NodeSpec(name="alpha")),
    ]
    snapshot = Snapshot().apply(1, [Change(type(o), o.meta.id, None, o) for o in objects])
    assert same(snapshot.slices_of_network("n1"), objects[:2])
    assert snapshot.slices_on_node("b") == (objects[1],)
    assert same(snapshot.revisions_of_service("s1"), objects[2:4])
    assert snapshot.by_name(Node, "", "alpha") == objects[4]
    assert snapshot.by_name(Node, "", "beta") is None


# ---- history and subscriptions


def a_step(revision, id="a", old=None):
    return Step(revision, (Change(Task, id, old, Task(Meta(id, "p", revision))),))


def test_history_forgets_the_oldest_and_says_so():
    history = History(floor=10, max_changes=3)
    for revision in range(11, 17):
        history.add(a_step(revision))
    assert history.floor == 13
    assert [s.revision for s in history.after(14)] == [15, 16]
    assert [s.revision for s in history.after(13)] == [14, 15, 16]
    assert history.after(99) == []


async def test_a_coalescing_subscription_drops_what_came_and_went():
    sub = Subscription(Snapshot, [], after=0, coalesce=True, max_pending=100)
    task = Task(Meta("a", "p", 1))
    sub.publish(Step(1, (Change(Task, "a", None, task),)))
    sub.publish(Step(2, (Change(Task, "a", task, None),)))
    sub.publish(a_step(3, "b"))
    batch = await anext(sub)
    assert [(c.id, c.old) for c in batch.changes] == [("b", None)]


async def test_a_slow_subscriber_resyncs_once_and_goes_on():
    sub = Subscription(Snapshot, [], after=0, coalesce=False, max_pending=5)
    for revision in range(1, 100):
        sub.publish(a_step(revision))
    assert len(sub._steps) == 0
    batch = await anext(sub)
    assert (batch.resync, batch.changes) == (True, ())
    sub.publish(a_step(100))
    batch = await anext(sub)
    assert (batch.resync, batch.revision) == (False, 100)
    assert sub.resyncs == 1


async def test_a_closed_subscription_ends():
    sub = Subscription(Snapshot, [a_step(1)], after=0, coalesce=False, max_pending=5)
    sub.close()
    sub.publish(a_step(2))
    assert [b async for b in sub] == []
