"""Virtual addresses: who gets one, that no two get the same, and where they come from."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.controller.logic.address_pool import AddressPool
from argosy.controller.logic.virtual_addresses import RESERVED, Lack, VirtualPool, is_settled, readdress, wants
from argosy.core.addresses import format_ipv4
from argosy.core.meta import Meta
from argosy.core.network import Attachment, Network, NetworkSpec, Slice, SliceUse
from argosy.core.service import (
    EndpointMode,
    EndpointSpec,
    NetworkAttachmentSpec,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

NET = Network(Meta("net"), NetworkSpec("front"), 1, "10.64.0.0/16")


def service(name, *, mode=EndpointMode.VIP, kind=ServiceMode.REPLICATED, networks=("net",), addresses=()):
    task = TaskSpec(networks=tuple(NetworkAttachmentSpec(n) for n in networks))
    spec = ServiceSpec(name, mode=kind, task=task, endpoint=EndpointSpec(mode))
    return Service(Meta(name), spec, virtual_addresses=tuple(addresses))


def serve(network, services, slices=(), tasks=()):
    """Give all of them what they want; return them and all slices."""
    pool = VirtualPool.build(network, slices, services, tasks)
    plans = [readdress(s, {network.meta.id: pool}) for s in services]
    return [p.service for p in plans], [*slices, *(s for p in plans for s in p.new_slices)]


def test_the_first_comes_after_the_reserved_ones():
    (web,), slices = serve(NET, [service("web")])
    assert [format_ipv4(a.address) for a in web.virtual_addresses] == [f"10.64.0.{RESERVED}"]
    assert slices == []
    assert is_settled(web)


def test_who_gets_none():
    assert wants(service("web", mode=EndpointMode.DNSRR)) == frozenset()
    assert wants(service("job", kind=ServiceMode.REPLICATED_JOB)) == frozenset()
    gone = replace(service("web", addresses=(Attachment("net", 7),)), removing=True)
    assert is_settled(gone)  # its address goes with it


def test_a_service_that_leaves_a_network_gives_its_address_back():
    web = service("web", networks=("other",), addresses=(Attachment("net", 7),))
    assert not is_settled(web)
    assert readdress(web, {}).service.virtual_addresses == ()


def test_a_thousand_services_fit_beside_nodes():
    nodes = [Slice(Meta(f"net.{i}"), "net", i, f"node{i}") for i in range(1, 1001)]
    served, slices = serve(NET, [service(f"s{i}") for i in range(1000)], nodes)
    addresses = {a.address for s in served for a in s.virtual_addresses}
    assert len(addresses) == 1000
    taken = [s for s in slices if s.use is SliceUse.SERVICES]
    assert all(s.node_id == "" for s in taken)
    assert not {s.index for s in taken} & {s.index for s in nodes}
    assert len(taken) == 31
    assert not any(s.address_problems for s in served)


def test_an_address_of_an_old_task_is_nobodys_slice():
    small = replace(NET, subnet="10.64.0.0/26")
    old = Task(Meta("t"), attachments=(Attachment("net", 0x0A400000 + 40),))
    served, _ = serve(small, [service(f"s{i}") for i in range(29)], tasks=[old])
    *others, last = served
    assert not any(s.address_problems for s in others)
    assert last.address_problems[0].startswith("network front has no virtual address left")
    assert not is_settled(last)
    given = readdress(last, {"net": VirtualPool.build(NET, [], others, [])}).service
    assert is_settled(given)
    assert not given.address_problems
    without = replace(last, spec=replace(last.spec, endpoint=EndpointSpec(EndpointMode.DNSRR)))
    assert not is_settled(without)
    assert is_settled(readdress(without, {}).service)


def test_history_keeps_no_slice_from_services():
    small = replace(NET, subnet="10.64.0.0/26")
    ended = TaskStatus(TaskState.SHUTDOWN, released=True)
    old = Task(Meta("t"), status=ended, attachments=(Attachment("net", 0x0A400000 + 40),))
    assert AddressPool.build(small, [], [old]).slices_free == 1
    served, slices = serve(small, [service(f"s{i}") for i in range(29)], tasks=[old])
    assert not any(s.address_problems for s in served)
    assert [s.index for s in slices] == [1]


@pytest.mark.parametrize(
    ("subnet", "uses", "said"),
    [
        ("10.64.0.0/26", [SliceUse.TASKS], " (its other slice is leased to a node)"),
        ("10.64.0.0/26", [SliceUse.STATIC], " (its other slice is kept for static addresses)"),
        ("10.64.0.0/26", [None], " (its other slice is held by old tasks)"),
        ("10.64.0.0/26", [SliceUse.SERVICES], ""),
        ("10.64.0.0/25", [SliceUse.TASKS] * 3, " (its other slices are leased to nodes)"),
        (
            "10.64.0.0/25",
            [SliceUse.TASKS, SliceUse.SERVICES, SliceUse.TASKS],
            " (its other slices are leased to nodes)",
        ),
        (
            "10.64.0.0/25",
            [SliceUse.TASKS, SliceUse.TASKS, SliceUse.STATIC],
            " (its other slices are in use: 2 leased to nodes, 1 kept for static addresses)",
        ),
    ],
)
def test_a_network_without_a_virtual_address_says_what_has_its_slices(subnet, uses, said):
    """`uses` of slices 1 and on; None: not leased, but a task has an address of it."""
    pieces = [Slice(Meta(f"net.{i}"), "net", i, use=use) for i, use in enumerate(uses, 1) if use is not None]
    base = 0x0A400000
    tasks = [Task(Meta(f"t{i}"), attachments=(Attachment("net", base + i * 32),)) for i, _ in enumerate(uses, 1)]
    full = service("full", addresses=[Attachment("net", base + n) for n in range((1 + len(uses)) * 32)])
    assert VirtualPool.build(replace(NET, subnet=subnet), pieces, [full], tasks).take() == Lack(
        f"network front has no virtual address left{said}, so the name stands for the tasks: "
        "give the network a larger subnet, or the service endpoint_mode: dnsrr"
    )


def test_addresses_come_back_as_late_as_can_be():
    pool = VirtualPool.build(NET, [], [], [])
    first = pool.take()
    assert not isinstance(first, Lack)
    again = VirtualPool.build(NET, [], [], [], pool.last_given)
    assert again.take() != first


def test_a_slice_without_services_is_given_back():
    piece = Slice(Meta("net.9"), "net", 9, use=SliceUse.SERVICES)
    pool = VirtualPool.build(NET, [piece], [], [])
    assert pool.unused() == [9]
    held = service("web", addresses=(Attachment("net", 0x0A400000 + 9 * 32),))
    assert VirtualPool.build(NET, [piece], [held], []).unused() == []


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=120))
def test_no_two_services_ever_have_the_same(steps):
    small = replace(NET, subnet="10.64.0.0/25")
    services: dict[int, Service] = {}
    slices: list[Slice] = []
    last = 0
    for come, number in steps:
        if not come:
            services.pop(number, None)
            continue
        services.setdefault(number, service(f"s{number}"))
        pool = VirtualPool.build(small, slices, services.values(), [], last)
        plan = readdress(services[number], {"net": pool})
        last = pool.last_given
        services[number] = plan.service
        slices += plan.new_slices
        held = [a.address for s in services.values() for a in s.virtual_addresses]
        assert len(held) == len(set(held))
