"""Replacing tasks that have an address which their service asked for: never two at once, and never stuck."""

from dataclasses import replace

import pytest

from argosy.core.network import Attachment
from argosy.core.node import Availability, NodeState
from argosy.core.service import NetworkAttachmentSpec, ServiceSpec, UpdateConfig, UpdateOrder, UpdateState
from argosy.core.task import Task
from argosy.core.task_state import TaskState as S
from tests.sim.service_world import World, image

FIXED = (NetworkAttachmentSpec("net", address="10.9.0.70"),)
ADDRESS = (Attachment("net", 0x0A090046, fixed=True),)


class Addressed(World):
    """A world whose scheduler gives the address to one task at a time, as AddressPool.lacks_static wants it."""

    def _holders(self, task: Task) -> list[Task]:
        lost = {n.meta.id for n in self.nodes.values() if n.status.state is NodeState.DOWN}
        others = (t for t in self.tasks.values() if t.meta.id != task.meta.id and t.attachments)
        return [t for t in others if not t.status.released and t.node_id not in lost]

    def _choose_node(self, task: Task) -> str:
        asks = any(n.address for n in self.revisions[task.revision].spec.task.networks)
        return "" if asks and self._holders(task) else super()._choose_node(task)

    def _waits_for_old(self, task: Task) -> bool:
        return any(t.desired_state <= S.RUNNING for t in self._holders(task)) and bool(super()._choose_node(task))

    def _store(self, task: Task, *, by_agent: bool) -> None:
        given = ADDRESS if task.status.state is S.ASSIGNED else task.attachments
        super()._store(replace(task, attachments=given), by_agent=by_agent)


def deployed(order: UpdateOrder = UpdateOrder.STOP_FIRST) -> Addressed:
    """Return a world in which one task has the address."""
    update = UpdateConfig(order=order)
    world = Addressed(ServiceSpec(name="db", task=image("v1", networks=FIXED), replicas=1, update=update))
    world.run(60)
    assert len(world.running()) == 1
    return world


def test_an_update_stops_the_old_task_first_and_does_not_wait_for_the_new_one() -> None:
    world = deployed()
    world.update(task=image("v2", networks=FIXED))
    world.run(60)
    assert (world.images(), world.update_state()) == (["v2"], UpdateState.COMPLETED)


def test_giving_the_address_up_needs_no_second_one_either() -> None:
    world = deployed()
    world.update(task=image("v2"))
    world.run(60)
    assert (world.images(), world.update_state()) == (["v2"], UpdateState.COMPLETED)


@pytest.mark.parametrize("order", UpdateOrder)
def test_a_drain_moves_it(order: UpdateOrder) -> None:
    world = deployed(order)
    (before,) = world.running()
    world.set_availability(before.node_id, Availability.DRAIN)
    world.run(60)
    (after,) = world.running()
    assert after.node_id != before.node_id


def test_a_lost_node_does_not_keep_it() -> None:
    world = deployed()
    (before,) = world.running()
    world.set_node(before.node_id, NodeState.DOWN)
    world.run(60)
    assert [t.node_id != before.node_id for t in world.running() if t.node_id != before.node_id] == [True]
