"""Rolling updates, read like docs/semantics: parallelism, delay, order, monitor, failure action, failover."""

from collections import Counter
from dataclasses import replace

import pytest

from argosy.controller.logic.actions import RollBack
from argosy.core.node import Availability, NodeState
from argosy.core.service import (
    Disconnect,
    FailureAction,
    Placement,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
    UpdateStatus,
)
from argosy.core.task import Task
from argosy.core.task_state import TaskState as S
from tests.sim.service_world import Fate, World, go_well, image

FOR_EVER = RestartPolicy()


def deployed(replicas: int = 4, *, restart: RestartPolicy = FOR_EVER, **config: object) -> World:
    """Return a world with v1 deployed and healthy, whose service updates as `config` says."""
    update = UpdateConfig(**config)  # type: ignore[arg-type]
    world = World(ServiceSpec(name="web", task=image("v1", restart=restart), replicas=replicas, update=update))
    world.run(60)
    return world


def roll(world: World, name: str = "v2") -> None:
    """Update the image."""
    world.update(task=replace(world.service.spec.task, container=image(name).container))  # type: ignore[union-attr]


def spoiled(world: World, name: str, at: S, how: S) -> Fate:
    """Return a fate in which tasks with this image end in state `how` instead of entering `at`."""
    return lambda task, following: how if world.image_of(task) == name and following is at else following


def stuck(world: World, name: str, before: S) -> Fate:
    """Return a fate in which tasks with this image never enter state `before`."""
    return lambda task, following: (
        task.status.state if world.image_of(task) == name and following is before else following
    )


def in_flight(world: World) -> int:
    """Count the tasks of the newest revision that do not run yet."""
    newest = max(world.revisions)
    return sum(t.revision == newest and t.status.state < S.RUNNING for t in world.live())


# Parallelism, delay, completion


def test_slots_move_one_by_one_and_it_completes_after_the_monitor_time_of_the_last() -> None:
    world = deployed(4)
    most = []
    world.checks.append(lambda w: most.append(in_flight(w)))
    roll(world)
    world.settle()
    assert (world.images(), world.update_state()) == (["v2"] * 4, UpdateState.UPDATING)
    world.run(4.9)
    assert world.update_state() is UpdateState.UPDATING
    world.run(0.1)
    assert world.update_state() is UpdateState.COMPLETED
    assert max(most) == 1


@pytest.mark.parametrize(("parallelism", "most_in_flight"), [(1, 1), (2, 2), (3, 3), (0, 6)])
def test_parallelism_bounds_the_slots_in_flight(parallelism: int, most_in_flight: int) -> None:
    world = deployed(6, parallelism=parallelism)
    most = []
    world.checks.append(lambda w: most.append(in_flight(w)))
    roll(world)
    world.run(10)
    assert (max(most), world.images()) == (most_in_flight, ["v2"] * 6)


def test_delay_passes_after_a_slot_is_updated_before_the_next_one() -> None:
    world = deployed(3, delay=10)
    roll(world)
    world.settle()
    assert world.images() == ["v1", "v1", "v2"]
    world.run(9.9)
    assert world.images() == ["v1", "v1", "v2"]
    world.run(0.1)
    assert world.images() == ["v1", "v2", "v2"]
    world.run(10)
    assert world.images() == ["v2", "v2", "v2"]


def test_slots_that_do_not_serve_are_updated_first() -> None:
    world = deployed(4, delay=1000)
    world.end(world.running()[2].meta.id, S.FAILED)
    roll(world)
    world.settle()
    assert [(t.slot, world.image_of(t)) for t in world.running()] == [(1, "v1"), (2, "v1"), (3, "v2"), (4, "v1")]


def test_an_equal_spec_and_a_new_number_of_replicas_are_no_update() -> None:
    world = deployed(3)
    before = world.created
    world.update(labels={"a": "b"})
    world.scale(4)
    world.settle()
    assert (world.created, world.update_state()) == (before + 1, UpdateState.NONE)


def test_new_constraints_that_the_node_meets_make_nothing_dirty() -> None:
    world = deployed(3)
    before = {t.meta.id for t in world.running()}
    constrained = replace(world.service.spec.task, placement=Placement(constraints=("node.id != n2",)))  # type: ignore[union-attr]
    world.fits = lambda placement: lambda node: node.meta.id != "n2"
    world.update(task=constrained)
    world.run(10)
    assert len({t.meta.id for t in world.running()} & before) == 2
    assert {t.node_id for t in world.running()} == {"n1", "n3"}
    assert world.update_state() is UpdateState.COMPLETED


