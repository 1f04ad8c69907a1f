"""What a report may change."""

from dataclasses import replace

import pytest

from argosy.controller.logic.status_report import adopted, reported
from argosy.core.assignment import Succession
from argosy.core.meta import Meta
from argosy.core.network import Attachment
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

NOW = 1000.0


def task(state, **more):
    return Task(node_id="n", status=TaskStatus(state, at=900.0, **more))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TaskState.RUNNING, TaskState.PREPARING),
        (TaskState.FAILED, TaskState.RUNNING),
        (TaskState.ASSIGNED, TaskState.ORPHANED),
        (TaskState.COMPLETE, TaskState.FAILED),
    ],
)
def test_states_do_not_fall_and_are_not_the_controllers(old, new):
    assert reported(task(old), TaskStatus(new), NOW) is None


@pytest.mark.parametrize("old", [TaskState.STARTING, TaskState.RUNNING])
def test_what_ran_and_cannot_start_again_has_failed(old):
    """Its host lost power, and its record of the task."""
    changed = reported(task(old), TaskStatus(TaskState.REJECTED, reason="the image is gone"), NOW)
    assert (changed.status.state, changed.status.reason) == (TaskState.FAILED, "the image is gone")
    released = reported(changed, TaskStatus(TaskState.REJECTED, released=True), NOW + 1)
    assert (released.status.state, released.status.released) == (TaskState.FAILED, True)


def test_the_first_running_is_timed_by_the_controller():
    changed = reported(task(TaskState.STARTING), TaskStatus(TaskState.RUNNING, at=5000.0), NOW)
    assert changed.running_since == NOW
    assert changed.status.at == NOW
    again = reported(replace(changed, status=replace(changed.status, pid=1)), TaskStatus(TaskState.RUNNING), NOW + 9)
    assert again.running_since == NOW


def test_a_task_whose_running_was_never_heard_of_ran_all_the_same():
    """It was over before the next report, or no controller was there to hear it."""
    starting = replace(task(TaskState.STARTING), meta=Meta("t", "p", created_at=890.0))
    changed = reported(starting, TaskStatus(TaskState.FAILED, at=999.0, ran_s=60.0), NOW)
    assert changed.running_since == 939.0
    assert reported(starting, TaskStatus(TaskState.FAILED, at=999.0), NOW).running_since == 0
    longer_than_it_is_old = reported(starting, TaskStatus(TaskState.FAILED, at=999.0, ran_s=500.0), NOW)
    assert longer_than_it_is_old.running_since == 890.0
    before_it_was_made = reported(starting, TaskStatus(TaskState.FAILED, at=880.0, ran_s=1.0), NOW)
    assert before_it_was_made.running_since == before_it_was_made.status.at == 880.0


def test_how_long_it_ran_is_said_by_its_host():
    """That it ran was heard of later than it ended: it would have run for less than no time."""
    late = replace(task(TaskState.RUNNING), running_since=999.5)
    assert reported(late, TaskStatus(TaskState.FAILED, at=999.0, ran_s=0.5), NOW).running_since == 998.5
    assert reported(late, TaskStatus(TaskState.FAILED, at=999.0), NOW).running_since == 999.5


def test_a_repeated_report_changes_nothing():
    running = task(TaskState.RUNNING, pid=7)
    assert reported(running, TaskStatus(TaskState.RUNNING, at=950.0, pid=7), NOW) is None


def test_released_comes_after_the_end_and_stays():
    failed = task(TaskState.FAILED, exit_code=1)
    released = reported(failed, TaskStatus(TaskState.FAILED, exit_code=1, released=True), NOW)
    assert released.status.released
    assert reported(released, TaskStatus(TaskState.FAILED, exit_code=1), NOW) is None


def test_an_orphan_only_learns_that_it_is_released():
    orphan = task(TaskState.ORPHANED)
    assert reported(orphan, TaskStatus(TaskState.RUNNING), NOW) is None
    released = reported(orphan, TaskStatus(TaskState.SHUTDOWN, released=True), NOW)
    assert (released.status.state, released.status.released) == (TaskState.ORPHANED, True)


@pytest.mark.parametrize("other", [TaskState.FAILED, TaskState.SHUTDOWN])
def test_of_another_end_than_the_stored_one_only_the_release_counts(other):
    """A host that lost power may have lost the last records of a task, and finds another end for it."""
    completed = task(TaskState.COMPLETE, exit_code=0)
    assert reported(completed, TaskStatus(other, reason="its container is gone"), NOW) is None
    released = reported(completed, TaskStatus(other, reason="its container is gone", released=True), NOW)
    assert released.status == replace(completed.status, released=True)
    assert reported(released, TaskStatus(other, released=True), NOW) is None


def test_a_long_reason_is_cut():
    rejected = TaskStatus(TaskState.REJECTED, reason="x" * 2_000_000)
    after = reported(task(TaskState.PREPARING), rejected, NOW)
    assert after.status.reason == "x" * 1000
    assert reported(after, rejected, NOW) is None


# ------------------------------------------------------------ tasks that a node made itself

ROOT = Task(
    meta=Meta("root", "shop", version=3, created_at=100.0),
    service_id="svc",
    slot=4,
    node_id="n",
    revision=2,
    desired_state=TaskState.RUNNING,
    status=TaskStatus(TaskState.FAILED, at=900.0, released=True),
    attachments=(Attachment("net", 7),),
    failures=1,
    attempts=1,
    iteration=5,
)
SUCCESSION = Succession("root", created_at=910.0, failures=2, not_before=915.0, attempts=2, attempts_since=850.0)


def test_a_successor_has_its_roots_place_and_its_own_count():
    made = adopted(ROOT, "heir", SUCCESSION, TaskStatus(TaskState.RUNNING, at=916.0, pid=7), NOW)
    assert made == replace(
        ROOT,
        meta=Meta("heir", "shop", created_at=910.0, updated_at=NOW),
        status=TaskStatus(TaskState.RUNNING, at=916.0, pid=7),
        failures=2,
        not_before=915.0,
        attempts=2,
        attempts_since=850.0,
        running_since=NOW,
    )


def test_a_successor_of_a_task_that_is_to_stop_is_to_stop():
    root = replace(ROOT, desired_state=TaskState.SHUTDOWN)
    made = adopted(root, "heir", SUCCESSION, TaskStatus(TaskState.RUNNING, at=916.0), NOW)
    assert made.desired_state is TaskState.SHUTDOWN


@pytest.mark.parametrize(("host_says", "stored"), [(5000.0, NOW), (50.0, 100.0)])
def test_a_successor_was_made_after_its_root_and_not_later_than_now(host_says, stored):
    made = adopted(ROOT, "heir", replace(SUCCESSION, created_at=host_says), TaskStatus(TaskState.READY), NOW)
    assert made.meta.created_at == stored


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -5.0])
def test_a_moment_that_cannot_be_is_taken_as_now(at):
    """Histories are sorted by it, and nothing compares with NaN."""
    assert reported(task(TaskState.STARTING), TaskStatus(TaskState.RUNNING, at=at), NOW).status.at == NOW
    made = adopted(ROOT, "heir", replace(SUCCESSION, created_at=at), TaskStatus(TaskState.READY, at=at), NOW)
    assert (made.meta.created_at, made.status.at) == (NOW, NOW)
