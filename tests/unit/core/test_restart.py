"""The restart policy, read like docs/semantics: conditions, growing delay, attempts, windows."""

from dataclasses import replace

import pytest

from argosy.core.restart import Heritage, NoSuccessor, idle_settings, inherit, succeed
from argosy.core.service import RestartCondition, RestartPolicy, ServiceSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState as S
from tests.sim.service_world import World, image

ANY, ON_FAILURE, NONE = RestartCondition.ANY, RestartCondition.ON_FAILURE, RestartCondition.NONE
NOW = 10_000.0


def ended(state: S, at: float = NOW, **fields: object) -> Task:
    return replace(Task(node_id="n1", status=TaskStatus(state, at=at)), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "state", "successor"),
    [
        (ANY, S.FAILED, True),
        (ANY, S.REJECTED, True),
        (ANY, S.COMPLETE, True),
        (ON_FAILURE, S.FAILED, True),
        (ON_FAILURE, S.REJECTED, True),
        (ON_FAILURE, S.COMPLETE, NoSuccessor.FINISHED),
        (NONE, S.FAILED, NoSuccessor.GAVE_UP),
        (NONE, S.REJECTED, NoSuccessor.GAVE_UP),
        (NONE, S.COMPLETE, NoSuccessor.FINISHED),
    ],
)
def test_the_condition_decides_who_gets_a_successor(
    condition: RestartCondition, state: S, successor: NoSuccessor | bool
) -> None:
    found = succeed(ended(state), RestartPolicy(condition), NOW)
    assert isinstance(found, Heritage) if successor is True else found is successor


@pytest.mark.parametrize(
    ("delay", "failures", "waits"),
    [(5, 0, 5), (5, 1, 10), (5, 2, 20), (5, 5, 160), (5, 6, 300), (5, 5000, 300), (0, 9, 0), (1, 3, 8), (900, 4, 900)],
)
def test_the_delay_doubles_up_to_five_minutes_while_failing(delay: float, failures: int, waits: float) -> None:
    found = succeed(ended(S.FAILED, failures=failures), RestartPolicy(delay=delay), NOW)
    assert isinstance(found, Heritage)
    assert (found.failures, found.not_before) == (failures + 1, NOW + waits if waits else 0.0)


def test_the_delay_counts_from_the_end_and_not_from_when_one_looks() -> None:
    found = succeed(ended(S.FAILED, at=NOW - 3), RestartPolicy(delay=5), NOW)
    assert isinstance(found, Heritage)
    assert found.not_before == NOW + 2
    found = succeed(ended(S.FAILED, at=NOW - 6), RestartPolicy(delay=5), NOW)
    assert isinstance(found, Heritage)
    assert found.not_before == 0.0


def test_a_clock_ahead_of_ours_does_not_lengthen_the_delay() -> None:
    found = succeed(ended(S.FAILED, at=NOW + 3600), RestartPolicy(delay=5), NOW)
    assert isinstance(found, Heritage)
    assert found.not_before == NOW + 5


@pytest.mark.parametrize(("ran", "failures"), [(599, 8), (600, 1)])
def test_ten_minutes_of_health_reset_the_count_of_failures(ran: float, failures: int) -> None:
    found = succeed(ended(S.FAILED, failures=7, running_since=NOW - ran), RestartPolicy(), NOW)
    assert isinstance(found, Heritage)
    assert found.failures == failures


def test_a_program_that_completes_restarts_after_the_plain_delay() -> None:
    found = succeed(ended(S.COMPLETE, failures=3), RestartPolicy(delay=5), NOW)
    assert isinstance(found, Heritage)
    assert (found.failures, found.not_before) == (0, NOW + 5)


def test_what_could_not_be_prepared_is_not_prepared_ahead() -> None:
    policy = RestartPolicy(delay=5)
    found = [succeed(ended(state), policy, NOW) for state in (S.REJECTED, S.FAILED)]
    found.append(succeed(ended(S.FAILED, not_before=NOW + 1), policy, NOW))
    assert [h.prepare for h in found if isinstance(h, Heritage)] == [False, True, False]


def test_a_task_that_moves_keeps_its_counts_but_waits_for_nothing() -> None:
    lost = ended(S.RUNNING, failures=4, attempts=2, attempts_since=50.0, running_since=NOW - 60)
    assert inherit(lost, NOW) == Heritage(4, 0.0, True, 2, 50.0)


@pytest.mark.parametrize(("attempts", "successor"), [(0, True), (2, True), (3, False), (4, False)])
def test_max_attempts_without_a_window_counts_for_ever(attempts: int, successor: bool) -> None:
    policy = RestartPolicy(max_attempts=3)
    found = succeed(ended(S.FAILED, attempts=attempts, attempts_since=1.0), policy, NOW)
    assert isinstance(found, Heritage) is successor


