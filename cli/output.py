"""How results are shown: tables for people, JSON for programs.

On a terminal a table fits its width (the least important columns shrink, then go); anywhere else it is plain, full
width and aligned. Rows are plain dicts: what JSON shows is exactly what a table's columns are made from.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

Row = Mapping[str, Any]
F = TypeVar("F", bound=Callable[..., Any])

_GAP: Final = 2
_LEAST_WIDTH: Final = 8
"""A column is not shrunk below this; rather the least important column goes."""

STATE_COLOURS: Final[Mapping[str, str]] = {
    "RUNNING": "green",
    "READY": "green",
    "COMPLETE": "green",
    "COMPLETED": "green",
    "PENDING": "yellow",
    "STARTING": "yellow",
    "PREPARING": "yellow",
    "UPDATING": "yellow",
    "DRAIN": "yellow",
    "FAILED": "red",
    "REJECTED": "red",
    "RESTARTING": "red",
    "DOWN": "red",
    "ORPHANED": "red",
    "PAUSED": "red",
    "ROLLBACK_PAUSED": "red",
    "AGENT_LOST": "red",
}


@dataclass(frozen=True, slots=True)
class Column:
    """`value` is a row's key or a function of the row; columns of higher `rank` shrink and go first."""

    title: str
    value: str | Callable[[Row], str]
    rank: int = 0

    def text(self, row: Row) -> str:
        """Return the cell's text, on one line."""
        value = self.value(row) if callable(self.value) else row[self.value]
        if value is None:
            return ""
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        return " ".join(str(value).split())


def format_option(command: F) -> F:
    """Add `--format table|json`, passed as `form`."""
    return click.option(
        "--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print the result."
    )(command)


def quiet_option(command: F) -> F:
    """Add `-q`, passed as `quiet`: print only ids."""
    return click.option("-q", "--quiet", is_flag=True, help="Print only ids, one a line.")(command)


def show(
    rows: Sequence[Row], columns: Sequence[Column], form: str, *, quiet: bool = False, quiet_key: str = "id"
) -> None:
    """Print `rows` as a table or JSON, or with `quiet` only the values of `quiet_key`."""
    if quiet:
        for row in rows:
            say(str(row[quiet_key]))
    elif form == "json":
        show_json(list(rows))
    else:
        _show_table(rows, columns)


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    import json

    say(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str = "") -> None:
    """Print a line of the result."""
    click.echo(text)


def notice(text: str) -> None:
    """Print a line beside the result, for a person."""
    click.echo(text, err=True)


def _show_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    cells = [[column.text(row) for column in columns] for row in rows]
    terminal = sys.stdout.isatty()
    widths = [max([len(column.title), *(len(line[i]) for line in cells)]) for i, column in enumerate(columns)]
    if terminal:
        from shutil import get_terminal_size

        room = get_terminal_size().columns
        widths = fit(widths, [column.rank for column in columns], room)
    _print_line([column.title for column in columns], widths, bold=terminal)
    for line in cells:
        _print_line(line, widths, colour=terminal)


def fit(widths: Sequence[int], ranks: Sequence[int], room: int) -> list[int]:
    """Return column widths (0: left out) that take at most `room` with gaps.

    The column of highest rank shrinks first, down to a least width, and goes when that is not enough; then the next.
    """
    fitted = list(widths)

    def excess() -> int:
        shown = [w for w in fitted if w]
        return sum(shown) + _GAP * (len(shown) - 1) - room

    order = sorted((i for i, rank in enumerate(ranks) if rank > 0), key=lambda i: -ranks[i])
    for i in order:
        if excess() > 0:
            fitted[i] = max(min(fitted[i], _LEAST_WIDTH), fitted[i] - excess())
        if excess() > 0:
            fitted[i] = 0
    return fitted


def _print_line(cells: Sequence[str], widths: Sequence[int], *, bold: bool = False, colour: bool = False) -> None:
    parts = []
    shown = [(cell, width) for cell, width in zip(cells, widths, strict=True) if width]
    for cell, width in shown:
        text = elide(cell, width)
        padding = " " * (width - len(text))
        if bold:
            text = click.style(text, bold=True)
        elif colour and (first := cell.partition(" ")[0]) in STATE_COLOURS:
            text = click.style(text, fg=STATE_COLOURS[first])
        parts.append(text + padding)
    say((" " * _GAP).join(parts).rstrip())


def elide(text: str, width: int) -> str:
    """Return `text` in at most `width` characters, its end cut with an ellipsis."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def size_text(count: float) -> str:
    """Return a number of bytes for a person: "12.3 MB" in powers of 1000; "-" for nothing."""
    if not count:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def age_text(at: float, now: float) -> str:
    """Return how long ago a time (seconds since the epoch) was: "5s", "3m", "2h", "4d"; "-" for 0."""
    if not at:
        return "-"
    seconds = max(0, int(now - at))
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // divisor}{unit}"
    return f"{seconds // 86400}d"
