"""Tables that are kept by small changes, while somebody else changes them, too."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest
from network_world import Namespace

from argosy.agent.logic import network_leads
from argosy.agent.logic.network_balance import BALANCE_TABLE, Balanced
from argosy.agent.logic.network_leads import Lead
from argosy.agent.network.balancer import Balancer
from argosy.agent.network.kept_tables import KeptTables
from argosy.agent.network.nft import Nft
from argosy.core.addresses import parse_ipv4

WEB = Lead("published", "tcp . 80", "169.254.64.1 . 80")
DNS = Lead("published", "udp . 53", "169.254.64.1 . 53")

Leads = KeptTables[frozenset[Lead]]


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace.new()
    yield made
    made.close()


@pytest.fixture
def kept(namespace: Namespace) -> Iterator[Leads]:
    nft = namespace.run(Nft)
    made: Leads = KeptTables(nft, (("ports", "ip"),), partial(network_leads.change, "ports"), frozenset({WEB}))
    assert made.converge() == 1
    assert made.intact()
    yield made
    nft.close()


def test_what_somebody_broke_is_mended_by_the_next_change(namespace: Namespace, kept: Leads) -> None:
    """Not taken for what is to be there, as it is listed once the change is made."""
    before = kept.nft.listing("ports")
    namespace.sh("nft flush chain ip ports prerouting; nft flush chain ip ports output")
    kept.wanted = frozenset({WEB, DNS})
    kept.converge()
    assert kept.intact()
    kept.wanted = frozenset({WEB})
    kept.converge()
    assert kept.nft.listing("ports") == before


def test_what_somebody_deleted_and_nobody_wants_any_more_is_as_it_should_be(namespace: Namespace, kept: Leads) -> None:
    namespace.sh("nft delete table ip ports")
    assert not kept.intact()
    kept.distrust()
    kept.wanted = None
    assert kept.converge() == 0
    assert kept.intact()


@pytest.mark.parametrize(
    "damage",
    [
        "add element ip argosy-balance own { 10.64.0.33 . 10.64.0.34 }",
        "delete element ip argosy-balance services { 10.64.0.4 };"
        "add element ip argosy-balance services { 10.64.0.4 : drop }",
        "add element ip argosy-balance services { 10.64.0.5 : drop }",
    ],
)
def test_elements_of_a_balancer_that_are_none_of_ours_go(namespace: Namespace, damage: str) -> None:
    with closing(namespace.run(Nft)) as nft:
        balancer = Balancer(nft)
        balancer.want({"web": Balanced(parse_ipv4("10.64.0.4"))}, [parse_ipv4("10.64.0.33")])
        balancer.converge()
        before = nft.listing(BALANCE_TABLE)
        namespace.sh(f"nft '{damage}'")
        assert not balancer.intact()
        balancer.distrust()
        balancer.converge()
        assert balancer.intact()
        assert nft.listing(BALANCE_TABLE) == before
