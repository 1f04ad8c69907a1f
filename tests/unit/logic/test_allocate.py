"""VNIs, subnets and addresses, case by case."""

from dataclasses import replace

import pytest

from argosy.controller.logic.address_pool import (
    AddressPool,
    Asking,
    Attached,
    Full,
    Grant,
    Shortage,
    attach,
    lacks_address,
)
from argosy.controller.logic.allocate import FIRST_VNI, LAST_VNI, choose_subnet, choose_vni
from argosy.core.addresses import format_ipv4, parse_ipv4
from argosy.core.errors import ExhaustedError, InvalidError
from argosy.core.meta import Meta
from argosy.core.network import Attachment, Network, NetworkSpec, Slice, SliceUse, StaticAddress, slice_id
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


def test_what_a_host_reaches_by_itself_is_refused_with_whose_it_is_and_what_would_fit():
    routes = [("10.0.0.0/8", "node n1 reaches it by itself")]
    with pytest.raises(InvalidError) as refused:
        choose_subnet("10.20.0.0/16", [], [], routes)
    assert str(refused.value) == (
        "subnet 10.20.0.0/16 overlaps 10.0.0.0/8 (node n1 reaches it by itself): choose another, such as 172.16.0.0/16"
    )
    assert choose_subnet("", [], [], routes) == "172.16.0.0/16"
    assert choose_subnet("172.20.0.0/16", [], [], routes) == "172.20.0.0/16"


def test_hosts_that_take_all_pools():
    with pytest.raises(ExhaustedError, match="give the network a subnet"):
        choose_subnet("", [], ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])


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
        "all 3 slices of network web_default are leased to nodes (1 of 96 addresses used): "
        "give the network a larger subnet"
    )
    assert pool.lacks("b") is None
    assert pool.shortage() == Shortage(pool.lacks("c").reason, frozenset({"a", "b"}))
    pool.forget_slice(lease(2, "b"))
    assert pool.shortage() is None


def apart(index, use):
    """Return a slice that is leased to no node."""
    return Slice(Meta(slice_id("net", index)), "net", index, use=use)


@pytest.mark.parametrize(
    ("subnet", "ip_range", "slices", "said"),
    [
        ("10.9.0.0/26", "", [lease(1, "a")], "the only slice of network web_default is leased to a node"),
        (
            "10.9.0.0/26",
            "",
            [apart(1, SliceUse.STATIC)],
            "the only slice of network web_default is kept for static addresses",
        ),
        (
            "10.9.0.0/26",
            "",
            [apart(1, SliceUse.SERVICES)],
            "the only slice of network web_default is taken for virtual addresses",
        ),
        (
            "10.9.0.0/25",
            "",
            [apart(n, SliceUse.STATIC) for n in (1, 2, 3)],
            "all 3 slices of network web_default are kept for static addresses",
        ),
        (
            "10.9.0.0/25",
            "",
            [lease(1, "a"), apart(2, SliceUse.STATIC), apart(3, SliceUse.SERVICES)],
            "all 3 slices of network web_default are in use: 1 leased to a node, 1 kept for static addresses, "
            "1 taken for virtual addresses",
        ),
        (
            "10.9.0.0/25",
            "",
            [lease(1, "a"), lease(2, "b"), apart(3, SliceUse.STATIC)],
            "all 3 slices of network web_default are in use: 2 leased to nodes, 1 kept for static addresses",
        ),
        (
            "10.9.0.0/25",
            "10.9.0.64/26",
            [apart(1, SliceUse.STATIC), lease(2, "a"), apart(3, SliceUse.SERVICES)],
            "all 2 slices of network web_default's ip_range are in use: 1 leased to a node, "
            "1 taken for virtual addresses",
        ),
    ],
    ids=["a node's", "static", "virtual", "all static", "of each", "most nodes'", "in an ip_range"],
)
def test_a_network_without_a_slice_to_lease_says_what_has_them(subnet, ip_range, slices, said):
    spec = replace(SMALL.spec, ip_range=ip_range)
    pool = AddressPool.build(replace(SMALL, subnet=subnet, spec=spec), [*slices, *slices], [])
    wider = "ip_range" if ip_range else "subnet"
    total = 32 if subnet.endswith("26") else 96
    full = Full(f"{said} (0 of {total} addresses used): give the network a larger {wider}")
    assert pool.lacks("c") == pool.take("c") == full


def test_what_has_the_slices_follows_their_changes():
    pool = AddressPool.build(SMALL, [lease(1, "a"), lease(2, "a"), apart(3, SliceUse.STATIC)], [])
    assert "are in use: 2 leased to nodes, 1 kept for static addresses (" in pool.lacks("b").reason
    pool.forget_slice(lease(2, "a"))
    assert pool.lacks("b") is None
    pool.put_slice(apart(2, SliceUse.SERVICES))
    assert "1 leased to a node, 1 kept for static addresses, 1 taken for virtual" in pool.lacks("b").reason
    pool.forget_slice(apart(3, SliceUse.STATIC))
    taken(pool, "b", 1)
    assert "are in use: 2 leased to nodes, 1 taken for virtual addresses (" in pool.lacks("c").reason