def test_force_update_replaces_equal_tasks() -> None:
    world = deployed(2)
    world.update(task=replace(world.service.spec.task, force_update=1))  # type: ignore[union-attr]
    world.run(10)
    assert world.created == 4


def test_an_heir_that_was_prepared_in_the_room_of_a_task_that_is_then_to_leave_waits_for_its_end_all_the_same() -> None:
    world = deployed(3)
    twice: list[Counter[int]] = []
    world.checks.append(lambda w: twice.append(Counter(t.slot for t in w.serving())))
    world.fate = stuck(world, "v2", S.READY)
    world.room = lambda node: 1
    roll(world)
    world.settle()
    (heir,) = (t for t in world.live() if world.image_of(t) == "v2")
    (old,) = (t for t in world.running() if t.slot == heir.slot)
    assert heir.node_id == old.node_id
    world.evict(old.meta.id)
    world.fate = go_well
    world.run(60)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.COMPLETED)
    assert max(max(slots.values()) for slots in twice) == 1


def test_what_starts_beside_a_task_that_moves_waits_for_what_was_started_there_before_it() -> None:
    world = deployed(1)
    (old,) = world.running()
    world.fate = stuck(world, "v1", S.RUNNING)
    world.evict(old.meta.id)
    world.settle()
    (overtaken,) = (t for t in world.live() if t != world.tasks[old.meta.id])
    assert overtaken.status.state is S.STARTING
    world.fate = lambda task, following: task.status.state if following is S.SHUTDOWN else following
    roll(world)
    world.run(60)
    assert {t.meta.id for t in world.serving()} == {old.meta.id, overtaken.meta.id}
    world.fate = go_well
    beside: list[set[str]] = []
    world.checks.append(lambda w: beside.append({t.meta.id for t in w.serving()}))
    world.run(60)
    assert (world.images(), world.update_state()) == (["v2"], UpdateState.COMPLETED)
    (heir,) = world.running()
    assert {old.meta.id, heir.meta.id} in beside


def test_a_second_update_takes_over_from_the_first() -> None:
    world = deployed(4)
    world.fate = stuck(world, "v2", S.READY)
    roll(world)
    world.settle()
    roll(world, "v3")
    world.run(10)
    assert (world.images(), world.update_state()) == (["v3"] * 4, UpdateState.COMPLETED)


def test_an_update_of_nothing_completes() -> None:
    world = deployed(0)
    roll(world)
    world.settle()
    assert world.update_state() is UpdateState.COMPLETED


def test_a_slot_that_was_begun_in_vain_and_is_as_wanted_again_holds_up_no_other() -> None:
    world = deployed(2, delay=1000, order=UpdateOrder.START_FIRST)
    roll(world)
    world.settle()
    assert world.images() == ["v1", "v2"]
    world.room = lambda node: 0
    world.set_unready(next(t.meta.id for t in world.running() if world.image_of(t) == "v1"))
    roll(world, "v3")
    world.settle()
    assert [(t.slot, t.status.state) for t in world.live() if t.status.state < S.RUNNING] == [(2, S.PENDING)]
    roll(world, "v1")
    world.orchestrate()
    assert [(t.slot, world.image_of(t)) for t in world.live() if t.status.state < S.RUNNING] == [(1, "v1")]


def test_tasks_that_never_found_a_node_move_all_at_once_and_leave_no_trace() -> None:
    world = World(ServiceSpec(name="web", task=image("v1"), replicas=5, update=UpdateConfig(delay=100)))
    world.room = lambda node: 0
    world.settle()
    roll(world)
    world.settle()
    assert [world.image_of(t) for t in world.tasks.values()] == ["v2"] * 5


# Order


def test_stop_first_lets_the_old_task_go_on_until_the_new_one_is_ready() -> None:
    world = deployed(1)
    world.fate = stuck(world, "v2", S.READY)
    roll(world)
    world.run(300)
    assert world.images() == ["v1"]
    states = []
    world.checks.append(lambda w: states.append(sorted(t.status.state.name for t in w.tasks.values())))
    world.fate = lambda task, following: following
    world.settle()
    assert world.images() == ["v2"]
    assert not any(s.count("RUNNING") + s.count("STARTING") > 1 for s in states)
    assert ["READY", "RUNNING"] in states
    assert ["READY", "SHUTDOWN"] in states


def old_one_stays(task: Task, following: S) -> S:
    """Have no task stop."""
    return S.RUNNING if following is S.SHUTDOWN else following


