"""The load balancer of a network on a node, as an nftables table: what should be in it, and how to get there. Pure.

    services   address -> chain of the service        one lookup a connection, however many services there are
    refused    addresses of services without endpoints: connections are reset, datagrams answered by an ICMP error
    own        (address, address) of each local container: a connection that comes back to the container that opened
               it gets the router's source address, else the container would answer itself past the translation
    s-SERVICE  picks an endpoint, in turn, and translates to it
    a-SERVICE  clients' addresses and their endpoints, of a service with client affinity: kept for three hours

A service's chain says nothing of protocols and ports: its address stands for an endpoint's as a whole (a ping is
answered by an endpoint, too). Only the first packet of a connection comes here; connection tracking has the rest.

A change costs what changed: a service's chain is written anew, elements are added and deleted, all in one transaction.
Every rule carries a digest of what its chain is to hold, so that a listing tells what the kernel has, whatever nft's
way of printing is.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import accumulate
from math import gcd
from typing import Final

BALANCE_TABLE: Final = "argosy-balance"
AFFINITY: Final = "3h"
"""How long after its last new connection a client's address is remembered."""
AFFINE_CLIENTS: Final = 65536
"""How many clients are remembered for a service; who finds no room is served like a stranger."""

_ROUTER: Final = "169.254.1.1"
_BLOCK: Final = re.compile(r"^\t(chain|map|set) (\S+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
_COMMENT: Final = re.compile(r'comment "([0-9a-f]*)"$')
_CHOSEN: Final = re.compile(r"([\d.]+) : goto (\S+?)[,\s]")
_ADDRESS: Final = re.compile(r"(\d+\.\d+\.\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class Balanced:
    """A service on one network: its address, and the (address, weight) of its endpoints that get new connections.

    They get them in the order given.
    """

    address: int
    endpoints: tuple[tuple[int, int], ...] = ()
    affinity: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """What a table holds: chains of services with the digest of their rules, affinity maps, and the elements."""

    chains: Mapping[str, str] = field(default_factory=dict)
    memories: frozenset[str] = frozenset()
    chosen: Mapping[int, str] = field(default_factory=dict)
    refused: frozenset[int] = frozenset()
    own: frozenset[int] = frozenset()


_EMPTY: Final = Held()
_BASE: Final = {
    "choose": (
        "type nat hook prerouting priority dstnat; policy accept;",
        ("ip daddr vmap @services",),
    ),
    "refuse": (
        "type filter hook prerouting priority filter; policy accept;",
        ("ct state new ip daddr @refused goto refusal",),
    ),
    "refusal": ("", ("meta l4proto tcp reject with tcp reset", "reject with icmp port-unreachable")),
    "hairpin": (
        "type nat hook postrouting priority srcnat; policy accept;",
        (f"ip saddr . ip daddr @own snat to {_ROUTER}",),
    ),
}


def chain_of(service_id: str) -> str:
    """Return the name of a service's chain."""
    return f"s-{service_id}"


def change(
    held: Held | None, services: Mapping[str, Balanced], own: frozenset[int], touched: Iterable[str]
) -> tuple[str, Held]:
    """Return the commands that lead from what is held to what is wanted, and what is held then; "" if nothing differs.

    `held` None: there is no table, or none that can be built on. Only services in `touched` may differ from what is
    held; with `held` None, and after reading the kernel anew, that must be all services and all that is held.
    """
    start = held or _EMPTY
    chains, memories, chosen = dict(start.chains), set(start.memories), dict(start.chosen)
    refused = set(start.refused)
    chain_lines: list[str] = []
    removals: list[str] = []
    addresses: dict[str, int] = {}
    touched_chains = {chain_of(service_id): service_id for service_id in touched}
    for address, chain in list(chosen.items()) if touched_chains else ():
        if chain in touched_chains:
            addresses[chain] = address
    for chain, service_id in touched_chains.items():
        service = services.get(service_id)
        if service is None or not service.endpoints:
            _release(chosen, addresses, chain)
            if chain in chains:
                del chains[chain]
                removals += [f"flush chain ip {BALANCE_TABLE} {chain}", f"delete chain ip {BALANCE_TABLE} {chain}"]
        else:
            _release(chosen, addresses, chain)
            chosen[service.address] = chain
            rules = _rules(service_id, service)
            if service.affinity and _memory(service_id) not in memories:
                memories.add(_memory(service_id))
                chain_lines.append(_memory_line(service_id))
            if chains.get(chain) != (digest := _digest(rules)):
                verb = "flush" if chain in chains else "add"
                chains[chain] = digest
                chain_lines.append(f"{verb} chain ip {BALANCE_TABLE} {chain}")
                chain_lines += (f'add rule ip {BALANCE_TABLE} {chain} {r} comment "{digest}"' for r in rules)
        if _memory(service_id) in memories and (service is None or not service.affinity):
            memories.discard(_memory(service_id))
            removals.append(f"delete map ip {BALANCE_TABLE} {_memory(service_id)}")
    if touched_chains:
        refused = {s.address for s in services.values() if not s.endpoints}
    after = Held(chains, frozenset(memories), chosen, frozenset(refused), own)
    lines = [
        *(_base() if held is None else ()),
        *_elements("delete", start, after),
        *chain_lines,
        *_elements("add", after, start),
        *removals,
    ]
    return "".join(f"{line}\n" for line in lines), after


def _release(chosen: dict[int, str], addresses: Mapping[str, int], chain: str) -> None:
    """Take the address that a chain had from it, unless another has it by now."""
    address = addresses.get(chain, 0)
    if chosen.get(address) == chain:
        del chosen[address]


def read(listing: str) -> Held | None:
    """Return what a listed table holds; None if the part that does not depend on services is not as it should be.

    A chain that is not wholly what its digest says has the digest "".
    """
    chains: dict[str, str] = {}
    elements: dict[str, str] = {}
    base: dict[str, str] = {}
    for kind, name, body in _BLOCK.findall(listing):
        if kind != "chain":
            elements[name] = body
        elif name.startswith("s-"):
            chains[name] = _read_digest(body)
        else:
            base[name] = body
    if any(not _is_base(base.get(name, ""), *wanted) for name, wanted in _BASE.items()):
        return None
    if base.keys() != _BASE.keys() or not {"services", "refused", "own"} <= elements.keys():
        return None
    pairs = [_number(a) for a in _ADDRESS.findall(elements["own"])]
    return Held(
        chains=chains,
        memories=frozenset(name for name in elements if name.startswith("a-")),
        chosen={_number(address): chain for address, chain in _CHOSEN.findall(elements["services"])},
        refused=frozenset(_number(a) for a in _ADDRESS.findall(elements["refused"])),
        own=frozenset(pairs[::2]) if pairs[::2] == pairs[1::2] else frozenset(),
    )


def services_in(held: Held | None) -> set[str]:
    """Return the services that a table knows of."""
    if held is None:
        return set()
    return {name[2:] for name in (*held.chains, *held.memories, *held.chosen.values())}


def _rules(service_id: str, service: Balanced) -> list[str]:
    total, slots = _slots(service)
    if not service.affinity:
        return [f"dnat to numgen inc mod {total} map {_map((key, IPv4Address(a)) for key, a in slots)}"]
    # A mark is the endpoint's address as a number: what a client's mark of earlier leads to, only while it is there.
    remembered = f"dnat to meta mark map {_map((f'0x{a:08x}', IPv4Address(a)) for a, _ in sorted(service.endpoints))}"
    memory = _memory(service_id)
    return [
        # Nothing is remembered without end: each new connection begins the time anew.
        f"meta mark set ip saddr map @{memory} update @{memory} {{ ip saddr : meta mark }}",
        remembered,
        f"meta mark set numgen inc mod {total} map {_map((key, f'0x{a:08x}') for key, a in slots)}",
        # The kernel only ever renews the time of what is there: an endpoint that is gone has to go first.
        f"delete @{memory} {{ ip saddr : meta mark }}",
        f"update @{memory} {{ ip saddr : meta mark }}",
        remembered,
    ]


def _slots(service: Balanced) -> tuple[int, list[tuple[str, int]]]:
    """Return how many turns a round has, and which of them are an endpoint's: "3", or "3-5"."""
    weights = [max(weight, 1) for _, weight in service.endpoints]
    common = gcd(*weights)
    ends = list(accumulate(weight // common for weight in weights))
    starts = [0, *ends[:-1]]
    keys = [str(first) if end - first == 1 else f"{first}-{end - 1}" for first, end in zip(starts, ends, strict=True)]
    return ends[-1], [(key, address) for key, (address, _) in zip(keys, service.endpoints, strict=True)]


def _map(pairs: Iterable[tuple[str, object]]) -> str:
    return "{ " + ", ".join(f"{key} : {value}" for key, value in pairs) + " }"


def _memory(service_id: str) -> str:
    return f"a-{service_id}"


def _memory_line(service_id: str) -> str:
    kind = f"type ipv4_addr : mark; flags dynamic,timeout; timeout {AFFINITY}; size {AFFINE_CLIENTS};"
    return f"add map ip {BALANCE_TABLE} {_memory(service_id)} {{ {kind} }}"


def _base() -> Iterator[str]:
    table = f"ip {BALANCE_TABLE}"
    yield f"add table {table}"
    yield f"delete table {table}"
    yield f"add table {table}"
    yield f"add map {table} services {{ type ipv4_addr : verdict; }}"
    yield f"add set {table} refused {{ type ipv4_addr; }}"
    yield f"add set {table} own {{ type ipv4_addr . ipv4_addr; }}"
    for name, (hook, _) in _BASE.items():
        yield f"add chain {table} {name} {{ {hook} }}" if hook else f"add chain {table} {name}"
    for name, (_, rules) in _BASE.items():
        for rule in rules:
            yield f'add rule {table} {name} {rule} comment "{_digest(rules)}"'


def _is_base(body: str, hook: str, rules: tuple[str, ...]) -> bool:
    lines = [line.strip() for line in body.splitlines()]
    if hook and (not lines or lines.pop(0) != hook):
        return False
    found = [match.group(1) for line in lines if (match := _COMMENT.search(line))]
    return len(lines) == len(rules) and found == [_digest(rules)] * len(rules)


def _elements(verb: str, these: Held, others: Held) -> Iterator[str]:
    """Yield the commands about the elements that `these` have and `others` have not."""
    chosen = [(a, c) for a, c in sorted(these.chosen.items()) if others.chosen.get(a) != c]
    refused = sorted(these.refused - others.refused)
    own = sorted(these.own - others.own)
    if chosen:
        yield _element(verb, "services", (f"{IPv4Address(a)} : goto {c}" for a, c in chosen))
    if refused:
        yield _element(verb, "refused", (str(IPv4Address(a)) for a in refused))
    if own:
        yield _element(verb, "own", (f"{IPv4Address(a)} . {IPv4Address(a)}" for a in own))


def _element(verb: str, name: str, elements: Iterable[str]) -> str:
    return f"{verb} element ip {BALANCE_TABLE} {name} {{ {', '.join(elements)} }}"


def _digest(rules: Iterable[str]) -> str:
    rules = list(rules)
    return hashlib.sha256("\n".join(rules).encode()).hexdigest()[:12] + f"{len(rules):x}"


def _read_digest(body: str) -> str:
    """Return the digest that all rules of a chain carry, "" if they are not as many as it says."""
    found = [match.group(1) if (match := _COMMENT.search(line)) else "" for line in body.splitlines()]
    if not found or any(digest != found[0] for digest in found):
        return ""
    return found[0] if found[0][12:] == f"{len(found):x}" else ""


def _number(address: str) -> int:
    return int(IPv4Address(address))
