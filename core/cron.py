"""Cron lines: what crontab(5) lets one write, and when it is due next in a time zone. Pure.

Five fields (minute, hour, day of month, month, day of week), each `*`, a number, a range, a list of those, with a step
behind `*` or a range; names for months and days of the week; or @hourly, @daily, @weekly, @monthly, @yearly.

Rules as Vixie cron documents them (crontab(5), cron(8) of Debian):

- If both days are restricted (neither field begins with `*`) either is enough; else both have to match.
- When clocks are put forward, jobs of the hours that are skipped run at once, at the end of the gap; when they are put
  back nothing runs twice. That holds for lines with a fixed hour and minute: one whose minute or hour begins with `*`
  runs whenever the clock on the wall shows a matching time, so it leaves a gap out and runs in both of two like hours.
- A jump of over three hours is a correction, not daylight saving time: what it skips does not run.

Times of one line that fall into one gap are one run.
"""

import calendar
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from argosy.core.errors import InvalidError

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NICKNAMES: Final[Mapping[str, str]] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
LONGEST_GAP: Final = timedelta(hours=3)
FARTHEST_DAYS: Final = 41 * 366
"""29 February on a given day of the week comes after 40 years at the latest (across a century that is no leap year)."""

_ITEM: Final = re.compile(r"(?P<first>\*|[a-z0-9]{1,9})(-(?P<last>[a-z0-9]{1,9}))?(/(?P<step>[0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()
    advice: str = ""


_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, MONTHS, " or jan to dec"),
    _Field("day of week", 0, 7, WEEKDAYS, " (0 and 7 are Sunday) or sun to sat"),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron line. `weekdays`: 0 is Sunday. `either_day`: one of `days` and `weekdays` is enough.

    `by_the_clock`: minute or hour begins with `*`, so it runs whenever the wall's clock shows a matching time.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    by_the_clock: bool

    def has_day(self, day: date) -> bool:
        """Whether it runs on a day of the calendar."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_month or by_week) if self.either_day else (by_month and by_week)


def parse_schedule(text: str) -> Schedule:
    """Read a cron line. Raises InvalidError, which names the field and what is right there."""
    line = " ".join(text.lower().split())
    if line.startswith("@"):
        if line not in NICKNAMES:
            known = ", ".join(NICKNAMES)
            why = ": a cluster has no such moment" if line == "@reboot" else ""
            raise InvalidError(f'there is no "{line}"{why}: use {known}, or five fields')
        line = NICKNAMES[line]
    parts = line.split()
    if len(parts) != len(_FIELDS):
        have = f"{len(parts)} field{'' if len(parts) == 1 else 's'}"
        raise InvalidError(
            f'"{text}" has {have}: write five, such as "30 4 * * mon" (minute, hour, day of month, month, day of week)'
        )
    minutes, hours, days, months, weekdays = (_values(f, part) for f, part in zip(_FIELDS, parts, strict=True))
    starred = [part.startswith("*") for part in parts]
    schedule = Schedule(
        minutes,
        hours,
        days,
        months,
        frozenset(day % 7 for day in weekdays),
        either_day=not starred[2] and not starred[4],
        by_the_clock=starred[0] or starred[1],
    )
    _check_fires(schedule, parts)
    return schedule


def parse_zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name ("": UTC). Raises InvalidError for one that is not known here."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = get_close_matches(name, sorted(available_timezones()), n=1, cutoff=0.5)
        example = near[0] if near else "Europe/Berlin"
        raise InvalidError(f'there is no time zone "{name}": write an IANA name, such as {example}') from None


def next_time(schedule: Schedule, zone: ZoneInfo, after: float) -> float:
    """Return the first time after `after` at which it is due; both in seconds since the epoch."""
    day = datetime.fromtimestamp(after, zone).date() - timedelta(days=1)  # yesterday's last hour may come again
    for _ in range(FARTHEST_DAYS):
        if schedule.has_day(day):
            # Where clocks go back over midnight, a time of the next day comes before the last one of this.
            days = [day + timedelta(days=more) for more in range(3)]
            due = [t for one in days if schedule.has_day(one) for t in _times(schedule, zone, one) if t > after]
            if due:
                return min(due)
        day += timedelta(days=1)
    raise AssertionError(f"{schedule} never fires, which parsing it should have found")


def _times(schedule: Schedule, zone: ZoneInfo, day: date) -> Iterator[float]:
    for hour in schedule.hours:
        for minute in schedule.minutes:
            wall = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
            first, second = wall.timestamp(), wall.replace(fold=1).timestamp()
            if first == second:
                yield first
            elif first < second:  # clocks are put back: it comes twice
                yield first
                if schedule.by_the_clock:
                    yield second
            elif not schedule.by_the_clock and first - second <= LONGEST_GAP.total_seconds():
                yield _gap_end(zone, second, first)


def _gap_end(zone: ZoneInfo, before: float, behind: float) -> float:
    """Return the moment at which clocks are put forward, which lies between the two (whole seconds)."""
    low, high = int(before), int(behind)
    offset = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return float(high)


def _values(field: _Field, text: str) -> frozenset[int]:
    found: set[int] = set()
    for item in text.split(","):
        found |= _item(field, item, text)
    return frozenset(found)


def _item(field: _Field, item: str, text: str) -> set[int]:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise _wrong(field, f'"{text}" cannot be read: write *, a number, a range such as 1-5, a list, or a step (*/2)')
    first, last, step = match["first"], match["last"], match["step"]
    if first == "*":
        if last is not None:
            raise _wrong(field, f'"{item}" is no range: write two numbers')
        low, high = field.least, field.most
    else:
        low = _number(field, first)
        high = low if last is None else _number(field, last)
        if field.names == WEEKDAYS and last is not None and high == 0:
            high = 7
    if low > high:
        raise _wrong(field, f'"{item}" runs backwards: write {first}-{field.most},{field.least}-{last}')
    if step is not None and first != "*" and last is None:
        raise _wrong(field, f'"{item}" has a step and no range: write {first}-{field.most}/{step}')
    if step is not None and int(step) == 0:
        raise _wrong(field, f'"{item}" has a step of 0: write 1 or more')
    return set(range(low, high + 1, int(step or 1)))


def _number(field: _Field, text: str) -> int:
    if text in field.names:
        return field.names.index(text) + (field.least if field.names == MONTHS else 0)
    if not text.isdecimal() or not field.least <= int(text) <= field.most:
        raise _wrong(field, f'there is no {field.name} "{text}": use {field.least} to {field.most}{field.advice}')
    return int(text)


def _wrong(field: _Field, what: str) -> InvalidError:
    return InvalidError(f"{field.name}: {what}")


def _check_fires(schedule: Schedule, parts: list[str]) -> None:
    """Refuse a line that never fires: a day that none of its months has."""
    longest = max(calendar.monthrange(2024, month)[1] for month in schedule.months)  # 2024 is a leap year
    if not schedule.either_day and min(schedule.days) > longest:
        raise InvalidError(
            f"it would never run: no month of {parts[3]} has a day {parts[2]}; use a day up to {longest}"
        )
