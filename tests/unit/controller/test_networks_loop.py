"""What the network reaper looks at is kept by change, and is what a look at everything would find."""

from dataclasses import replace
from random import Random

from argosy.controller.loops.networks import Suspects, unneeded
from argosy.controller.store import Change, Snapshot
from argosy.core.meta import Meta
from argosy.core.network import Attachment, Network, Slice, SliceUse, slice_id
from argosy.core.node import Node
from argosy.core.service import NetworkAttachmentSpec, Service, ServiceSpec, TaskSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState


def objects(chance):
    address = chance.choice(("", "10.64.0.40"))
    spec = ServiceSpec(name="web", task=TaskSpec(networks=(NetworkAttachmentSpec("net", address=address),)))
    index = chance.randrange(4)
    return (
        Node(Meta(f"n{chance.randrange(3)}")),
        Slice(Meta(slice_id("net", index)), "net", index, f"n{chance.randrange(3)}", chance.choice(tuple(SliceUse))),
        Network(Meta(f"net{chance.randrange(2)}"), removing=chance.random() < 0.5),
        Service(Meta(f"s{chance.randrange(3)}"), spec),
    )


def test_changes_lead_to_what_a_look_at_everything_finds():
    chance = Random(7)
    snap, kept = Snapshot(), Suspects()
    for revision in range(1, 300):
        new = replace(chance.choice(objects(chance)), schema=1)
        old = snap.get(type(new), new.meta.id)
        change = Change(type(new), new.meta.id, old, None if old and chance.random() < 0.4 else new)
        snap = snap.apply(revision, [change])
        kept.follow([change], snap)
        fresh = Suspects()
        for _ in fresh.fill(snap):
            pass
        assert vars(kept) == vars(fresh)
    assert any(vars(kept).values())


def test_changes_of_tasks_that_stay_are_no_reason_to_look():
    node = Node(Meta("n"))
    assert not Suspects().follow([Change(Node, "n", node, replace(node, schema=1))], Snapshot())


def test_a_network_outlives_the_tasks_that_have_its_addresses_and_not_their_history():
    network = Network(Meta("net"), removing=True, subnet="10.64.0.0/16")
    lease = Slice(Meta(slice_id("net", 1)), "net", 1, "n", SliceUse.TASKS)
    task = Task(Meta("t"), "web", node_id="n", attachments=(Attachment("net", (10 << 24) + (64 << 16) + 33),))
    ended = replace(task, status=TaskStatus(TaskState.SHUTDOWN))
    released = replace(ended, status=replace(ended.status, released=True))
    kept, snap = Suspects(), Snapshot()
    added = [Change(type(o), o.meta.id, None, o) for o in (Node(Meta("n")), network, lease, ended)]
    snap = snap.apply(1, added)
    kept.follow(added, snap)
    assert not any(any(group) for groups in unneeded(snap, kept) for group in groups)
    change = Change(Task, "t", ended, released)
    snap = snap.apply(2, [change])
    assert kept.follow([change], snap), "nothing else would say that the network can go"
    assert [op.kind for groups in unneeded(snap, kept) for group in groups for op in group] == [Slice, Network]
