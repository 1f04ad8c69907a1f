"""The guard of fenced tasks, and what agent and guard tell each other: on a clock of the test's own."""

import asyncio
import os
from dataclasses import replace

import pytest

from argosy.agent.guard import files
from argosy.agent.guard.files import Grant, Guarded
from argosy.agent.guard.guard import PERIOD_S, Guard
from argosy.agent.tasks.fence import Fence, reason_of
from argosy.agent.tasks.guards import GuardProcess
from argosy.core.ambient import SYSTEM

TASK = Guarded(pid=7, start_ticks=70, signal=15, grace_s=10.0)
GRANT = Grant("boot", 1, until=100.0, confirmed_at=85.0, tasks={"t": TASK})


class Acts:
    """What a guard does, in order."""

    def __init__(self):
        self.done = []
        self.guard = Guard(self, lambda task_id, seconds: self.done.append(("mark", task_id, seconds)))

    def signal(self, task, number):
        self.done.append(("signal", task.pid, number))

    def kill(self, task_id, task):
        self.done.append(("kill", task_id))

    def look(self, grant, now):
        self.done.clear()
        self.guard.look(grant, now)
        return list(self.done)


def test_nothing_is_done_while_the_grant_lasts():
    assert Acts().look(GRANT, 99.999) == []


def test_at_the_end_of_the_grant_it_stops_and_after_the_grace_it_kills_until_nothing_is_left():
    acts = Acts()
    assert acts.look(GRANT, 100.0) == [("mark", "t", 15.0), ("signal", 7, 15)]
    assert acts.look(GRANT, 109.9) == []
    assert acts.look(GRANT, 110.0) == [("kill", "t")]
    assert acts.look(GRANT, 110.1) == [("kill", "t")]
    assert acts.look(replace(GRANT, tasks={}), 110.2) == []


def test_the_grace_counts_from_the_end_of_the_grant_also_for_a_guard_that_came_late():
    assert Acts().look(GRANT, 111.0) == [("mark", "t", 26.0), ("signal", 7, 15), ("kill", "t")]


def test_without_a_grace_it_kills_at_once():
    grant = replace(GRANT, tasks={"t": replace(TASK, grace_s=0.0)})
    assert Acts().look(grant, 100.0) == [("mark", "t", 15.0), ("kill", "t")]


def test_a_grant_that_comes_too_late_saves_nobody_and_one_in_time_everybody():
    acts, renewed = Acts(), replace(GRANT, until=115.0)
    assert acts.look(renewed, 100.0) == []
    assert acts.look(renewed, 115.0) == [("mark", "t", 30.0), ("signal", 7, 15)]
    late = replace(GRANT, until=200.0)
    assert acts.look(late, 120.0) == []
    assert acts.look(late, 125.0) == [("kill", "t")]


def test_it_wakes_for_what_is_next():
    acts = Acts()
    assert acts.guard.sleep_s(GRANT, 50.0) == PERIOD_S
    assert acts.guard.sleep_s(GRANT, 99.96) == pytest.approx(0.04)
    acts.look(GRANT, 100.0)
    assert acts.guard.sleep_s(GRANT, 109.98) == pytest.approx(0.02)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fence(tmp_path, clock):
    return Fence(tmp_path / "guard", replace(SYSTEM, boot=clock), lambda: None)


def test_a_grant_counts_from_when_its_heartbeat_was_sent(fence, clock, tmp_path):
    assert not fence.admits("t", lambda: TASK)  # nothing was granted
    fence.beat_sent(1)
    clock.now += 4
    fence.granted(1, 15.0)
    assert not fence.admits("t", lambda: TASK)  # no guard has read of it
    files.write_seen(tmp_path / "guard", files.read_grant(tmp_path / "guard").version)
    assert fence.admits("t", lambda: TASK)
    told = files.read_grant(tmp_path / "guard")
    assert (told.until, told.confirmed_at, told.tasks) == (1015.0, 1000.0, {"t": TASK})
    clock.now = 1015.0
    assert not fence.admits("t", lambda: TASK)


def test_an_answer_without_a_grant_or_to_no_heartbeat_changes_nothing(fence, clock, tmp_path):
    fence.beat_sent(1)
    fence.granted(1, 15.0)
    fence.granted(1, 900.0)  # answered already
    fence.beat_sent(2)
    fence.granted(2, 0.0)
    fence.beat_sent(3)
    fence.granted(3, 1.0)  # ends before the one that is in force
    fence.beat_sent(4)
    fence.new_session()
    fence.granted(4, 900.0)  # of another session
    fence.admits("t", lambda: TASK)
    assert files.read_grant(tmp_path / "guard").until == 1015.0


def test_an_agent_started_anew_goes_on_with_the_grant(fence, clock, tmp_path):
    fence.beat_sent(1)
    fence.granted(1, 15.0)
    fence.admits("t", lambda: TASK)
    files.mark_fenced(tmp_path / "guard", "t", 15.4)
    again = Fence(tmp_path / "guard", replace(SYSTEM, boot=clock), lambda: None)
    assert again.unconfirmed_s("t") == 15.4
    assert reason_of(15.4) == "fenced: no controller confirmed it for 15 s"
    again.release("t")
    assert files.read_grant(tmp_path / "guard").tasks == {}
    assert again.unconfirmed_s("t") is None


def test_a_grant_of_an_earlier_boot_is_none(tmp_path):
    files.write_grant(tmp_path, GRANT)
    assert files.read_grant(tmp_path) == Grant()


async def admitted(fence):
    while not fence.admits("t", lambda: TASK):  # noqa: ASYNC110  # another process has to act
        await asyncio.sleep(0.02)


async def test_there_is_a_guard_while_there_is_anything_to_guard(tmp_path):
    """A real guard process; the only container that it may touch is this test's idea."""
    guard = GuardProcess(tmp_path, "/argosy-none")
    fence = Fence(tmp_path, SYSTEM, guard.ensure)
    fence.beat_sent(1)
    fence.granted(1, 3600.0)
    running = asyncio.create_task(fence.run())
    try:
        await asyncio.wait_for(admitted(fence), 30)
        assert guard._is_guarded()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for pid in guard._spawned:
            os.kill(pid, 9)
            await asyncio.to_thread(os.waitpid, pid, 0)


def test_a_service_may_become_fenced_and_cease_to_be_while_its_task_runs(fence, tmp_path):
    fence.keep("t", lambda: TASK)  # nothing is granted yet: a guard would end it at once
    assert files.read_grant(tmp_path / "guard") == Grant()
    fence.beat_sent(1)
    fence.granted(1, 15.0)
    assert files.read_grant(tmp_path / "guard").tasks == {"t": TASK}
    version = files.read_grant(tmp_path / "guard").version
    fence.keep("t", lambda: TASK)
    assert files.read_grant(tmp_path / "guard").version == version
    fence.keep("t", None)
    assert files.read_grant(tmp_path / "guard").tasks == {}
