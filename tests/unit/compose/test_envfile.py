"""The format of env files, by the specification's examples."""

import pytest

from argosy.cli.compose.envfile import parse_env_file
from argosy.cli.compose.problems import Findings


def parse(text: str, env: dict[str, str] | None = None, raw: bool = False) -> dict[str, str | None]:
    findings = Findings()
    found = parse_env_file(text, "e", env or {}, findings, raw=raw)
    assert findings.problems == []
    return found


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("VAR=VAL", "VAL"),
        ('VAR="VAL"', "VAL"),
        ("VAR='VAL'", "VAL"),
        ("VAR=VAL # comment", "VAL"),
        ("VAR=VAL# not a comment", "VAL# not a comment"),
        ('VAR="VAL # not a comment"', "VAL # not a comment"),
        ('VAR="VAL" # comment', "VAL"),
        ("VAR='$OTHER'", "$OTHER"),
        ("VAR='${OTHER}'", "${OTHER}"),
        ("VAR=$OTHER", "other"),
        ('VAR="a${OTHER}b"', "aotherb"),
        (r"VAR='Let\'s go!'", "Let's go!"),
        (r'VAR="{\"hello\": \"json\"}"', '{"hello": "json"}'),
        (r'VAR="some\tvalue"', "some\tvalue"),
        (r"VAR='some\tvalue'", r"some\tvalue"),
        (r"VAR=some\tvalue", r"some\tvalue"),
        (r'VAR="a\\b\nc"', "a\\b\nc"),
        (r'VAR="\$OTHER"', "$OTHER"),
        ("VAR=", ""),
        ("VAR= # nothing", ""),
        ("VAR", None),
        ("export VAR=VAL", "VAL"),
        ("VAR = VAL ", "VAL"),
        ("VAR=a=b=c", "a=b=c"),
        ("VAR: VAL", "VAL"),
        ("VAR=http://h:1/x", "http://h:1/x"),
        ("VAR=${NONE:-d}", "d"),
    ],
)
def test_lines(line: str, value: str | None) -> None:
    assert parse(line, {"OTHER": "other"}) == {"VAR": value}


def test_comments_blank_lines_and_earlier_variables() -> None:
    text = "\ufeff# a comment\n\n  A=1\nB=${A}2\nC=$A$B\r\n"
    assert parse(text) == {"A": "1", "B": "12", "C": "112"}


def test_a_quoted_value_may_have_several_lines() -> None:
    assert parse('A="one\ntwo"\nB=3') == {"A": "one\ntwo", "B": "3"}


def test_the_environment_comes_before_the_file() -> None:
    assert parse("A=1\nB=$A", {"A": "shell"}) == {"A": "1", "B": "shell"}


def test_raw_takes_values_as_they_are() -> None:
    assert parse("A='$X' # c", raw=True) == {"A": "'$X' # c"}


@pytest.mark.parametrize("text", ["A B=1", "=1", 'A="open', "A='x' y"])
def test_what_is_wrong_is_told_with_its_line(text: str) -> None:
    findings = Findings()
    parse_env_file("# one\n" + text, "e", {}, findings)
    assert [problem.position.line for problem in findings.problems] == [2]
