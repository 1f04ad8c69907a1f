"""VNIs, subnets and addresses, case by case."""

from dataclasses import replace

import pytest

from argosy.controller.logic.address_pool import AddressPool, Attached, Full, Grant, attach
from argosy.controller.logic.allocate import FIRST_VNI, LAST_VNI, choose_subnet, choose_vni
from argosy.core.addresses import format_ipv4, parse_ipv4
from argosy.core.errors import ExhaustedError, InvalidError
from argosy.core.meta import Meta
from argosy.core.network import Attachment, Network, NetworkSpec, Slice, slice_id
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState


@pytest.mark.parametrize(
    ("used", "next_vni", "vni"),
    [
        ([], 0, FIRST_VNI),
        ([], 5000, 5000),
        ([5000, 5001], 5000, 5002),
        ([4096], 0, 4097),
        ([LAST_VNI], LAST_VNI, FIRST_VNI),
        ([LAST_VNI, FIRST_VNI], LAST_VNI, FIRST_VNI + 1),
        ([], LAST_VNI + 1, FIRST_VNI),
    ],
)
def test_vnis_go_upwards_and_begin_again_at_the_end(used, next_vni, vni):
    assert choose_vni(used, next_vni) == vni


def test_a_vni_that_was_given_back_waits_for_its_turn():
    assert choose_vni([], choose_vni([], 0) + 1) == FIRST_VNI + 1


def test_no_vni_is_left():
    with pytest.raises(ExhaustedError, match="remove networks"):
        choose_vni(range(FIRST_VNI, FIRST_VNI + 4), 0, last=FIRST_VNI + 3)


@pytest.mark.parametrize(
    ("wanted", "taken", "underlay", "subnet"),
    [
        ("", [], [], "10.64.0.0/16"),
        ("", ["10.64.0.0/16"], [], "10.65.0.0/16"),
        ("", ["10.64.7.0/26", "10.66.0.0/16"], [], "10.65.0.0/16"),
        ("", ["10.0.0.0/8"], [], "10.64.0.0/16"),
        ("", ["10.64.0.0/11"], [], "10.96.0.0/16"),
        ("", [], ["10.64.3.9/32", "10.65.0.0/24"], "10.66.0.0/16"),
        ("192.168.0.0/24", ["192.168.0.0/16"], ["192.0.2.1/32"], "192.168.0.0/24"),
    ],
)
def test_subnets(wanted, taken, underlay, subnet):
    assert choose_subnet(wanted, taken, underlay) == subnet


def test_when_every_subnet_is_taken_the_one_that_the_fewest_share_is_chosen():
    taken: list[str] = []
    for _ in range(130):
        taken.append(choose_subnet("", taken, []))
    assert len(set(taken[:64])) == 64
    assert set(taken[64:128]) == set(taken[:64])
    assert sorted(map(taken.count, set(taken))) == [2] * 62 + [3] * 2


@pytest.mark.parametrize(
    ("wanted", "underlay", "says"),
    [
        ("10.0.0.0/27", [], "smallest subnet is a /26"),
        ("10.0.0.0/24", ["10.0.0.5/32"], r"overlaps 10\.0\.0\.5/32 \(the hosts' own network\)"),
        ("nonsense", [], "not a subnet"),
    ],
)
def test_a_wanted_subnet_that_cannot_be(wanted, underlay, says):
    with pytest.raises(InvalidError, match=says) as caught:
        choose_subnet(wanted, [], underlay)
    assert caught.value.problems[0][0] == "subnet"


def test_hosts_that_take_the_whole_pool():
    with pytest.raises(ExhaustedError, match="give the network a subnet"):
        choose_subnet("", [], ["10.0.0.0/8"])


# ---------------------------------------------------------------- addresses

SMALL = Network(Meta("net", "default"), NetworkSpec("web_default"), 4096, "10.9.0.0/25")  # slices 1, 2 and 3


def lease(index, node_id, network="net"):
    return Slice(Meta(slice_id(network, index)), network, index, node_id)


def task(task_id, node_id, *addresses, at=0.0, state=TaskState.RUNNING, network="net"):
    attachments = tuple(Attachment(network, parse_ipv4(a)) for a in addresses)
    status = TaskStatus(state)
    return Task(Meta(task_id, "default", created_at=at), "web", 1, node_id, 1, status=status, attachments=attachments)


def taken(pool, node_id, count):
    grants = [pool.take(node_id) for _ in range(count)]
    assert all(isinstance(g, Grant) for g in grants)
    return grants


def test_the_first_address_comes_with_a_slice_and_the_next_ones_without():
    pool = AddressPool.build(SMALL, [], [])
    first, second = taken(pool, "a", 2)
    assert first == Grant(parse_ipv4("10.9.0.32"), lease(1, "a"))
    assert second == Grant(parse_ipv4("10.9.0.33"))


