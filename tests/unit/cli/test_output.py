"""Tables: what shrinks, what goes; numbers for people."""

import json
from typing import Any

import pytest

from argosy.cli.output import Column, age_text, elide, fit, show, size_text

ROWS = [
    {"id": "abc", "name": "web", "labels": ["a", "b"], "n": None},
    {"id": "d", "name": "long name", "labels": [], "n": 5},
]
COLUMNS = (
    Column("ID", "id", rank=1),
    Column("NAME", "name"),
    Column("LABELS", "labels"),
    Column("N", lambda r: r["n"] or "-"),
)


def test_a_plain_table_is_aligned_and_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, COLUMNS, "table")
    assert capsys.readouterr().out.splitlines() == [
        "ID   NAME       LABELS  N",
        "abc  web        a, b    -",
        "d    long name          5",
    ]


def test_json_is_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, COLUMNS, "json")
    assert json.loads(capsys.readouterr().out) == ROWS


def test_quiet_is_the_ids(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, COLUMNS, "json", quiet=True)
    assert capsys.readouterr().out == "abc\nd\n"


def test_an_empty_table_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    show([], COLUMNS, "table")
    assert capsys.readouterr().out == "ID  NAME  LABELS  N\n"


@pytest.mark.parametrize(
    ("widths", "ranks", "room", "fitted"),
    [
        ((10, 20), (0, 1), 40, [10, 20]),
        ((10, 20), (0, 1), 30, [10, 18]),
        ((10, 20, 30), (0, 2, 1), 60, [10, 16, 30]),
        ((10, 20, 30), (0, 2, 1), 40, [10, 0, 28]),
        ((10, 20, 30), (0, 2, 1), 24, [10, 0, 12]),
        ((10, 20, 30), (0, 2, 1), 12, [10, 0, 0]),
        ((10, 5), (0, 1), 5, [10, 0]),
    ],
)
def test_fit(widths: Any, ranks: Any, room: int, fitted: list[int]) -> None:
    assert fit(widths, ranks, room) == fitted


def test_texts() -> None:
    assert [elide("abcdef", n) for n in (6, 4)] == ["abcdef", "abc…"]
    assert [size_text(n) for n in (0, 5, 1500, 64 << 20, 10**13)] == ["-", "5 B", "1.5 kB", "67.1 MB", "10 TB"]
    ages = [age_text(at, 1_000_000) for at in (0, 1_000_005, 999_900, 999_000, 990_000, 500_000)]
    assert ages == ["-", "0s", "100s", "16m", "2h", "5d"]
