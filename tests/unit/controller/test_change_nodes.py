"""What an operator may change of a node, and what not."""

import pytest

from argosy.controller.changes.nodes import removed, updated
from argosy.controller.store import Snapshot
from argosy.core.errors import ConflictError, InvalidError, PreconditionError
from argosy.core.meta import Meta
from argosy.core.node import Availability, Drain, Node, NodeSpec, NodeState, NodeStatus

NODE = Node(Meta("n1", version=7), NodeSpec("a"))
DRAINED = NodeSpec("a", availability=Availability.DRAIN, drain=Drain(pace=2))


def test_a_drains_deadline_counts_by_the_controllers_clock():
    _, node = updated(NODE, DRAINED, 1000.0, 7, drain_for=600.0)
    assert node.spec.drain == Drain(2, 1600.0)


def test_without_a_time_the_deadline_is_the_specs():
    _, node = updated(NODE, DRAINED, 1000.0)
    assert node.spec.drain == Drain(2, 0.0)


@pytest.mark.parametrize(
    ("spec", "drain_for", "says"),
    [
        (NodeSpec("a"), 60.0, "only a node that is drained"),
        (DRAINED, 0.5, "at least 1s"),
        (DRAINED, -5.0, "negative"),
        (DRAINED, float("nan"), "not a number of seconds"),
        (NodeSpec("b"), 0.0, "cannot be renamed"),
    ],
)
def test_what_means_nothing_is_refused(spec, drain_for, says):
    with pytest.raises(InvalidError) as refused:
        updated(NODE, spec, 1000.0, drain_for=drain_for)
    assert says in " ".join([str(refused.value), *(what for _, what in refused.value.problems)])


def test_a_change_of_what_was_changed_since_is_a_conflict():
    with pytest.raises(ConflictError, match="read it again"):
        updated(NODE, DRAINED, 1000.0, version=6)


@pytest.mark.parametrize(
    ("state", "says"), [(NodeState.READY, "argosy node drain a"), (NodeState.AGENT_LOST, "start its agent")]
)
def test_a_node_that_is_not_down_is_not_removed_and_what_to_do_can_be_done(state, says):
    with pytest.raises(PreconditionError, match=says):
        removed(Snapshot(), Node(Meta("n1"), NodeSpec("a"), status=NodeStatus(state)))
