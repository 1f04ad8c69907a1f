"""The load balancer of a network on a node, as an nftables table: what should be in it, and how to get there. Pure.

    services   address -> chain of the service        one lookup a connection, however many services there are
    own        (address, address) of each local container: a connection that comes back to the container that opened
               it gets the router's source address, else the container would answer itself past the translation
    s-SERVICE  picks an endpoint, in turn, and translates to it; without endpoints it refuses: connections are reset,
               datagrams answered by an ICMP error
    a-SERVICE  clients' addresses and their endpoints, of a service with client affinity: kept for three hours

A service's chain says nothing of protocols and ports: its address stands for an endpoint's as a whole (a ping is
answered by an endpoint, too). Only the first packet of a connection comes here; connection tracking has the rest.

A change costs what changed: a service's chain is written anew, elements are added and deleted, all in one transaction.
Every rule carries a digest of what its chain is to hold, so that a listing tells what the kernel has, whatever nft's
way of printing is.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import accumulate
from math import gcd
from typing import Final

from argosy.agent.logic import nft_messages as nft
from argosy.agent.logic.nft_messages import Hook, NftMessage, Transaction, Type

BALANCE_TABLE: Final = "argosy-balance"
AFFINITY_S: Final = 3 * 3600
"""How long after its last new connection a client's address is remembered."""
AFFINE_CLIENTS: Final = 65536
"""How many clients are remembered for a service; who finds no room is served like a stranger."""

_ROUTER: Final = IPv4Address("169.254.1.1")
_TCP: Final = 6
_SECOND: Final = 2
"""A register beside the first."""
_BESIDE: Final = 9
"""The four bytes that follow an address in the first register, by their own number."""

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
    own: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _BaseChain:
    """A chain that is there whatever the services are; `listed` is how nft prints its hook."""

    hook: Hook
    listed: str
    rule: tuple[bytes, ...]


_EMPTY: Final = Held()
_BASE: Final = {
    "choose": _BaseChain(
        Hook("nat", 0, -100),
        "type nat hook prerouting priority dstnat; policy accept;",
        (nft.load_destination(), nft.lookup("services", into=0)),
    ),
    "hairpin": _BaseChain(
        Hook("nat", 4, 100),
        "type nat hook postrouting priority srcnat; policy accept;",
        (
            nft.load_source(),
            nft.load_destination(_BESIDE),
            nft.lookup("own"),
            nft.immediate(_ROUTER.packed),
            nft.translate_source(),
        ),
    ),
}


def chain_of(service_id: str) -> str:
    """Return the name of a service's chain."""
    return f"s-{service_id}"


def change(
    held: Held | None, services: Mapping[str, Balanced], own: frozenset[int], touched: Iterable[str]
) -> tuple[list[NftMessage], Held]:
    """Return the transaction that leads from what is held to what is wanted, and what is held then.

    Without messages if nothing differs. `held` None: there is no table, or none that can be built on. Only services in
    `touched` may differ from what is held; with `held` None, and after reading the kernel anew, that must be all
    services and all that is held.
    """
    start = held or _EMPTY
    chains, memories, chosen = dict(start.chains), set(start.memories), dict(start.chosen)
    touched_chains = {chain_of(service_id): service_id for service_id in touched}
    wanted = {services[s].address: chain for chain, s in touched_chains.items() if s in services}
    new = {a: chain for a, chain in wanted.items() if chosen.get(a) != chain}
    left = [a for a, chain in chosen.items() if chain in touched_chains and wanted.get(a) != chain]
    gone = dict.fromkeys((*left, *(a for a in new if a in chosen)))
    for address in gone:
        del chosen[address]
    chosen |= new

    batch = Transaction(BALANCE_TABLE)
    if held is None:
        _add_base(batch)
    batch.delete_elements("services", (nft.element(_packed(a)) for a in gone))
    batch.delete_elements("own", map(_own, start.own - own))
    for chain, service_id in touched_chains.items():
        service = services.get(service_id)
        if service and service.affinity and _memory(service_id) not in memories:
            memories.add(_memory(service_id))
            batch.add_memory(_memory(service_id), Type.IPV4, Type.MARK, timeout_s=AFFINITY_S, size=AFFINE_CLIENTS)
        if service and chains.get(chain) != (digest := _digest(service)):
            if chain in chains:
                batch.flush_chain(chain)
            else:
                batch.add_chain(chain)
            for rule in _rules(batch, _memory(service_id), service):
                batch.add_rule(chain, rule, digest)
            chains[chain] = digest
    batch.add_elements("services", (nft.element(_packed(a), nft.goto(chain)) for a, chain in new.items()))
    batch.add_elements("own", map(_own, own - start.own))
    for chain, service_id in touched_chains.items():
        service = services.get(service_id)
        if service is None and chain in chains:
            del chains[chain]
            batch.delete_chain(chain)
        if _memory(service_id) in memories and (service is None or not service.affinity):
            memories.discard(_memory(service_id))
            batch.delete_set(_memory(service_id))
    return batch.messages, Held(chains, frozenset(memories), chosen, own)


