"""What validation finds: where in a spec something is wrong, and what, with what would be right."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from argosy.core.errors import InvalidError
from argosy.core.units import format_duration


@dataclass(frozen=True, slots=True)
class Problem:
    """`where` is a path of the spec's fields, "task.placement.constraints[0]"; `what` is a sentence for the user."""

    where: str
    what: str


Problems: TypeAlias = Iterator[Problem]


def check(subject: str, problems: Iterable[Problem]) -> None:
    """Raise one InvalidError with all problems, if there are any; `subject` says what is not accepted."""
    found = tuple((p.where, p.what) for p in problems)
    if found:
        raise InvalidError(f"{subject} cannot be accepted", found)


def when(bad: bool, where: str, what: str) -> Problems:
    """Yield a problem if `bad`."""
    if bad:
        yield Problem(where, what)


def said(where: str, what: str | None) -> Problems:
    """Yield a problem if a check that returns a message or None said something."""
    if what is not None:
        yield Problem(where, what)


def readable(where: str, parse: Callable[[str], object], text: str) -> Problems:
    """Yield the message of a reader that refuses `text`."""
    try:
        parse(text)
    except InvalidError as error:
        yield Problem(where, str(error))


def between(where: str, value: float, low: float, high: float, what: str) -> Problems:
    """Yield a problem for a number out of its bounds; `what` names it: "the number of replicas"."""
    if not math.isfinite(value) or not low <= value <= high:
        yield Problem(where, f"{what} is {value:,}: it has to be from {low:,} to {high:,}")


LONGEST_S = 7 * 86400.0
"""No period that a service knows is longer than a week; what is, was meant in another unit."""


def duration(where: str, seconds: float, what: str, least: float = 0.0) -> Problems:
    """Yield a problem for a duration (seconds) that is negative, shorter than `least`, endless or absurd."""
    if not math.isfinite(seconds):
        yield Problem(where, f"{what} is not a number of seconds: write it like 1m30s")
    elif seconds < 0:
        yield Problem(where, f"{what} is negative: write it like {format_duration(-seconds)}")
    elif seconds < least:
        yield Problem(where, f"{what} is {format_duration(seconds)}: at least {format_duration(least)} is needed")
    elif seconds > LONGEST_S:
        yield Problem(where, f"{what} is {format_duration(seconds)}: at most {format_duration(LONGEST_S)} makes sense")
