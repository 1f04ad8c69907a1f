import pytest

from argosy.agent.dns import rates
from argosy.agent.dns.rates import Rates


def test_an_asker_has_so_many_at_once_and_so_many_a_second() -> None:
    limited = Rates(10.0, 5)
    assert [limited.take("one", 1000.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [limited.take("one", 1000.25) for _ in range(3)] == [True, True, False]
    assert sum(limited.take("one", 1060.25) for _ in range(100)) == 5


def test_over_a_long_time_it_has_its_rate() -> None:
    limited = Rates(10.0, 5)
    assert 100 <= sum(limited.take("one", 1000 + n / 100) for n in range(1, 1001)) <= 105


def test_each_asker_has_its_own() -> None:
    limited = Rates(10.0, 1)
    assert limited.take("one", 1000.0)
    assert limited.take("other", 1000.0)
    assert not limited.take("one", 1000.0)


def test_askers_that_have_all_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_MANY", 3)
    limited = Rates(10.0, 5)
    for asker in range(3):
        limited.take(asker, 1000.0)
    for _ in range(6):
        limited.take("new", 1060.0)
    assert list(limited._left) == ["new"]
    assert not limited.take("new", 1060.0)