@pytest.mark.parametrize(("nodes", "desired"), [(1, S.RUNNING), (2, S.READY)])
def test_stop_first_leaves_the_turn_to_the_node_where_old_and_new_share_one(nodes, desired) -> None:
    world = World(ServiceSpec(name="web", task=image("v1")), node_count=nodes)
    world.run(60)
    world.fate = old_one_stays
    roll(world)
    world.settle()
    old, new = sorted(world.tasks.values(), key=lambda t: t.meta.created_at)
    assert (old.desired_state, old.status.state) == (S.SHUTDOWN, S.RUNNING)
    assert (new.desired_state, new.status.state) == (desired, S.READY)
    world.fate = lambda task, following: following
    for _ in range(3):
        world.run_agents()  # no controller
    assert (world.images() == ["v2"]) is (nodes == 1)
    world.settle()
    assert world.images() == ["v2"]


def test_stop_first_makes_room_where_the_new_task_finds_none_beside_the_old() -> None:
    world = deployed(3)
    world.room = lambda node: 1
    roll(world)
    world.run(10)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.COMPLETED)


def test_stop_first_stops_nothing_for_a_task_that_no_node_has_room_for_and_says_so_at_its_deadline() -> None:
    world = deployed(3, progress_deadline=30)
    world.room = lambda node: 0
    roll(world)
    world.run(29)
    assert (world.images(), world.update_state()) == (["v1"] * 3, UpdateState.UPDATING)
    world.run(600)
    assert (world.images(), world.update_state()) == (["v1"] * 3, UpdateState.PAUSED)
    assert world.service.update.message == "no progress for 30s: slot 1 is pending"  # type: ignore[union-attr]
    world.room = lambda node: 1000
    world.run(600)
    assert world.images() == ["v1"] * 3


def test_stop_first_does_not_stop_a_task_for_one_that_no_node_may_run() -> None:
    world = deployed(3)
    world.room = lambda node: 1
    world.fits = lambda placement: lambda node: False
    world.update(task=image("v2", placement=Placement(constraints=("node.id == nowhere",))))
    world.run(600)
    assert world.images() == ["v1", "v1", "v1"]


def test_start_first_stops_the_old_task_only_when_the_new_one_runs() -> None:
    world = deployed(3, order=UpdateOrder.START_FIRST)
    least, most = [], []
    world.checks.append(lambda w: (least.append(len(w.running())), most.append(len(w.live()))))  # type: ignore[func-returns-value]
    roll(world)
    world.run(10)
    assert (min(least), max(most), world.images()) == (3, 4, ["v2"] * 3)


def test_start_first_waits_for_health() -> None:
    world = deployed(1, order=UpdateOrder.START_FIRST)
    world.fate = stuck(world, "v2", S.RUNNING)
    roll(world)
    world.run(300)
    assert world.images() == ["v1"]
    assert S.STARTING in {t.status.state for t in world.live()}


def test_of_several_tasks_that_have_to_go_only_the_one_furthest_on_waits_for_the_heir() -> None:
    world = deployed(1, order=UpdateOrder.START_FIRST)
    world.fate = stuck(world, "v2", S.RUNNING)
    roll(world)
    world.settle()
    world.fate = stuck(world, "v3", S.RUNNING)
    roll(world, "v3")
    world.settle()
    assert sorted(world.image_of(t) for t in world.live()) == ["v1", "v3"]


# Failures


@pytest.mark.parametrize(
    ("replicas", "parallelism", "says"),
    [
        (1, 1, "the only replica failed before it had run for 5 s; slot 1"),
        (4, 1, "1 of 4 replicas failed before it had run for 5 s; slot 1"),
        (2, 2, "both replicas failed before they had run for 5 s; slot "),
        (3, 3, "all 3 replicas failed before they had run for 5 s; slot "),
    ],
)
def test_what_failed_is_said_in_words_that_fit_the_number(replicas: int, parallelism: int, says: str) -> None:
    world = deployed(replicas, parallelism=parallelism)
    world.fate = spoiled(world, "v2", S.STARTING, S.FAILED)
    roll(world)
    world.run(600)
    assert world.service.update.message.startswith(says)  # type: ignore[union-attr]


