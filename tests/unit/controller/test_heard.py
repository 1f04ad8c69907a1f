"""Whom the leader has heard, and whose records it believes."""

import hashlib
from dataclasses import replace

import pytest

from argosy.controller.session.heard import HeardNodes
from argosy.core.node import NodeState, NodeStatus
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState
from tests.unit.controller.objects import node

KEY = bytes(32)
NODE = node("n1")
LOST = replace(NODE, status=NodeStatus(NodeState.AGENT_LOST))


def beat(number, words=""):
    text = f"n1 {number} {words}".strip().encode()
    return text + b" " + hashlib.blake2s(text, key=KEY).hexdigest().encode()


@pytest.fixture
def told():
    return []


@pytest.fixture
def heard(told):
    nodes = HeardNodes(lambda node_id: KEY)
    nodes.on_report = lambda: told.append(True)
    return nodes


def test_an_agents_records_are_believed_when_it_has_told_all_in_this_session(heard, told):
    heard.hello("n1")
    assert (heard.vouches(NODE), told) == (False, [])
    heard.report("n1", {}, more=True)
    assert not heard.vouches(NODE)
    heard.report("n1", {})
    heard.report("n1", {})
    assert (heard.vouches(NODE), told) == (True, [True])
    heard.hello("n1")
    assert not heard.vouches(NODE)


def test_a_task_is_believed_to_run_that_its_agent_has_told_of(heard, told):
    """After a power cut an agent may have lost its own record of a task: it runs it anew, as it is assigned."""
    heard.hello("n1")
    heard.report("n1", {"a": TaskStatus(TaskState.RUNNING), "c": TaskStatus(TaskState.READY)})
    assert [heard.runs(NODE, task) for task in ("a", "b", "c")] == [True, False, False]
    assert not heard.runs(LOST, "a"), "its host was not heard"
    heard.report("n1", {"b": TaskStatus(TaskState.STARTING)})
    assert (heard.runs(NODE, "b"), told) == (True, [True, True])
    heard.report("n1", {"a": TaskStatus(TaskState.FAILED), "b": TaskStatus(TaskState.RUNNING)})
    assert [heard.runs(NODE, task) for task in ("a", "b")] == [False, True]
    heard.beat(beat(1))
    assert [heard.runs(LOST, task) for task in ("a", "b")] == [False, True]
    heard.hello("n1")
    assert not heard.runs(NODE, "b")


def test_those_of_a_node_without_agent_are_believed_when_its_host_was_heard_in_this_term(heard, told):
    """AGENT_LOST is stored: after a power cut of everything a new leader finds it, and the host may be off."""
    assert not heard.vouches(LOST)
    heard.beat(beat(1)[:-1])
    assert (heard.vouches(LOST), told) == (False, [])
    heard.beat(beat(2))
    heard.beat(beat(3))
    assert (heard.vouches(LOST), told) == (True, [True])
    assert not heard.vouches(NODE), "a beat alone does not tell what runs"


def test_a_host_tells_why_its_agent_ended_until_it_does_so_no_more(heard):
    why = "No space left on device: make room"
    heard.beat(beat(1, why))
    assert heard.heard["n1"].trouble == why
    heard.beat(beat(2, "forged words").replace(b"forged", b"honest"))
    assert heard.heard["n1"].trouble == why
    heard.beat(beat(3, "red \x1b[31m" + 1000 * "x"))
    assert heard.heard["n1"].trouble == "red ?[31m" + 291 * "x"
    heard.beat(beat(4))
    assert heard.heard["n1"].trouble == ""
