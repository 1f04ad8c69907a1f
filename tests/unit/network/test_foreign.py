"""Another firewall of the host: which chains may drop, and what is said of them."""

import pytest

from argosy.agent.logic.network_foreign import (
    ForeignChain,
    Suspect,
    counted,
    foreign_chains,
    rules_of,
    suspects_of,
    why_dropped,
)

LISTING = """table ip argosy-node1 {
	chain forward {
		type filter hook forward priority filter - 10; policy accept;
	}
}
table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain DOCKER {
	}
}
table inet wall {
	chain in {
		type filter hook input priority filter; policy drop;
	}
	chain fw {
		type filter hook forward priority filter + 5; policy accept;
	}
}
table ip6 filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
"""
DROPS, LETS = ForeignChain("ip", "filter", "FORWARD", True), ForeignChain("inet", "wall", "fw", False)


def test_chains_of_others_at_the_forward_hook():
    assert foreign_chains(LISTING, {"argosy-node1"}) == [DROPS, LETS]


def chain(policy, *rules, **others):
    """Return the suspects of a chain with these rules, and of chains beside it, as `list table` prints them."""
    hook = f"type filter hook forward priority filter + 5; policy {policy};"
    text = "table inet wall {\n\tset bad {\n\t\ttype ipv4_addr\n\t}\n\n"
    for name, lines in {"fw": (hook, *rules), **others}.items():
        text += f"\tchain {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n\n"
    return suspects_of(ForeignChain("inet", "wall", "fw", policy == "drop"), rules_of(text + "}\n"))


POLICY = "policy drop, and no rule lets it pass"
LAST = ", and none before it lets it pass"
KNOWN = "ct state { established, related } accept"


@pytest.mark.parametrize(
    ("policy", "rules", "said"),
    [
        ("drop", (), POLICY),
        ("drop", ("ct state established,related accept",), POLICY),
        ("drop", (KNOWN, "counter packets 7 bytes 9"), POLICY),
        (
            "drop",
            ("ct state related,established counter packets 0 bytes 0 accept", "counter drop"),
            f"rule 'counter drop'{LAST}",
        ),
        ("drop", ('oifname "docker0" jump DOCKER', 'oif "eth1" accept'), POLICY),
        ("drop", ("tcp dport 22 return",), POLICY),
        ("drop", ('log prefix "accept? " level info',), POLICY),
        (
            "accept",
            (KNOWN, "ct state invalid drop", "reject with icmpx admin-prohibited"),
            f"rule 'reject with icmpx admin-prohibited'{LAST}",
        ),
        (
            "accept",
            ('counter packets 3 bytes 180 log prefix "no: " drop comment "the end"',),
            f'rule \'log prefix "no: " drop comment "the end"\'{LAST}',
        ),
        ("accept", ("counter packets 0 bytes 0 reject",), f"rule 'reject'{LAST}"),
        ("accept", ('counter packets 0 bytes 0 xt target "REJECT"',), f"rule 'xt target \"REJECT\"'{LAST}"),
    ],
)
def test_what_drops_everything_for_certain(policy, rules, said):
    assert [s.what for s in chain(policy, *rules) if s.certain] == [said]


@pytest.mark.parametrize(
    ("policy", "rules", "said"),
    [
        ("drop", ('oifname "docker0" jump DOCKER', "jump USER"), ["policy drop"]),
        ("drop", ("ct status dnat counter packets 0 bytes 0 accept",), ["policy drop"]),
        ("drop", ("ct state established,new accept",), ["policy drop"]),
        (
            "drop",
            ("ct state vmap { invalid : drop, established : accept }",),
            ["rule 'ct state vmap { invalid : drop, established : accept }'", "policy drop"],
        ),
        ("drop", ("accept",), []),
        ("accept", ("counter packets 0 bytes 0",), []),
        ("accept", ("tcp dport 80 accept", "drop"), ["rule 'drop'"]),
        ("accept", ("tcp dport 80 return", "drop"), ["rule 'drop'"]),
        ("accept", ("accept", "drop"), []),
        (
            "accept",
            ("tcp dport 80 drop", "ip saddr @bad quota over 5 mbytes used 3 kbytes drop"),
            ["rule 'tcp dport 80 drop'", "rule 'ip saddr @bad quota over 5 mbytes drop'"],
        ),
        ("accept", ("meta l4proto tcp reject with tcp reset",), ["rule 'meta l4proto tcp reject with tcp reset'"]),
        (
            "accept",
            ("reject with icmpv6 no-route", "ct state invalid drop", 'oifname "docker0" drop', 'oifname "b*" drop'),
            [],
        ),
        (
            "accept",
            ('oifname != "docker0" drop', 'oifname "a*" drop', 'oifname "au77" drop'),
            ["rule 'oifname != \"docker0\" drop'", "rule 'oifname \"a*\" drop'", "rule 'oifname \"au77\" drop'"],
        ),
        ("accept", ("ip saddr @drop-list accept", 'comment "we drop nothing"', "jump drop-none"), []),
        ("accept", ("tcp dport vmap @ports", "queue to 1"), ["rule 'tcp dport vmap @ports'", "rule 'queue to 1'"]),
    ],
)
def test_what_may_drop_something(policy, rules, said):
    found = chain(policy, *rules)
    assert [s.what for s in found] == said
    assert not any(s.certain for s in found)


def test_rules_of_chains_that_are_jumped_to_are_named_where_they_stand():
    found = chain(
        "accept",
        'iifname "eth0" jump zones',
        "meta l4proto vmap { tcp : goto tcps, udp : jump nowhere }",
        zones=("ip saddr 10.0.0.0/8 jump tcps", 'oifname "docker0" jump docker', "jump zones"),
        tcps=("tcp dport 80 accept", "tcp dport 8080 counter packets 0 bytes 0 drop", "accept", "drop"),
        docker=("drop",),
    )
    what = "rule 'tcp dport 8080 drop' of chain tcps"
    assert [(s.what, s.unused) for s in found] == [(what, True), (what, True)]


DROP = Suspect(DROPS, "policy drop")
RULES = [Suspect(LETS, f"rule '{n}'") for n in range(5)]
SURE = Suspect(LETS, "rule 'drop', and none before it lets it pass", certain=True)
UNUSED = Suspect(LETS, "rule 'x'", unused=True)


@pytest.mark.parametrize(
    ("suspects", "dropping", "said"),
    [
        ([], False, ""),
        ([DROP, *RULES], False, ""),
        (
            [DROP, SURE],
            False,
            "firewall, chain fw of table inet wall (rule 'drop', and none before it lets it pass): let",
        ),
        (
            [DROP, SURE],
            True,
            "firewall, chain fw of table inet wall (rule 'drop', and none before it lets it pass): let",
        ),
        ([DROP, UNUSED], True, "firewall, chain FORWARD of table ip filter (policy drop): let"),
        ([UNUSED], True, "firewall, chain fw of table inet wall (rule 'x'): let"),
        ([DROP, RULES[1]], True, "ip filter (policy drop) or chain fw of table inet wall (rule '1'): let"),
        (
            RULES,
            True,
            "firewall, chain fw of table inet wall (rule '0' or rule '1' or rule '2' or 2 more of its rules): let",
        ),
        ([], True, "another firewall than nftables: let"),
    ],
)
def test_what_is_said(suspects, dropping, said):
    told = why_dropped(suspects, dropping=dropping)
    assert said in told
    assert bool(told) is bool(said)


def test_counters():
    listing = "table ip a {\n\tcounter published_came {\n\t\tpackets 7 bytes 1\n\t}\n}\n"
    assert counted(listing) == (7, 0)