@pytest.mark.parametrize(("at", "how"), [(S.PREPARING, S.REJECTED), (S.STARTING, S.FAILED), (S.RUNNING, S.FAILED)])
def test_a_failure_pauses_the_update_and_the_other_slots_keep_serving(at: S, how: S) -> None:
    world = deployed(4)
    world.fate = spoiled(world, "v2", at, how)
    roll(world)
    world.run(600)
    assert world.update_state() is UpdateState.PAUSED
    assert world.images().count("v1") == (4 if at is S.PREPARING else 3)
    assert world.service.update.message.startswith("1 of 4 replicas failed before it had run for 5 s; slot 1")  # type: ignore[union-attr]


@pytest.mark.parametrize(("lives", "state"), [(4.9, UpdateState.PAUSED), (5.0, UpdateState.UPDATING)])
def test_only_what_ends_before_the_monitor_time_is_a_failure_of_the_update(lives: float, state: UpdateState) -> None:
    world = deployed(2, delay=100)
    roll(world)
    world.run(lives)
    world.end(next(t for t in world.running() if world.image_of(t) == "v2").meta.id, S.FAILED)
    world.settle()
    assert world.update_state() is state


def test_the_failure_ratio_is_exceeded_strictly() -> None:
    world = deployed(4, max_failure_ratio=0.25)
    world.fate = lambda task, following: (
        S.FAILED if task.slot == 1 and following is S.RUNNING and world.image_of(task) == "v2" else following
    )
    roll(world)
    world.run(20)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.UPDATING)
    world.end(world.running()[-1].meta.id, S.FAILED)
    world.run(0)
    assert world.update_state() is UpdateState.UPDATING
    world = deployed(4, max_failure_ratio=0.25)
    world.fate = lambda task, following: (
        S.FAILED if task.slot <= 2 and following is S.RUNNING and world.image_of(task) == "v2" else following
    )
    roll(world)
    world.run(20)
    assert world.update_state() is UpdateState.PAUSED


def test_a_node_that_goes_away_is_no_failure() -> None:
    world = deployed(3)
    roll(world)
    world.settle()
    world.set_node("n2", NodeState.DOWN)
    world.run(10)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.COMPLETED)


def test_continue_goes_on_with_the_others_and_completes_when_the_failing_ones_recover() -> None:
    world = deployed(3, failure_action=FailureAction.CONTINUE)
    world.fate = lambda task, following: S.REJECTED if task.slot == 1 and world.image_of(task) == "v2" else following
    roll(world)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v1", "v2", "v2"], UpdateState.UPDATING)
    world.fate = lambda task, following: following
    world.run(600)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.COMPLETED)


def test_continue_pauses_when_the_restart_policy_gave_up_and_nothing_else_is_going_on() -> None:
    policy = RestartPolicy(RestartCondition.ANY, delay=1, max_attempts=2)
    world = deployed(3, restart=policy, failure_action=FailureAction.CONTINUE)
    world.fate = lambda task, following: S.REJECTED if task.slot == 1 and world.image_of(task) == "v2" else following
    roll(world)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v1", "v2", "v2"], UpdateState.PAUSED)
    assert "1 of 3 replicas gave up" in world.service.update.message  # type: ignore[union-attr]


def test_the_delay_passes_after_a_failure_too() -> None:
    world = deployed(3, delay=10, failure_action=FailureAction.CONTINUE)
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(9)
    assert world.images() == ["v1", "v1"]


def test_a_failing_update_rolls_back_to_the_previous_revision_as_a_new_one() -> None:
    world = deployed(3, failure_action=FailureAction.ROLLBACK)
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(30)
    service = world.service
    assert service is not None
    assert (world.images(), service.revision, world.update_state()) == (
        ["v1"] * 3,
        3,
        UpdateState.ROLLBACK_COMPLETED,
    )
    assert service.spec.task == world.revisions[1].spec.task


def test_rolling_back_leaves_alone_what_still_runs_the_old_revision() -> None:
    world = deployed(3, failure_action=FailureAction.ROLLBACK)
    untouched = {t.meta.id for t in world.running() if t.slot != 1}
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(30)
    assert {t.meta.id for t in world.running() if t.slot != 1} == untouched


def test_the_rollback_is_the_only_action_of_its_plan() -> None:
    world = deployed(2, failure_action=FailureAction.ROLLBACK)
    roll(world)
    world.settle()
    (new,) = [t for t in world.running() if t.slot == 1]
    world.end(new.meta.id, S.FAILED)
    (action,) = world.plan().actions
    assert isinstance(action, RollBack)
    assert (action.to_revision, action.update.state) == (1, UpdateState.ROLLBACK_STARTED)


