"""Canaries, promotion, pause and resume, stopped services: read like docs/updates.md."""

from dataclasses import replace

import pytest

from argosy.core.node import NodeState
from argosy.core.service import (
    Disconnect,
    FailureAction,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
    UpdateState,
)
from argosy.core.task_state import TaskState as S
from tests.sim.service_world import World, go_well, image
from tests.unit.logic.test_update import roll, spoiled, stuck


def deployed(replicas: int = 4, *, canary: int = 1, auto: bool = False, **config: object) -> World:
    """Return a world with v1 deployed and healthy, whose service tries `canary` tasks first."""
    world = World(
        ServiceSpec(
            name="web",
            task=image("v1"),
            replicas=replicas,
            update=UpdateConfig(**config),  # type: ignore[arg-type]
            canary=canary,
            auto_promote=auto,
        )
    )
    world.run(60)
    return world


def canaries(world: World) -> list[tuple[int, str]]:
    return [(t.slot, world.image_of(t)) for t in world.running() if t.canary]


def change(world: World, **fields: object) -> None:
    """Change how the update stands, as the API does."""
    assert world.service is not None
    world.now += 2.0**-10
    world.service = replace(world.service, update=replace(world.service.update, **fields))  # type: ignore[arg-type]


def promote(world: World) -> None:
    change(world, promoted=True, ready=False)


def resume(world: World) -> None:
    rolling_back = world.update_state() is UpdateState.ROLLBACK_PAUSED
    state = UpdateState.ROLLBACK_STARTED if rolling_back else UpdateState.UPDATING
    change(world, state=state, resumed_at=world.now)


# Canaries


def test_a_first_deploy_has_no_canaries() -> None:
    assert canaries(deployed()) == []


@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_update_runs_canaries_beside_the_old_tasks_and_waits(count: int) -> None:
    world = deployed(canary=count)
    before = {t.meta.id for t in world.running()}
    roll(world)
    world.run(3600)
    assert world.images() == ["v1"] * 4 + ["v2"] * count
    assert canaries(world) == [(5 + n, "v2") for n in range(count)]
    assert before <= {t.meta.id for t in world.running()}
    update = world.service.update  # type: ignore[union-attr]
    assert (update.state, update.ready) == (UpdateState.UPDATING, True)
    assert "service promote web" in update.message


def test_going_back_to_what_still_serves_needs_no_canary() -> None:
    """The heir that a slot has got of the spec between is deleted in the same plan, and nothing is left to try."""
    world = deployed(failure_action=FailureAction.CONTINUE)
    roll(world)
    promote(world)
    world.orchestrate()
    assert "v2" in {world.image_of(t) for t in world.live() if not t.canary}
    roll(world, "v1")
    world.orchestrate()
    assert canaries(world) == []
    assert {world.image_of(t) for t in world.live()} == {"v1"}


def test_canaries_are_only_ready_once_they_did_well_for_the_monitor_time() -> None:
    world = deployed(monitor=10)
    roll(world)
    world.run(9.9)
    assert (world.service.update.ready, world.service.update.message) == (False, "trying 1 canary")  # type: ignore[union-attr]
    world.run(0.1)
    assert world.service.update.ready  # type: ignore[union-attr]


def test_promoted_the_update_goes_on_and_the_canaries_leave_last() -> None:
    world = deployed()
    roll(world)
    world.run(10)
    promote(world)
    world.run(4)
    assert world.images() == ["v2"] * 5
    world.run(60)
    assert ([t.slot for t in world.running()], world.images()) == ([1, 2, 3, 4], ["v2"] * 4)
    assert world.update_state() is UpdateState.COMPLETED


def test_auto_promote_goes_on_by_itself_after_the_monitor_time() -> None:
    world = deployed(auto=True, monitor=10)
    roll(world)
    world.run(9.9)
    assert world.images() == ["v1"] * 4 + ["v2"]
    world.run(60)
    assert (world.images(), world.update_state()) == (["v2"] * 4, UpdateState.COMPLETED)


@pytest.mark.parametrize("auto", [False, True])
def test_failing_canaries_pause_the_update_and_no_old_task_was_touched(auto: bool) -> None:
    world = deployed(canary=2, auto=auto)
    before = {t.meta.id for t in world.running()}
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(600)
    assert world.update_state() is UpdateState.PAUSED
    assert "both canaries failed" in world.service.update.message  # type: ignore[union-attr]
    assert {t.meta.id for t in world.running()} == before


