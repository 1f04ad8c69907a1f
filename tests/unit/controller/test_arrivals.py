"""Which tasks every node knows, and who is told when that changes."""

import asyncio

import pytest

from argosy.controller.session.arrivals import KEPT_S, Arrivals
from argosy.core.meta import Meta
from argosy.core.network import Attachment
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

NETWORKS = (Attachment("net", 7), Attachment("other", 8))
TASK = Task(Meta("t1"), "web", 1, "n1", status=TaskStatus(TaskState.RUNNING), attachments=NETWORKS)


class Nodes:
    """All nodes as one: the endpoints in force on every one of them."""

    def __init__(self):
        self.in_force = set()
        self.now = 100.0
        self.arrivals = Arrivals(
            lambda network_id, key: (network_id, key) in self.in_force, lambda: self.now, lambda: 0.0
        )
        self.told = []
        self.arrivals.on_arrival = self.told.append

    def confirm(self, *networks):
        self.in_force.update((network, f"endpoint/{network}/t1") for network in networks)
        self.arrivals.heard()


@pytest.fixture
async def nodes():
    nodes = Nodes()
    running = asyncio.create_task(nodes.arrivals.run())
    yield nodes
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_task_has_arrived_when_all_nodes_have_it_on_all_its_networks(nodes):
    assert not nodes.arrivals.has_arrived(TASK)
    nodes.confirm("net")
    await settled()
    assert nodes.told == []
    nodes.confirm("other")
    await settled()
    assert nodes.told == ["web"]
    assert nodes.arrivals.has_arrived(TASK)
    nodes.arrivals.heard()
    await settled()
    assert nodes.told == ["web"], "once is enough"


async def test_nobody_is_told_of_what_nobody_asked_about(nodes):
    nodes.confirm("net", "other")
    await settled()
    assert nodes.told == []


async def test_a_question_is_forgotten_in_the_end(nodes):
    assert not nodes.arrivals.has_arrived(TASK)
    nodes.now += KEPT_S
    nodes.confirm("net", "other")
    await settled()
    assert nodes.told == []


def test_a_task_without_networks_has_arrived():
    nodes = Nodes()
    assert nodes.arrivals.has_arrived(Task(Meta("t1"), "web", 1, "n1"))
