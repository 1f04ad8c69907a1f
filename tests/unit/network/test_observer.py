"""What the observer of the chaos (tests/e2e/observer.py) takes for wrong: it has to be right about that itself."""

import pytest

from tests.e2e import observer
from tests.e2e.observer import GONE_S, Entries, Observer, Place, View

NETWORK, ADDRESS = "web", "10.64.0.65"


class Clock:
    """The time as the observer's looks and those who disturb hosts have it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(observer, "time", made)
    return made


@pytest.fixture
def watching(clock: Clock) -> Observer:
    made = Observer(None, {"node1": "198.18.1.1", "node3": "198.18.1.3"})
    clock.now += 60
    return made


def look(watching: Observer, clock: Clock) -> list[str]:
    """Have node3 lead to a task that runs on node1; return what is wrong with that."""
    place = Place(NETWORK, ADDRESS, "node1", "task1", 1)
    entries = {
        ("node1", NETWORK): Entries(containers={ADDRESS: "task1"}),
        ("node3", NETWORK): Entries(endpoints={ADDRESS}),
    }
    watching._judge(View([place], {"task1"}, entries, {}, {}, {}), clock.now)
    return watching.violations


def assert_told_after_so_long(watching: Observer, clock: Clock) -> None:
    """Cut node1 off: that node3 leads to its task is wrong after `GONE_S`, and not before."""
    with watching.cut_off("node1"):
        look(watching, clock)
        clock.now += GONE_S
        assert not look(watching, clock)
        clock.now += 0.1
        assert look(watching, clock)


def test_a_task_on_a_host_that_is_cut_off_is_led_to_no_longer_than_so_long(watching: Observer, clock: Clock) -> None:
    assert not look(watching, clock)
    assert_told_after_so_long(watching, clock)


def test_it_counts_from_when_the_host_was_cut_off_last(watching: Observer, clock: Clock) -> None:
    """Also where nobody looked while it was back: what leads to it was right then."""
    assert not look(watching, clock)
    with watching.cut_off("node1"):
        look(watching, clock)
        clock.now += 1
    clock.now += 1
    assert_told_after_so_long(watching, clock)