def test_failing_canaries_roll_back_and_no_old_task_was_touched() -> None:
    world = deployed(failure_action=FailureAction.ROLLBACK)
    before = {t.meta.id for t in world.running()}
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(600)
    assert world.update_state() is UpdateState.ROLLBACK_COMPLETED
    assert {t.meta.id for t in world.live()} == before


def test_a_rollback_by_hand_removes_the_canaries_only() -> None:
    world = deployed(canary=2)
    before = {t.meta.id for t in world.running()}
    roll(world)
    world.run(10)
    world.roll_back()
    world.run(10)
    assert {t.meta.id for t in world.live()} == before
    assert world.update_state() is UpdateState.ROLLBACK_COMPLETED


def test_canaries_that_find_no_node_are_no_progress() -> None:
    world = deployed(progress_deadline=60)
    world.room = lambda node: 0
    roll(world)
    world.run(59)
    assert world.update_state() is UpdateState.UPDATING
    world.run(1)
    assert world.update_state() is UpdateState.PAUSED
    assert "1 canary: no progress for 1m: slot 5 is pending" in world.service.update.message  # type: ignore[union-attr]


def test_while_it_tries_new_and_restarted_slots_run_the_old_spec() -> None:
    world = deployed(3)
    roll(world)
    world.run(10)
    world.scale(5)
    world.end(world.running()[0].meta.id, S.FAILED)
    world.run(60)
    assert (world.images(), canaries(world)) == (["v1"] * 5 + ["v2"], [(4, "v2")])
    promote(world)
    world.run(60)
    assert world.images() == ["v2"] * 5


def test_a_crashed_canary_is_restarted_as_one() -> None:
    world = deployed()
    roll(world)
    world.run(60)
    world.end(next(t for t in world.running() if t.canary).meta.id, S.FAILED)
    world.run(60)
    assert canaries(world) == [(5, "v2")]
    assert world.service.update.ready  # type: ignore[union-attr]


def test_a_new_update_replaces_the_canaries() -> None:
    world = deployed(2, canary=2)
    roll(world)
    world.run(60)
    roll(world, "v3")
    world.run(60)
    assert world.images() == ["v1", "v1", "v3", "v3"]
    assert len(canaries(world)) == 2


def test_scaled_to_nothing_it_has_nothing_to_try() -> None:
    world = deployed(3)
    roll(world)
    world.run(60)
    world.scale(0)
    world.run(60)
    assert (world.images(), world.update_state()) == ([], UpdateState.COMPLETED)


def test_without_a_canary_number_a_trying_update_goes_on() -> None:
    world = deployed(3)
    roll(world)
    world.run(60)
    world.update(canary=0)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.COMPLETED)


def test_a_global_service_tries_on_some_nodes_first() -> None:
    world = World(ServiceSpec(name="web", task=image("v1"), mode=ServiceMode.GLOBAL, canary=1), node_count=3)
    world.run(60)
    roll(world)
    world.run(600)
    assert world.images() == ["v1", "v1", "v2"]
    assert world.service.update.ready  # type: ignore[union-attr]
    promote(world)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.COMPLETED)


def test_a_failing_canary_on_a_node_pauses_there() -> None:
    world = World(ServiceSpec(name="web", task=image("v1"), mode=ServiceMode.GLOBAL, canary=1), node_count=3)
    world.run(60)
    world.fate = spoiled(world, "v2", S.PREPARING, S.REJECTED)
    roll(world)
    world.run(600)
    assert (world.images(), world.update_state()) == (["v1"] * 3, UpdateState.PAUSED)
    assert "the only canary failed" in world.service.update.message  # type: ignore[union-attr]


def cut_off_while_it_tries(nodes: int) -> World:
    """Return a world whose update tries on node n1, which is cut off before its canary starts, and keeps its tasks."""
    spec = ServiceSpec(name="web", task=image("v1"), mode=ServiceMode.GLOBAL, canary=1, disconnect=Disconnect.KEEP)
    world = World(spec, node_count=nodes)
    world.run(60)
    world.fate = stuck(world, "v2", S.READY)
    roll(world)
    world.settle()
    assert {t.node_id for t in world.live() if world.image_of(t) == "v2"} == {"n1"}
    world.set_node("n1", NodeState.DOWN)
    world.fate = go_well
    return world


