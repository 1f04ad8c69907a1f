"""The availability budget: how it is written, and what it allows."""

from math import inf

import pytest

from argosy.core.budget import Budget, MaxUnavailable, parse_max_unavailable
from argosy.core.errors import InvalidError


@pytest.mark.parametrize(
    ("text", "wanted", "limit"),
    [
        ("0", 5, 0),
        ("2", 5, 2),
        ("2", 1, 2),
        ("25%", 8, 2),
        ("25%", 7, 1),  # rounded down: it is a promise
        ("25%", 3, 0),
        ("100%", 3, 3),
        ("0%", 3, 0),
    ],
)
def test_a_budget_is_a_number_or_a_share_of_the_wanted_tasks(text, wanted, limit):
    parsed = parse_max_unavailable(text)
    assert parsed is not None
    assert parsed.of(wanted) == limit
    assert parse_max_unavailable(str(parsed)) == parsed


def test_no_text_is_no_budget_of_its_own():
    assert parse_max_unavailable("") is None
    assert parse_max_unavailable("3") == MaxUnavailable(3)


@pytest.mark.parametrize("text", ["-1", "1.5", "25 %", "%", "half", "101%", "٣", "9" * 5000, " 1", "1e3"])
def test_anything_else_is_refused_and_says_how_to_write_it(text):
    with pytest.raises(InvalidError, match="max_unavailable is"):
        parse_max_unavailable(text)


def test_what_is_missing_for_any_reason_counts():
    budget = Budget(2, missing=1)
    assert budget.left == 1
    budget.missing += 1
    assert budget.left == 0
    assert budget.explain() == "waits for the availability budget: at most 2 may be missing at once"


def test_more_missing_than_allowed_leaves_nothing():
    assert Budget(1, missing=3).left == 0


def test_without_a_budget_nothing_is_refused():
    budget = Budget(None, missing=7)
    assert budget.left == inf
