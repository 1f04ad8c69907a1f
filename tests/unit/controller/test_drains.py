"""Who is waited for before a task that is to stop is called drained."""

from dataclasses import replace

import pytest

from argosy.controller.logic.assign import endpoint_of
from argosy.controller.session.drains import Drains, is_draining
from argosy.core.meta import Meta
from argosy.core.network import Attachment
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

RUNS = Task(Meta("t1"), "web", 1, "n1", status=TaskStatus(TaskState.RUNNING), attachments=(Attachment("net", 7),))
LEAVES = replace(RUNS, desired_state=TaskState.SHUTDOWN)
GONE = replace(LEAVES, status=TaskStatus(TaskState.SHUTDOWN))


class Nodes:
    """Balancers of nodes; those in `sending` have the task."""

    def __init__(self, *nodes):
        self.nodes = nodes
        self.sending = set(nodes)

    def carriers(self, task):
        return self.nodes

    def may_send_to(self, node_id, task):
        return node_id in self.sending


def test_it_is_drained_when_the_last_node_has_confirmed():
    nodes = Nodes("n1", "n2")
    drains = Drains(nodes)
    drains.follow(RUNS, LEAVES)
    assert not drains.over("t1")
    assert drains.heard("n2") == set()  # it has said something, but not that
    nodes.sending.discard("n2")
    assert drains.heard("n2") == set()
    nodes.sending.discard("n1")
    assert drains.heard("n1") == {"n1"}
    assert drains.over("t1")


def test_without_anybody_who_sends_it_is_drained_at_once():
    drains = Drains(Nodes())
    drains.follow(RUNS, LEAVES)
    assert drains.over("t1")


def test_what_has_ended_is_forgotten():
    drains = Drains(Nodes("n1"))
    drains.follow(RUNS, LEAVES)
    drains.follow(LEAVES, GONE)
    assert not drains.over("t1")
    assert drains.heard("n1") == set()
    drains.follow(GONE, None)


def test_a_new_leader_begins_with_what_is_stored():
    drains = Drains(Nodes("n1"))
    drains.rebuild([RUNS, LEAVES])
    assert drains.heard("n1") == set()
    assert not drains.over("t1")


@pytest.mark.parametrize(
    ("task", "draining"),
    [
        (RUNS, False),
        (LEAVES, True),
        (replace(LEAVES, desired_state=TaskState.REMOVE), True),
        (replace(LEAVES, attachments=()), False),
        (replace(LEAVES, status=TaskStatus(TaskState.STARTING)), False),
        (GONE, False),
    ],
)
def test_who_drains(task, draining):
    assert is_draining(task) is draining


@pytest.mark.parametrize(
    ("task", "withdrawn"),
    [
        (RUNS, False),
        (LEAVES, True),
        (replace(RUNS, status=TaskStatus(TaskState.RUNNING, unready=True)), True),
        (GONE, None),
        (replace(RUNS, status=TaskStatus(TaskState.STARTING)), None),
    ],
)
def test_endpoints_are_withdrawn_before_they_go(task, withdrawn):
    endpoint = endpoint_of(task, "net", 3)
    assert (endpoint.withdrawn if endpoint else None) is withdrawn
    assert endpoint is None or (endpoint.weight, endpoint.address) == (3, 7)