def test_a_canary_kept_on_a_node_that_is_cut_off_is_passed_over_for_another_node() -> None:
    world = cut_off_while_it_tries(3)
    world.run(60)
    assert (world.images(), world.service.update.ready) == (["v1", "v1", "v2"], True)  # type: ignore[union-attr]
    promote(world)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v1", "v2", "v2"], UpdateState.COMPLETED)
    assert "node n1, which is cut off, still runs revision 1" in world.service.update.message  # type: ignore[union-attr]
    world.set_node("n1", NodeState.READY)
    world.run(60)
    assert (world.images(), world.service.update.message) == (["v2"] * 3, "")  # type: ignore[union-attr]


def test_an_update_whose_only_node_to_try_on_is_cut_off_completes_without_it_and_comes_back_to_it() -> None:
    world = cut_off_while_it_tries(1)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v1"], UpdateState.COMPLETED)
    assert "node n1, which is cut off, still runs revision 1" in world.service.update.message  # type: ignore[union-attr]
    world.set_node("n1", NodeState.READY)
    world.run(60)
    assert (world.images(), world.service.update.message) == (["v2"], "")  # type: ignore[union-attr]


@pytest.mark.parametrize(("cut_off_after", "then"), [(4, ["v1", "v2", "v2"]), (6, ["v1", "v1", "v2"])])
def test_a_canary_has_done_well_only_if_its_node_was_there_for_so_long(cut_off_after: float, then: list[str]) -> None:
    spec = ServiceSpec(name="web", task=image("v1"), mode=ServiceMode.GLOBAL, canary=1, disconnect=Disconnect.KEEP)
    world = World(spec, node_count=3)
    world.run(60)
    roll(world)
    world.run(cut_off_after)
    world.set_node("n1", NodeState.DOWN)
    world.run(60)
    assert (world.images(), world.service.update.ready) == (then, True)  # type: ignore[union-attr]


# Pause and resume by hand


def test_paused_by_hand_it_stays_and_resumed_it_goes_on_where_it_was() -> None:
    world = deployed(4, canary=0, delay=10)
    roll(world)
    world.run(15)
    change(world, state=UpdateState.PAUSED)
    world.run(600)
    assert world.images() == ["v1", "v1", "v2", "v2"]
    created = world.created
    resume(world)
    world.run(600)
    assert (world.images(), world.update_state(), world.created) == (["v2"] * 4, UpdateState.COMPLETED, created + 2)


def test_resumed_what_failed_before_does_not_pause_it_again() -> None:
    world = deployed(3, canary=0)
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(30)
    assert world.update_state() is UpdateState.PAUSED
    world.fate = lambda task, following: following
    resume(world)
    world.settle()
    assert world.update_state() is UpdateState.UPDATING
    world.run(600)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.COMPLETED)


def test_resumed_what_gave_up_is_tried_again() -> None:
    world = World(ServiceSpec(name="web", task=image("v1", restart=RestartPolicy(delay=1, max_attempts=1)), replicas=2))
    world.run(60)
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v1"], UpdateState.PAUSED)
    world.fate = lambda task, following: following
    resume(world)
    world.run(60)
    assert (world.images(), world.update_state()) == (["v2", "v2"], UpdateState.COMPLETED)


def test_resumed_it_pauses_again_when_it_fails_again() -> None:
    world = deployed(3, canary=0)
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(30)
    resume(world)
    world.run(600)
    assert world.update_state() is UpdateState.PAUSED


# Progress deadline


def test_an_update_without_progress_fails_and_says_what_it_waits_for() -> None:
    world = deployed(3, canary=0)
    world.fate = stuck(world, "v2", S.READY)
    roll(world)
    world.run(599)
    assert world.update_state() is UpdateState.UPDATING
    world.run(1)
    assert world.update_state() is UpdateState.PAUSED
    assert world.service.update.message.startswith("no progress for 10m: slot 1 is preparing on n")  # type: ignore[union-attr]
    assert world.images() == ["v1"] * 3


def test_without_a_deadline_it_waits_for_ever() -> None:
    world = deployed(2, canary=0, progress_deadline=0)
    world.fate = stuck(world, "v2", S.READY)
    roll(world)
    world.run(86400)
    assert world.update_state() is UpdateState.UPDATING


