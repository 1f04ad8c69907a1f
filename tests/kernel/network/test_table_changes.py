"""Changes of the tables that are kept as text: however the kernel was led to a state, it is the same.

In real namespaces, since what a command does to what is there already is the kernel's to say.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_world import Namespace

from argosy.agent.logic import network_admission, network_ingress, network_leads
from argosy.agent.logic.network_ingress import Door, Ingress
from argosy.agent.logic.network_leads import Lead
from argosy.agent.network.nft import Nft

_TABLE = re.compile(r"^table (\w+ \S+) \{\n(.*?)^\}", re.DOTALL | re.MULTILINE)
_PART = re.compile(r"^\t(\w+ \S+) \{\n(.*?)^\t\}", re.DOTALL | re.MULTILINE)
_ELEMENTS = re.compile(r"elements = \{(.*?)\}", re.DOTALL)

Change = Callable[[Any, Any], str]
"""Leads from what is held (None: unknown) to what is wanted (None: nothing)."""


def few(of: st.SearchStrategy[Any], by: Callable[[Any], object]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=4, unique_by=by).map(tuple)


protocols = st.sampled_from(["tcp", "udp"])
numbers = st.integers(1, 3)
endpoints = few(st.tuples(st.integers(0x0A400021, 0x0A400025), st.integers(0, 3)), lambda e: e[0])
doors = few(
    st.builds(Door, protocols, numbers, st.integers(80, 81), endpoints, st.booleans()), lambda d: (d.protocol, d.number)
)
macs = st.integers(1, 4).map(lambda n: bytes((2, 0, 0, 0, 0, n)))
marks = few(st.tuples(macs, st.integers(0x80000001, 0x80000005)), lambda m: m[0]).map(
    lambda pairs: {mac: mark for mark, mac in {mark: mac for mac, mark in pairs}.items()}  # no mark twice
)
ingresses = st.builds(Ingress, st.sampled_from(["10.64.0.0/16", "10.65.0.0/16"]), doors, marks)

keys = st.builds("{} . {}".format, protocols, numbers)
targets = st.sampled_from(["169.254.64.1 . 80", "169.254.64.3 . 80", "169.254.64.3 . 81"])
anywhere = st.builds(Lead, st.just("published"), keys, targets)
at_one = st.builds(
    Lead,
    st.just("published_at"),
    st.builds("{} . {}".format, st.sampled_from(["127.0.0.1", "192.0.2.1"]), keys),
    targets,
)
leads = few(anywhere | at_one, lambda lead: (lead.map, lead.key)).map(frozenset)

peers = st.frozensets(st.integers(0xC0000201, 0xC0000206), max_size=5)


def change_leads(held: Any, wanted: Any) -> str:
    return network_leads.change("ports", held, wanted)


def change_peers(held: Any, wanted: Any) -> str:
    """As the others; but None as held is here: there is no table, or one to be replaced."""
    return network_admission.change("peers", 14789, frozenset() if wanted is None else held, wanted)


@contextmanager
def two() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with nothing but the device that a network's chain hangs on."""
    made = Namespace.new(), Namespace.new()
    try:
        for namespace in made:
            namespace.sh("ip link add vtep type veth")
        yield made
    finally:
        for namespace in made:
            namespace.close()


def held_by(nft: Nft) -> dict[str, dict[str, str]]:
    """Return what nftables holds in a namespace, by table and name: rules in their order, elements in none."""
    tables = _TABLE.findall(_ELEMENTS.sub(_sorted, nft.run("list ruleset")))
    return {table: dict(_PART.findall(body)) for table, body in tables}


def _sorted(elements: re.Match[str]) -> str:
    return ", ".join(sorted(" ".join(element.split()) for element in elements[1].split(",")))


@pytest.mark.parametrize(
    ("change", "states"),
    [(network_ingress.change, ingresses), (change_leads, leads), (change_peers, peers)],
    ids=["ingress", "leads", "peers"],
)
def test_changes_lead_where_the_whole_would(change: Change, states: st.SearchStrategy[Any]) -> None:
    """By way of any other states, with what is held unknown in between, as after another's change."""
    steps = st.lists(st.tuples(st.none() | states, st.booleans()), min_size=1, max_size=5)

    with two() as made, closing(made[0].run(Nft)) as stepped, closing(made[1].run(Nft)) as whole:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(steps)
        def lead(steps: list[tuple[Any, bool]]) -> None:
            for nft in (stepped, whole):
                nft.run("flush ruleset\n")
            held = None
            for wanted, known in steps:
                stepped.run(change(held if known else None, wanted))
                held = wanted
            last = steps[-1][0]
            whole.run(change(None, last))
            assert held_by(stepped) == held_by(whole)
            assert last is None or change(last, last) == ""

        lead()
