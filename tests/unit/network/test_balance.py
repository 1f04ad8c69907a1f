"""The balancer's table: what it says, what a change costs, what is read from a listing."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from argosy.agent.logic.network_balance import Balanced, Held, change, read, services_in
from argosy.agent.logic.network_services import Services, difference
from argosy.core.assignment import EndpointAssignment, NamesAssignment

NET = "net"
TWO = Balanced(0x0A400004, ((0x0A400021, 0), (0x0A400022, 0)))
STICKY = Balanced(0x0A400005, ((0x0A400021, 0),), affinity=True)


def steps(held, services, own=frozenset(), touched=None):
    messages, after = change(held, services, own, services if touched is None else touched)
    return [str(message) for message in messages], after


def held(**services: Balanced) -> Held:
    return change(None, services, frozenset(), services)[1]


def test_a_service_is_a_chain_and_an_element():
    made, after = steps(held(), {"web": TWO})
    assert made == [
        "add chain s-web",
        "add set __map%d",
        "add elements of __map%d",
        "add rule to s-web",
        "add rule to s-web",
        "add elements of services",
    ]
    assert steps(after, {"web": TWO}) == ([], after)


def test_a_change_says_nothing_of_other_services():
    many = {f"s{i}": Balanced(100 + i, ((1000 + i, 0),)) for i in range(1000)}
    start = held(**many)
    made, after = steps(start, many | {"s5": Balanced(105, ((1005, 0), (2005, 0)))}, touched={"s5"})
    assert made == ["flush chain s-s5", "add set __map%d", "add elements of __map%d", *["add rule to s-s5"] * 2]
    assert set(after.chains) == set(start.chains)


def test_weights_count_in_their_smallest_ratio():
    one, same, other = (Balanced(1, ((11, w), (12, 10), (13, 30))) for w in (20, 20, 10))
    doubled = Balanced(1, ((11, 40), (12, 20), (13, 60)))
    assert held(web=one) == held(web=same) == held(web=doubled) != held(web=other)


def test_without_endpoints_its_chain_refuses():
    made, after = steps(held(web=TWO), {"web": Balanced(TWO.address)})
    assert made == ["flush chain s-web", "add rule to s-web", "add rule to s-web"]
    assert steps(after, {"web": TWO})[1] == held(web=TWO)


def test_a_service_that_goes_takes_all_with_it():
    made, after = steps(held(web=TWO, sticky=STICKY), {"web": TWO}, touched={"sticky"})
    assert made == [
        "delete elements of services",
        "flush chain s-sticky",
        "delete chain s-sticky",
        "delete set a-sticky",
    ]
    assert after == held(web=TWO)


def test_an_address_that_goes_to_another_service_stays_with_it():
    for touched in ({"old", "new"}, {"new", "old"}):
        made, after = steps(held(old=TWO), {"new": TWO}, touched=touched)
        assert after == held(new=TWO)
        assert (made[0], made[-1]) == ("delete elements of services", "delete chain s-old")


def test_a_listing_that_is_not_ours_to_build_on():
    assert read("table ip argosy-balance {\n}\n") is None
    assert services_in(None) == set()


balanced = st.builds(
    Balanced,
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(10, 20), st.integers(0, 3)), max_size=3, unique_by=lambda e: e[0]).map(tuple),
    st.booleans(),
)
tables = st.dictionaries(st.sampled_from("abcd"), balanced, max_size=4).filter(
    lambda t: len({s.address for s in t.values()}) == len(t)
)


@given(st.lists(tables, min_size=1, max_size=4))
def test_changes_lead_where_the_whole_would(states):
    believed, before = None, {}
    for services in states:
        _, believed = change(believed, services, frozenset(), {*services, *before})
        before = services
    whole = held(**states[-1])
    assert believed == whole
    assert change(believed, states[-1], frozenset(), states[-1])[0] == []


def name(address=4, network=NET, service="web", affinity=False):
    return NamesAssignment(network, service, (service,), address, affinity)


def endpoint(task, address, *, withdrawn=False, service="web", network=NET):
    return EndpointAssignment(network, task, service, 1, address, 0, withdrawn)


def test_services_are_followed_by_change():
    services = Services("node")
    names, first, second = (name(),), endpoint("t1", 11), endpoint("t2", 12)
    assert services.update(names, (first, second))[NET].services == {"web"}
    assert {a for a, _ in services.balanced(NET, "web").endpoints} == {11, 12}
    assert services.update(names, (first, second)) == {}
    leaving = endpoint("t1", 11, withdrawn=True)
    changed = services.update(names, (leaving, second))[NET]
    assert (changed.services, services.addresses(NET)) == ({"web"}, {11, 12})
    assert [services.serves(NET, a) for a in (11, 12, 13)] == [True, True, False]
    assert [services.serves(NET, a, active=True) for a in (11, 12, 13)] == [False, True, False]
    assert 11 in changed.withdrawn
    changed = services.update(names, (second,))[NET]
    assert 11 in changed.gone
    assert services.addresses(NET) == {12}
    services.update((), ())
    assert services.balanced(NET, "web") is None
    assert services.on(NET) == set()


def test_a_service_without_an_address_has_no_balancer():
    services = Services("node")
    services.update((name(0),), (endpoint("t1", 11),))
    assert services.balanced(NET, "web") is None


def test_nodes_begin_with_different_endpoints():
    endpoints = tuple(endpoint(f"t{i}", i) for i in range(16))
    orders = set()
    for seed in "abcdefgh":
        services = Services(seed)
        services.update((name(),), endpoints)
        orders.add(services.balanced(NET, "web").endpoints)
    assert len(orders) > 1


@given(
    st.integers(0, 600),
    st.lists(st.tuples(st.sampled_from(["change", "copy", "remove", "insert"]), st.integers(0, 600)), max_size=5),
    st.sampled_from([list, tuple]),
)
def test_a_difference_is_what_only_one_of_two_sequences_has(count, edits, kind):
    old = [endpoint(f"t{number}", number) for number in range(count)]
    new = list(old)
    for number, (edit, place) in enumerate(edits):
        at = min(place, len(new))
        if edit == "insert":
            new.insert(at, endpoint(f"new{number}", number))
        elif at < len(new) and edit == "remove":
            del new[at]
        elif at < len(new):
            new[at] = replace(new[at], weight=number + 1) if edit == "change" else replace(new[at])
    gone, fresh = difference(old, kind(new))
    assert set(gone) == set(old) - set(new)
    assert set(fresh) == set(new) - set(old)
