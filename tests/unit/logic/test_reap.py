"""When a task's record goes: only when nothing of the task is left anywhere."""

from dataclasses import replace

import pytest

from argosy.controller.logic.actions import Action, DeleteTask, OrphanTask, SetDesired
from argosy.controller.logic.orchestrate import plan_service
from argosy.core.meta import Meta
from argosy.core.node import Node, NodeState, NodeStatus
from argosy.core.service import Revision, Service, ServiceSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState as S

NOW = 1_000_000.0
SPEC = ServiceSpec(name="web", replicas=1)
SERVICE = Service(Meta("web"), SPEC, revision=1)


def node(state: NodeState, since: float = NOW) -> dict[str, Node]:
    return {"n1": Node(Meta("n1"), status=NodeStatus(state, since=since))}


READY = node(NodeState.READY)


def task(name: str, state: S, desired: S, *, at: float = 0.0, released: bool = False, node_id: str = "n1") -> Task:
    status = TaskStatus(state, at=at, released=released)
    return Task(Meta(name, created_at=at), "web", 1, node_id, 1, desired, status)


def plan(tasks: list[Task], nodes: dict[str, Node], *, removing: bool = False) -> set[Action]:
    service = replace(SERVICE, removing=removing)
    revisions = {1: Revision(Meta("web.1"), "web", 1, SPEC)}
    return set(plan_service(service, revisions, tasks, nodes, NOW).actions)


RUNNING = task("now", S.RUNNING, S.RUNNING, at=100.0)


@pytest.mark.parametrize(
    ("state", "released", "nodes", "deleted"),
    [
        (S.RUNNING, False, READY, False),
        (S.SHUTDOWN, False, READY, False),
        (S.SHUTDOWN, True, READY, True),
        (S.ORPHANED, False, READY, False),
        (S.ORPHANED, True, READY, True),
        (S.SHUTDOWN, False, node(NodeState.DOWN), False),
        (S.RUNNING, False, {}, True),
        (S.SHUTDOWN, False, {}, True),
    ],
)
def test_a_task_to_be_forgotten_goes_when_released_or_its_node_was_removed(
    state: S, released: bool, nodes: dict[str, Node], deleted: bool
) -> None:
    old = task("old", state, S.REMOVE, released=released)
    assert (DeleteTask("old") in plan([old, RUNNING], nodes)) is deleted


@pytest.mark.parametrize("desired", [S.SHUTDOWN, S.REMOVE])
@pytest.mark.parametrize("state", [S.NEW, S.PENDING])
@pytest.mark.parametrize("node_id", ["", "n1"])
def test_a_task_that_no_agent_knows_goes_at_once(state: S, desired: S, node_id: str) -> None:
    assert plan([task("old", state, desired, node_id=node_id), RUNNING], READY) == {DeleteTask("old")}


def test_the_history_of_a_slot_keeps_its_last_five() -> None:
    ended = [task(f"t{n}", S.FAILED, S.RUNNING, at=n, released=True) for n in range(8)]
    assert plan([*ended, RUNNING], READY) == {DeleteTask("t0"), DeleteTask("t1"), DeleteTask("t2")}


def test_the_history_keeps_the_last_task_of_a_former_spec() -> None:
    former = [task(f"f{n}", S.SHUTDOWN, S.SHUTDOWN, at=n, released=True) for n in range(2)]
    ended = [task(f"t{n}", S.FAILED, S.RUNNING, at=10 + n, released=True) for n in range(6)]
    unknown = [replace(t, revision=0) for t in former]
    assert plan([*unknown, *ended, RUNNING], READY) == {DeleteTask("f0"), DeleteTask("t0"), DeleteTask("t1")}


def test_history_beyond_it_is_released_first() -> None:
    ended = [task(f"t{n}", S.FAILED, S.RUNNING, at=n, released=n > 0) for n in range(6)]
    assert plan([*ended, RUNNING], READY) == {SetDesired("t0", S.REMOVE)}


@pytest.mark.parametrize("removing", [False, True])
@pytest.mark.parametrize(("down_for", "orphaned"), [(86399, False), (86400, True)])
def test_a_task_is_orphaned_after_a_day_and_its_record_stays(down_for: float, orphaned: bool, removing: bool) -> None:
    old = task("old", S.RUNNING, S.REMOVE if removing else S.SHUTDOWN)
    tasks = [old] if removing else [old, replace(RUNNING, node_id="n2")]
    nodes = node(NodeState.DOWN, NOW - down_for) | {"n2": READY["n1"]}
    actions = plan(tasks, nodes, removing=removing)
    assert (OrphanTask("old") in actions, DeleteTask("old") in actions) == (orphaned, False)


@pytest.mark.parametrize("state", [NodeState.UNKNOWN, NodeState.AGENT_LOST])
def test_only_a_node_that_is_down_orphans(state: NodeState) -> None:
    assert plan([task("old", S.RUNNING, S.SHUTDOWN), RUNNING], node(state, 0.0)) == set()


def test_a_removed_node_takes_its_unreleased_history_along() -> None:
    kept = task("kept", S.FAILED, S.RUNNING, at=1, released=True)
    held = task("held", S.FAILED, S.RUNNING, at=2)
    here = replace(RUNNING, node_id="n2")
    nodes = {"n2": Node(Meta("n2"), status=NodeStatus(NodeState.READY))}
    assert plan([kept, held, here], nodes) == {DeleteTask("held")}