def test_a_slice_that_nobody_leases_may_be_full_of_old_tasks():
    old = [task("t", "gone", *[f"10.9.0.{i}" for i in range(32, 64)], state=TaskState.ORPHANED)]
    pool = AddressPool.build(SMALL, [lease(2, "a"), lease(3, "a")], old)
    assert "are in use: 2 leased to nodes, 1 held by old tasks (32 of 96 addresses used)" in pool.lacks("b").reason


@pytest.mark.parametrize("state", [TaskState.RUNNING, TaskState.FAILED, TaskState.SHUTDOWN, TaskState.ORPHANED])
def test_a_stored_task_keeps_its_address_whatever_its_state(state):
    held = [f"10.9.0.{i}" for i in range(32, 63)]
    pool = AddressPool.build(SMALL, [lease(1, "a")], [task("t", "a", *held, state=state)])
    assert pool.take("a") == Grant(parse_ipv4("10.9.0.63"))
    assert pool.take("a") == Grant(parse_ipv4("10.9.0.64"), lease(2, "a"))


def test_a_task_of_which_nothing_is_left_has_no_address_any_more():
    tasks = [task(f"t{i}", "a", f"10.9.0.{i}") for i in range(32, 64)]
    pool = AddressPool.build(replace(SMALL, subnet="10.9.0.0/26"), [lease(1, "a")], tasks)
    assert isinstance(pool.take("a"), Full)
    pool.put(replace(tasks[7], status=TaskStatus(TaskState.SHUTDOWN, released=True)))
    assert pool.used == 31
    assert pool.take("a") == Grant(parse_ipv4("10.9.0.39"))
    pool.forget(tasks[7])
    assert isinstance(pool.take("a"), Full), "its record's end is no second time"


@pytest.mark.parametrize("order", [1, -1])
def test_an_address_is_used_while_the_task_has_it_that_the_agent_began_in_the_place_of_another(order):
    first, second = task("first", "a", "10.9.0.40"), task("second", "a", "10.9.0.40")
    pool = AddressPool.build(SMALL, [lease(1, "a")], [first, second][::order])
    pool.put(replace(first, status=TaskStatus(TaskState.FAILED, released=True)))
    pool.forget(first)
    assert pool.used == 1


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


# ---------------------------------------------------------------- static addresses

STATIC = "10.9.0.70"


def static_slice(*holders):
    """Return slice 2 of SMALL, 10.9.0.64/27, with these (address, service)."""
    held = tuple(StaticAddress(parse_ipv4(address), service) for address, service in holders)
    return Slice(Meta(slice_id("net", 2)), "net", 2, use=SliceUse.STATIC, holders=held)


def having(task_id, node_id, address=STATIC, *, service="web", released=False, state=TaskState.RUNNING):
    """Return a task that was given a static address."""
    attachments = (Attachment("net", parse_ipv4(address), fixed=True),)
    return Task(
        Meta(task_id), service, 1, node_id, status=TaskStatus(state, released=released), attachments=attachments
    )


def asking(task_id="new", service="web", address=STATIC, lost=()):
    return Asking(task_id, service, {"net": parse_ipv4(address)}, lambda t: f"{t.service_id} on {t.node_id}", lost)


def given(address=STATIC):
    return Attached((Attachment("net", parse_ipv4(address), fixed=True),), ())


def test_a_task_gets_the_address_that_its_service_asked_for_on_whichever_node():
    pool = AddressPool.build(SMALL, [static_slice((STATIC, "web"))], [])
    assert attach({"net": pool}, ["net"], "a", asking()) == given()
    assert attach({"net": pool}, ["net"], "b", asking()) == given()


