"""The literal transition table and the invariant checker."""

import itertools

import pytest

from argosy.core.task_state import (
    DESIRED_STATES,
    TRANSITIONS,
    TaskState,
    broken_invariants,
    is_terminal,
    may_follow,
)


def test_every_state_has_a_row():
    assert set(TRANSITIONS) == set(TaskState)


def test_states_only_grow():
    assert all(new > old for old, following in TRANSITIONS.items() for new in following)


@pytest.mark.parametrize("state", [s for s in TaskState if is_terminal(s)])
def test_nothing_follows_an_end(state):
    assert TRANSITIONS[state] == frozenset()


def test_a_failure_before_starting_is_a_rejection_only_there():
    for state in (TaskState.STARTING, TaskState.RUNNING):
        assert not may_follow(state, TaskState.REJECTED)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(TaskState, TaskState)))
def test_the_checker_agrees_with_the_table(old, new):
    broken = broken_invariants((old, TaskState.RUNNING), (new, TaskState.RUNNING), node_id="n", by_agent=False)
    lawful = may_follow(old, new) and new is not TaskState.REMOVE
    assert (broken == []) == lawful


def test_desired_states_never_fall():
    order = sorted(DESIRED_STATES)
    for low, high in itertools.combinations(order, 2):
        state = TaskState.RUNNING
        assert broken_invariants((state, high), (state, low), node_id="n", by_agent=False)
        assert not broken_invariants((state, low), (state, high), node_id="n", by_agent=False)


def test_agents_do_not_write_the_controllers_states():
    old, new = (TaskState.NEW, TaskState.RUNNING), (TaskState.ASSIGNED, TaskState.RUNNING)
    assert broken_invariants(old, new, node_id="n", by_agent=True)
    assert not broken_invariants(old, new, node_id="n", by_agent=False)


def test_a_task_past_assigned_has_a_node():
    assert broken_invariants(None, (TaskState.RUNNING, TaskState.RUNNING), node_id="", by_agent=False)
