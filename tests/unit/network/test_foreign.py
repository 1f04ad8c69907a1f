"""Another firewall of the host: which chains may drop, and what is said of them."""

import pytest

from argosy.agent.logic.network_foreign import ForeignChain, counted, foreign_chains, may_drop, may_pass, why_dropped

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


@pytest.mark.parametrize(
    ("rules", "passes"),
    [
        ((), False),
        (("ct state established,related accept",), False),
        (("ct state { established, related } accept",), False),
        (("ct state related,established counter packets 0 bytes 0 accept", "counter drop"), False),
        (('oifname "docker0" jump DOCKER',), True),
        (("ct status dnat counter packets 0 bytes 0 accept",), True),
        (("ct state established,new accept",), True),
    ],
)
def test_whether_something_new_may_pass(rules, passes):
    head = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n"
    assert may_pass(head + "".join(f"\t\t{rule}\n" for rule in rules) + "\t}\n}\n") is passes


@pytest.mark.parametrize(
    ("rule", "drops"),
    [
        ("counter packets 0 bytes 0", False),
        ("tcp dport 80 accept", False),
        ("tcp dport 80 drop", True),
        ("reject with icmpx admin-prohibited", True),
        ("jump filter_FORWARD_POLICIES", True),
    ],
)
def test_whether_a_rule_may_drop(rule, drops):
    hook = "type filter hook forward priority filter; policy drop;"
    assert may_drop(f"table inet wall {{\n\tchain fw {{\n\t\t{hook}\n\t\t{rule}\n\t}}\n}}\n") is drops


@pytest.mark.parametrize(
    ("suspects", "certain", "dropping", "said"),
    [
        ([], [], False, ""),
        ([DROPS, LETS], [], False, ""),
        ([DROPS, LETS], [DROPS], False, "chain FORWARD of table ip filter (policy drop, and no rule lets it pass):"),
        ([DROPS], [], True, "chain FORWARD of table ip filter (policy drop):"),
        ([DROPS, LETS], [], True, "(policy drop) or chain fw of table inet wall (one of its rules):"),
        ([LETS], [], True, "chain fw of table inet wall (one of its rules):"),
        ([], [], True, "another firewall than nftables:"),
    ],
)
def test_what_is_said(suspects, certain, dropping, said):
    told = why_dropped(suspects, certain, dropping=dropping)
    assert said in told
    assert bool(told) is bool(said)


def test_counters():
    listing = "table ip a {\n\tcounter published_came {\n\t\tpackets 7 bytes 1\n\t}\n}\n"
    assert counted(listing) == (7, 0)
