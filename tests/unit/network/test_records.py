"""What argosy-dns is told book by book makes what a first book would tell it."""

from hypothesis import given
from hypothesis import strategies as st

from argosy.agent.network.desired import LocalTask, NetworkState
from argosy.agent.network.records import Records
from argosy.core.assignment import EndpointAssignment, NamesAssignment, NetworkAssignment
from argosy.core.network import Attachment

services, numbers = st.sampled_from("abc"), st.integers(1, 3)
names = st.builds(lambda s, n: NamesAssignment("net", s, (f"{s}{n}",), n), services, numbers)
endpoints = st.builds(lambda t, s, n: EndpointAssignment("net", f"{t}", s, n, n), numbers, services, numbers)
tasks = st.builds(
    lambda t, a, n: LocalTask(f"t{t}", (Attachment("net", a),), n), numbers, numbers, st.just(("10.0.0.1",))
)


def state_of(names, endpoints, tasks, networks):
    return NetworkState(
        networks={n: NetworkAssignment(n, n, 1, "10.64.0.0/16", internal) for n, internal in networks.items()},
        names=list({n.service_id: n for n in names}.values()),
        endpoints=list({e.task_id: e for e in endpoints}.values()),
        tasks=tuple({t.container_id: t for t in tasks}.values()),
    )


states = st.builds(
    state_of,
    st.lists(names),
    st.lists(endpoints),
    st.lists(tasks),
    st.dictionaries(st.sampled_from(("net", "other")), st.booleans()),
)


@given(st.lists(states, min_size=1))
def test_what_changes_adds_up(states):
    kept, has = Records(), {}
    for number, state in enumerate(states, 1):
        book = kept.of(state)
        assert book.number == number
        assert not book.put.keys() & set(book.delete)
        assert set(book.delete) <= has.keys()
        assert all(has.get(key) != record for key, record in book.put.items())
        has = {key: record for key, record in has.items() if key not in set(book.delete)} | dict(book.put)
        assert has == book.records == Records().of(state).records