@pytest.mark.parametrize(
    ("holders", "tasks", "lost", "says"),
    [
        ([], [], (), "10.9.0.70 on network web_default is not its service's yet"),
        ([(STATIC, "db")], [], (), "10.9.0.70 on network web_default is another service's: give it another address"),
        (
            [(STATIC, "web")],
            [having("old", "a")],
            (),
            "held by the task that it replaces, until nothing of that is left",
        ),
        ([(STATIC, "web")], [having("old", "a", state=TaskState.FAILED)], (), "held by the task that it replaces"),
        ([(STATIC, "web")], [having("old", "a", released=True, state=TaskState.SHUTDOWN)], (), None),
        ([(STATIC, "web")], [having("old", "a")], ("a",), None),
        (
            [(STATIC, "web")],
            [having("old", "a", service="db")],
            (),
            "10.9.0.70 on network web_default is still held by db on a",
        ),
        ([(STATIC, "web")], [having("old", "a", service="db")], ("a",), "is still held by db on a"),
        (
            [(STATIC, "web")],
            [having("old", "a", service="db", released=True, state=TaskState.SHUTDOWN)],
            (),
            None,
        ),
        ([(STATIC, "web")], [having("old", "a", "10.9.0.71")], (), None),
    ],
    ids=[
        "unclaimed",
        "another's",
        "in use",
        "ended, not let go",
        "let go",
        "on a lost node",
        "another's task",
        "another's task on a lost node",
        "another's, let go",
        "another address",
    ],
)
def test_a_static_address_is_given_to_its_service_alone_and_to_one_task_at_a_time(holders, tasks, lost, says):
    pool = AddressPool.build(SMALL, [static_slice(*holders)], tasks)
    found = attach({"net": pool}, ["net"], "b", asking(lost=lost))
    if says is None:
        assert found == given()
    else:
        assert isinstance(found, Full)
        assert says in found.reason


def test_a_pool_follows_who_has_a_static_address():
    pool = AddressPool.build(SMALL, [static_slice((STATIC, "web"))], [having("old", "a")])
    pool.put(having("old", "a", released=True, state=TaskState.SHUTDOWN))
    assert pool.lacks_static(asking()) is None
    pool.put(having("new", "b"))
    assert pool.lacks_static(asking("another")) is not None
    assert pool.lacks_static(asking("new")) is None
    assert pool.used == 1
    pool.forget(having("old", "a"))
    pool.forget(having("new", "b"))
    assert pool.lacks_static(asking("another")) is None
    assert pool.used == 0


def test_no_node_leases_a_slice_of_static_addresses():
    pool = AddressPool.build(SMALL, [static_slice((STATIC, "web"))], [])
    assert [g.new_slice.index for g in taken(pool, "a", 64) if g.new_slice] == [1, 3]
    assert isinstance(pool.take("a"), Full)


def test_with_an_ip_range_nodes_lease_slices_of_that_alone():
    ranged = replace(SMALL, spec=replace(SMALL.spec, ip_range="10.9.0.64/26"))
    pool = AddressPool.build(ranged, [], [])
    assert pool.slices_free == 2
    assert [g.new_slice.index for g in taken(pool, "a", 64) if g.new_slice] == [2, 3]
    assert pool.slices_free == 0
    assert "all 2 slices of network web_default's ip_range are leased to nodes" in pool.lacks("b").reason
    pool.forget_slice(lease(3, "a"))
    assert pool.slices_free == 0  # its addresses are still held


# ---------------------------------------------------------------- what reasons say

LIKE = ("web", "default", "web_default2", "web_default-2", "my_web_default", "my-web_default", "web_defaul.", "is")


def reasons_of_a_pool():
    """Return a reason of each form that there is, of SMALL or one like it."""
    smallest = replace(SMALL, subnet="10.9.0.0/26")
    full = [task(f"t{i}", "a", f"10.9.0.{i}") for i in range(32, 64)]
    one, two = (replace(SMALL, spec=replace(SMALL.spec, ip_range=r)) for r in ("10.9.0.32/27", "10.9.0.64/26"))
    lacks = [
        AddressPool.build(smallest, [lease(1, "a")], full).lacks("a"),
        AddressPool.build(smallest, [lease(1, "a")], []).lacks("b"),
        AddressPool.build(SMALL, [lease(i, "a") for i in (1, 2, 3)], []).lacks("b"),
        AddressPool.build(one, [lease(1, "a")], []).lacks("b"),
        AddressPool.build(two, [lease(2, "a"), lease(3, "a")], []).lacks("b"),
        AddressPool.build(SMALL, [], []).lacks_static(asking()),
        AddressPool.build(SMALL, [static_slice((STATIC, "db"))], []).lacks_static(asking()),
        AddressPool.build(SMALL, [static_slice((STATIC, "web"))], [having("old", "a")]).lacks_static(asking()),
    ]
    return [full.reason for full in lacks]


@pytest.mark.parametrize("reason", reasons_of_a_pool())
def test_a_reason_is_known_for_that_of_its_network_alone(reason):
    for said in (reason, f"no suitable node: 1 of 2 is down, 1 can have no address ({reason})"):
        assert lacks_address(SMALL, said)
        for name in LIKE:
            assert not lacks_address(replace(SMALL, spec=NetworkSpec(name)), said)


@pytest.mark.parametrize(
    "reason", ["no node meets node.labels.net==web_default (0 of 3)", "network web_default does not exist any more"]
)
def test_a_reason_about_something_else_is_of_no_network(reason):
    assert not lacks_address(SMALL, reason)
