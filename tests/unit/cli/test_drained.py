"""What holds a drain up, told of each task left on the node."""

from dataclasses import replace

import pytest

from argosy.cli.progress.drained import NodeDrained, what_holds
from argosy.cli.progress.goals import Status
from argosy.cli.progress.picture import Picture
from argosy.core.meta import Meta
from argosy.core.node import Availability, Drain, Node, NodeSpec, NodeState, NodeStatus
from argosy.core.service import Disconnect, Service, ServiceSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState as S

NODE = Node(
    Meta("a"),
    NodeSpec("a", availability=Availability.DRAIN, drain=Drain(pace=2)),
    status=NodeStatus(NodeState.READY),
)
OTHER = Node(Meta("b"), NodeSpec("b"), status=NodeStatus(NodeState.READY))
OLD = Task(Meta("old"), "s", 1, "a", status=TaskStatus(S.RUNNING))
HEIR = Task(Meta("new"), "s", 1, "b", status=TaskStatus(S.STARTING))


def picture(*tasks: Task, node: Node = NODE, **spec: object) -> Picture:
    seen = Picture()
    for obj in (node, OTHER, Service(Meta("s"), ServiceSpec("web", **spec)), *tasks):  # type: ignore[arg-type]
        seen.put(obj)
    return seen


def heir(state: S, *, on: str = "b", desired: S = S.RUNNING, reason: str = "", unready: bool = False) -> Task:
    return replace(HEIR, node_id=on, desired_state=desired, status=TaskStatus(state, reason=reason, unready=unready))


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ((), "it waits for its turn (pace 2)"),
        ((heir(S.PENDING, on="", reason="no node has 4 CPUs free"),), "no other node can take it: no node has 4 CPUs"),
        ((heir(S.NEW, on=""),), "its replacement is being placed"),
        ((heir(S.STARTING),), "its replacement on b is STARTING"),
        ((heir(S.RUNNING, unready=True),), "its replacement on b is not ready"),
        ((heir(S.READY, desired=S.READY),), "its replacement on b is prepared and waits (pace 2)"),
        ((heir(S.FAILED),), "it waits for its turn (pace 2)"),
    ],
)
def test_a_task_is_held_up_by_what_its_replacement_waits_for(others: tuple[Task, ...], says: str) -> None:
    assert what_holds(OLD, NODE, picture(OLD, *others)).startswith(says)


def test_limits_are_named() -> None:
    assert what_holds(OLD, NODE, picture(OLD, max_unavailable="25%")).endswith("(pace 2, max_unavailable 25%)")
    fenced = picture(OLD, disconnect=Disconnect.FENCE)
    assert what_holds(OLD, NODE, fenced).endswith("(pace 2, a fenced service moves one task at a time)")


def test_what_is_not_moving_says_so() -> None:
    assert what_holds(replace(OLD, desired_state=S.SHUTDOWN), NODE, picture(OLD)) == "it is stopping"
    assert what_holds(replace(OLD, slot=0), NODE, picture(OLD)) == "a global service's task leaves last"


@pytest.mark.parametrize("slot", [0, 1])
def test_a_jobs_task_goes_on_and_no_later_run_takes_over_from_it(slot: int) -> None:
    old, later = replace(OLD, slot=slot, iteration=1), replace(HEIR, slot=slot, iteration=2)
    says = "a job's task goes on to its end"
    assert what_holds(old, NODE, picture(old, later)) == f"{says} (--deadline would bound that)"
    bounded = replace(NODE, spec=replace(NODE.spec, drain=Drain(deadline=1000.0)))
    assert what_holds(old, bounded, picture(old, later)) == says
    assert what_holds(old, DOWN, picture(old, later, node=DOWN)).endswith("it is not replaced yet")


DOWN = replace(NODE, status=NodeStatus(NodeState.DOWN))


