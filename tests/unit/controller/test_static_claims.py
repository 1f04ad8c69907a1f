"""Claims of static addresses in the store: made with the service, settled when it asks for something else."""

from dataclasses import replace

import pytest

from argosy.controller.changes.static_addresses import claims
from argosy.controller.loops.forecast import after
from argosy.controller.loops.networks import Suspects, unneeded
from argosy.controller.loops.placing import Placing
from argosy.controller.store import Delete, Put
from argosy.core.addresses import format_ipv4, parse_ipv4
from argosy.core.errors import PreconditionError
from argosy.core.meta import Meta
from argosy.core.network import Attachment, Slice, SliceUse, slice_id
from argosy.core.node import NodeState
from argosy.core.service import NetworkAttachmentSpec, TaskSpec
from argosy.core.task_state import TaskState
from tests.unit.controller.objects import changed, network, node, service, snapshot, task

NET = network("net", "10.9.0.0/24")
ADDRESS = "10.9.0.70"
HELD = (Attachment("net", parse_ipv4(ADDRESS), fixed=True),)


def asking(name, address=ADDRESS):
    return service(name, task=TaskSpec(networks=(NetworkAttachmentSpec("net", address=address),)))


def claim(snap, *services, new=None):
    return claims(snap, [(s.meta.id, s.spec) for s, _ in services], new or {}, 1.0)


def holders(snap):
    pieces = [s for s in snap.all(Slice) if s.use is SliceUse.STATIC]
    return {format_ipv4(h.address): h.service_id for s in pieces for h in s.holders}


def due(snap):
    """Return the groups of operations that the network reaper would write."""
    suspects = Suspects()
    for _ in suspects.fill(snap):
        pass
    return [group for groups in unneeded(snap, suspects) for group in groups]


def settle(snap):
    """Let the loop write until it has nothing more to do."""
    for _ in range(10):
        groups = due(snap)
        if not groups:
            return snap
        for group in groups:
            snap, _ = after(snap, group)
    raise AssertionError("claims do not come to rest")


def test_several_claims_of_one_request_make_one_slice_also_on_a_network_of_the_same_request():
    ops = claim(snapshot(), asking("web"), asking("db", "10.9.0.71"), asking("other", "10.9.0.100"), new={"net": NET})
    assert [(type(op), op.obj.index, op.expect, len(op.obj.holders)) for op in ops] == [(Put, 2, 0, 2), (Put, 3, 0, 1)]


def test_two_of_one_request_that_ask_for_the_same_are_refused():
    with pytest.raises(PreconditionError, match="network net: service web has it"):
        claim(snapshot(NET), asking("web"), asking("db"))


def test_a_claim_excludes_a_lease_by_what_it_writes():
    there = Slice(Meta(slice_id("net", 2), version=7), "net", 2, use=SliceUse.STATIC)
    (op,) = claim(snapshot(NET, there), asking("web"))
    assert op.expect == 7
    leased = replace(there, use=SliceUse.TASKS, node_id="a")
    with pytest.raises(PreconditionError, match="is leased to node a: choose another"):
        claim(snapshot(NET, node("a"), leased), asking("web"))


def test_claims_follow_the_specs():
    web = asking("web")
    snap, _ = after(snapshot(NET, web), claim(snapshot(NET), web))
    assert settle(snap) == snap
    moved, _ = changed(snap, asking("web", "10.9.0.100"))
    moved = settle(moved)
    assert holders(moved) == {"10.9.0.100": "web"}
    assert moved.get(Slice, slice_id("net", 2)) is None
    gone, _ = changed(moved, gone=asking("web"))
    assert list(settle(gone).all(Slice)) == []


def test_a_slice_stays_while_a_task_has_an_address_of_it():
    old = task("web", 1, "a", attachments=HELD)
    snap, _ = after(snapshot(NET, node("a"), old), claim(snapshot(NET), asking("web")))
    snap = settle(snap)
    assert holders(snap) == {}
    assert snap.get(Slice, slice_id("net", 2)) is not None
    snap, _ = changed(snap, gone=(old,))
    assert [type(op) for group in due(snap) for op in group] == [Delete]


def test_a_service_that_somebody_was_quicker_than_waits_and_says_so():
    snap, _ = after(snapshot(NET, asking("db"), asking("web"), node("a")), claim(snapshot(NET), asking("db")))
    assert settle(snap) == snap  # nothing can be done for web
    placing = Placing()
    waiting = task("web", 1, state=TaskState.NEW)
    snap, changes = changed(snap, waiting)
    placing.follow(changes, snap)
    (placed,), slices = placing.decide(snap, [waiting], 5.0)
    assert (placed.status.state, slices) == (TaskState.PENDING, [])
    assert placed.status.reason == "10.9.0.70 on network net is another service's: give it another address"


@pytest.mark.parametrize(
    ("state", "placed_on", "reason"),
    [
        (NodeState.READY, "", "10.9.0.70 on network net is held by the task that it replaces"),
        (NodeState.DOWN, "b", ""),
    ],
)
def test_the_heir_of_a_task_on_a_lost_node_takes_the_address_over(state, placed_on, reason):
    web = asking("web")
    old = task("web", 1, "a", attachments=HELD, desired_state=TaskState.SHUTDOWN)
    snap, _ = after(snapshot(NET, web, old, node("a", state=state), node("b")), claim(snapshot(NET), web))
    heir = replace(task("web", 1, state=TaskState.NEW), slot=1)
    snap, changes = changed(snap, heir)
    placing = Placing()
    placing.follow(changes, snap)
    (placed,), _ = placing.decide(snap, [heir], 5.0)
    assert reason in placed.status.reason
    if placed_on:
        assert (placed.node_id, placed.attachments) == (placed_on, HELD)


@pytest.mark.parametrize(
    ("state", "until"),
    [
        (NodeState.READY, ", until nothing of that is left"),
        (NodeState.UNKNOWN, ", until nothing of that is left"),
        (NodeState.AGENT_LOST, ", which is without an agent: it may run there until that is back"),
        (
            NodeState.DOWN,
            ", which is DOWN: it may run there until the node is back, or removed by 'argosy node rm'",
        ),
    ],
)
def test_an_address_that_another_service_gave_up_is_had_when_nothing_of_its_task_is_left(state, until):
    """Also where its own task may be taken over: by the split an address would be on tasks of two services."""
    web, db = asking("web"), asking("db", "10.9.0.71")
    theirs = task("db", 1, "a", attachments=HELD, desired_state=TaskState.SHUTDOWN)
    own = task("web", 1, "a", attachments=HELD, desired_state=TaskState.SHUTDOWN)
    own = replace(own, status=replace(own.status, released=True))
    snap, _ = after(snapshot(NET, web, db, theirs, own, node("a", state=state), node("b")), claim(snapshot(NET), web))
    heir = task("web", 1, state=TaskState.NEW)
    snap, changes = changed(snap, heir)
    placing = Placing()
    placing.follow(changes, snap)
    (placed,), _ = placing.decide(snap, [heir], 5.0)
    assert placed.status.reason == f"10.9.0.70 on network net is still held by a task of service db on node a{until}"
    assert not placed.status.waits_for_old
    snap, changes = changed(snap, replace(theirs, status=replace(theirs.status, released=True)))
    placing.follow(changes, snap)
    (placed,), _ = placing.decide(snap, [heir], 6.0)
    assert placed.attachments == HELD
