"""Grants: what a node is given, and when what it was given is surely over."""

import pytest

from argosy.core.fence import GRANT_S, MARGIN_S, Grants

GRACE = 10.0


class Leader:
    """A leader's clock and the renewals of its lease."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.confirmed_at = now
        self.grants = Grants(lambda: self.now, lambda: self.confirmed_at)

    def replace_at(self, node: str) -> float:
        return self.now + self.grants.replace_in(node, GRACE)


def test_a_grant_ends_so_long_after_the_last_confirmed_renewal():
    leader = Leader()
    leader.now += 4
    assert leader.grants.grant("n1") == GRANT_S - 4


def test_a_leader_that_cannot_renew_its_lease_soon_grants_nothing():
    leader = Leader()
    leader.now += GRANT_S
    assert leader.grants.grant("n1") == 0
    assert leader.grants.replace_in("n1", GRACE) == pytest.approx(GRACE + MARGIN_S)


def test_a_task_is_replaced_after_grant_and_grace_and_margin():
    leader = Leader()
    leader.now = leader.confirmed_at = 1100.0
    granted = leader.grants.grant("n1")
    assert leader.replace_at("n1") == leader.now + granted + GRACE + MARGIN_S
    leader.now += granted + GRACE + MARGIN_S
    assert leader.grants.replace_in("n1", GRACE) <= 0


def test_a_new_leader_takes_every_node_for_granted_at_its_election():
    leader = Leader()
    assert leader.replace_at("never heard") == pytest.approx(1000 + GRANT_S + GRACE + MARGIN_S)


def test_a_grant_of_the_former_leader_is_over_before_the_new_one_replaces():
    former = Leader(now=1000.0)
    former.now = former.confirmed_at = 1020.0
    former.now += 0.3  # the renewal was sent a moment ago
    ends = former.now + former.grants.grant("n1")
    elected_at = 1020.4  # the lease was revoked after that renewal
    assert Leader(now=elected_at).replace_at("n1") > ends + GRACE


def test_a_later_smaller_grant_does_not_shorten_what_was_given():
    leader = Leader()
    leader.now = leader.confirmed_at = 1100.0
    leader.grants.grant("n1")
    before = leader.replace_at("n1")
    leader.confirmed_at = 1099.0
    leader.grants.grant("n1")
    assert leader.replace_at("n1") == before
