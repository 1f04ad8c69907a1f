"""Who is served next, and that everything else in the event loop has its turn meanwhile."""

import asyncio

from argosy.controller.session import turns as turns_module
from argosy.controller.session.turns import FIRST_AT_ONCE, SHARED_AT_ONCE, Turns
from argosy.controller.sparing import FREE_S, Sparing


class Told(list):
    """Those who were given a turn, in order."""

    def __init__(self, count):
        super().__init__()
        self.count = count
        self.full = asyncio.Event()

    def append(self, one):
        super().append(one)
        if len(self) == self.count:
            self.full.set()


async def given(turns, told):
    """Run the turns until as many were given as are expected."""
    running = asyncio.create_task(turns.run())
    await asyncio.wait_for(told.full.wait(), 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_own_changes_come_before_many_of_networks():
    told = Told(5 * SHARED_AT_ONCE + 1)
    turns = Turns(told.append)
    for number in range(5 * SHARED_AT_ONCE):
        turns.ask(number, own=False)
    turns.ask("own", own=True)
    await given(turns, told)
    assert "own" in told[: SHARED_AT_ONCE + 1]
    assert [one for one in told if one != "own"] == list(range(5 * SHARED_AT_ONCE))


async def test_one_turn_is_for_both():
    told = Told(2)
    turns = Turns(told.append)
    turns.ask("a", own=False)
    turns.ask("a", own=True)
    turns.ask("a", own=False)
    turns.ask("b", own=False)
    await given(turns, told)
    assert sorted(told) == ["a", "b"]


async def test_who_left_gets_no_turn():
    told = Told(1)
    turns = Turns(told.append)
    for own in (True, False):
        turns.ask("gone", own=own)
        turns.forget("gone")
    turns.ask("here", own=True)
    await given(turns, told)
    assert told == ["here"]


async def test_a_turn_may_be_asked_for_while_others_are_given():
    told = Told(101)

    def take(one):
        told.append(one)
        if one < 100:
            turns.ask(one + 1, own=one % 2 == 0)

    turns = Turns(take)
    turns.ask(0, own=True)
    await given(turns, told)
    assert told == list(range(101))


async def test_first_sets_are_made_as_they_go_out_and_own_changes_go_between_them(monkeypatch):
    """After a failover all nodes want one at once."""
    monkeypatch.setattr(turns_module, "FIRST_PATIENCE_S", 1000.0)
    told = Told(FIRST_AT_ONCE)
    turns = Turns(told.append)
    for number in range(2 * FIRST_AT_ONCE):
        turns.ask(number, own=True, first=True)
    await given(turns, told)
    turns.ask("own", own=True)
    turns.forget(0)
    turns.came_out(3)
    turns.came_out(3)
    told.full.clear()
    told.count = FIRST_AT_ONCE + 3
    await given(turns, told)
    assert [one for one in told if one != "own"] == list(range(FIRST_AT_ONCE + 2))
    assert "own" in told
    for number in range(FIRST_AT_ONCE):
        turns.forget(number)


async def test_a_first_set_that_does_not_go_out_keeps_others_waiting_for_a_while_only(monkeypatch):
    monkeypatch.setattr(turns_module, "FIRST_PATIENCE_S", 0.01)
    told = Told(2 * FIRST_AT_ONCE)
    turns = Turns(told.append)
    for number in range(told.count):
        turns.ask(number, own=True, first=True)
    await given(turns, told)
    assert told == list(range(told.count))


class Clock:
    """A clock of the test's own."""

    now = 0.0

    def __call__(self):
        return self.now


async def test_after_work_there_is_rest_in_proportion(monkeypatch):
    rests = []

    async def sleep(seconds):
        rests.append(round(seconds, 6))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    clock = Clock()
    sparing = Sparing(clock, 0.25)
    for worked_s in (0.02, 0.08):
        with sparing.working():
            clock.now += worked_s
        clock.now += 5  # others' time
    await sparing.rest()
    with sparing.working():
        clock.now += FREE_S / 2
    await sparing.rest()
    assert rests == [0.3]
