"""Variables in values, by the specification's table of forms."""

import re

import pytest

from argosy.cli.compose.interpolate import InterpolationError, interpolate

ENV = {"SET": "value", "EMPTY": "", "OTHER": "other", "_u1": "x"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("$SET", "value"),
        ("${SET}", "value"),
        ("a${SET}b$OTHER.c", "avaluebother.c"),
        ("${_u1}", "x"),
        ("$$SET and $${SET}", "$SET and ${SET}"),
        ("$$$SET", "$value"),
        ("$UNSET|${UNSET}", "|"),
        ("${UNSET:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${SET:-d}", "value"),
        ("${UNSET-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${UNSET:-}", ""),
        ("${SET:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${UNSET:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${UNSET+x}", ""),
        ("${SET:?no}", "value"),
        ("${EMPTY?no}", ""),
        ("${UNSET:-${OTHER}}", "other"),
        ("${UNSET:-${ALSO:-deep}}", "deep"),
        ("${UNSET:-a$OTHER}b", "aotherb"),
        ("${UNSET:-http://h:80/?q=1-2}", "http://h:80/?q=1-2"),
        ("${SET:-${UNSET:?never asked for}}", "value"),
        ("${UNSET:-with space}", "with space"),
        ("}", "}"),
    ],
)
def test_forms(text: str, result: str) -> None:
    assert interpolate(text, ENV) == result


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${UNSET:?set me}", "UNSET is empty or not set: set me"),
        ("${EMPTY:?set me}", "EMPTY is empty or not set: set me"),
        ("${UNSET?set $OTHER}", "UNSET is not set: set other"),
        ("${UNSET?}", "UNSET is not set"),
        ("${SET", "without its '}'"),
        ("${UNSET:-${OTHER}", "without its '}'"),
        ("${}", "not followed by a variable's name"),
        ("${1A}", "not followed by a variable's name"),
        ("${SET/a/b}", "is not known"),
        ("${SET:=a}", "is not known"),
        ("cost: 5$", "write '$$'"),
        ("$1", "write '$$'"),
        ("${A-" * 40 + "}" * 40, "nested"),
    ],
)
def test_errors(text: str, said: str) -> None:
    with pytest.raises(InterpolationError, match=re.escape(said)):
        interpolate(text, ENV)


def test_what_is_unset_is_told_once_it_matters() -> None:
    told: list[str] = []
    interpolate("$A ${B} ${C:-${D}} ${SET:-$E} ${F:+$G}", ENV, told.append)
    assert told == ["A", "B", "D"]
