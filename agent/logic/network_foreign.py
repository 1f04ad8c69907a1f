"""Whether another firewall of the host drops what comes to published ports, and what to call it. Pure.

Such packets pass the host's forward hook, where every table may drop them: ours counts the first packet of each
connection as it comes and, behind all others, as it has passed. That says that something drops, and a listing says what
may: a chain that ends by dropping everything, by its policy or a last rule, does so for certain where no rule before
could let anything new pass. Of the other rules that drop all are named that a published port's first packet may meet.
Conditions are read for two things alone, the connection's state and the device that it leaves by.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from argosy.agent.logic.network_names import HOST_UPLINK_PREFIX

CAME: Final = "published_came"
PASSED: Final = "published_passed"
MOST_NAMED: Final = 3
"""Of one chain; more are counted."""
_MOST_TEXT: Final = 120

_TABLE: Final = re.compile(r"table (\S+) (\S+) \{.*")
_CHAIN: Final = re.compile(r"\tchain (\S+) \{.*")
_HOOK: Final = re.compile(r"\s+type filter hook forward priority [^;]*; policy (\w+);")
_COUNTER: Final = re.compile(r"counter (\w+) \{\s*packets (\d+)")
_PASSING: Final = re.compile(r"(?<![\w@.-])(accept|return|jump|goto|queue|vmap)(?![\w.-])")
_DROPPING: Final = re.compile(r"(?<![\w@.-])(drop|reject|queue|vmap @\S+)(?![\w.-])|xt target \"REJECT\"")
_JUMP: Final = re.compile(r"\b(?:jump|goto) ([\w./\\-]+)")
_NOT_NEW: Final = re.compile(r"ct state (\{ )?(established|related|invalid)(,\s?(established|related|invalid))*( \})? ")
_LEAVES_BY: Final = re.compile(r'\boif(?:name)? "([^"]+)" ')
_REJECTS_IPV6: Final = re.compile(r"reject with icmpv6 ")
_END: Final = re.compile(r'(accept|drop|reject(?: with icmpx?(?: type)? [\w-]+)?|xt target "REJECT")')
_ASIDE: Final = re.compile(
    r'\bcounter( packets \d+ bytes \d+)?|\blog( (prefix "[^"]*"|(level|flags|group|snaplen) \S+))*|\bcomment "[^"]*"'
)
"""What a rule does beside its verdict, to whatever it is about."""
_UNUSED: Final = re.compile(r"\bcounter packets 0 bytes 0\b")
_CHANGING: Final = re.compile(r"counter packets \d+ bytes \d+ ?| used \d\S* \S+")
"""What a listing says of a rule that changes by itself."""


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


@dataclass(frozen=True, slots=True)
class Suspect:
    """What may drop what comes to published ports: a rule that a chain leads to, or its policy.

    `certain`: it does, since nothing before lets anything new pass. `unused`: its counter says that it never did.
    """

    chain: ForeignChain
    what: str
    certain: bool = False
    unused: bool = False


def rules_of(listing: str) -> dict[str, list[str]]:
    """Return the rules of each chain from what `list table` or `list chain` prints; the line of a hook is none."""
    found: dict[str, list[str]] = {}
    rules: list[str] | None = None
    for line in listing.splitlines():
        if match := _CHAIN.fullmatch(line):
            rules = found[match[1]] = []
        elif line == "\t}":
            rules = None
        elif rules is not None and line.startswith("\t\t") and not _HOOK.fullmatch(line):
            rules.append(line.strip())
    return found


def suspects_of(chain: ForeignChain, rules: Mapping[str, Sequence[str]]) -> list[Suspect]:
    """Return what of a chain may drop a published port's first packet, in the order that it would meet it.

    `rules`: of the chain, and of those that it jumps to as far as they are to be looked into.
    """
    found: list[Suspect] = []
    passing = False
    for rule in rules.get(chain.name, ()):
        end = _end(rule)
        if not _concerns(rule):
            continue
        if end == "accept":
            return found
        if end:
            how = "" if passing else ", and none before it lets it pass"
            return [*found, Suspect(chain, _named(rule) + how, certain=not passing, unused=_is_unused(rule))]
        found += (
            Suspect(chain, what, unused=unused) for what, unused in _dropping(chain.name, rule, rules, {chain.name})
        )
        let = _PASSING.search(_ASIDE.sub("", rule))
        passing = passing or bool(let and (let[1] != "return" or not chain.drops))
    if chain.drops:
        found.append(
            Suspect(chain, "policy drop" + ("" if passing else ", and no rule lets it pass"), certain=not passing)
        )
    return found


def _dropping(
    within: str, rule: str, rules: Mapping[str, Sequence[str]], seen: Collection[str], top: bool = True
) -> Iterator[tuple[str, bool]]:
    """Yield what drops by a rule, and whether it never did: the rule itself, and those of the chains it leads to."""
    if not _concerns(rule):
        return
    if _DROPPING.search(_ASIDE.sub("", rule)):
        yield _named(rule) + ("" if top else f" of chain {within}"), _is_unused(rule)
    for target in dict.fromkeys(_JUMP.findall(rule)):
        for other in rules.get(target, ()) if target not in seen else ():
            yield from _dropping(target, other, rules, {*seen, target}, top=False)
            if _concerns(other) and _end(other):
                break


def _concerns(rule: str) -> bool:
    """Whether a published port's first packet may meet a rule's conditions."""
    device = _LEAVES_BY.search(rule)
    elsewhere = device and not _may_be_an_uplink(device[1])
    return not (elsewhere or _NOT_NEW.search(rule) or _REJECTS_IPV6.search(rule))


def _may_be_an_uplink(device: str) -> bool:
    return device.startswith(HOST_UPLINK_PREFIX) or (
        device.endswith("*") and HOST_UPLINK_PREFIX.startswith(device[:-1])
    )


def _end(rule: str) -> str:
    """Return the verdict of a rule without conditions; "" of one with some, or without a verdict."""
    match = _END.fullmatch(" ".join(_ASIDE.sub("", rule).split()))
    return match[1] if match else ""


def _is_unused(rule: str) -> bool:
    return bool(_UNUSED.search(rule))


def _named(rule: str) -> str:
    text = _CHANGING.sub("", rule)
    return f"rule '{text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + '…'}'"


def counted(listing: str) -> tuple[int, int]:
    """Return how many came and how many passed, from what `list counters` prints."""
    counts = {name: int(packets) for name, packets in _COUNTER.findall(listing)}
    return counts.get(CAME, 0), counts.get(PASSED, 0)


def why_dropped(suspects: Sequence[Suspect], *, dropping: bool) -> str:
    """Return what to tell of published ports; "" when nothing drops what comes to them.

    `dropping`: what came of late has not passed.
    """
    blamed = [s for s in suspects if s.certain]
    if not blamed and not dropping:
        return ""
    blamed = blamed or [s for s in suspects if not s.unused] or list(suspects)
    by_chain: dict[ForeignChain, list[str]] = {}
    for suspect in blamed:
        by_chain.setdefault(suspect.chain, []).append(suspect.what)
    names = " or ".join(f"{chain} ({_some(what)})" for chain, what in by_chain.items())
    return (
        f"what comes from other hosts is dropped by the host's firewall, {names or 'another firewall than nftables'}: "
        'let pass what is forwarded to "au*", and back'
    )


def _some(what: Sequence[str]) -> str:
    more = len(what) - MOST_NAMED
    return " or ".join([*what[:MOST_NAMED], *([f"{more} more of its rules"] if more > 0 else [])])
