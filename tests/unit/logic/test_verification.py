"""Which ways a verification tries: all of few, some of many, and of those networks' carriers alone."""

from argosy.controller.logic.verification import carriers, notice, ways
from argosy.core.meta import Meta
from argosy.core.network import Attachment
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState


def task(number: int, node: str, *networks: str, released: bool = False, state: TaskState = TaskState.RUNNING) -> Task:
    attachments = tuple(Attachment(n, number) for n in networks)
    return Task(Meta(f"t{number}"), node_id=node, attachments=attachments, status=TaskStatus(state, released=released))


def test_who_holds_an_address_carries_the_network_and_everybody_one_that_ports_lead_into() -> None:
    tasks = [
        task(1, "n2", "red"),
        task(2, "n1", "red", "blue"),
        task(3, "n1", "red"),
        task(4, "n3", "red", released=True, state=TaskState.SHUTDOWN),
        task(5, "n4", "green"),
        task(6, "n5", "red", state=TaskState.ORPHANED),
        task(7, "", "red", state=TaskState.PENDING),
    ]
    everywhere = (("blue", "green"), ("n2", "n1", "n9"))
    assert carriers(tasks, ["red", "none"], *everywhere) == {"red": ["n1", "n2"], "none": []}
    assert carriers(tasks, ["blue"], *everywhere) == {"blue": ["n1", "n2", "n9"]}


def test_of_few_nodes_every_way_is_tried_and_of_one_none() -> None:
    assert ways(["a", "b", "c"]) == {"a": ["b", "c"], "b": ["a", "c"], "c": ["a", "b"]}
    assert ways(["a"]) == {"a": []}
    assert notice(["a", "b"]) == ""


def test_of_many_each_tries_and_is_tried_by_as_many() -> None:
    nodes = [f"n{i:04d}" for i in range(1000)]
    plan = ways(nodes, most=24, some=16)
    assert {len(set(peers)) for peers in plan.values()} == {16}
    assert all(node not in peers for node, peers in plan.items())
    tried = [peer for peers in plan.values() for peer in peers]
    assert all(tried.count(node) == 16 for node in nodes[::100])
    assert notice(nodes) == "1000 nodes carry it: each tried the ways to 16 of the others"
