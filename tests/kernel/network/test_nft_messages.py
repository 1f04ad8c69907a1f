"""Messages packed by hand against `nft`: the same table made both ways, not told apart by its listing."""

import re
import subprocess

import pytest
from network_world import Namespace

from argosy.agent.logic import network_balance as balance
from argosy.agent.logic.network_balance import BALANCE_TABLE, Balanced, change
from argosy.agent.logic.nft_messages import Transaction
from argosy.agent.network.nft import Nft, NftError
from argosy.core.addresses import parse_ipv4

A, B, C = (parse_ipv4(f"10.64.0.{last}") for last in (33, 34, 65))

TEXT = """
table ip argosy-balance {
  map services { type ipv4_addr : verdict; }
  set own { type ipv4_addr . ipv4_addr; }
  map a-sticky { type ipv4_addr : mark; flags dynamic,timeout; timeout 3h; size 65536; }
  chain choose { type nat hook prerouting priority dstnat; policy accept; }
  chain hairpin { type nat hook postrouting priority srcnat; policy accept; }
  chain s-web {
    dnat to numgen inc mod 3 map { 0 : 10.64.0.33, 1 : 10.64.0.34, 2 : 10.64.0.65 }
    dnat to 10.64.0.33
  }
  chain s-heavy {
    dnat to numgen inc mod 6 map { 0-1 : 10.64.0.33, 2 : 10.64.0.34, 3-5 : 10.64.0.65 }
    dnat to 10.64.0.33
  }
  chain s-sticky {
    meta mark set ip saddr map @a-sticky update @a-sticky { ip saddr : meta mark }
    dnat to meta mark map { 0x0a400021 : 10.64.0.33, 0x0a400041 : 10.64.0.65 }
    meta mark set numgen inc mod 3 map { 0-1 : 0x0a400041, 2 : 0x0a400021 }
    delete @a-sticky { ip saddr : meta mark }
    update @a-sticky { ip saddr : meta mark }
    dnat to meta mark map { 0x0a400021 : 10.64.0.33, 0x0a400041 : 10.64.0.65 }
    dnat to 10.64.0.65
  }
  chain s-none {
    meta l4proto tcp reject with tcp reset
    reject with icmp port-unreachable
  }
}
add rule ip argosy-balance choose ip daddr vmap @services
add rule ip argosy-balance hairpin ip saddr . ip daddr @own snat to 169.254.1.1
add element ip argosy-balance services { 10.64.0.1 : goto s-web, 10.64.0.2 : goto s-heavy }
add element ip argosy-balance services { 10.64.0.3 : goto s-sticky, 10.64.0.4 : goto s-none }
add element ip argosy-balance own { 10.64.0.33 . 10.64.0.33 }
"""
SERVICES = {
    "web": Balanced(parse_ipv4("10.64.0.1"), ((A, 0), (B, 0), (C, 0))),
    "heavy": Balanced(parse_ipv4("10.64.0.2"), ((A, 20), (B, 10), (C, 30))),
    "sticky": Balanced(parse_ipv4("10.64.0.3"), ((C, 2), (A, 1)), affinity=True),
    "none": Balanced(parse_ipv4("10.64.0.4")),
}


class Tables:
    """A namespace with nothing but what is put into nftables."""

    def __init__(self) -> None:
        self.namespace = Namespace.new()
        self.nft = self.namespace.run(Nft)

    def execute(self, transaction: Transaction) -> None:
        self.nft.execute(transaction.messages)

    def listing(self) -> list[str]:
        """Return what `nft` makes of the kernel's bytecode, without comments: sets and chains, in a fixed order."""
        listed = re.sub(r' comment "\w*"', "", self.namespace.sh(f"nft list table ip {BALANCE_TABLE}"))
        return sorted(map(_in_order, re.findall(r"^\t\w+ \S+ \{\n.*?^\t\}", listed, re.MULTILINE | re.DOTALL)))

    def close(self) -> None:
        self.nft.close()
        self.namespace.close()


def _in_order(block: str) -> str:
    """Elements are listed in the order of their hashes, which begin with chance."""
    head, found, elements = block.partition("elements = {")
    return head + found + ",".join(sorted(re.split(r"[,\s]{2,}", elements.strip("}\t\n "))))


@pytest.fixture
def tables():
    made = Tables()
    yield made
    made.close()


def test_what_is_packed_is_what_nft_makes(tables: Tables) -> None:
    messages, _ = change(None, SERVICES, frozenset({A}), SERVICES)
    tables.nft.execute(messages)
    ours = tables.listing()
    tables.namespace.sh(f"nft delete table ip {BALANCE_TABLE}")
    tables.namespace.run(lambda: subprocess.run(["nft", "-f", "-"], input=TEXT, text=True, check=True))
    assert ours == tables.listing()


def test_changes_lead_where_the_whole_does(tables: Tables) -> None:
    held = None
    for services in ({"web": SERVICES["none"]}, SERVICES, {"web": SERVICES["heavy"]}, {}, SERVICES):
        messages, held = change(held, services, frozenset({A}), {*services, *SERVICES})
        tables.nft.execute(messages)
        listed = tables.namespace.sh(f"nft list table ip {BALANCE_TABLE}")
        assert balance.read(listed) == held
    stepwise = tables.listing()
    tables.nft.execute(change(None, SERVICES, frozenset({A}), SERVICES)[0])
    assert stepwise == tables.listing()


def test_a_transaction_is_in_force_as_a_whole_or_not_at_all(tables: Tables) -> None:
    tables.nft.execute(change(None, SERVICES, frozenset({A}), SERVICES)[0])
    before = tables.listing()
    broken = Transaction(BALANCE_TABLE)
    broken.flush_chain("s-web")
    broken.delete_chain("s-never")
    broken.add_chain("s-more")
    with pytest.raises(NftError, match="s-never: No such file"):
        tables.execute(broken)
    assert tables.listing() == before
    more = Transaction(BALANCE_TABLE)
    more.add_chain("s-more")
    tables.execute(more)  # the socket is as good as before
    assert "\tchain s-more {\n\t}" in tables.listing()


def test_many_services_are_one_transaction(tables: Tables) -> None:
    many = {f"svc{i}": Balanced(i + 1, tuple((1000 + i * 200 + e, 0) for e in range(200))) for i in range(400)}
    messages, held = change(None, many, frozenset(), many)
    assert sum(len(message.body) for message in messages) > 2 << 20  # more than the socket's buffer holds by itself
    tables.nft.execute(messages)
    assert balance.read(tables.namespace.sh(f"nft list table ip {BALANCE_TABLE}")) == held


def test_a_service_of_many_endpoints(tables: Tables) -> None:
    wide = {"wide": Balanced(1, tuple((1000 + e, 0) for e in range(5000)))}
    tables.nft.execute(change(None, wide, frozenset(), wide)[0])
    assert "4999 : 0.0.23.111 }" in tables.namespace.sh(f"nft list chain ip {BALANCE_TABLE} s-wide")
