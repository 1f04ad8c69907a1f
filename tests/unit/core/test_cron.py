"""Cron lines: what may be written, what is refused and how, and when lines are due, also as clocks change."""

from datetime import UTC, datetime

import pytest

from argosy.core.cron import next_time, parse_schedule, parse_zone
from argosy.core.errors import InvalidError


def due(line: str, zone: str, after: str, count: int = 1) -> list[str]:
    """Return the next times after `after` (ISO, with its offset) as the clock on the wall shows them."""
    schedule, tz = parse_schedule(line), parse_zone(zone)
    at = datetime.fromisoformat(after).timestamp()
    found = []
    for _ in range(count):
        at = next_time(schedule, tz, at)
        found.append(datetime.fromtimestamp(at, tz).strftime("%Y-%m-%d %H:%M%z"))
    return found


@pytest.mark.parametrize(
    ("line", "after", "expected"),
    [
        ("* * * * *", "2026-01-31T23:59:30", "2026-02-01 00:00"),
        ("*/15 * * * *", "2026-01-31T12:00:00", "2026-01-31 12:15"),
        ("30 4 * * *", "2026-01-31T04:30:00", "2026-02-01 04:30"),
        ("0 9-17/2 * * mon-fri", "2026-01-30T17:00:00", "2026-02-02 09:00"),
        ("0 0 1,15 * wed", "2026-01-01T00:00:00", "2026-01-07 00:00"),  # either day
        ("0 0 */2 * wed", "2026-01-01T00:00:00", "2026-01-07 00:00"),  # both: begins with *
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29 00:00"),
        ("0 0 29 feb */7", "2026-01-01T00:00:00", "2032-02-29 00:00"),  # and on a Sunday
        ("0 12 * * sun", "2026-01-31T00:00:00", "2026-02-01 12:00"),
        ("0 12 * * 7", "2026-01-31T00:00:00", "2026-02-01 12:00"),
        ("0 12 * * sat-sun", "2026-01-31T13:00:00", "2026-02-01 12:00"),
        ("0 0 31 * *", "2026-01-31T00:00:00", "2026-03-31 00:00"),
        ("@hourly", "2026-01-31T12:10:00", "2026-01-31 13:00"),
        ("@Daily", "2026-01-31T12:10:00", "2026-02-01 00:00"),
        ("@weekly", "2026-01-31T12:10:00", "2026-02-01 00:00"),
        ("@monthly", "2026-01-31T12:10:00", "2026-02-01 00:00"),
        ("@yearly", "2026-01-31T12:10:00", "2027-01-01 00:00"),
    ],
)
def test_next_time(line: str, after: str, expected: str) -> None:
    assert due(line, "", after + "+00:00") == [expected + "+0000"]


def test_a_time_zone_counts() -> None:
    assert due("30 4 * * *", "Asia/Kolkata", "2026-01-31T00:00:00+00:00") == ["2026-02-01 04:30+0530"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # Berlin, 29 March 2026: 02:00 becomes 03:00.
        ("30 2 * * *", ["2026-03-29 03:00+0200", "2026-03-30 02:30+0200"]),  # run at once, at the end of the gap
        ("10,50 2 * * *", ["2026-03-29 03:00+0200", "2026-03-30 02:10+0200"]),  # one run for all that was skipped
        ("0 3 * * *", ["2026-03-29 03:00+0200", "2026-03-30 03:00+0200"]),
        ("30 * * * *", ["2026-03-29 01:30+0100", "2026-03-29 03:30+0200"]),  # follows the clock on the wall
        ("*/30 2 * * *", ["2026-03-30 02:00+0200", "2026-03-30 02:30+0200"]),
    ],
)
def test_clocks_put_forward(line: str, expected: list[str]) -> None:
    assert due(line, "Europe/Berlin", "2026-03-29T01:00:00+01:00", 2) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # Berlin, 25 October 2026: 03:00 becomes 02:00.
        ("30 2 * * *", ["2026-10-25 02:30+0200", "2026-10-26 02:30+0100"]),  # not twice
        ("30 * * * *", ["2026-10-25 02:30+0200", "2026-10-25 02:30+0100"]),  # each hour that passes
        ("*/30 2 * * *", ["2026-10-25 02:30+0200", "2026-10-25 02:00+0100"]),
        ("0 3 * * *", ["2026-10-25 03:00+0100", "2026-10-26 03:00+0100"]),
    ],
)
def test_clocks_put_back(line: str, expected: list[str]) -> None:
    assert due(line, "Europe/Berlin", "2026-10-25T02:15:00+02:00", 2) == expected


def test_put_back_over_midnight() -> None:
    # St. John's, 7 November 2010: at 00:01 back to 23:01 of the day before.
    assert due("*/30 * * * *", "America/St_Johns", "2010-11-06T23:45:00-02:30", 3) == [
        "2010-11-07 00:00-0230",
        "2010-11-06 23:30-0330",
        "2010-11-07 00:00-0330",
    ]


def test_a_day_that_was_left_out_is_no_daylight_saving_time() -> None:
    # Apia had no 30 December 2011.
    assert due("0 12 30 * *", "Pacific/Apia", "2011-12-29T13:00:00-10:00") == ["2012-01-30 12:00+1400"]


def test_the_time_after_is_not_due_itself() -> None:
    at = datetime(2026, 1, 31, 12, 0, tzinfo=UTC).timestamp()
    assert next_time(parse_schedule("0 * * * *"), parse_zone("UTC"), at - 0.001) == at
    assert next_time(parse_schedule("0 * * * *"), parse_zone("UTC"), at) == at + 3600


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "0 fields: write five"),
        ("* * * *", "4 fields: write five"),
        ("0 * * * * *", "6 fields: write five"),
        ("60 * * * *", 'minute: there is no minute "60": use 0 to 59'),
        ("* 24 * * *", 'hour: there is no hour "24": use 0 to 23'),
        ("* * 0 * *", 'day of month: there is no day of month "0": use 1 to 31'),
        ("* * * 13 *", "use 1 to 12 or jan to dec"),
        ("* * * mon *", 'month: there is no month "mon"'),
        ("* * * * 8", 'day of week: there is no day of week "8"'),
        ("* 22-4 * * *", 'hour: "22-4" runs backwards: write 22-23,0-4'),
        ("*/0 * * * *", "a step of 0"),
        ("5/15 * * * *", "write 5-59/15"),
        ("*-5 * * * *", "is no range"),
        ("a? * * * *", "cannot be read"),
        ("0 0 L * *", 'there is no day of month "l"'),
        ("-1 * * * *", "cannot be read"),
        ("0 0 30 2 *", "it would never run: no month of 2 has a day 30; use a day up to 29"),
        ("0 0 31 4,6,9,11 *", "use a day up to 30"),
        ("@reboot", "a cluster has no such moment"),
        ("@often", "use @yearly"),
    ],
)
def test_refused(line: str, said: str) -> None:
    with pytest.raises(InvalidError) as error:
        parse_schedule(line)
    assert said in str(error.value)


def test_a_day_of_the_week_saves_a_day_that_no_month_has() -> None:
    assert due("0 0 30 2 mon", "", "2026-01-31T00:00:00+00:00") == ["2026-02-02 00:00+0000"]


@pytest.mark.parametrize("name", ["Europe/Berlim", "Mars/Phobos", "../etc/passwd", "Europe", "CET+1"])
def test_unknown_zones(name: str) -> None:
    with pytest.raises(InvalidError, match="write an IANA name, such as"):
        parse_zone(name)