def test_when_a_rollback_is_over_the_order_of_updates_holds_at_once() -> None:
    order = UpdateConfig(order=UpdateOrder.START_FIRST)
    world = World(ServiceSpec(name="web", task=image("v1"), mode=ServiceMode.GLOBAL, update=order), node_count=1)
    world.settle()
    in_eu = Placement(constraints=("node.labels.zone == eu",))
    world.fate = lambda task, following: S.RUNNING if following is S.SHUTDOWN else following
    world.update(task=image("v1", placement=in_eu))
    world.orchestrate()
    for name in ("v2", "v3"):
        world.update(task=image(name))
        world.orchestrate()
    world.roll_back(3)
    world.orchestrate()
    assert [t.desired_state for t in world.live()] == [S.READY]
    world.set_availability("n1", Availability.PAUSE)
    world.orchestrate()
    assert world.update_state() is UpdateState.ROLLBACK_COMPLETED
    assert [t.desired_state for t in world.live()] == [S.RUNNING]


def test_a_failing_rollback_pauses_and_is_not_rolled_back() -> None:
    world = deployed(3, failure_action=FailureAction.ROLLBACK)
    roll(world)
    world.run(30)
    assert world.update_state() is UpdateState.COMPLETED
    world.fate = lambda task, following: S.FAILED if following is S.RUNNING else following
    world.roll_back()
    world.run(30)
    assert world.update_state() is UpdateState.ROLLBACK_PAUSED
    assert world.service.revision == 3  # type: ignore[union-attr]


def test_without_an_earlier_revision_a_failing_update_pauses_and_says_so() -> None:
    world = deployed(2, failure_action=FailureAction.ROLLBACK)
    roll(world)
    del world.revisions[1]
    world.fate = lambda task, following: S.FAILED if following is S.RUNNING else following
    world.run(30)
    assert world.update_state() is UpdateState.PAUSED
    assert world.service.update.message.endswith("no earlier revision to return to")  # type: ignore[union-attr]


def roll_or_back(world: World, name: str, *, bad: tuple[str, ...]) -> None:
    """Update the image, to be rolled back where that fails, as tasks with the images `bad` do when they start."""
    world.fate = lambda task, following: (
        S.FAILED if world.image_of(task) in bad and following is S.RUNNING else following
    )
    config = UpdateConfig(failure_action=FailureAction.ROLLBACK)
    world.update(task=replace(world.service.spec.task, container=image(name).container), update=config)  # type: ignore[union-attr]
    world.run(60)


def test_no_policy_returns_to_a_revision_that_failed_though_the_last_good_one_is_what_fails_now() -> None:
    world = deployed(2)
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(30)
    assert world.update_state() is UpdateState.PAUSED
    roll_or_back(world, "v1", bad=("v1", "v2"))
    assert (world.update_state(), world.service.revision) == (UpdateState.PAUSED, 3)  # type: ignore[union-attr]
    assert world.service.update.message.endswith("no earlier revision to return to")  # type: ignore[union-attr]


def test_a_policy_returns_past_what_failed_to_what_came_through_before() -> None:
    world = deployed(2)
    roll(world)
    world.run(30)
    world.fate = spoiled(world, "v3", S.RUNNING, S.FAILED)
    roll(world, "v3")
    world.run(30)
    roll_or_back(world, "v2", bad=("v2", "v3"))
    assert (world.images(), world.update_state()) == (["v1", "v1"], UpdateState.ROLLBACK_COMPLETED)


def test_what_a_policy_rolled_back_from_is_not_returned_to_when_a_late_slot_fails() -> None:
    world = World(ServiceSpec(name="web", task=image("v1"), replicas=2, disconnect=Disconnect.KEEP), node_count=2)
    world.run(60)
    world.set_node("n1", NodeState.DOWN)
    roll_or_back(world, "v2", bad=())
    roll_or_back(world, "v3", bad=("v3",))
    assert (world.update_state(), world.service.revision) == (UpdateState.ROLLBACK_COMPLETED, 4)  # type: ignore[union-attr]
    world.fate = lambda task, following: (
        S.FAILED if following is S.RUNNING and world.image_of(task) in ("v2", "v3") else following
    )
    world.set_node("n1", NodeState.READY)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v1", "v1"], UpdateState.ROLLBACK_COMPLETED)


