"""YAML to trees: anchors, merge keys, places, and what is refused."""

import pytest

from argosy.cli.compose.document import Map, Scalar, Seq
from argosy.cli.compose.problems import Findings
from argosy.cli.compose.reader import read_document


def plain(node: object) -> object:
    match node:
        case Map(entries=entries):
            return {key: plain(entry.value) for key, entry in entries.items()}
        case Seq(items=items):
            return [plain(item) for item in items]
        case Scalar(text=text):
            return text
    return node


def read(text: str) -> object:
    findings = Findings()
    document = read_document(text, "f", findings)
    assert findings.problems == []
    return plain(document)


def wrong(text: str) -> list[str]:
    findings = Findings()
    read_document(text, "f", findings)
    return [str(problem) for problem in findings.problems]


def test_scalars_keep_their_text() -> None:
    text = "a: yes\nb: 0755\nc: 1.10\nd: 12:30:45\ne: ~\nf: 'null'\ng:\nh: 2001-01-01\ni: 0x1F\n"
    assert read(text) == {
        "a": "yes",
        "b": "0755",
        "c": "1.10",
        "d": "12:30:45",
        "e": None,
        "f": "null",
        "g": None,
        "h": "2001-01-01",
        "i": "0x1F",
    }


def test_merge_keys() -> None:
    text = """
x: &x {a: 1, b: 2}
y: &y {b: 3, c: 4}
one: {<<: *x, b: 9}
both:
  <<: [*x, *y]
  d: 5
"""
    document = read(text)
    assert isinstance(document, dict)
    assert document["one"] == {"a": "1", "b": "9"}
    assert document["both"] == {"a": "1", "b": "2", "c": "4", "d": "5"}


def test_places_are_those_of_the_text() -> None:
    document = read_document("a: &x\n  k: v\nb:\n  <<: *x\n", "f", Findings())
    assert document is not None
    merged = document.get("b")
    assert isinstance(merged, Map)
    assert str(merged.entries["k"].position) == "f:2:3"
    assert str(merged.entries["k"].value.position) == "f:2:6"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: the key 'a' is there twice (first in line 1)"),
        ("a: [1\n", "no valid YAML"),
        ("a:\n\t- 1\n", "no valid YAML"),
        ("", "the file is empty"),
        ("- a\n", "a Compose file is a mapping"),
        ("a: 1\n---\nb: 2\n", "one file holds one document"),
        ("a: &a [*a]\n", "an alias stands within what it is an alias for"),
        ("a: !foo 1\n", "the tag !foo is not known here"),
        ("a: !!python/object:os.system 1\n", "not known here"),
        ("? [a, b]\n: c\n", "a key must be a single word"),
        ("a: {<<: 3}\n", "'<<' needs a mapping"),
        ("a: *nowhere\n", "no valid YAML"),
        ("a: " + "{a: " * 500 + "1" + "}" * 500, "nested too deeply"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    found = wrong(text)
    assert len(found) == 1
    assert said in found[0]


def test_a_billion_laughs_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "over 100,000 values" in wrong("\n".join(lines))[0]
