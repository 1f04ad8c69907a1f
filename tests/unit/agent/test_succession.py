"""Restarts that a node decides by itself, read like docs/health.md."""

from dataclasses import replace

import pytest

from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.pieces import Pieces
from argosy.agent.logic.succession import (
    ENDED_KEPT,
    LEFT_S,
    Ended,
    settled,
    succession_of,
    superfluous,
    with_successors,
)
from argosy.core.assignment import LeaderEpoch, Succession, TaskAssignment
from argosy.core.ids import ID_PATTERN, successor_id
from argosy.core.network import Attachment
from argosy.core.service import RestartCondition, RestartPolicy
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState as S

NOW = 1000.0
POLICY = RestartPolicy(delay=5.0)
ROOT = TaskAssignment(
    "root", "default", "svc", 3, 2, attachments=(Attachment("net", 7),), attempts=1, attempts_since=900
)


def ended(state=S.FAILED, at=NOW, released=True, confirmed=False, running_since=0.0, host_restarted=False, **assigned):
    status = TaskStatus(state, at=at, released=released, host_restarted=host_restarted)
    return Ended(replace(ROOT, **assigned), status, running_since, confirmed)


def successor(one, policy=POLICY, fenced=False, dependent=False, alone_s=3.0, up_s=900.0, now=NOW):
    return succession_of(one, "root", policy, fenced=fenced, dependent=dependent, alone_s=alone_s, up_s=up_s, now=now)


@pytest.mark.parametrize(
    ("what", "one", "policy", "restarts"),
    [
        ("a failed task", ended(), POLICY, True),
        ("one that completed", ended(S.COMPLETE), POLICY, True),
        (
            "one that completed and may",
            ended(S.COMPLETE),
            replace(POLICY, condition=RestartCondition.ON_FAILURE),
            False,
        ),
        ("a run of a job that completed", ended(S.COMPLETE, iteration=1), POLICY, False),
        ("a run of a job that failed", ended(iteration=1), POLICY, True),
        ("one that may fail", ended(), replace(POLICY, condition=RestartCondition.NONE), False),
        ("one out of attempts", ended(), replace(POLICY, max_attempts=1), False),
        ("one whose attempts are long ago", ended(), replace(POLICY, max_attempts=1, window=50), True),
        ("one that this host cannot run", ended(S.REJECTED), POLICY, False),
        ("one that was told to stop", ended(S.SHUTDOWN), POLICY, False),
        ("one that is to stop", ended(desired_state=S.SHUTDOWN), POLICY, False),
        ("one that was only prepared", ended(desired_state=S.READY), POLICY, False),
        ("one that still holds something", ended(released=False), POLICY, False),
        ("one of whose end the controller knows", ended(confirmed=True), POLICY, False),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_restarts(what, one, policy, restarts):
    assert (successor(one, policy) is not None) is restarts


def test_a_fenced_task_is_not_restarted():
    assert successor(ended(), fenced=True) is None


@pytest.mark.parametrize(
    ("dependent", "host_restarted", "up_s", "alone_s", "restarts"),
    [
        (False, False, 900, 3, True),
        (False, True, 4, 3, True),  # what others wait for is there soon
        (True, False, 900, 3, True),  # a crash
        (True, False, 4, 3, False),  # one just before everything lost power
        (True, True, 4, 3, False),
        (True, True, 900, LEFT_S - 1, False),
        (True, True, 900, LEFT_S, True),
    ],
)
def test_what_depends_on_others_and_went_with_its_host_is_left_to_a_controller(
    dependent, host_restarted, up_s, alone_s, restarts
):
    one = ended(host_restarted=host_restarted, at=NOW - 10)
    assert (successor(one, dependent=dependent, alone_s=alone_s, up_s=up_s) is not None) is restarts


def test_a_restart_counts_and_waits_as_the_controllers_own():
    assert successor(ended()) == Succession("root", NOW, 1, NOW + 5, 2, 900)
    assert successor(ended(failures=2)).not_before == NOW + 20
    assert successor(ended(failures=2, running_since=NOW - 700)).not_before == NOW + 5  # it was well for long
    assert successor(ended(S.COMPLETE)) == Succession("root", NOW, 0, NOW + 5, 2, 900)


def test_what_failed_in_preparation_is_not_prepared_ahead():
    early = ended(at=NOW, not_before=NOW + 60)
    assert successor(early) is None
    assert successor(early, now=NOW + 5) is not None


def test_ids_of_successors_are_ids_and_known_ahead():
    ids = ["root"]
    for _ in range(100):
        ids.append(successor_id(ids[-1]))
    assert all(map(ID_PATTERN.fullmatch, ids[1:]))
    assert len(set(ids)) == 101
    assert successor_id("root") == ids[1]


def assigned(*tasks, synced=True):
    return Assignments(Pieces(tasks), 1, LeaderEpoch(1, 1), synced=synced)


MADE = {"s1": Succession("root", NOW, 1, NOW + 5, 2, 900), "s2": Succession("root", NOW + 9, 2, NOW + 19, 3, 900)}


def test_the_newest_successor_has_the_addresses():
    tasks = with_successors(assigned(ROOT), MADE).tasks()
    assert [tasks[i].attachments for i in ("root", "s1", "s2")] == [(), (), ROOT.attachments]
    assert tasks["s2"] == replace(ROOT, id="s2", not_before=NOW + 19, failures=2, attempts=3, attempts_since=900)


def test_what_is_desired_of_the_root_is_desired_of_its_successors():
    tasks = with_successors(assigned(replace(ROOT, desired_state=S.SHUTDOWN)), MADE).tasks()
    assert {t.desired_state for t in tasks.values()} == {S.SHUTDOWN}


def test_without_successors_the_assignments_are_the_controllers():
    given = assigned(ROOT)
    assert with_successors(given, {}) is given


@pytest.mark.parametrize(
    ("what", "given", "left"),
    [
        ("not yet told", assigned(ROOT), []),
        ("both assigned", assigned(ROOT, replace(ROOT, id="s1"), replace(ROOT, id="s2")), ["s1", "s2"]),
        ("one assigned", assigned(ROOT, replace(ROOT, id="s1")), ["s1"]),
        ("the root is forgotten", assigned(), ["s1", "s2"]),
        ("nothing is known", assigned(synced=False), []),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_when_the_controller_takes_over(what, given, left):
    assert settled(given, MADE) == left


def test_a_long_chain_keeps_its_end():
    made = {f"s{i}": Succession("root", NOW + i) for i in range(9)}
    ended_ids = set(made) - {"s8"}
    assert superfluous(made, ended_ids) == ["s0", "s1", "s2"]
    assert len(ended_ids) - 3 == ENDED_KEPT
