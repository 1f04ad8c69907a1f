"""After which tasks of its node a task is started: those whose place it takes over."""

from dataclasses import replace

import pytest

from argosy.controller.logic.assign import assignments_for, task_assignment
from argosy.controller.session.drains import Drains
from argosy.controller.session.endpoints import EndpointIndex
from argosy.controller.session.objects import SnapshotObjects
from argosy.core.task_state import TaskState as S
from tests.unit.controller.objects import node, service, snapshot, task

OLD = task("web", 1, "a", desired_state=S.SHUTDOWN)
NEW = replace(task("web", 1, "a", S.READY), meta=replace(OLD.meta, id="new"))


@pytest.mark.parametrize(
    ("new", "old", "after"),
    [
        (NEW, OLD, True),
        (replace(NEW, slot=2), OLD, False),
        (replace(NEW, iteration=2), OLD, False),
        (replace(NEW, desired_state=S.READY), OLD, False),
        (replace(NEW, status=replace(NEW.status, state=S.RUNNING)), OLD, False),
        (NEW, replace(OLD, desired_state=S.RUNNING), False),
        (NEW, replace(OLD, status=replace(OLD.status, state=S.SHUTDOWN, released=True)), False),
        (NEW, replace(OLD, node_id="b"), False),
    ],
    ids=["its heir", "another slot", "another iteration", "not to run", "runs", "both to run", "gone", "elsewhere"],
)
def test_a_task_is_started_after_what_it_follows(new, old, after):
    snap = snapshot(node("a"), node("b"), service("web"), old, new)
    index = EndpointIndex()
    list(index.fill(snap))
    told = assignments_for("a", SnapshotObjects(snap, index, Drains(None))).pieces["task/new"]
    assert told.after == ((old.meta.id,) if after else ())


@pytest.mark.parametrize("desired", [S.RUNNING, S.SHUTDOWN])
@pytest.mark.parametrize("released", [True, False])
def test_of_a_task_that_ended_by_itself_the_node_is_told_that_it_is_over(desired, released):
    ended = task("web", 1, "a", S.FAILED, desired_state=desired)
    ended = replace(ended, status=replace(ended.status, released=released))
    assert task_assignment(ended).over == (released and desired is S.RUNNING)
