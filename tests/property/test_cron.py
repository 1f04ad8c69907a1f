"""The next time of a cron line, against walking through the minutes one by one as cron itself does."""

from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.core.cron import Schedule, next_time, parse_schedule, parse_zone

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Africa/Cairo")
CHANGES = (1774746000, 1792890000, 1772953200, 1793512800, 1775314800, 1289096940, 1777046400)
"""Near changes of clocks in these zones."""


def part(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, most)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    single = st.one_of(number.map(str), span, step)
    return st.one_of(st.just("*"), st.lists(single, min_size=1, max_size=3).map(",".join))


LINES = st.tuples(part(0, 59), part(0, 23), st.one_of(st.just("*"), part(1, 28)), st.just("*"), part(0, 7)).map(
    " ".join
)


def walk(schedule: Schedule, zone: str, after: float, hours: int) -> float | None:
    """Look at each minute in turn: at what the wall's clock shows, and what it has left out or shows again."""
    tz = parse_zone(zone)
    minute = int(after // 60) * 60
    for at in range(minute - 4 * 3600, minute + hours * 3600, 60):
        now, before = datetime.fromtimestamp(at, tz), datetime.fromtimestamp(at - 60, tz)
        shown, last = now.replace(tzinfo=None, fold=0), before.replace(tzinfo=None, fold=0)
        if schedule.by_the_clock:
            walls = [shown]
        elif now.fold:
            walls = []  # shown before
        else:  # the present minute, and those that a jump forward has left out
            walls = [last + timedelta(minutes=i) for i in range(1, int((shown - last).total_seconds() // 60) + 1)]
            walls = walls or [shown]
        if at > after and any(matches(schedule, wall) for wall in walls):
            return float(at)
    return None


def matches(schedule: Schedule, wall: datetime) -> bool:
    return wall.minute in schedule.minutes and wall.hour in schedule.hours and schedule.has_day(wall.date())


@settings(max_examples=60, deadline=None)
@given(LINES, st.sampled_from(ZONES), st.sampled_from(CHANGES), st.integers(-30 * 3600, 30 * 3600))
def test_next_time_is_what_a_walk_finds(line: str, zone: str, change: int, offset: int) -> None:
    schedule = parse_schedule(line)
    after = float(change + offset)
    found = next_time(schedule, parse_zone(zone), after)
    walked = walk(schedule, zone, after, 60)
    assert found == walked if walked is not None else found >= after + 59 * 3600
