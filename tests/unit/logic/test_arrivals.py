"""What waits until every node knows a new task: stopping others, in updates and moves, and nothing else."""

from collections.abc import Callable

import pytest

from argosy.controller.logic.view import ARRIVAL_TIMEOUT_S
from argosy.core.service import ServiceSpec, UpdateConfig, UpdateOrder
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from tests.sim.service_world import World, image

REPLICAS = 4


def deployed(order: UpdateOrder, parallelism: int = 1, max_unavailable: str = "") -> World:
    """Return a world with v1 deployed, and known to all nodes for long."""
    update = UpdateConfig(parallelism=parallelism, order=order, monitor=0)
    world = World(
        ServiceSpec("web", task=image("v1"), replicas=REPLICAS, update=update, max_unavailable=max_unavailable)
    )
    world.run(60)
    return world


def known(world: World, of: Callable[[World], list[Task]]) -> int:
    """Count the slots with a task that runs, is not to stop, and that all nodes know."""
    late = world.now - ARRIVAL_TIMEOUT_S
    arrived = (t for t in of(world) if world.arrived(t) or t.meta.updated_at <= late)
    return len({t.slot for t in arrived if t.desired_state <= TaskState.RUNNING})


CASES = [
    (UpdateOrder.STOP_FIRST, 1, "", REPLICAS - 1),
    (UpdateOrder.STOP_FIRST, 2, "", REPLICAS - 2),
    (UpdateOrder.STOP_FIRST, 2, "1", REPLICAS - 1),
    (UpdateOrder.START_FIRST, 1, "", REPLICAS),
    (UpdateOrder.START_FIRST, 2, "1", REPLICAS),
]


@pytest.mark.parametrize(("order", "parallelism", "max_unavailable", "least"), CASES)
def test_a_task_counts_when_all_nodes_know_it(
    order: UpdateOrder, parallelism: int, max_unavailable: str, least: int
) -> None:
    world = deployed(order, parallelism, max_unavailable)
    strangers = True
    world.arrived = lambda task: not (strangers and world.image_of(task) == "v2")
    served: list[int] = []
    world.checks.append(lambda w: served.append(known(w, World.running)))
    world.update(task=image("v2"))
    world.settle()
    assert "v1" in world.images(), "old ones are kept while nobody knows the new ones"
    assert "v2" in world.images()
    strangers = False
    world.run(1)
    assert world.images() == ["v2"] * REPLICAS
    assert min(served) >= least


@pytest.mark.parametrize("order", UpdateOrder)
def test_it_is_not_waited_for_longer_than_that_can_take(order: UpdateOrder) -> None:
    world = deployed(order)
    world.arrived = lambda task: False
    world.update(task=image("v2"))
    world.settle()
    assert "v1" in world.images()
    world.run(REPLICAS * ARRIVAL_TIMEOUT_S + 1)
    assert world.images() == ["v2"] * REPLICAS


def test_the_next_slot_is_prepared_meanwhile() -> None:
    world = deployed(UpdateOrder.STOP_FIRST)
    world.arrived = lambda task: world.image_of(task) == "v1"
    world.update(task=image("v2"))
    world.settle()
    new = sorted((t.slot, t.status.state) for t in world.live() if world.image_of(t) == "v2")
    assert new == [(1, TaskState.RUNNING), (2, TaskState.READY)]


def test_parallelism_0_waits_for_nobody() -> None:
    world = deployed(UpdateOrder.STOP_FIRST, parallelism=0)
    world.arrived = lambda task: False
    world.update(task=image("v2"))
    world.settle()
    assert world.images() == ["v2"] * REPLICAS


def test_what_leaves_its_node_stays_until_all_nodes_know_its_heir() -> None:
    world = deployed(UpdateOrder.STOP_FIRST)
    drained = world.running()[0].node_id
    before = {t.meta.id for t in world.running()}
    world.arrived = lambda task: task.meta.id in before
    world.drain(drained)
    world.settle()
    assert any(t.node_id == drained for t in world.running())
    world.arrived = lambda task: True
    world.run(1)
    assert not any(t.node_id == drained for t in world.running())


def test_nobody_is_asked_where_nothing_is_replaced() -> None:
    world = World(ServiceSpec("web", task=image("v1"), replicas=REPLICAS, max_unavailable="1"))

    def arrived(task: Task) -> bool:
        raise AssertionError("asked")

    world.arrived = arrived
    world.run(60)
    world.scale(2 * REPLICAS)
    world.run(60)
    world.scale(1)
    world.run(60)
    assert len(world.running()) == 1
