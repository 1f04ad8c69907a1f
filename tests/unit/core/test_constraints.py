"""The constraint language: what it reads, what it matches, what a mistake is told."""

import pytest

from argosy.core.constraints import architecture_name, parse_attribute, parse_constraint, parse_spread
from argosy.core.errors import InvalidError
from argosy.core.meta import Meta
from argosy.core.node import Node, NodeDescription, NodeSpec, Platform

NODE = Node(
    Meta("abc"),
    NodeSpec("n1", "worker", labels={"zone": "EU", "example.org/disk": "ssd", "Zone": "upper", "empty": ""}),
    NodeDescription("host-1", Platform("linux", "x86_64")),
)


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("node.id == abc", True),
        ("node.id==ABC", True),
        ("node.hostname == host-1", True),
        ("node.hostname != host-1", False),
        ("node.role == manager", False),
        ("Node.Role == Worker", True),
        ("node.platform.os == linux", True),
        ("node.platform.arch == amd64", True),
        ("node.platform.arch == x86_64", True),
        ("node.platform.arch != aarch64", True),
        ("node.labels.zone == eu", True),
        ("node.labels.Zone == upper", True),
        ("node.labels.zone != eu", False),
        ("node.labels.example.org/disk == ssd", True),
        ("engine.labels.zone == EU", True),
        ("node.labels.missing == eu", False),
        ("node.labels.missing != eu", True),
        ("node.labels.empty != x", True),
    ],
)
def test_what_a_constraint_matches(text, met):
    assert parse_constraint(text).matches(NODE) is met


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("node.label.zone == eu", 'did you mean "node.labels.zone"'),
        ("labels.zone == eu", 'did you mean "node.labels.zone"'),
        ("node.hostnam == x", 'did you mean "node.hostname"'),
        ("node.arch == x", 'did you mean "node.platform.arch"'),
        ("something == x", "there are node.id, node.hostname"),
        ("node.role = manager", "did you mean node.role == manager"),
        ("node.role !== manager", "did you mean node.role != manager"),
        ("node.role >= 3", "no operator"),
        ("node.role ==", "value is missing"),
        ("node.role", "write it like"),
        ("", "write it like"),
        ("node.labels. == x", "a label needs a key"),
        ("node.labels.zone == *", "without quotes or patterns"),
        ('node.labels.zone == "eu"', "without quotes or patterns"),
    ],
)
def test_a_mistake_is_told_what_would_be_right(text, says):
    with pytest.raises(InvalidError, match=None) as caught:
        parse_constraint(text)
    assert says in str(caught.value)


def test_a_constraint_is_written_in_one_way_and_reads_back():
    one = parse_constraint("engine.labels.zone==eu")
    assert str(one) == "node.labels.zone == eu"
    assert parse_constraint(str(one)) == one


def test_explain_names_what_the_node_has():
    assert parse_constraint("node.labels.zone == us").explain(NODE) == (
        "has node.labels.zone = EU, and node.labels.zone == us is asked for"
    )
    assert "has no node.labels.gpu" in parse_constraint("node.labels.gpu == yes").explain(NODE)


def test_only_labels_can_be_spread_over():
    assert parse_spread("node.labels.zone") == parse_attribute("engine.labels.zone")
    with pytest.raises(InvalidError, match="cannot be spread over"):
        parse_spread("node.id")


@pytest.mark.parametrize(("text", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")])
def test_architectures_have_one_name(text, name):
    assert architecture_name(text) == name
