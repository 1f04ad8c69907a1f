"""Availability: drain, eviction, the budget and the disconnect policies, read like docs/availability."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from argosy.controller.logic.departures import Departures
from argosy.core.meta import Meta
from argosy.core.node import Availability, Drain, Node, NodeSpec, NodeState
from argosy.core.service import (
    Disconnect,
    HostPort,
    Placement,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
)
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState as S
from tests.sim.service_world import World, go_well, image

IN_EU = Placement(constraints=("node.labels.zone == eu",))


def web(nodes: int = 3, **fields: object) -> World:
    spec = ServiceSpec(**{"name": "web", "task": image("v1"), "replicas": 3, **fields})  # type: ignore[arg-type]
    world = World(spec, nodes)
    for name in world.nodes:
        world.label(name, zone="eu")
    world.settle()
    assert world.service is not None
    assert len(world.running()) == (nodes if world.service.spec.mode is ServiceMode.GLOBAL else spec.replicas)
    return world


def nodes_of(world: World) -> Counter[str]:
    return Counter(task.node_id for task in world.running())


def ids(world: World) -> set[str]:
    return {task.meta.id for task in world.running()}


def watch_running(world: World) -> list[int]:
    """Return a list that takes down how many tasks truly run after every change."""
    seen: list[int] = []
    world.checks.append(lambda world: seen.append(sum(1 for _ in world.serving())))
    return seen


def watch_slots(world: World) -> list[int]:
    """Return a list that takes down how many slots have a task that serves, after every change."""
    seen: list[int] = []
    world.checks.append(lambda world: seen.append(len({t.slot for t in world.running() if not t.status.unready})))
    return seen


def never_starts(world: World) -> None:
    world.fate = lambda task, following: S.PREPARING if following is S.READY else following


# Drain


def drain(world: World) -> None:
    world.drain("n1")


def relabel(world: World) -> None:
    world.label("n1", zone="us")


def evict(world: World) -> None:
    for task in world.tasks_on("n1"):
        world.evict(task.meta.id)


MOVES = pytest.mark.parametrize("move", [drain, relabel, evict])


@MOVES
@pytest.mark.parametrize("order", UpdateOrder)
def test_what_has_to_move_starts_elsewhere_before_it_stops(move: Callable[[World], None], order: UpdateOrder) -> None:
    world = web(replicas=6, task=image("v1", placement=IN_EU), update=UpdateConfig(order=order))
    seen = watch_running(world)
    stays = ids(world) - {t.meta.id for t in world.tasks_on("n1")}
    move(world)
    if move is evict:
        world.set_availability("n1", Availability.PAUSE)
    world.settle()
    assert min(seen) == 6
    assert nodes_of(world) == {"n2": 3, "n3": 3}
    assert stays <= ids(world)
    assert world.update_state() is UpdateState.NONE


@MOVES
def test_what_has_to_move_waits_for_its_heir_to_be_healthy_and_ready(move: Callable[[World], None]) -> None:
    world = web(task=image("v1", placement=IN_EU))
    (old,) = world.tasks_on("n1")
    before = ids(world)
    world.fate = lambda task, following: (
        S.STARTING if following is S.RUNNING and task.meta.id not in before else following
    )
    move(world)
    world.settle()
    assert old.meta.id in ids(world)
    world.fate = lambda task, following: following
    world.run_agents()
    heir = next(t for t in world.running() if t.slot == old.slot and t.meta.id != old.meta.id)
    assert heir.node_id != "n1" or move is evict
    world.set_unready(heir.meta.id)
    world.settle()
    assert old.meta.id in ids(world)
    world.set_unready(heir.meta.id, False)
    world.settle()
    assert old.meta.id not in ids(world)


def test_a_task_that_does_not_run_yet_goes_at_once() -> None:
    world = web()
    never_starts(world)
    world.scale(6)
    world.settle()
    world.set_availability("n1", Availability.DRAIN)
    world.run(60)
    assert [t.meta.id for t in world.live() if t.node_id == "n1" and t.status.state is not S.RUNNING] == []


def test_activating_a_node_ends_its_drain_and_what_has_not_moved_stays() -> None:
    world = web(replicas=6)
    before = ids(world)
    never_starts(world)
    drain(world)
    world.settle()
    assert len(world.live()) == 8
    world.set_availability("n1", Availability.ACTIVE)
    world.settle()
    assert ids(world) == before
    assert len(world.live()) == 6


def test_a_pace_holds_for_the_tasks_of_a_node_that_are_on_their_way_at_once() -> None:
    world = web(nodes=2, replicas=8)
    on_their_way: list[int] = []
    world.checks.append(lambda world: on_their_way.append(len(list(world.live())) - 8))
    world.drain("n1", pace=1)
    world.settle()
    assert max(on_their_way) == 1
    assert nodes_of(world) == {"n2": 8}


def test_an_heir_that_has_to_leave_too_is_replaced_at_once_since_its_slot_has_set_out_already() -> None:
    world = web()
    never_starts(world)
    world.drain("n1", pace=1)
    world.settle()
    (heir,) = [task for task in world.tasks_on("n2") if task.status.state is S.PREPARING]
    world.drain("n2")
    world.orchestrate()
    assert Counter(task.slot for task in world.live()) == {1: 2, 2: 2, 3: 1}
    assert heir.meta.id not in {task.meta.id for task in world.live()}


def test_a_pace_holds_across_services() -> None:
    world = web(nodes=2, replicas=4)
    other = Task(Meta("o1"), "other", 1, "n1", status=TaskStatus(S.RUNNING), desired_state=S.SHUTDOWN)
    world.others["n1"] = [other]
    world.drain("n1", pace=1)
    world.settle()
    assert nodes_of(world) == {"n1": 2, "n2": 2}
    world.others["n1"] = [replace(other, status=TaskStatus(S.SHUTDOWN))]
    world.settle()
    assert nodes_of(world) == {"n2": 4}


def test_plans_of_one_round_share_a_nodes_pace() -> None:
    departures = Departures({"n1": 2})
    for _ in range(2):
        assert departures.may_begin("n1")
        departures.begin("n1")
    assert not departures.may_begin("n1")
    assert departures.may_begin("n2")


def test_what_is_left_at_the_deadline_is_stopped_at_once() -> None:
    world = web()
    never_starts(world)
    world.drain("n1", pace=1, deadline=60)
    world.run(59)
    assert len(world.running()) == 3
    world.run(1)
    assert nodes_of(world) == {"n2": 1, "n3": 1}
    assert len(world.live()) == 3, "what was stopped still has its heir"


def test_a_deadline_ends_what_could_not_even_begin() -> None:
    world = web(nodes=1)
    world.drain("n1", deadline=60)
    world.run(61)
    assert world.running() == []


@pytest.mark.parametrize("disconnect", Disconnect)
def test_global_tasks_leave_a_drained_node_last(disconnect: Disconnect) -> None:
    world = web(mode=ServiceMode.GLOBAL, replicas=1, disconnect=disconnect)
    world.others["n1"] = [Task(Meta("o1"), "other", 1, "n1", status=TaskStatus(S.RUNNING))]
    drain(world)
    world.settle()
    assert nodes_of(world) == {"n1": 1, "n2": 1, "n3": 1}
    world.others["n1"] = [replace(world.others["n1"][0], status=TaskStatus(S.SHUTDOWN))]
    world.settle()
    assert nodes_of(world) == {"n2": 1, "n3": 1}


def test_tasks_of_global_services_stay_for_a_global_job() -> None:
    world = web(mode=ServiceMode.GLOBAL, replicas=1)
    world.others["n1"] = [Task(Meta("o1"), "job", 0, "n1", iteration=1, status=TaskStatus(S.RUNNING))]
    drain(world)
    world.settle()
    assert nodes_of(world) == {"n1": 1, "n2": 1, "n3": 1}


def test_runs_of_a_job_beside_each_other_are_not_on_their_way() -> None:
    """What goes on to its end on a drained node holds no place in its pace, though a later run has the same slot."""
    node = Node(Meta("n1"), NodeSpec("n1", availability=Availability.DRAIN, drain=Drain(pace=1)))
    goes_on = Task(Meta("r1"), "job", 1, "n1", iteration=1, status=TaskStatus(S.RUNNING))
    later = Task(Meta("r2"), "job", 1, "n2", iteration=2, status=TaskStatus(S.RUNNING))
    others = [node, Node(Meta("n2"), NodeSpec("n2"))]
    for iteration, may in ((2, True), (1, False)):
        heir = replace(later, iteration=iteration)
        found = Departures.build(others, lambda node_id: [goes_on], lambda service_id, heir=heir: [goes_on, heir])  # type: ignore[misc]
        assert found.may_begin("n1") is may


def test_global_tasks_do_not_outlast_the_deadline() -> None:
    world = web(mode=ServiceMode.GLOBAL, replicas=1)
    world.others["n1"] = [Task(Meta("o1"), "other", 1, "n1", status=TaskStatus(S.RUNNING))]
    world.drain("n1", deadline=60)
    world.run(60)
    assert nodes_of(world) == {"n2": 1, "n3": 1}


def test_a_global_task_that_ends_on_a_drained_node_is_not_started_again() -> None:
    world = web(mode=ServiceMode.GLOBAL, replicas=1, task=image("v1", restart=RestartPolicy(delay=0)))
    world.others["n1"] = [Task(Meta("o1"), "other", 1, "n1", status=TaskStatus(S.RUNNING))]
    drain(world)
    world.settle()
    world.end(next(t.meta.id for t in world.running() if t.node_id == "n1"), S.FAILED)
    world.run(3600)
    assert nodes_of(world) == {"n2": 1, "n3": 1}


def test_a_task_with_a_host_port_moves_start_first_where_another_node_has_the_port_free() -> None:
    world = web(replicas=2, task=image("v1", host_ports=(HostPort("tcp", 80),)))
    world.room = lambda node: 1
    seen = watch_running(world)
    world.drain(world.running()[0].node_id)
    world.settle()
    assert min(seen) == 2
    assert len(nodes_of(world)) == 2


# Eviction


def test_a_label_change_that_the_placement_does_not_ask_about_moves_nothing() -> None:
    world = web(task=image("v1", placement=IN_EU))
    before = ids(world)
    world.label("n1", zone="eu", rack="7")
    world.settle()
    assert ids(world) == before


def test_a_changed_placement_that_the_node_meets_moves_nothing_then_or_later() -> None:
    world = web(task=image("v1", placement=IN_EU))
    before = ids(world)
    world.update(task=image("v1", placement=Placement(constraints=("node.labels.rack != 7",))))
    world.settle()
    assert ids(world) == before
    world.label("n1", zone="us")  # which only the former placement minds
    world.settle()
    assert ids(world) == before
    world.label("n1", rack="7")
    world.settle()
    assert nodes_of(world)["n1"] == 0
    assert len(world.running()) == 3


def test_no_node_that_fits_leaves_the_task_where_it_is_and_its_heir_says_why() -> None:
    world = web(nodes=1, replicas=1, task=image("v1", placement=IN_EU))
    before = ids(world)
    relabel(world)
    world.run(3600)
    assert ids(world) == before
    assert [t.status.state for t in world.live() if t.meta.id not in before] == [S.PENDING]


def test_while_an_update_is_paused_a_former_task_is_judged_by_its_own_placement() -> None:
    world = web(task=image("v1", placement=IN_EU))
    world.fate = lambda task, following: S.FAILED if world.image_of(task) == "v2" else following
    world.update(task=image("v2", placement=Placement(constraints=("node.labels.rack == 7",))))
    world.label("n3", zone="eu", rack="7")
    world.run(60)
    assert world.update_state() is UpdateState.PAUSED
    world.run(60)
    stay = [t for t in world.running() if t.node_id != "n1"]
    relabel(world)
    world.run(60)
    assert all(t in world.running() for t in stay)
    assert nodes_of(world)["n1"] == 0


# Budget


def available(world: World) -> int:
    return len({t.slot for t in world.running() if not t.status.unready and t.node_id not in world.cut_off})


@pytest.mark.parametrize(
    ("max_unavailable", "parallelism", "least"),
    [("", 4, 4), ("1", 4, 7), ("2", 4, 6), ("25%", 0, 6), ("50%", 1, 7), ("100%", 0, 0)],
)
def test_a_stop_first_update_keeps_to_parallelism_and_budget(
    max_unavailable: str, parallelism: int, least: int
) -> None:
    world = web(replicas=8, max_unavailable=max_unavailable, update=UpdateConfig(parallelism=parallelism))
    seen = watch_slots(world)
    world.update(task=image("v2"))
    world.run(3600)
    assert world.images() == ["v2"] * 8
    assert min(seen) == least


def test_what_fails_by_itself_is_part_of_the_budget() -> None:
    world = web(replicas=4, max_unavailable="1")
    world.set_unready(world.running()[3].meta.id)
    world.update(task=image("v2"))
    seen = watch_slots(world)
    world.settle()
    assert min(seen) == 3
    world.run(3600)
    assert world.images() == ["v2"] * 4


def test_what_fails_after_an_update_has_begun_another_slot_is_worked_on_first() -> None:
    world = web(replicas=4, max_unavailable="1")
    world.update(task=image("v2"))
    world.orchestrate()
    (begun,) = {task.slot for task in world.live() if world.image_of(task) == "v2"}
    failing = next(task for task in world.running() if task.slot != begun)
    world.set_unready(failing.meta.id)
    seen = watch_slots(world)
    world.run(300)
    assert (world.images(), min(seen)) == (["v2"] * 4, 3)


def test_while_a_node_is_lost_an_update_takes_nothing_more_away() -> None:
    world = web(replicas=3, max_unavailable="1", disconnect=Disconnect.KEEP, update=UpdateConfig(parallelism=0))
    world.set_node("n1", NodeState.DOWN)
    world.update(task=image("v2"))
    world.run(300)
    assert world.images().count("v1") == 3
    assert world.service is not None
    assert world.service.update.message == "waits for the availability budget: at most 1 may be missing at once"
    world.set_node("n1", NodeState.READY)
    world.run(3600)
    assert world.images() == ["v2"] * 3


def test_what_is_not_heard_from_counts_as_missing_once() -> None:
    world = web(max_unavailable="2", update=UpdateConfig(parallelism=0))
    world.set_node("n1", NodeState.UNKNOWN)
    world.update(task=image("v2"))
    seen = watch_slots(world)
    world.settle()
    assert min(seen) == 1
    assert world.images() == ["v2", "v2"]
    world.set_node("n1", NodeState.READY)
    world.run(300)
    assert world.images() == ["v2"] * 3


def test_an_update_a_drain_an_eviction_and_a_rebalancing_share_one_budget() -> None:
    update = UpdateConfig(parallelism=0)
    world = web(nodes=5, replicas=10, max_unavailable="1", task=image("v1", placement=IN_EU), update=update)
    seen = watch_slots(world)
    world.update(task=image("v2", placement=IN_EU))
    drain(world)
    world.label("n2", zone="us")
    moved = world.tasks_on("n3")
    for task in moved:
        world.evict(task.meta.id)
    world.run(3600)
    assert min(seen) == 9
    assert (world.images(), set(nodes_of(world))) == (["v2"] * 10, {"n3", "n4", "n5"})
    assert not {task.meta.id for task in moved} & {task.meta.id for task in world.running()}


def test_a_slot_whose_task_makes_way_for_its_move_is_not_taken_by_the_update_in_the_next_breath() -> None:
    update = UpdateConfig(parallelism=3)
    world = web(nodes=4, replicas=4, max_unavailable="1", disconnect=Disconnect.FENCE, update=update)
    never_starts(world)
    world.drain("n4")
    world.settle()
    world.drain("n2")
    world.fate = go_well
    seen = watch_slots(world)
    world.update(task=image("v2"))
    world.settle()
    assert min(seen) == 3
    world.run(3600)
    assert (world.images(), set(nodes_of(world))) == (["v2"] * 4, {"n1", "n3"})


@pytest.mark.parametrize(("max_unavailable", "moves"), [("1", 1), ("2", 2), ("0", 1), ("", 6)])
def test_a_budget_bounds_how_many_tasks_move_at_once(max_unavailable: str, moves: int) -> None:
    start_first = UpdateConfig(order=UpdateOrder.START_FIRST)
    world = web(nodes=2, replicas=12, max_unavailable=max_unavailable, update=start_first)
    surplus: list[int] = []
    world.checks.append(lambda world: surplus.append(len(world.live()) - 12))
    drain(world)
    world.settle()
    assert max(surplus) == moves
    assert nodes_of(world) == {"n2": 12}


def test_a_slot_whose_task_is_kept_holds_up_no_other_move() -> None:
    world = web(replicas=2, max_unavailable="1", disconnect=Disconnect.KEEP)
    first, second = (task.meta.id for task in world.running())
    world.room = lambda node: 0
    world.evict(first)
    world.orchestrate()
    world.set_node(world.tasks[first].node_id, NodeState.DOWN)
    world.evict(second)
    world.update(task=image("v2"))
    world.orchestrate()
    assert 2 in {task.slot for task in world.live() if task.meta.id not in (first, second)}


# Disconnect


def test_keep_waits_for_the_node_and_does_not_replace() -> None:
    world = web(disconnect=Disconnect.KEEP)
    before = ids(world)
    world.set_node("n1", NodeState.DOWN)
    world.run(48 * 3600)
    assert {t.meta.id for t in world.live()} == before
    world.set_node("n1", NodeState.READY)
    world.settle()
    assert ids(world) == before


def test_a_drains_deadline_does_not_give_up_what_is_kept() -> None:
    world = web(disconnect=Disconnect.KEEP)
    before = ids(world)
    world.set_node("n1", NodeState.DOWN)
    world.drain("n1", deadline=60)
    world.run(3600)
    assert {t.meta.id for t in world.live()} == before


def test_keep_ends_when_the_operator_removes_the_node() -> None:
    world = web(disconnect=Disconnect.KEEP)
    world.set_node("n1", NodeState.DOWN)
    world.settle()
    world.remove_node("n1")
    world.settle()
    assert sum(nodes_of(world).values()) == 3


LATER = "replaced when it is back, or by 'argosy node rm'"
"""What every remark of an update that could not reach all ends with."""


def update_of(world: World) -> tuple[UpdateState, str]:
    assert world.service is not None
    return world.service.update.state, world.service.update.message


def test_an_update_leaves_out_what_is_kept_says_so_and_comes_back_to_it() -> None:
    world = web(disconnect=Disconnect.KEEP)
    world.set_node("n1", NodeState.DOWN)
    world.update(task=image("v2"))
    world.run(60)
    assert world.images() == ["v1", "v2", "v2"]
    said = f"1 task on node n1, which is cut off, still runs revision 1: {LATER}"
    assert update_of(world) == (UpdateState.COMPLETED, said)
    world.set_node("n1", NodeState.READY)
    world.run(60)
    assert world.images() == ["v2"] * 3
    assert update_of(world) == (UpdateState.COMPLETED, "")


def test_a_rollback_says_what_it_could_not_reach() -> None:
    world = web(replicas=6, disconnect=Disconnect.KEEP)
    world.update(task=image("v2"))
    world.run(60)
    world.set_node("n1", NodeState.DOWN)
    world.set_node("n2", NodeState.DOWN)
    kept = nodes_of(world)["n1"] + nodes_of(world)["n2"]
    world.roll_back()
    world.run(60)
    assert world.images() == ["v1"] * (6 - kept) + ["v2"] * kept
    later = LATER.replace("it is", "they are")
    said = f"{kept} tasks on nodes n1 and n2, which are cut off, still run revision 2: {later}"
    assert update_of(world) == (UpdateState.ROLLBACK_COMPLETED, said)


def test_what_was_said_of_tasks_that_are_kept_is_unsaid_when_they_are_gone() -> None:
    world = web(disconnect=Disconnect.KEEP)
    world.set_node("n1", NodeState.DOWN)
    world.update(task=image("v2"))
    world.run(60)
    world.scale(2)
    world.run(1)
    assert world.images() == ["v2"] * 2
    assert update_of(world) == (UpdateState.COMPLETED, "")


def test_an_update_goes_on_over_the_others_when_a_node_is_cut_off_in_the_middle_of_it() -> None:
    """The slot that was under way is kept, too: it does not hold up the others, and is no lack of progress."""
    world = web(replicas=6, disconnect=Disconnect.KEEP)
    never_starts(world)
    world.update(task=image("v2"))
    world.settle()
    (heir,) = (t for t in world.live() if world.image_of(t) == "v2")
    (old,) = (t for t in world.running() if t.slot == heir.slot)
    world.set_node(old.node_id, NodeState.DOWN)
    world.fate = go_well
    world.run(3600)
    assert world.images() == ["v1"] * 2 + ["v2"] * 4
    said = f"2 tasks on node {old.node_id}, which is cut off, still run revision 1: {LATER}"
    assert update_of(world) == (UpdateState.COMPLETED, said)
    world.set_node(old.node_id, NodeState.READY)
    world.run(60)
    assert (world.images(), update_of(world)) == (["v2"] * 6, (UpdateState.COMPLETED, ""))


def test_an_update_does_not_stop_what_is_kept_though_its_heir_was_prepared_there_before_the_node_went() -> None:
    world = web(nodes=1, mode=ServiceMode.GLOBAL, disconnect=Disconnect.KEEP)
    old = world.running()[0].meta.id
    never_starts(world)
    world.update(task=image("v2"))
    world.settle()
    world.set_node("n1", NodeState.DOWN)
    (heir,) = [task for task in world.live() if task.meta.id != old]
    world.tasks[heir.meta.id] = replace(heir, status=TaskStatus(S.READY))
    world.orchestrate()
    assert world.tasks[old].desired_state is S.RUNNING
    world.fate = go_well
    world.set_node("n1", NodeState.READY)
    world.run(300)
    assert world.images() == ["v2"]


def test_scaling_down_lets_go_of_what_is_kept_first() -> None:
    world = web(disconnect=Disconnect.KEEP)
    world.set_node("n1", NodeState.DOWN)
    world.scale(2)
    world.settle()
    assert nodes_of(world) == {"n2": 1, "n3": 1}


def test_a_fenced_task_is_replaced_only_when_it_has_surely_ended() -> None:
    world = web(disconnect=Disconnect.FENCE)
    world.fence_ends["n1"] = world.now + 15
    world.set_node("n1", NodeState.DOWN)
    world.run(24.9)  # its grace period is 10 s
    assert (len(world.live()), nodes_of(world)["n1"]) == (3, 1)
    world.run(0.2)
    assert nodes_of(world)["n1"] == 0
    assert len(world.running()) == 3


def test_a_fenced_task_whose_agent_is_lost_has_ended_too() -> None:
    world = web(disconnect=Disconnect.FENCE)
    world.fence_ends["n1"] = world.now
    world.set_node("n1", NodeState.AGENT_LOST)
    world.run(9.9)
    assert nodes_of(world)["n1"] == 1
    world.run(0.2)
    assert (nodes_of(world)["n1"], len(world.running())) == (0, 3)


def test_a_fenced_task_that_was_told_to_stop_is_waited_for_too() -> None:
    world = web(disconnect=Disconnect.FENCE)
    world.fate = lambda task, following: world.containers[task.meta.id].state if following is S.SHUTDOWN else following
    world.fence_ends["n1"] = world.now + 15
    drain(world)
    world.settle()
    world.set_node("n1", NodeState.DOWN)
    world.run(20)
    assert len(world.running()) == 2
    world.run(10)
    assert len(world.running()) == 3


def test_a_fenced_task_that_moves_stops_first_one_at_a_time() -> None:
    world = web(nodes=2, replicas=6, disconnect=Disconnect.FENCE)
    seen, most = watch_slots(world), Counter[int]()
    world.checks.append(lambda world: most.update([max(Counter(t.slot for t in world.serving()).values(), default=0)]))
    drain(world)
    world.run(3600)
    assert min(seen) == 5
    assert max(most) == 1
    assert nodes_of(world) == {"n2": 6}