def test_what_an_update_tried_in_vain_does_not_speak_for_the_slot_when_its_task_crashes_later() -> None:
    world = deployed(2, failure_action=FailureAction.ROLLBACK)
    world.fate = spoiled(world, "v2", S.PREPARING, S.REJECTED)
    roll(world)
    world.run(60)
    assert world.update_state() is UpdateState.ROLLBACK_COMPLETED
    world.end(world.running()[0].meta.id, S.FAILED)
    world.run(4)
    assert (world.images(), world.update_state()) == (["v1"], UpdateState.ROLLBACK_COMPLETED)
    world.run(1)
    assert world.images() == ["v1", "v1"]


def test_a_spec_that_was_given_up_is_tried_afresh_when_it_is_deployed_again() -> None:
    policy = RestartPolicy(delay=1, max_attempts=1)
    world = deployed(2, restart=policy, failure_action=FailureAction.CONTINUE)
    world.fate = spoiled(world, "v2", S.PREPARING, S.REJECTED)
    roll(world)
    world.run(60)
    roll(world, "v1")
    world.run(60)
    world.fate = lambda task, following: following
    roll(world)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v2", "v2"], UpdateState.COMPLETED)


# While it is paused


def test_while_paused_a_crashed_old_task_restarts_with_its_own_revision() -> None:
    world = deployed(4)
    world.fate = spoiled(world, "v2", S.PREPARING, S.REJECTED)
    roll(world)
    world.run(10)
    world.end(world.running()[3].meta.id, S.FAILED)
    world.run(10)
    assert (world.images(), world.update_state()) == (["v1"] * 4, UpdateState.PAUSED)


def test_while_paused_a_prepared_task_does_not_take_over() -> None:
    world = deployed(2, parallelism=2)
    gate = stuck(world, "v2", S.READY)
    world.fate = lambda task, following: (
        S.REJECTED if task.slot == 1 and world.image_of(task) == "v2" else gate(task, following)
    )
    roll(world)
    world.settle()
    assert world.update_state() is UpdateState.PAUSED
    world.fate = lambda task, following: following
    world.run(60)
    assert world.images() == ["v1", "v1"]
    assert S.READY in {t.status.state for t in world.live()}


def test_resuming_goes_on_and_forgives_what_failed_before() -> None:
    world = deployed(3)
    world.fate = spoiled(world, "v2", S.PREPARING, S.REJECTED)
    roll(world)
    world.run(60)
    assert world.update_state() is UpdateState.PAUSED
    world.fate = lambda task, following: following
    assert world.service is not None
    world.service = replace(world.service, update=UpdateStatus(UpdateState.UPDATING, started_at=world.now))
    world.run(600)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.COMPLETED)


def test_scaling_and_draining_go_on_while_paused() -> None:
    world = deployed(3)
    world.fate = spoiled(world, "v2", S.PREPARING, S.REJECTED)
    roll(world)
    world.run(10)
    world.set_availability("n1", Availability.DRAIN)
    world.scale(2)
    world.run(10)
    assert world.images() == ["v1", "v1"]
    assert "n1" not in {t.node_id for t in world.running()}


# Programs that end


def test_programs_that_run_once_are_updated_when_each_has_completed() -> None:
    policy = RestartPolicy(RestartCondition.ON_FAILURE)
    world = World(ServiceSpec(name="once", task=image("v1", restart=policy), replicas=2))
    world.fate = lambda task, following: S.COMPLETE if following is S.RUNNING else following
    world.run(10)
    roll(world)
    world.run(10)
    done = [t for t in world.tasks.values() if t.status.state is S.COMPLETE and world.image_of(t) == "v2"]
    assert (len(done), world.update_state()) == (2, UpdateState.COMPLETED)


def test_a_completed_program_that_ought_to_run_on_is_a_failure() -> None:
    world = deployed(2)
    world.fate = spoiled(world, "v2", S.RUNNING, S.COMPLETE)
    roll(world)
    world.run(10)
    assert world.update_state() is UpdateState.PAUSED


# Failover: all is in the stored objects


def test_a_new_leader_goes_on_exactly_there() -> None:
    """Plan at every step from stored objects alone; nodes are UNKNOWN for a while after each step."""
    world = deployed(4, delay=1)
    ghosts: list[Task] = []
    roll(world)
    while world.update_state() is not UpdateState.COMPLETED:
        world.tick()
        for name in list(world.nodes):
            world.set_node(name, NodeState.UNKNOWN)
        world.orchestrate()
        assert len({t.slot for t in world.live()}) == 4
        ghosts += [t for t in world.live() if t.revision not in (1, 2)]
        for name in list(world.nodes):
            world.set_node(name, NodeState.READY)
        world.now += 0.25
    assert (world.images(), world.created, ghosts) == (["v2"] * 4, 8, [])