def test_all_32_addresses_of_a_slice_are_used_before_the_next_is_leased():
    grants = taken(AddressPool.build(SMALL, [], []), "a", 33)
    assert [g.new_slice.index for g in grants if g.new_slice] == [1, 2]
    assert [format_ipv4(grants[i].address) for i in (0, 31, 32)] == ["10.9.0.32", "10.9.0.63", "10.9.0.64"]


def test_the_smallest_network_has_one_slice():
    pool = AddressPool.build(replace(SMALL, subnet="10.9.0.0/26"), [], [])
    assert len({g.address for g in taken(pool, "a", 32)}) == 32
    assert pool.take("a") == Full("network web_default is full: 32 of 32 addresses used")


def test_slices_of_other_nodes_are_never_touched():
    pool = AddressPool.build(SMALL, [lease(1, "b"), lease(2, "b")], [])
    assert taken(pool, "a", 1)[0] == Grant(parse_ipv4("10.9.0.96"), lease(3, "a"))
    assert pool.take("c") == Full(
        "network web_default has no addresses left for this node: all 3 slices are leased, and the node's own are full "
        "(1 of 96 addresses used); give the network a larger subnet"
    )
    assert pool.lacks("b") is None


@pytest.mark.parametrize("state", [TaskState.RUNNING, TaskState.FAILED, TaskState.SHUTDOWN, TaskState.ORPHANED])
def test_a_stored_task_keeps_its_address_whatever_its_state(state):
    held = [f"10.9.0.{i}" for i in range(32, 63)]
    pool = AddressPool.build(SMALL, [lease(1, "a")], [task("t", "a", *held, state=state)])
    assert pool.take("a") == Grant(parse_ipv4("10.9.0.63"))
    assert pool.take("a") == Grant(parse_ipv4("10.9.0.64"), lease(2, "a"))


def test_addresses_are_given_in_turn_and_not_again_at_once():
    tasks = [task("old", "a", "10.9.0.33", at=1.0), task("new", "a", "10.9.0.62", at=2.0)]
    pool = AddressPool.build(SMALL, [lease(1, "a")], tasks)
    assert [format_ipv4(g.address) for g in taken(pool, "a", 3)] == ["10.9.0.63", "10.9.0.32", "10.9.0.34"]


def test_a_leader_that_remembers_what_it_gave_last_goes_on_there():
    pool = AddressPool.build(SMALL, [lease(1, "a")], [task("t", "a", "10.9.0.33")], {"a": parse_ipv4("10.9.0.40")})
    assert format_ipv4(taken(pool, "a", 1)[0].address) == "10.9.0.41"
    assert pool.last_given == {"a": parse_ipv4("10.9.0.41")}


def test_going_in_turn_passes_from_slice_to_slice():
    leases = [lease(1, "a"), lease(3, "a"), lease(2, "b")]
    pool = AddressPool.build(SMALL, leases, [task("t", "a", "10.9.0.63")])
    assert format_ipv4(taken(pool, "a", 1)[0].address) == "10.9.0.96"
    pool = AddressPool.build(SMALL, leases, [task("t", "a", "10.9.0.127")])
    assert format_ipv4(taken(pool, "a", 1)[0].address) == "10.9.0.32"


def test_a_slice_that_came_back_skips_what_old_records_still_hold():
    old = [task("t", "gone", *[f"10.9.0.{i}" for i in range(32, 64)], state=TaskState.ORPHANED)]
    assert taken(AddressPool.build(SMALL, [], old), "a", 1)[0].new_slice == lease(2, "a")


def test_other_networks_do_not_count():
    other = [task("t", "a", "10.9.0.32", network="other")]
    pool = AddressPool.build(SMALL, [lease(1, "b", "other")], other)
    assert taken(pool, "a", 1)[0] == Grant(parse_ipv4("10.9.0.32"), lease(1, "a"))


def test_a_network_that_is_full_says_how_full():
    big = replace(SMALL, subnet="10.64.0.0/16")
    pool = AddressPool.build(big, [], [])
    assert len({g.address for g in taken(pool, "a", 65504)}) == 65504
    assert pool.take("a") == pool.lacks("b") == Full("network web_default is full: 65,504 of 65,504 addresses used")


def test_a_task_gets_all_its_networks_or_none():
    full = replace(SMALL, meta=Meta("full"), subnet="10.8.0.0/26")
    tasks = [task("t", "b", *[f"10.8.0.{i}" for i in range(32, 64)], network="full")]
    pools = {n.meta.id: AddressPool.build(n, [], tasks) for n in (SMALL, full)}
    assert attach(pools, ["net", "full"], "a") == Full("network web_default is full: 32 of 32 addresses used")
    assert pools["net"].used == 0
    assert attach(pools, ["net"], "a") == Attached((Attachment("net", parse_ipv4("10.9.0.32")),), (lease(1, "a"),))
    assert attach(pools, [], "a") == Attached((), ())
    assert attach(pools, ["gone"], "a") == Full("network gone does not exist any more")
