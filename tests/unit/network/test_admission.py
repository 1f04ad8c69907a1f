"""Who may send VXLAN packets to this host: the way from one set of peers to another, and reading it back."""

import pytest

from argosy.agent.logic.network_admission import change, read

A, B, C = 0xC0000201, 0xC0000202, 0xC0000203
LISTING = """table ip argosy-x/peers {
\tset peers {
\t\ttype ipv4_addr
\t\telements = { 192.0.2.1,
\t\t\t     192.0.2.2 }
\t}

\tchain admit {
\t\ttype filter hook prerouting priority raw; policy accept;
\t\tudp dport 14789 ip saddr @peers notrack accept
\t\tudp dport 14789 fib daddr type != unicast counter packets 7 bytes 100 drop
\t}
}
"""


@pytest.mark.parametrize(
    ("held", "wanted", "commands"),
    [
        ({A, B}, {A, B}, ""),
        (None, None, ""),
        ({A}, {A, B, C}, "add element ip t peers { 192.0.2.2, 192.0.2.3 }\n"),
        ({A, B}, {B}, "delete element ip t peers { 192.0.2.1 }\n"),
        ({A}, {B}, "add element ip t peers { 192.0.2.2 }\ndelete element ip t peers { 192.0.2.1 }\n"),
        ({A}, None, "add table ip t\ndelete table ip t\n"),
    ],
)
def test_a_change_costs_what_changed(held, wanted, commands):
    assert change("t", 14789, held and frozenset(held), wanted and frozenset(wanted)) == commands


@pytest.mark.parametrize("wanted", [frozenset(), frozenset({A})])
def test_without_a_table_all_is_written(wanted):
    commands = change("t", 14789, None, wanted)
    assert commands.startswith("add table ip t\ndelete table ip t\ntable ip t {\n")
    assert "fib daddr type != unicast counter drop" in commands
    assert ("192.0.2.1" in commands) == bool(wanted)


def test_a_listing_is_read_back():
    assert read(LISTING, 14789) == {A, B}
    assert read(LISTING.replace("\t\telements = { 192.0.2.1,\n\t\t\t     192.0.2.2 }\n", ""), 14789) == frozenset()


@pytest.mark.parametrize(
    "broken",
    [
        LISTING.replace("@peers", "!= @peers"),
        LISTING.replace("14789", "4789"),
        LISTING.replace("policy accept", "policy drop"),
        LISTING.replace("\t}\n}", "\t}\n\n\tchain other {\n\t}\n}"),
        LISTING.replace("\t\tudp", "\t\taccept\n\t\tudp", 1),
        "table ip argosy-x/peers {\n}\n",
    ],
)
def test_a_table_that_says_something_else_is_none(broken):
    assert read(broken, 14789) is None
