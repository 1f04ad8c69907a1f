"""Reports: one at a time, resent until acknowledged, passing states held back."""

import asyncio
import time

import pytest

from argosy.agent.session.reporter import Reporter
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState


def states(report):
    return {t.task_id: TaskState(t.status.state) for t in report.tasks}


async def is_silent(reporter):
    """Whether no report is due now."""
    waiting = asyncio.create_task(reporter.next())
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    if done:
        return waiting.result()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return None


@pytest.fixture
async def reporter():
    return Reporter()


async def test_what_comes_together_goes_together(reporter):
    reporter.put("a", TaskStatus(TaskState.RUNNING))
    reporter.put("b", TaskStatus(TaskState.FAILED))
    assert states(await reporter.next()) == {"a": TaskState.RUNNING, "b": TaskState.FAILED}


async def test_one_report_is_under_way_at_a_time(reporter):
    reporter.put("a", TaskStatus(TaskState.RUNNING))
    first = await reporter.next()
    reporter.put("a", TaskStatus(TaskState.FAILED))
    assert await is_silent(reporter) is None
    reporter.acknowledge(first.sequence - 1)
    assert await is_silent(reporter) is None
    reporter.acknowledge(first.sequence)
    assert states(await reporter.next()) == {"a": TaskState.FAILED}


async def test_a_passing_state_is_overtaken(reporter):
    reporter.put("a", TaskStatus(TaskState.PREPARING), passing=True)
    assert await is_silent(reporter) is None
    reporter.put("a", TaskStatus(TaskState.RUNNING))
    assert states(await reporter.next()) == {"a": TaskState.RUNNING}


async def test_a_passing_state_that_lasts_is_reported(reporter):
    reporter.put("a", TaskStatus(TaskState.PREPARING), passing=True)
    async with asyncio.timeout(5):
        assert states(await reporter.next()) == {"a": TaskState.PREPARING}


async def test_a_new_session_reports_everything_again(reporter):
    reporter.put("a", TaskStatus(TaskState.RUNNING))
    await reporter.next()
    reporter.restart({"a": TaskStatus(TaskState.RUNNING), "b": TaskStatus(TaskState.COMPLETE)})
    assert set(states(await reporter.next())) == {"a", "b"}


async def test_a_dropped_task_is_not_reported(reporter):
    reporter.put("a", TaskStatus(TaskState.RUNNING))
    reporter.put("b", TaskStatus(TaskState.RUNNING))
    reporter.drop("a")
    assert set(states(await reporter.next())) == {"b"}


async def test_a_large_report_is_cut(reporter):
    for n in range(Reporter.MAX_TASKS + 1):
        reporter.put(f"t{n}", TaskStatus(TaskState.RUNNING))
    first = await reporter.next()
    assert len(first.tasks) == Reporter.MAX_TASKS
    reporter.acknowledge(first.sequence)
    assert len((await reporter.next()).tasks) == 1


async def test_a_new_session_says_with_which_report_everything_is_told(reporter):
    """Until then the controller must not take what it has stored for what runs."""
    reporter.restart({f"t{n}": TaskStatus(TaskState.RUNNING) for n in range(2 * Reporter.MAX_TASKS + 1)})
    told = []
    for _ in range(3):
        report = await reporter.next()
        told.append((len(report.tasks), report.more))
        reporter.put("t0", TaskStatus(TaskState.FAILED))  # news is no part of that
        reporter.acknowledge(report.sequence)
    assert told == [(500, True), (500, True), (2, False)]
    assert (await reporter.next()).more is False


async def test_what_is_dropped_meanwhile_keeps_nobody_waiting(reporter):
    reporter.restart({f"t{n}": TaskStatus(TaskState.RUNNING) for n in range(Reporter.MAX_TASKS + 1)})
    first = await reporter.next()
    assert first.more
    reporter.drop(f"t{Reporter.MAX_TASKS}")
    reporter.acknowledge(first.sequence)
    last = await reporter.next()
    assert (len(last.tasks), last.more) == (0, False)


async def test_it_waits_in_peace_when_all_that_was_to_be_reported_is_dropped(reporter):
    reporter.put("a", TaskStatus(TaskState.RUNNING))
    reporter.drop("a")
    waiting = asyncio.create_task(reporter.next())
    await asyncio.sleep(2 * Reporter.GATHER_S)
    before = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - before < 0.1, "it asks itself again and again whether something is due"
    reporter.put("b", TaskStatus(TaskState.RUNNING))
    assert states(await waiting) == {"b": TaskState.RUNNING}
