"""Scaling, global services, loss of nodes, drain: what `plan_service` makes of them, read like docs/semantics."""

from collections import Counter

import pytest

from argosy.controller.logic.actions import CreateTask
from argosy.controller.logic.orchestrate import plan_service
from argosy.core.node import Availability, NodeState
from argosy.core.service import HostPort, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder, UpdateState
from argosy.core.task_state import TaskState as S
from tests.sim.service_world import World, image


def web(**fields: object) -> World:
    spec = ServiceSpec(**{"name": "web", "task": image("v1"), "replicas": 3, **fields})  # type: ignore[arg-type]
    world = World(spec)
    world.settle()
    return world


def slots(world: World) -> list[int]:
    return [task.slot for task in world.running()]


def ids(world: World) -> set[str]:
    return {task.meta.id for task in world.running()}


def nodes_of(world: World) -> list[str]:
    return [task.node_id for task in world.running()]


# Replicated services


def test_a_first_deploy_creates_all_slots_at_once_and_is_no_update() -> None:
    world = World(ServiceSpec(name="web", task=image("v1"), replicas=50, update=UpdateConfig(parallelism=1)))
    assert world.plan().actions == tuple(CreateTask("web", n, "", 1, S.RUNNING) for n in range(1, 51))
    world.settle()
    assert (len(world.running()), world.update_state()) == (50, UpdateState.NONE)


def test_scaling_up_takes_the_lowest_free_slots() -> None:
    world = web(replicas=5)
    world.set_availability("n1", Availability.PAUSE)
    world.scale(3)
    world.settle()
    world.scale(5)
    world.settle()
    assert slots(world) == [1, 2, 3, 4, 5]


def test_scaling_down_keeps_the_spread_even_and_takes_the_highest_slots() -> None:
    world = web(replicas=9)
    world.scale(6)
    world.settle()
    assert Counter(nodes_of(world)) == {"n1": 2, "n2": 2, "n3": 2}
    assert slots(world) == [1, 2, 3, 4, 5, 6]
    world.scale(4)
    world.settle()
    assert sorted(Counter(nodes_of(world)).values()) == [1, 1, 2]


def test_scaling_down_prefers_what_does_not_run() -> None:
    world = web(replicas=5)
    world.fate = lambda task, following: S.PREPARING if task.slot == 2 else following
    world.end(world.running()[1].meta.id, S.FAILED)
    world.settle()
    world.scale(4)
    world.settle()
    assert slots(world) == [1, 3, 4, 5]


def test_scaling_down_prefers_nodes_that_do_not_answer() -> None:
    world = web(replicas=3)
    away = next(t for t in world.running() if t.slot == 1)
    world.set_node(away.node_id, NodeState.AGENT_LOST)
    world.scale(2)
    world.settle()
    assert slots(world) == [2, 3]


def test_scaling_to_zero_leaves_nothing_behind() -> None:
    world = web(replicas=60)
    world.scale(0)
    world.settle()
    assert world.tasks == {}


def test_a_slot_scaled_up_again_waits_for_the_task_that_still_stops_there() -> None:
    world = web(replicas=3)
    world.fate = lambda task, following: S.RUNNING if following is S.SHUTDOWN else following
    world.scale(2)
    world.settle()
    world.scale(3)
    world.settle()
    heir = world.tasks["t000004"]
    assert (heir.slot, heir.desired_state, heir.status.state) == (3, S.READY, S.READY)
    world.fate = lambda task, following: following
    world.settle()
    assert ids(world) == {"t000001", "t000002", "t000004"}


def test_removing_a_service_stops_all_and_deletes_it_when_the_last_record_is_gone() -> None:
    world = web()
    world.remove()
    assert {a.state for a in world.plan().actions} == {S.REMOVE}  # type: ignore[union-attr]
    world.settle()
    assert (world.service, world.tasks) == (None, {})


def test_a_service_being_removed_waits_for_a_node_that_is_down() -> None:
    world = web()
    world.set_node("n1", NodeState.DOWN)
    world.remove()
    world.settle()
    assert [t.node_id for t in world.tasks.values()] == ["n1"]
    world.remove_node("n1")
    world.settle()
    assert world.service is None


