"""The constraint language: what it reads, what it matches, what a mistake is told."""

import pytest

from argosy.core.constraints import architecture_name, parse_attribute, parse_constraint, parse_spread
from argosy.core.errors import InvalidError
from argosy.core.meta import Meta
from argosy.core.node import Node, NodeDescription, NodeSpec, Platform

NODE = Node(
    Meta("abc"),
    NodeSpec(
        "n1",
        "worker",
        labels={
            "zone": "EU",
            "example.org/disk": "ssd",
            "Zone": "upper",
            "empty": "",
            "driver": "v550.40",
            "next": "2.0-rc1",
        },
    ),
    NodeDescription(
        "host-1",
        Platform("linux", "x86_64"),
        kernel="6.1.0-13-amd64",
        agent_version="0.2.0",
        underlay_address="10.1.2.3",
    ),
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
        ("node.labels.zone in (us, eu)", True),
        ("node.labels.zone IN(us,eu)", True),
        ("node.labels.zone not in (us, eu)", False),
        ("node.labels.missing in (us, eu)", False),
        ("node.labels.missing not in (us)", True),
        ("node.platform.arch in (x86_64, riscv64)", True),
        ("node.labels.zone exists", True),
        ("node.labels.empty exists", True),
        ("node.labels.missing exists", False),
        ("node.labels.missing not exists", True),
        ("node.labels.zone not  exists", False),
        ("node.kernel >= 6.1", True),
        ("node.kernel >= 6.1.0", True),
        ("node.kernel > 6.1", False),
        ("node.kernel<6.10", True),
        ("node.kernel >= 6.1.1", False),
        ("node.agent.version >= 0.1.9", True),
        ("node.labels.driver >= 550", True),
        ("node.labels.driver <= 550.40.0", True),
        ("node.labels.next < 2.0", True),
        ("node.labels.next > 2.0-beta3", True),
        ("node.labels.zone >= 1", False),
        ("node.labels.missing < 9", False),
        ("node.ip == 10.1.2.3", True),
        ("node.ip == 10.1.0.0/16", True),
        ("node.ip != 10.2.0.0/16", True),
        ("node.ip in (10.2.0.0/16, 10.1.2.0/24)", True),
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
        ("node.role => 3", 'at character 11: there is no operator "=>": did you mean node.role >= 3?'),
        ("node.kernel >= new", 'at character 16: "new" is no version'),
        ("node.role within (a)", 'there is no operator "within"'),
        ("node.role exist", 'did you mean "exists"?'),
        ("node.role not", 'there is no operator "not"'),
        ("node.role in a, b", "at character 14: the values stand in parentheses: node.role in (a, b)"),
        ("node.role in (a, b", "at character 19: the values stand in parentheses: node.role in (a, b)"),
        ("node.role in ()", "at character 15: a value is missing"),
        ("node.role in (a,, b)", "at character 17: a value is missing"),
        ("node.role in (a, *)", 'at character 18: "*" is no value'),
        ("node.role exists yes", '"exists" stands alone'),
        ("!node.labels.ssd", 'write "node.labels.ssd not exists"'),
        ("node.ip == host-1", 'at character 12: "host-1" is no address'),
        ("node.kernell >= 6", 'at character 1: nodes have no attribute "node.kernell": did you mean "node.kernel"?'),
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
    for text, written in [
        ("engine.labels.zone==eu", "node.labels.zone == eu"),
        ("node.role  NOT IN(a,b c)", "node.role not in (a, b c)"),
        ("node.labels.x   exists ", "node.labels.x exists"),
        ("node.kernel>=6.1", "node.kernel >= 6.1"),
    ]:
        one = parse_constraint(text)
        assert str(one) == written
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
