"""Which static addresses can be claimed, what is said of the others, and which node announces them."""

from dataclasses import replace

import pytest

from argosy.controller.logic.static_addresses import Claim, claimed, claims_of, hosts, settled
from argosy.core.addresses import Subnet, format_ipv4, parse_ipv4
from argosy.core.errors import InvalidError, PreconditionError
from argosy.core.meta import Meta
from argosy.core.network import Attachment, Network, NetworkSpec, Slice, SliceUse, StaticAddress, slice_id
from argosy.core.service import NetworkAttachmentSpec, ServiceSpec, TaskSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

NET = Network(Meta("net"), NetworkSpec("shop_back"), 4096, "10.9.0.0/24")  # slices 1 to 7
RANGED = replace(NET, spec=NetworkSpec("shop_back", ip_range="10.9.0.128/25"))


def claim(address, service="web"):
    return Claim("net", parse_ipv4(address), service, service)


def piece(index, use=SliceUse.STATIC, node_id="", *holders):
    held = tuple(StaticAddress(parse_ipv4(a), s) for a, s in holders)
    return Slice(Meta(slice_id("net", index), version=5), "net", index, node_id, use, held)


def held_in(found):
    return [(format_ipv4(h.address), h.service_id) for h in found.holders]


def test_the_first_claim_in_a_slice_makes_it_one_for_static_addresses():
    found = claimed(NET, None, claim("10.9.0.70"), [1], str)
    assert (found.index, found.use, found.node_id, found.meta.version) == (2, SliceUse.STATIC, "", 0)
    assert held_in(found) == [("10.9.0.70", "web")]


def test_further_claims_join_it_and_the_same_again_changes_nothing():
    there = piece(2, SliceUse.STATIC, "", ("10.9.0.70", "web"))
    more = claimed(NET, there, claim("10.9.0.65", "db"), [2], str)
    assert held_in(more) == [("10.9.0.65", "db"), ("10.9.0.70", "web")]
    assert claimed(NET, more, claim("10.9.0.70"), [2], str) == more


@pytest.mark.parametrize(
    ("network", "there", "address", "error", "says"),
    [
        (NET, None, "10.8.0.70", InvalidError, "it is none of 10.9.0.0/24: choose another, such as 10.9.0.230"),
        (
            NET,
            None,
            "10.9.0.10",
            InvalidError,
            "10.9.0.0/27 is for virtual addresses: choose another, such as 10.9.0.234",
        ),
        (RANGED, None, "10.9.0.130", InvalidError, "the network's ip_range: choose another, such as 10.9.0.98"),
        (
            NET,
            piece(2, SliceUse.TASKS, "n1"),
            "10.9.0.70",
            PreconditionError,
            "10.9.0.64/27 is leased to node N1: choose",
        ),
        (NET, piece(2, SliceUse.SERVICES), "10.9.0.70", PreconditionError, "is for virtual addresses"),
        (
            NET,
            piece(2, SliceUse.STATIC, "", ("10.9.0.70", "db")),
            "10.9.0.70",
            PreconditionError,
            "service web cannot have 10.9.0.70 on network shop_back: service DB has it: choose another, such as",
        ),
    ],
    ids=["outside", "virtual", "ip_range", "leased", "more virtual", "another's"],
)
def test_what_cannot_be_claimed_is_said_with_who_has_it_and_what_could(network, there, address, error, says):
    with pytest.raises(error) as refused:
        claimed(network, there, claim(address), [2] if there else [], str.upper)
    assert says in str(refused.value)


def test_a_network_without_a_free_slice_says_so():
    with pytest.raises(InvalidError, match="nothing else is free"):
        claimed(NET, None, claim("10.9.0.10"), range(1, 8), str)


def test_claims_are_what_the_spec_asks_for():
    joined = (NetworkAttachmentSpec("net", address="10.9.0.70"), NetworkAttachmentSpec("other"))
    assert claims_of("id", ServiceSpec("web", task=TaskSpec(networks=joined))) == [
        Claim("net", parse_ipv4("10.9.0.70"), "id", "web", "task.networks[0].address")
    ]


def test_a_slice_goes_when_nobody_asks_for_it_and_no_task_has_an_address_of_it():
    there, subnet = (
        piece(2, SliceUse.STATIC, "", ("10.9.0.70", "web"), ("10.9.0.71", "db")),
        Subnet.parse("10.9.0.0/24"),
    )
    web, db = there.holders
    assert settled(there, subnet, {web, db}, []) == there
    assert held_in(settled(there, subnet, {db}, [])) == [("10.9.0.71", "db")]
    assert settled(there, subnet, set(), [parse_ipv4("10.9.0.33"), parse_ipv4("10.8.0.70")]) is None
    assert held_in(settled(there, subnet, set(), [parse_ipv4("10.9.0.70")])) == []


def having(task_id, node_id, *, at=1.0, desired=TaskState.RUNNING, released=False, fixed=True):
    attachments = (Attachment("net", parse_ipv4("10.9.0.70"), fixed),)
    status = TaskStatus(TaskState.RUNNING, released=released)
    return Task(
        Meta(task_id, created_at=at), "web", 1, node_id, desired_state=desired, status=status, attachments=attachments
    )


@pytest.mark.parametrize(
    ("tasks", "node"),
    [
        ([], None),
        ([having("t1", "a")], "a"),
        ([having("t1", "a", desired=TaskState.SHUTDOWN)], "a"),
        ([having("t1", "a", desired=TaskState.SHUTDOWN, at=9.0), having("t2", "b", at=2.0)], "b"),
        ([having("t1", "a"), having("t2", "b", at=2.0)], "b"),
        ([having("t1", "a", fixed=False)], None),
    ],
)
def test_the_node_of_the_task_that_is_to_have_it_announces_it(tasks, node):
    assert hosts("net", tasks) == ({parse_ipv4("10.9.0.70"): node} if node else {})
    assert hosts("other", tasks) == {}