def test_an_unplaceable_task_is_deleted_without_a_trace_when_no_longer_wanted() -> None:
    world = World(ServiceSpec(name="web", replicas=2, task=image("v1")), room=lambda node: 0)
    world.settle()
    assert [t.status.state for t in world.tasks.values()] == [S.PENDING, S.PENDING]
    world.scale(0)
    world.settle()
    assert world.tasks == {}


# Nodes


def test_tasks_of_a_down_node_are_replaced_at_once_elsewhere_and_their_records_stay() -> None:
    world = web()
    (lost,) = [t for t in world.running() if t.node_id == "n1"]
    world.set_node("n1", NodeState.DOWN)
    world.settle()
    assert slots(world) == [1, 2, 3]
    assert "n1" not in nodes_of(world)
    assert world.tasks[lost.meta.id].desired_state is S.SHUTDOWN
    world.run(3600)
    assert world.tasks[lost.meta.id].status.state is S.RUNNING


def test_on_its_return_a_node_stops_what_was_replaced_and_no_healthy_task_restarts() -> None:
    world = web()
    world.set_node("n1", NodeState.DOWN)
    world.settle()
    replaced = ids(world)
    world.set_node("n1", NodeState.READY)
    world.run(100)
    assert ids(world) == replaced
    assert {t.node_id for t in world.serving()} == {"n2", "n3"}


@pytest.mark.parametrize("state", [NodeState.UNKNOWN, NodeState.AGENT_LOST])
def test_nothing_is_replaced_while_a_node_may_only_have_lost_its_agent(state: NodeState) -> None:
    world = web()
    before = ids(world)
    world.set_node("n1", state)
    world.run(3600)
    assert (ids(world), world.created) == (before, 3)


def test_tasks_of_a_node_that_is_down_for_a_day_are_orphaned() -> None:
    world = web()
    world.set_node("n1", NodeState.DOWN)
    world.run(24 * 3600 - 1)
    assert S.ORPHANED not in {t.status.state for t in world.tasks.values()}
    world.run(1)
    (orphan,) = [t for t in world.tasks.values() if t.status.state is S.ORPHANED]
    assert (orphan.node_id, orphan.desired_state) == ("n1", S.SHUTDOWN)


def test_tasks_of_a_removed_node_are_gone_and_replaced() -> None:
    world = web()
    world.set_node("n1", NodeState.DOWN)
    world.remove_node("n1")
    world.settle()
    assert slots(world) == [1, 2, 3]
    assert {t.node_id for t in world.tasks.values()} == {"n2", "n3"}


def test_drain_moves_tasks_and_the_old_one_goes_on_until_the_new_one_is_ready() -> None:
    world = web()
    world.fate = lambda task, following: S.PREPARING if following is S.READY else following
    world.set_availability("n1", Availability.DRAIN)
    world.settle()
    assert len(world.running()) == 3
    world.fate = lambda task, following: following
    world.settle()
    assert slots(world) == [1, 2, 3]
    assert "n1" not in nodes_of(world)


def test_a_drained_task_that_cannot_start_elsewhere_stays_and_its_heir_says_why() -> None:
    world = web(replicas=3)
    world.room = lambda node: 1
    world.set_availability("n1", Availability.DRAIN)
    world.run(24 * 3600)
    assert len(world.running()) == 3
    assert [t.status.state for t in world.tasks.values() if t.desired_state <= S.RUNNING].count(S.PENDING) == 1


def test_pause_keeps_what_runs() -> None:
    world = web()
    before = ids(world)
    world.set_availability("n1", Availability.PAUSE)
    world.run(100)
    assert ids(world) == before


# Global services


def everywhere(**fields: object) -> World:
    return web(mode=ServiceMode.GLOBAL, **fields)


def test_a_global_service_has_one_task_in_slot_0_on_every_node_that_meets_its_constraints() -> None:
    world = World(ServiceSpec(name="web", mode=ServiceMode.GLOBAL, task=image("v1")))
    world.fits = lambda placement: lambda node: node.meta.id != "n2"
    assert world.plan().actions == tuple(CreateTask("web", 0, node, 1, S.RUNNING) for node in ("n1", "n3"))


def test_a_global_service_follows_nodes_that_come_and_go() -> None:
    world = everywhere()
    world.add_node("n4")
    world.settle()
    assert nodes_of(world) == ["n1", "n2", "n3", "n4"]
    world.remove_node("n4")
    world.settle()
    assert nodes_of(world) == ["n1", "n2", "n3"]
    world.set_availability("n1", Availability.DRAIN)
    world.settle()
    assert nodes_of(world) == ["n2", "n3"]
    world.set_availability("n1", Availability.ACTIVE)
    world.settle()
    assert nodes_of(world) == ["n1", "n2", "n3"]


