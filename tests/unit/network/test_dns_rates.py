import pytest

from argosy.agent.dns import rates
from argosy.agent.dns.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_asker_has_so_many_at_once_and_so_many_a_second() -> None:
    clock = Clock()
    limited = Rates(10.0, 5, clock)
    assert [limited.take("one") for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now += 0.25
    assert [limited.take("one") for _ in range(3)] == [True, True, False]
    clock.now += 60
    assert sum(limited.take("one") for _ in range(100)) == 5


def test_over_a_long_time_it_has_its_rate() -> None:
    clock = Clock()
    limited = Rates(10.0, 5, clock)
    taken = 0
    for _ in range(1000):
        clock.now += 0.01
        taken += limited.take("one")
    assert 100 <= taken <= 105


def test_each_asker_has_its_own() -> None:
    limited = Rates(10.0, 1, Clock())
    assert limited.take("one")
    assert limited.take("other")
    assert not limited.take("one")


def test_askers_that_have_all_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_MANY", 3)
    clock = Clock()
    limited = Rates(10.0, 5, clock)
    for asker in range(3):
        limited.take(asker)
    clock.now += 60
    for _ in range(6):
        limited.take("new")
    assert list(limited._left) == ["new"]
    assert not limited.take("new")