@pytest.mark.parametrize(
    ("tasks", "policy", "says"),
    [
        ((OLD,), Disconnect.REPLACE, "the node is DOWN, and it is not replaced yet"),
        ((OLD, heir(S.PENDING, on="", reason="no room")), Disconnect.REPLACE, "replacement is PENDING: no room"),
        ((OLD,), Disconnect.KEEP, "the node is DOWN, and it is kept until the node is back or removed"),
        ((OLD, heir(S.RUNNING, unready=True)), Disconnect.REPLACE, "its replacement is RUNNING"),
        ((OLD, heir(S.RUNNING)), Disconnect.REPLACE, ""),
        ((replace(OLD, desired_state=S.SHUTDOWN),), Disconnect.REPLACE, ""),  # it was scaled down
        ((replace(OLD, slot=0),), Disconnect.REPLACE, ""),
    ],
)
def test_a_drain_of_a_node_that_is_cut_off_ends_when_others_run(
    tasks: tuple[Task, ...], policy: Disconnect, says: str
) -> None:
    found = NodeDrained(DOWN).assess(picture(*tasks, node=DOWN, disconnect=policy))
    assert found.status is (Status.WAITING if says else Status.DONE)
    assert says in found.reason
    assert says or "nobody can stop what is cut off there: 1 task" in found.summary[0]


def test_the_same_said_of_many_is_said_once_with_their_number() -> None:
    third = replace(OLD, meta=Meta("old3"), slot=3)
    found = NodeDrained(NODE).assess(picture(OLD, replace(OLD, meta=Meta("old2"), slot=2), third))
    assert found.summary == ("a: 3 tasks left", "web: 3 tasks: they wait for their turn (pace 2)")


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ((heir(S.PENDING, on="", reason="no room"),), "no other node can take them: no room"),
        ((heir(S.NEW, on=""),), "their replacements are being placed"),
        ((heir(S.STARTING),), "their replacements on b are STARTING"),
        ((heir(S.RUNNING, unready=True),), "their replacements on b are not ready"),
        ((heir(S.READY, desired=S.READY),), "their replacements on b are prepared and wait (pace 2)"),
    ],
)
def test_of_many_it_is_said_in_the_plural(others: tuple[Task, ...], says: str) -> None:
    second = [replace(t, meta=Meta(f"{t.meta.id}2"), slot=2) for t in (OLD, *others)]
    assert NodeDrained(NODE).assess(picture(OLD, *others, *second)).summary[1] == f"web: 2 tasks: {says}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"status": TaskStatus(S.RUNNING)},
            "they cannot be told to stop: the node is DOWN, and they are not replaced yet",
        ),
        ({"iteration": 1}, "jobs' tasks go on to their end (--deadline would bound that)"),
        ({"desired_state": S.SHUTDOWN}, "they are stopping"),
    ],
)
def test_of_many_that_do_not_move_it_is_said_in_the_plural(change: dict[str, object], says: str) -> None:
    old = replace(OLD, **change)  # type: ignore[arg-type]
    node = DOWN if "status" in change else NODE
    found = NodeDrained(node).assess(picture(old, replace(old, meta=Meta("old2"), slot=2), node=node))
    assert found.summary[1] == f"web: 2 tasks: {says}"


BOUNDED = replace(NODE, spec=replace(NODE.spec, drain=Drain(deadline=1000.0)))
STOPPED = replace(
    OLD, meta=Meta("old", updated_at=1001.0), desired_state=S.SHUTDOWN, status=TaskStatus(S.SHUTDOWN, at=1001.0)
)


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        (
            (STOPPED, heir(S.PENDING, on="", reason="no node has 4 CPUs free")),
            "runs nowhere now: no node has 4 CPUs free",
        ),
        ((STOPPED,), "runs nowhere now: it is not replaced yet"),
        ((STOPPED, heir(S.STARTING)), "runs nowhere now: its replacement on b is STARTING"),
        ((STOPPED, heir(S.RUNNING, unready=True)), ""),
        ((replace(STOPPED, desired_state=S.REMOVE),), ""),  # it was scaled down
        ((replace(STOPPED, slot=0),), ""),  # a global service has no other place for it
        ((replace(STOPPED, meta=Meta("old", updated_at=999.0)),), ""),
    ],
)
def test_what_the_deadline_stopped_and_nobody_runs_is_told_at_the_end(tasks: tuple[Task, ...], says: str) -> None:
    found = NodeDrained(BOUNDED).assess(picture(*tasks, node=BOUNDED))
    expected = (f"web.1 was stopped at the deadline and {says}",) if says else ()
    assert (found.status, found.summary) == (Status.DONE, ("a: drained", *expected))


def test_a_deadline_is_told() -> None:
    node = replace(NODE, spec=replace(NODE.spec, drain=Drain(deadline=1000.0)))
    assert "; what is left is stopped at " in NodeDrained(node).assess(picture(OLD, node=node)).reason