def test_delay_and_monitor_are_no_lack_of_progress() -> None:
    world = deployed(3, canary=0, progress_deadline=60, delay=300, monitor=900)
    roll(world)
    world.run(3600)
    assert (world.images(), world.update_state()) == (["v2"] * 3, UpdateState.COMPLETED)


def test_what_other_services_hold_does_not_count_against_the_deadline() -> None:
    world = deployed(2, canary=0)
    world.held = lambda task: world.image_of(task) == "v2"
    roll(world)
    world.run(3600)
    assert (world.update_state(), world.images()) == (UpdateState.UPDATING, ["v1"] * 2)
    world.held = lambda task: False
    world.room = lambda node: 0  # or else what it waits for came to rest: that is kept in the same place
    let_go_at = world.now
    world.run(599)
    assert world.update_state() is UpdateState.UPDATING
    world.run(1)
    assert (world.update_state(), world.now) == (UpdateState.PAUSED, let_go_at + 600)
    assert world.service.update.message.startswith("no progress for 10m: slot 1 is pending")  # type: ignore[union-attr]


def test_beside_what_is_held_the_deadline_counts_for_what_is_not() -> None:
    world = deployed(2, canary=0, parallelism=2)
    world.held = lambda task: world.image_of(task) == "v2" and task.slot == 1
    world.fate = stuck(world, "v2", S.READY)
    roll(world)
    world.run(599)
    assert world.update_state() is UpdateState.UPDATING
    world.run(1)
    assert world.update_state() is UpdateState.PAUSED


def test_no_progress_follows_the_failure_action() -> None:
    world = deployed(2, canary=0, failure_action=FailureAction.ROLLBACK)
    world.fate = stuck(world, "v2", S.READY)
    roll(world)
    world.run(700)
    assert (world.images(), world.update_state()) == (["v1"] * 2, UpdateState.ROLLBACK_COMPLETED)


def test_a_rollback_without_progress_pauses() -> None:
    world = deployed(2, canary=0)
    roll(world)
    world.run(60)
    world.fate = stuck(world, "v1", S.READY)
    world.roll_back()
    world.run(700)
    assert world.update_state() is UpdateState.ROLLBACK_PAUSED


def test_a_slot_that_keeps_failing_makes_no_progress() -> None:
    world = deployed(3, canary=0, max_failure_ratio=0.5)
    world.fate = lambda task, following: (
        S.FAILED if task.slot == 1 and following is S.RUNNING and world.image_of(task) == "v2" else following
    )
    roll(world)
    world.run(700)
    assert (world.images(), world.update_state()) == (["v2"] * 2, UpdateState.PAUSED)
    assert "no progress" in world.service.update.message  # type: ignore[union-attr]


# Stopped services


@pytest.mark.parametrize("mode", [ServiceMode.REPLICATED, ServiceMode.GLOBAL])
def test_a_stopped_service_runs_nothing_and_starts_again_with_what_it_says_then(mode: ServiceMode) -> None:
    world = World(
        ServiceSpec(name="web", task=image("v1"), mode=mode, replicas=3 if mode is ServiceMode.REPLICATED else 1)
    )
    world.run(60)
    world.update(stopped=True)
    world.run(60)
    assert (world.images(), world.tasks) == ([], {})
    roll(world)
    world.run(60)
    world.update(stopped=False)
    world.settle()
    assert world.images() == ["v2"] * 3


def test_a_new_update_replaces_a_paused_one() -> None:
    world = deployed(3, canary=0)
    world.fate = spoiled(world, "v2", S.RUNNING, S.FAILED)
    roll(world)
    world.run(30)
    assert world.update_state() is UpdateState.PAUSED
    roll(world, "v3")
    world.run(60)
    assert (world.images(), world.update_state()) == (["v3"] * 3, UpdateState.COMPLETED)


def test_an_update_keeps_to_the_availability_budget_whatever_its_parallelism() -> None:
    world = World(
        ServiceSpec(name="web", task=image("v1"), replicas=6, update=UpdateConfig(parallelism=0), max_unavailable="2")
    )
    world.run(60)
    least = []
    world.checks.append(lambda w: least.append(len(w.running())))
    roll(world)
    world.run(60)
    assert (world.images(), min(least)) == (["v2"] * 6, 4)
