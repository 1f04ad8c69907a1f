"""When a lease is renewed, and when no more."""

import pytest

from argosy.controller.store.lease import HUNG_S, Ask, Lease, Pause, renewals


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lease(clock):
    return Lease(1, 6.0, clock.now, clock)


def test_it_is_renewed_six_times_in_its_time_to_live_and_counts_from_when_it_was_asked(lease, clock):
    steps = renewals(lease)
    assert next(steps) == Ask(2.0)
    clock.now += 0.5
    assert steps.send(6) == Pause(1.0)
    assert lease.confirmed_at == 100.0
    assert lease.remaining() == 5.5
    clock.now += 1.0
    assert next(steps) == Ask(2.0)


def test_without_an_answer_it_is_asked_for_again_soon_until_it_may_have_ended(lease, clock):
    steps = renewals(lease)
    for _ in range(3):
        assert next(steps) == Ask(2.0)
        clock.now += 2.0
        assert steps.send(None) == Pause(0.05)
    with pytest.raises(StopIteration):
        next(steps)
    assert lease.confirmed_at == 100.0


def test_one_that_is_gone_is_not_asked_for_again(lease):
    steps = renewals(lease)
    next(steps)
    with pytest.raises(StopIteration):
        steps.send(0)


def test_an_event_loop_that_hangs_loses_it(lease, clock):
    steps = renewals(lease)
    asked = 0
    while True:
        try:
            next(steps)
        except StopIteration:
            break
        asked += 1
        steps.send(6)
        clock.now += 1.0
    assert lease.hangs()
    assert asked == HUNG_S
    assert lease.remaining() > 0
