"""The table of keys against the specification's own list, and the page that is generated from it."""

import re
from pathlib import Path

import pytest

from argosy.cli.compose.verdicts import EXTENSION, TABLE, Verdict, all_keys, document

SPECIFIED = [
    line.strip()
    for line in (Path(__file__).parent / "spec_keys.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]
PAGE = Path(__file__).parents[3] / "docs" / "compose.md"
E2E = Path(__file__).parents[2] / "e2e"


def test_each_key_of_the_specification_has_a_verdict() -> None:
    known = {key for key, _ in all_keys()}
    assert [key for key in SPECIFIED if key not in known] == []


def test_the_table_has_no_key_that_the_specification_lacks() -> None:
    assert [key for key, _ in all_keys() if key not in set(SPECIFIED) and EXTENSION not in key] == []


def test_no_key_has_two_verdicts() -> None:
    keys = [key for key, _ in all_keys()]
    assert sorted({key for key in keys if keys.count(key) > 1}) == []


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.key)
def test_each_verdict_says_what_it_has_to(row: object) -> None:
    if row.verdict in (Verdict.HONOURED, Verdict.MAPPED):  # type: ignore[attr-defined]
        assert row.test or row.key == "name"  # type: ignore[attr-defined]
    if row.verdict is not Verdict.HONOURED:  # type: ignore[attr-defined]
        assert row.text  # type: ignore[attr-defined]


def test_the_page_is_generated_from_the_table() -> None:
    assert PAGE.read_text() == document(), "run: python -m argosy.cli.compose.verdicts > docs/compose.md"


def test_the_end_to_end_tests_that_the_table_names_exist() -> None:
    defined = {name for file in E2E.glob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    assert sorted({row.test for row in TABLE if row.test} - defined) == []