@pytest.mark.parametrize(("since", "attempts"), [(NOW - 119, None), (NOW - 120, 1)])
def test_max_attempts_are_counted_within_the_window(since: float, attempts: int | None) -> None:
    policy = RestartPolicy(max_attempts=3, window=120)
    found = succeed(ended(S.FAILED, attempts=3, attempts_since=since), policy, NOW)
    assert (found.attempts if isinstance(found, Heritage) else None) == attempts


def crash_loop(policy: RestartPolicy, seconds: float) -> World:
    world = World(ServiceSpec(name="web", replicas=1, task=image("v1", restart=policy)))
    world.fate = lambda task, following: S.FAILED if following is S.RUNNING else following
    world.run(seconds)
    return world


def test_a_crash_loop_gives_up_after_max_attempts_and_its_history_stays_to_be_seen() -> None:
    world = crash_loop(RestartPolicy(delay=1, max_attempts=3), 3600)
    assert world.created == 4
    assert [t.status.state for t in world.tasks.values()] == [S.FAILED] * 4


def test_attempts_survive_the_trimming_of_the_history() -> None:
    world = crash_loop(RestartPolicy(delay=1, max_attempts=9), 3600)
    assert (world.created, len(world.tasks)) == (10, 5)


def test_a_slot_that_gave_up_is_tried_again_with_a_new_spec() -> None:
    world = crash_loop(RestartPolicy(delay=1, max_attempts=1), 60)
    world.fate = lambda task, following: following
    world.update(task=image("v2"))
    world.run(10)
    assert world.images() == ["v2"]


def test_a_crash_loop_slows_down_to_one_start_in_five_minutes() -> None:
    world = crash_loop(RestartPolicy(delay=5), 3600)
    starts = world.created
    world.run(3600)
    assert world.created - starts == 12


def test_a_successor_is_prepared_during_the_delay_and_started_after_it_by_its_node_alone() -> None:
    world = World(ServiceSpec(name="web", replicas=1, task=image("v1")))
    world.run(60)
    world.end("t000001", S.FAILED)
    world.run(4.9)
    heir = world.tasks["t000002"]
    assert (heir.desired_state, heir.status.state, heir.not_before) == (S.RUNNING, S.READY, 1065.0)
    world.now += 0.1  # nobody plans any more: the controller died during the delay
    while world.run_agents():
        pass
    assert [t.meta.id for t in world.running()] == ["t000002"]


def test_a_finished_program_stays_finished_when_its_service_is_looked_at_again() -> None:
    policy = RestartPolicy(ON_FAILURE)
    world = World(ServiceSpec(name="once", replicas=2, task=image("v1", restart=policy)))
    world.fate = lambda task, following: S.COMPLETE if following is S.RUNNING else following
    world.run(3600)
    assert (world.created, world.plan().actions) == (2, ())
    world.scale(3)
    world.run(60)
    assert world.created == 3


@pytest.mark.parametrize(
    ("policy", "idle"),
    [
        (RestartPolicy(), set()),
        (RestartPolicy(max_attempts=3), set()),
        (RestartPolicy(NONE), set()),
        (RestartPolicy(NONE, max_attempts=3, window=120), {"max_attempts", "window"}),
        (RestartPolicy(window=120), {"window"}),
        (RestartPolicy(delay=5, max_attempts=3, window=120), set()),
        (RestartPolicy(delay=5, max_attempts=3, window=35), {"max_attempts"}),
        (RestartPolicy(delay=5, max_attempts=3, window=35.1), set()),
        (RestartPolicy(delay=30, max_attempts=1, window=10), {"max_attempts"}),
        (RestartPolicy(delay=0, max_attempts=3, window=1), set()),
        (RestartPolicy(delay=5, max_attempts=1_000_000, window=86_400), {"max_attempts"}),
    ],
)
def test_settings_that_have_no_effect_are_told(policy: RestartPolicy, idle: set[str]) -> None:
    assert set(idle_settings(policy)) == idle


@pytest.mark.parametrize(("window", "gives_up"), [(35.0, False), (35.1, True)])
def test_attempts_are_used_up_only_in_a_window_that_their_delays_fit_in(window: float, gives_up: bool) -> None:
    policy, task, now = RestartPolicy(delay=5, max_attempts=3, window=window), ended(S.FAILED), NOW
    for _ in range(3):
        heritage = succeed(task, policy, now)
        assert isinstance(heritage, Heritage)
        now = heritage.not_before
        task = ended(
            S.FAILED,
            at=now,
            failures=heritage.failures,
            attempts=heritage.attempts,
            attempts_since=heritage.attempts_since,
        )
    assert (succeed(task, policy, now) is NoSuccessor.GAVE_UP) is gives_up
    assert bool(idle_settings(policy)) is not gives_up