def read(listing: str) -> Held | None:
    """Return what a listed table holds; None if the part that does not depend on services is not as it should be.

    Or if there are elements that are none of ours: what is not known cannot be taken out.

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
    if base.keys() != _BASE.keys() or any(not _is_base(base[name], wanted) for name, wanted in _BASE.items()):
        return None
    if not {"services", "own"} <= elements.keys():
        return None
    pairs = [_number(a) for a in _ADDRESS.findall(elements["own"])]
    chosen = {_number(address): chain for address, chain in _CHOSEN.findall(elements["services"])}
    if pairs[::2] != pairs[1::2] or len(_ADDRESS.findall(elements["services"])) != len(chosen):
        return None
    return Held(
        chains=chains,
        memories=frozenset(name for name in elements if name.startswith("a-")),
        chosen=chosen,
        own=frozenset(pairs[::2]),
    )


def services_in(held: Held | None) -> set[str]:
    """Return the services that a table knows of."""
    if held is None:
        return set()
    return {name[2:] for name in (*held.chains, *held.memories, *held.chosen.values())}


def _rules(batch: Transaction, memory: str, service: Balanced) -> list[list[bytes]]:
    """Return the rules of a service's chain; the maps that they look up are added to the transaction."""
    if not service.endpoints:
        return [[nft.is_protocol(_TCP), nft.reset()], [nft.unreachable_port()]]
    starts, turns = _turns(service)
    # A packet that is half-way through a rule as the kernel passes to the next generation no longer finds anything in
    # the map of the rule that goes. It may have gone anywhere a moment before: it goes to the first.
    in_any_case = [nft.immediate(_packed(starts[0][1])), nft.translate_destination()]
    if not service.affinity:
        endpoint = batch.range_map(Type.IPV4, [(first, nft.data(_packed(a))) for first, a in starts], turns)
        return [[nft.next_turn(turns), endpoint, nft.translate_destination()], in_any_case]
    # A mark is the endpoint's address as a number: what a client's mark of earlier leads to, only while it is there.
    pairs = [(nft.mark(a), nft.data(_packed(a))) for a, _ in sorted(service.endpoints)]
    client_and_mark = [nft.load_source(), nft.load_mark(_SECOND)]
    recall = [nft.load_source(), nft.lookup(memory, into=1), nft.set_mark()]
    recalled, chosen = (batch.exact_map(Type.MARK, Type.IPV4, pairs) for _ in range(2))
    mark = batch.range_map(Type.MARK, [(first, nft.data(nft.mark(a))) for first, a in starts], turns)
    return [
        # Nothing is remembered without end: each new connection begins the time anew.
        [*recall, *client_and_mark, nft.remember(memory, _SECOND)],
        [nft.load_mark(), recalled, nft.translate_destination()],
        [nft.next_turn(turns), mark, nft.set_mark()],
        # The kernel only ever renews the time of what is there: an endpoint that is gone has to go first.
        [*client_and_mark, nft.remember(memory, _SECOND, forget=True)],
        [*client_and_mark, nft.remember(memory, _SECOND)],
        [nft.load_mark(), chosen, nft.translate_destination()],
        in_any_case,
    ]


def _turns(service: Balanced) -> tuple[list[tuple[int, int]], int]:
    """Return the first turn of each endpoint's in a round, with its address, and how many turns a round has."""
    weights = [max(weight, 1) for _, weight in service.endpoints]
    common = gcd(*weights)
    starts = [0, *accumulate(weight // common for weight in weights)]
    return [(start, address) for start, (address, _) in zip(starts, service.endpoints, strict=False)], starts[-1]


def _memory(service_id: str) -> str:
    return f"a-{service_id}"


def _packed(address: int) -> bytes:
    return address.to_bytes(4, "big")


def _own(address: int) -> bytes:
    return nft.element(_packed(address) * 2)


def _add_base(batch: Transaction) -> None:
    batch.renew_table()
    batch.add_set("services", Type.IPV4, Type.VERDICT)
    batch.add_set("own", Type.IPV4_PAIR)
    for name, chain in _BASE.items():
        batch.add_chain(name, chain.hook)
        batch.add_rule(name, chain.rule, _base_digest(chain))


def _is_base(body: str, wanted: _BaseChain) -> bool:
    lines = [line.strip() for line in body.splitlines()]
    if len(lines) != 2 or lines[0] != wanted.listed:
        return False
    found = _COMMENT.search(lines[1])
    return found is not None and found.group(1) == _base_digest(wanted)


def _base_digest(chain: _BaseChain) -> str:
    return hashlib.sha256(b"".join(chain.rule)).hexdigest()[:12]


def _form(*, endpoints: bool, affinity: bool) -> tuple[str, int]:
    """Return a digest of how the rules of such a service are written, and how many there are."""
    batch = Transaction("")
    rules = _rules(batch, "", Balanced(0, ((0, 0),) if endpoints else (), affinity))
    packed = b"".join(message.body for message in batch.messages) + b"".join(map(b"".join, rules))
    return hashlib.sha256(packed).hexdigest(), len(rules)


_FORMS: Final = {
    (endpoints, affinity): _form(endpoints=endpoints, affinity=affinity)
    for endpoints in (False, True)
    for affinity in (False, True)
}


def _digest(service: Balanced) -> str:
    """Return what tells a service's rules apart: another release may write the same ones in another form."""
    form, count = _FORMS[bool(service.endpoints), service.affinity]
    turns = _turns(service) if service.endpoints else ()
    return hashlib.sha256(f"{form} {turns}".encode()).hexdigest()[:12] + f"{count:x}"


def _read_digest(body: str) -> str:
    """Return the digest that all rules of a chain carry, "" if they are not as many as it says."""
    found = [match.group(1) if (match := _COMMENT.search(line)) else "" for line in body.splitlines()]
    if not found or any(digest != found[0] for digest in found):
        return ""
    return found[0] if found[0][12:] == f"{len(found):x}" else ""


def _number(address: str) -> int:
    return int(IPv4Address(address))
