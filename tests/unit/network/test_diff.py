"""The difference between two states: leads from one to the other, in an order that loses no traffic, and is minimal."""

from hypothesis import given
from hypothesis import strategies as st

from argosy.agent.logic.network_diff import Put, Remove, after, diff, is_in_the_way
from argosy.agent.logic.network_state import (
    Address,
    Fdb,
    Link,
    LinkKind,
    Neighbour,
    Route,
    RouteKind,
    Sysctl,
    device_of,
    key_of,
    state_of,
)

DEVICES = ["vtep", "uplink", "vea", "veb"]
MACS = [b"\x02\0\0\0\0" + bytes([n]) for n in range(4)]
small = st.integers(0, 5)
device = st.sampled_from(DEVICES)
mac = st.sampled_from(MACS)

links = st.builds(
    Link,
    device,
    st.sampled_from([LinkKind.VTEP, LinkKind.CONTAINER]),
    mtu=st.sampled_from([1400, 1450]),
    mac=mac,
    vni=st.integers(1, 2),
    up=st.booleans(),
)
dependents = st.one_of(
    st.builds(Address, device, small),
    st.builds(Neighbour, device, small, mac),
    st.builds(Fdb, device, mac, small),
    st.builds(Route, small, st.sampled_from([27, 32]), st.just(RouteKind.UNICAST), device, small),
    st.builds(Route, small, st.just(16), st.just(RouteKind.UNREACHABLE)),
)


@st.composite
def states(draw):
    """States as they can be: nothing hangs on a device that is not there."""
    found = state_of(draw(st.lists(links, max_size=4)))
    there = {e.name for e in found.values()} | {""}
    found |= state_of([e for e in draw(st.lists(dependents, max_size=12)) if device_of(e) in there])
    return found


@given(states(), states())
def test_it_leads_from_one_to_the_other(actual, wanted) -> None:
    assert after(actual, diff(actual, wanted)) == wanted


@given(states())
def test_nothing_differs_nothing_is_done(state) -> None:
    assert diff(state, dict(reversed(state.items()))) == []


@given(states(), states())
def test_what_is_right_already_is_left_alone(actual, wanted) -> None:
    """An entry is written only if it differs, or if its device is made anew or loses its neighbours."""
    for operation in diff(actual, wanted):
        entry = operation.entry
        if isinstance(operation, Remove):
            assert wanted.get(key_of(entry)) != entry
        elif actual.get(key_of(entry)) == entry:
            key = key_of(Link(device_of(entry), LinkKind.VTEP))
            assert actual[key] != wanted[key]


@given(states(), states())
def test_the_order_loses_no_traffic(actual, wanted) -> None:
    """Devices before what hangs on them, neighbour and forwarding entry before routes; removals after, and reversed."""
    operations = diff(actual, wanted)
    first = [
        o
        for o in operations
        if isinstance(o, Remove)
        and isinstance(o.entry, Link)
        and (key_of(o.entry) in wanted or is_in_the_way(o.entry, wanted))
    ]
    puts = [o for o in operations if isinstance(o, Put)]
    removals = [o for o in operations if isinstance(o, Remove) and o not in first]
    assert operations == [*first, *puts, *removals]
    assert all(key_of(o.entry) not in wanted for o in removals)
    ranks = [key_of(o.entry)[0] for o in puts]
    assert ranks == sorted(ranks)
    ranks = [key_of(o.entry)[0] for o in removals]
    assert ranks == sorted(ranks, reverse=True)


@given(states(), states())
def test_a_vtep_is_made_where_nothing_unwanted_has_its_vni(actual, wanted) -> None:
    """Which the kernel would refuse."""
    state = actual
    for operation in diff(actual, wanted):
        made = operation.entry
        if isinstance(operation, Put) and operation.creates and made.kind is LinkKind.VTEP:
            there = [e for key, e in state.items() if isinstance(e, Link) and key not in wanted]
            assert all((e.kind, e.vni) != (LinkKind.VTEP, made.vni) for e in there)
        state = after(state, [operation])


def test_a_vtep_of_another_name_goes_before_the_one_whose_vni_it_has() -> None:
    """With all that hangs on it, though the routes are to the same places; one with another VNI is in nobody's way."""
    renamed, other = Link("lost", LinkKind.VTEP, vni=1), Link("strange", LinkKind.VTEP, vni=2)
    hanging = [Neighbour("lost", 1, MACS[1]), Fdb("lost", MACS[1], 1), Route(1, 27, RouteKind.UNICAST, "lost", 1)]
    wanted = [
        Link("vtep", LinkKind.VTEP, vni=1),
        Neighbour("vtep", 1, MACS[1]),
        Fdb("vtep", MACS[1], 1),
        Route(1, 27, RouteKind.UNICAST, "vtep", 1),
    ]
    assert diff(state_of([renamed, other, *hanging]), state_of(wanted)) == [
        Remove(renamed),
        Put(wanted[0], creates=True),
        *(Put(e) for e in wanted[1:]),
        Remove(other),
    ]
    assert is_in_the_way(renamed, state_of(wanted))
    assert not is_in_the_way(other, state_of(wanted))
    assert not is_in_the_way(Link("lost", LinkKind.CONTAINER, vni=1), state_of(wanted))
    assert not is_in_the_way(hanging[0], state_of(wanted))
    assert not is_in_the_way(wanted[0], state_of(wanted))


def test_a_device_that_cannot_be_changed_is_made_anew_with_all_that_hangs_on_it() -> None:
    old, new = Link("vtep", LinkKind.VTEP, vni=1), Link("vtep", LinkKind.VTEP, vni=2)
    route = Route(0, 27, RouteKind.UNICAST, "vtep", 1)
    assert diff(state_of([old, route]), state_of([new, route])) == [
        Remove(old),
        Put(new, creates=True),
        Put(route),
    ]


def test_a_new_mac_address_costs_the_neighbours_and_no_more_than_a_write_of_them() -> None:
    old, new = Link("vtep", LinkKind.VTEP, mac=MACS[0]), Link("vtep", LinkKind.VTEP, mac=MACS[1])
    neighbour = Neighbour("vtep", 1, MACS[2])
    assert diff(state_of([old, neighbour]), state_of([new, neighbour])) == [Put(new), Put(neighbour)]


def test_a_slice_that_changes_hands_is_replaced_in_place() -> None:
    link = Link("vtep", LinkKind.VTEP)
    old = [Neighbour("vtep", 1, MACS[1]), Fdb("vtep", MACS[1], 1), Route(1, 27, RouteKind.UNICAST, "vtep", 1)]
    new = [Neighbour("vtep", 2, MACS[2]), Fdb("vtep", MACS[2], 2), Route(1, 27, RouteKind.UNICAST, "vtep", 2)]
    operations = diff(state_of([link, *old]), state_of([link, *new]))
    assert operations == [*(Put(e) for e in new), Remove(old[1]), Remove(old[0])]


def test_settings_that_nobody_wants_are_left() -> None:
    actual = state_of([Sysctl("ipv4/ip_forward", "1"), Link("lo", LinkKind.LOOPBACK)])
    assert diff(actual, state_of([Link("lo", LinkKind.LOOPBACK)])) == []
