"""What the network reaper looks at is kept by change, and is what a look at everything would find."""

from dataclasses import replace
from random import Random

from argosy.controller.loops.networks import Suspects
from argosy.controller.store import Change, Snapshot
from argosy.core.meta import Meta
from argosy.core.network import Network, Slice, SliceUse, slice_id
from argosy.core.node import Node
from argosy.core.service import NetworkAttachmentSpec, Service, ServiceSpec, TaskSpec


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
