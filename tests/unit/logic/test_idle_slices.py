"""When a node gives a slice of a network back."""

import pytest

from argosy.controller.logic.idle_slices import QUIET_S, IdleSlices, blocks_of
from argosy.core.addresses import parse_ipv4
from argosy.core.meta import Meta
from argosy.core.network import Attachment, Network, NetworkSpec, Slice, SliceUse, slice_id
from argosy.core.task import Task

NETWORK = Network(Meta("net"), NetworkSpec("net"), 4096, "10.9.0.0/22")


def lease(index: int, node_id: str = "a", use: SliceUse = SliceUse.TASKS) -> Slice:
    return Slice(Meta(slice_id("net", index)), "net", index, node_id, use)


def task(address: str, network_id: str = "net") -> Task:
    return Task(Meta("t"), "s", 1, "a", 1, attachments=(Attachment(network_id, parse_ipv4(address)),))


def due(slices, tasks, now=QUIET_S, idle=None) -> list[int]:
    held = {block for one in tasks for block in blocks_of(one)}
    return [s.index for s in (idle or IdleSlices(0.0)).due([NETWORK], slices, held, now)]


@pytest.mark.parametrize(
    ("slices", "tasks", "given_back"),
    [
        ([], [], []),
        ([lease(1)], [task("10.9.0.40")], []),
        ([lease(2), lease(1)], [task("10.9.0.40")], [2]),
        ([lease(1), lease(2), lease(3)], [task("10.9.0.70")], [3]),
        ([lease(1), lease(2)], [], [1, 2]),
        ([lease(1)], [task("10.9.0.40", "other")], [1]),
        ([lease(1), lease(2, "b"), lease(3, "b")], [task("10.9.0.40")], [2, 3]),
        ([lease(0, "", SliceUse.SERVICES), lease(4, "", SliceUse.STATIC)], [], []),
        ([Slice(Meta("gone.1"), "gone", 1, "a")], [], []),
    ],
    ids=[
        "nothing is leased",
        "it is in use",
        "what is empty beside one that is in use",
        "the lowest is kept",
        "no task is left on the node",
        "an address of another network is none of this",
        "each node for itself",
        "what is for services and static addresses is no node's",
        "what belongs to no network is the reaper's",
    ],
)
def test_what_is_given_back(slices, tasks, given_back):
    assert due(slices, tasks) == given_back


def test_the_time_counts_from_when_the_last_record_went_or_the_leader_began():
    idle = IdleSlices(100.0)
    slices = [lease(1), lease(2)]
    assert due(slices, [], QUIET_S + 99.0, idle) == []
    idle.left(task("10.9.0.70"), QUIET_S + 99.0)
    assert due(slices, [], QUIET_S + 100.0, idle) == [1]
    assert due(slices, [], 2 * QUIET_S + 98.0, idle) == [1]
    assert due(slices, [], 2 * QUIET_S + 99.0, idle) == [1, 2]
