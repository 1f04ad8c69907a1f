"""Which messages of a controller a node applies."""

import pytest

from argosy.agent.logic.assignments import Assignments, BrokenChainError, StaleLeaderError, Update, advance
from argosy.core.assignment import LeaderEpoch, NamesAssignment, TaskAssignment

T1, T2 = TaskAssignment(id="t1"), TaskAssignment(id="t2")


def full(*pieces, version=1, epoch=5, revision=100):
    return Update(LeaderEpoch(epoch, revision), True, version, 0, pieces, ())


def increment(*pieces, base, version, remove=(), epoch=5, revision=100):
    return Update(LeaderEpoch(epoch, revision), False, version, base, pieces, remove)


def test_a_full_set_replaces_everything():
    state = advance(advance(Assignments(), full(T1)), full(T2, version=2))
    assert list(state.tasks()) == ["t2"]
    assert state.synced


def test_increments_chain():
    state = advance(Assignments(), full(T1))
    state = advance(state, increment(T2, base=1, version=2))
    state = advance(state, increment(base=2, version=3, remove=("task/t1",)))
    assert list(state.tasks()) == ["t2"]


def test_an_increment_on_another_base_is_refused():
    state = advance(Assignments(), full(T1))
    with pytest.raises(BrokenChainError):
        advance(state, increment(T2, base=7, version=8))


def test_an_increment_without_a_full_set_is_refused():
    with pytest.raises(BrokenChainError):
        advance(Assignments(), increment(T2, base=0, version=1))


@pytest.mark.parametrize(("epoch", "revision"), [(4, 999), (5, 99)])
def test_a_stale_leader_is_refused(epoch, revision):
    state = advance(Assignments(), full(T1))
    with pytest.raises(StaleLeaderError):
        advance(state, full(T2, version=9, epoch=epoch, revision=revision))


def test_a_new_leader_starts_its_own_versions():
    state = advance(Assignments(), full(T1, version=40))
    assert advance(state, full(T2, version=1, epoch=6, revision=101)).version == 1


def test_what_was_applied_is_not_changed_in_place():
    before = advance(Assignments(), full(T1))
    advance(before, increment(T2, base=1, version=2))
    assert list(before.tasks()) == ["t1"]


def test_pieces_are_told_apart_by_kind():
    state = advance(Assignments(), full(T1, NamesAssignment("n", "s", ("web",))))
    assert [n.names for n in state.of(NamesAssignment)] == [("web",)]
