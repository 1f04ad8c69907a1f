"""Whether another firewall of the host drops what comes to published ports, and what to call it. Pure.

Such packets pass the host's forward hook, where every table may drop them: ours counts the first packet of each
connection as it comes and, behind all others, as it has passed. That says that something drops, and a listing says what
may: a chain whose policy is to drop, and in which no rule could let anything new pass, does so for certain.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

CAME: Final = "published_came"
PASSED: Final = "published_passed"

_TABLE: Final = re.compile(r"table (\S+) (\S+) \{")
_CHAIN: Final = re.compile(r"\s+chain (\S+) \{")
_HOOK: Final = re.compile(r"\s+type filter hook forward priority [^;]*; policy (\w+);")
_COUNTER: Final = re.compile(r"counter (\w+) \{\s*packets (\d+)")
_PASSING: Final = re.compile(r"\b(accept|jump|goto|queue|vmap)\b")
_DROPPING: Final = re.compile(r"\b(drop|reject|jump|goto|queue|vmap)\b")
_KNOWN_ONLY: Final = re.compile(r"ct state (\{ )?(established|related)(,\s?(established|related))*( \})? ")


@dataclass(frozen=True, slots=True)
class ForeignChain:
    """A chain of somebody else's at the forward hook."""

    family: str
    table: str
    name: str
    drops: bool

    def __str__(self) -> str:
        return f"chain {self.name} of table {self.family} {self.table}"


def foreign_chains(listing: str, own: Collection[str]) -> list[ForeignChain]:
    """Return the chains at the forward hook from what `list chains` prints, but for those of our tables."""
    found: list[ForeignChain] = []
    family = table = chain = ""
    for line in listing.splitlines():
        if match := _TABLE.fullmatch(line):
            family, table = match.groups()
        elif match := _CHAIN.fullmatch(line):
            chain = match[1]
        elif (match := _HOOK.fullmatch(line)) and family in ("ip", "inet") and table not in own:
            found.append(ForeignChain(family, table, chain, match[1] == "drop"))
    return found


def may_pass(chain_listing: str) -> bool:
    """Whether some rule of a chain could let a new connection pass, by what `list chain` prints."""
    return any(_PASSING.search(rule) and not _KNOWN_ONLY.search(rule) for rule in _rules(chain_listing))


def may_drop(chain_listing: str) -> bool:
    """Whether some rule of a chain could drop something, by what `list chain` prints; its policy is another matter."""
    return any(_DROPPING.search(rule) for rule in _rules(chain_listing))


def _rules(chain_listing: str) -> Iterable[str]:
    return (line for line in chain_listing.splitlines() if not _HOOK.fullmatch(line))


def counted(listing: str) -> tuple[int, int]:
    """Return how many came and how many passed, from what `list counters` prints."""
    counts = {name: int(packets) for name, packets in _COUNTER.findall(listing)}
    return counts.get(CAME, 0), counts.get(PASSED, 0)


def why_dropped(suspects: Iterable[ForeignChain], certain: Collection[ForeignChain], *, dropping: bool) -> str:
    """Return what to tell of published ports; "" when nothing drops what comes to them.

    `suspects`: chains that may drop it, by policy or by a rule; `certain`: of these, those that let nothing new pass;
    `dropping`: what came of late has not passed.
    """
    if certain:
        blamed = [f"{chain} (policy drop, and no rule lets it pass)" for chain in certain]
    elif dropping:
        blamed = [f"{chain} ({'policy drop' if chain.drops else 'one of its rules'})" for chain in suspects]
    else:
        return ""
    names = " or ".join(blamed) or "another firewall than nftables"
    return (
        f"what comes from other hosts is dropped by the host's firewall, {names}: "
        'let pass what is forwarded to "au*", and back'
    )