def test_a_global_service_leaves_a_node_that_no_longer_meets_its_constraints() -> None:
    world = everywhere()
    world.fits = lambda placement: lambda node: node.meta.id != "n2"
    world.settle()
    assert nodes_of(world) == ["n1", "n3"]


def test_a_global_task_on_a_down_node_is_not_replaced_and_not_restarted_when_the_partition_heals() -> None:
    world = everywhere()
    before = ids(world)
    world.set_node("n1", NodeState.DOWN)
    world.run(3600)
    assert nodes_of(world) == ["n2", "n3"] or len(world.live()) == 2
    world.set_node("n1", NodeState.READY)
    world.settle()
    assert (ids(world), world.created) == (before, 3)


def test_a_global_task_orphaned_after_a_day_is_stopped_before_its_successor_runs() -> None:
    world = everywhere()
    overlaps = []
    world.checks.append(
        lambda w: overlaps.extend(n for n, c in Counter(t.node_id for t in w.serving()).items() if c > 1)
    )
    world.set_node("n1", NodeState.DOWN)
    world.run(25 * 3600)
    world.fate = lambda task, following: S.RUNNING if following is S.SHUTDOWN else following
    world.set_node("n1", NodeState.READY)
    world.settle()
    assert nodes_of(world) == ["n2", "n3"]
    world.fate = lambda task, following: following
    world.settle()
    assert nodes_of(world) == ["n1", "n2", "n3"]
    assert overlaps == []


@pytest.mark.parametrize(
    ("state", "availability"), [(NodeState.AGENT_LOST, Availability.ACTIVE), (NodeState.READY, Availability.PAUSE)]
)
def test_a_global_service_gets_no_new_task_on_a_node_that_takes_none(
    state: NodeState, availability: Availability
) -> None:
    world = everywhere()
    world.add_node("n4")
    world.set_node("n4", state)
    world.set_availability("n4", availability)
    world.settle()
    assert nodes_of(world) == ["n1", "n2", "n3"]


def test_a_global_update_without_an_open_node_does_not_begin_until_there_is_one() -> None:
    world = everywhere()
    for name in world.nodes:
        world.set_availability(name, Availability.PAUSE)
    world.settle()
    world.update(task=image("v2"))
    world.settle()
    assert (world.images(), world.plan().actions) == (["v1"] * 3, ())
    world.set_availability("n2", Availability.ACTIVE)
    world.run(10)
    assert world.images() == ["v1", "v1", "v2"]
    assert world.update_state() is UpdateState.COMPLETED


def test_a_global_update_moves_node_by_node_in_place() -> None:
    world = everywhere()
    world.update(task=image("v2"))
    world.run(10)
    assert (nodes_of(world), world.images()) == (["n1", "n2", "n3"], ["v2"] * 3)
    assert world.update_state() is UpdateState.COMPLETED


@pytest.mark.parametrize("order", UpdateOrder)
def test_a_global_update_with_a_host_port_stops_the_old_task_first(order: UpdateOrder) -> None:
    port = (HostPort("tcp", 80),)
    world = everywhere(task=image("v1", host_ports=port), update=UpdateConfig(order=order))
    world.room = lambda node: 1
    overlaps = []
    world.checks.append(
        lambda w: overlaps.extend(n for n, c in Counter(t.node_id for t in w.serving()).items() if c > 1)
    )
    world.update(task=image("v2", host_ports=port))
    world.run(10)
    assert (world.images(), overlaps) == (["v2"] * 3, [])


def test_a_thousand_tasks_are_planned_in_milliseconds() -> None:
    import time

    world = World(ServiceSpec(name="web", task=image("v1"), replicas=1000))
    world.apply(world.plan())
    tasks = list(world.tasks.values())
    best = 1.0
    for _ in range(5):
        began = time.process_time()
        plan = plan_service(world.service, world.revisions, tasks, world.nodes, world.now)  # type: ignore[arg-type]
        best = min(best, time.process_time() - began)
    assert plan.actions == ()
    assert best < 0.05, f"{best * 1000:.1f} ms"
