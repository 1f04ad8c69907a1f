"""What a node is told of a service that depends on others: that its restarts may have to wait for a controller."""

import pytest

from argosy.controller.logic.assign import assignments_for
from argosy.controller.session.drains import Drains
from argosy.controller.session.endpoints import EndpointIndex
from argosy.controller.session.objects import SnapshotObjects
from argosy.core.service import Dependency, DependencyCondition
from tests.unit.controller.objects import node, service, snapshot, task


@pytest.mark.parametrize(
    ("conditions", "dependent"),
    [
        ((), False),
        ((DependencyCondition.STARTED,), True),
        ((DependencyCondition.HEALTHY,), True),
        ((DependencyCondition.COMPLETED,), False),
        ((DependencyCondition.COMPLETED, DependencyCondition.HEALTHY), True),
    ],
)
def test_a_node_is_told_what_depends_on_others_that_have_to_run(conditions, dependent):
    depends_on = tuple(Dependency(f"base{number}", condition) for number, condition in enumerate(conditions))
    snap = snapshot(node("a"), service("web", depends_on=depends_on), task("web", 1, "a"))
    index = EndpointIndex()
    list(index.fill(snap))
    told = assignments_for("a", SnapshotObjects(snap, index, Drains(None))).pieces["revision/web.1"]
    assert told.dependent is dependent
