"""Which services the orchestrator's loop looks at after a change."""

from argosy.controller.loops.services import concerned
from argosy.controller.store import Change, Snapshot
from argosy.core.node import Node, NodeState
from argosy.core.service import Revision, Service, ServiceMode
from argosy.core.task import Task
from tests.unit.controller.objects import node, service, task


def test_a_node_that_comes_back_concerns_what_runs_on_every_node() -> None:
    objects = [
        *service("web"),
        *service("there"),
        *service("logs", mode=ServiceMode.GLOBAL),
        *service("scan", mode=ServiceMode.GLOBAL_JOB),
        task("there", 1, "n1"),
    ]
    kinds = (Service, Revision, Task)
    snap = Snapshot().apply(
        1, [Change(next(k for k in kinds if isinstance(o, k)), o.meta.id, None, o) for o in objects]
    )
    down, ready = node("n1", state=NodeState.DOWN), node("n1")
    assert concerned([Change(Node, "n1", down, ready)], snap) == {"there", "logs", "scan"}
