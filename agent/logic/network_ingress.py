"""Published ports in a network's namespace: from the uplink to a task, here or on another node, and back. Pure.

The host translates a published port to a *door*: a port at the uplink's inner end (network_ports.py). Here a door leads
to an endpoint. The client's address stays on the packet all the way, so an answer must find the node that the question
came in by, which its destination does not tell:

    question   the VTEP's source address (MAC) tells which node it came through. It is kept as the connection's mark,
               and sets the zone in which the connection is looked up: one client's address and port may come in by two
               nodes at once, as those of every proxy do.
    answer     takes the connection's mark. One rule sends all that is marked to one table, whose default route leads to
               the VTEP by a placeholder neighbour; where it leaves, the mark is translated to the node's MAC address.

So the cost of a packet does not grow with the number of nodes. The kernel's reverse path filter looks with the mark,
too (`src_valid_mark`), and an ICMP error of the router's own carries it (`fwmark_reflect`).

A change costs what changed: a door's chain is written anew, elements are added and deleted, in one transaction.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network
from itertools import accumulate, groupby
from typing import Final

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_state import Entry, Neighbour, Route, RouteKind, Rule, Sysctl
from argosy.core.assignment import NetworkAssignment

INGRESS_TABLE: Final = "argosy-ingress"
"""The name of two tables: of family ip, and netdev for what leaves by the VTEP."""

MARKED: Final = 0x80000000
"""The bit that all marks of nodes have; the rest tells the node."""
ROUTING_TABLE: Final = 14789
BUCKETS: Final = 256
"""Into how many parts clients' addresses are divided where a client keeps its endpoint."""

_IP: Final = f"ip {INGRESS_TABLE}"
_NETDEV: Final = f"netdev {INGRESS_TABLE}"
_PLACEHOLDER_MAC: Final = bytes.fromhex("020000000001")
_AFTER_DSTNAT: Final = -90
INGRESS_TABLES: Final = ((INGRESS_TABLE, "ip"), (INGRESS_TABLE, "netdev"))

Place = tuple[int, int]
"""An address and a port."""


@dataclass(frozen=True, slots=True)
class Door:
    """A port at the uplink that leads to port `target` of one of the endpoints, given as (address, weight).

    With `affinity` a client's address has the same endpoint whichever node it comes in by.
    """

    protocol: str
    number: int
    target: int
    endpoints: tuple[tuple[int, int], ...] = ()
    affinity: bool = False


@dataclass(frozen=True, slots=True)
class Ingress:
    """What a network's ingress tables hold: doors, and the marks of the other nodes by their VTEPs' MAC addresses."""

    subnet: str
    doors: tuple[Door, ...] = ()
    marks: Mapping[bytes, int] = field(default_factory=dict)


def plan_ingress(network: NetworkAssignment) -> list[Entry]:
    """Return the entries by which marked packets leave; the placeholder is one of the addresses that nobody gets."""
    subnet = IPv4Network(network.subnet)
    base = int(subnet.network_address)
    placeholder = base + 1
    return [
        Sysctl("ipv4/conf/all/src_valid_mark", "1"),
        Sysctl("ipv4/fwmark_reflect", "1"),
        Neighbour(names.VTEP, placeholder, _PLACEHOLDER_MAC),
        Route(0, 0, RouteKind.UNICAST, names.VTEP, placeholder, ROUTING_TABLE),
        # What is for the network's own addresses goes on to the main table, marked or not.
        Route(base, subnet.prefixlen, RouteKind.THROW, table=ROUTING_TABLE),
        Rule(MARKED, MARKED, ROUTING_TABLE),
    ]


def node_marks(network_id: str, node_ids: Iterable[str]) -> dict[bytes, int]:
    """Return the mark of each node by its VTEP's MAC address: a hash of its id, so that it outlives the agent.

    Of two nodes with the same hash, which is rare, the second in order takes the next one.
    """
    marks: dict[bytes, int] = {}
    taken: set[int] = set()
    for node_id in sorted(node_ids):
        mark = MARKED | int.from_bytes(blake2b(node_id.encode(), digest_size=4).digest(), "big")
        while mark in taken:
            mark = MARKED | (mark + 1)
        taken.add(mark)
        marks[names.vtep_mac(network_id, node_id)] = mark
    return marks


def change(held: Ingress | None, wanted: Ingress | None) -> str:
    """Return the commands that lead from what is held to what is wanted; "" if nothing differs.

    `held` None: nothing is known of the tables. `wanted` None: there are to be none.
    """
    if held == wanted and held is not None:
        return ""
    if wanted is None:
        return _lines(_removal())
    if held is None or held.subnet != wanted.subnet:
        return _lines((*_removal(), *_base(wanted.subnet), *_difference(Ingress(wanted.subnet), wanted)))
    return _lines(_difference(held, wanted))


def led_datagrams(doors: Iterable[Door]) -> set[tuple[int, Place]]:
    """Return which UDP doors lead where, as their numbers and the places."""
    return {(d.number, (address, d.target)) for d in doors if d.protocol == "udp" for address, _ in d.endpoints}


def _difference(held: Ingress, wanted: Ingress) -> Iterator[str]:
    yield from _mark_elements("delete", held.marks, wanted.marks)
    yield from _mark_elements("add", wanted.marks, held.marks)
    before = {(d.protocol, d.number): d for d in held.doors}
    after = {(d.protocol, d.number): d for d in wanted.doors}
    led = {_lead(door) for door in held.doors}
    gone = [door for key, door in before.items() if after.get(key) != door]
    fresh = [door for key, door in after.items() if before.get(key) != door]
    # In this order nothing refers to what is not there, and all of it is one transaction.
    still = {_lead(door) for door in wanted.doors}
    for door in gone:
        if _lead(door) not in still:
            yield _element("delete", door)
    for door in fresh:
        if door.endpoints:
            yield f"add chain {_IP} {_chain(door)}"
            yield f"flush chain {_IP} {_chain(door)}"
            yield from (f"add rule {_IP} {_chain(door)} {rule}" for rule in _rules(door))
        if _lead(door) not in led:
            yield _element("add", door)
    for door in gone:
        if door.endpoints and _lead(door) not in still:
            yield f"flush chain {_IP} {_chain(door)}"
            yield f"delete chain {_IP} {_chain(door)}"


def _mark_elements(verb: str, these: Mapping[bytes, int], others: Mapping[bytes, int]) -> Iterator[str]:
    differing = sorted((mac, mark) for mac, mark in these.items() if others.get(mac) != mark)
    if differing:
        by_mac = ", ".join(f"{mac.hex(':')} : {mark:#x}" for mac, mark in differing)
        zones = ", ".join(f"{mac.hex(':')} : {zone_of(mark)}" for mac, mark in differing)
        by_mark = ", ".join(f"{mark:#x} : {mac.hex(':')}" for mac, mark in differing)
        yield f"{verb} element {_IP} marks {{ {by_mac} }}"
        yield f"{verb} element {_IP} zones {{ {zones} }}"
        yield f"{verb} element {_NETDEV} nodes {{ {by_mark} }}"


def zone_of(mark: int) -> int:
    """Return the zone of connections that come by a node: not 0, which is everybody else's.

    Two nodes may share one; only clients that come by both of them with the same port would notice.
    """
    return 1 + mark % 65535


def _base(subnet: str) -> Iterator[str]:
    foreign = f'iifname "{names.VTEP}" ip saddr != {subnet}'
    uplink = f'iifname "{names.UPLINK}"'
    yield f"add table {_IP}"
    yield f"add map {_IP} zones {{ typeof ether saddr : ct zone; }}"
    yield f"add map {_IP} marks {{ type ether_addr : mark; }}"
    yield f"add map {_IP} doors {{ type inet_proto . inet_service : verdict; }}"
    yield f"add set {_IP} refused {{ type inet_proto . inet_service; }}"
    for name, hook, rules in (
        (
            "separate",
            "filter hook prerouting priority raw",
            (f"{foreign} ct original zone set ether saddr map @zones",),
        ),
        (
            "remember",
            "filter hook prerouting priority mangle",
            (f"{foreign} ct direction original ct mark set ether saddr map @marks",),
        ),
        ("choose", "nat hook prerouting priority dstnat", (f"{uplink} meta l4proto . th dport vmap @doors",)),
        # For every packet: whatever mark the balancer left on it is not one of ours.
        ("recall", f"filter hook prerouting priority {_AFTER_DSTNAT}", ("meta mark set ct mark",)),
        ("refusal", "", ("meta l4proto tcp reject with tcp reset", "reject with icmp port-unreachable")),
        (
            "refuse",
            "filter hook prerouting priority filter",
            (f"{uplink} ct state new meta l4proto . th dport @refused goto refusal",),
        ),
    ):
        yield f"add chain {_IP} {name}" + (f" {{ type {hook}; policy accept; }}" if hook else "")
        for rule in rules:
            yield f"add rule {_IP} {name} {rule}"
    yield f"add table {_NETDEV}"
    yield f"add map {_NETDEV} nodes {{ type mark : ether_addr; }}"
    hook = f'type filter hook egress device "{names.VTEP}" priority filter; policy accept;'
    yield f"add chain {_NETDEV} egress {{ {hook} }}"
    marked = f"meta mark & {MARKED:#x} == {MARKED:#x}"
    yield f"add rule {_NETDEV} egress {marked} ether daddr set meta mark map @nodes"


def _removal() -> Iterator[str]:
    for table in (_IP, _NETDEV):
        yield f"add table {table}"
        yield f"delete table {table}"


def _chain(door: Door) -> str:
    return f"{door.protocol}-{door.number}"


def _lead(door: Door) -> tuple[str, bool]:
    """Return what of a door its element says: which it is, and whether it leads somewhere."""
    return _chain(door), bool(door.endpoints)


def _element(verb: str, door: Door) -> str:
    key = f"{door.protocol} . {door.number}"
    if door.endpoints:
        return f"{verb} element {_IP} doors {{ {key} : goto {_chain(door)} }}"
    return f"{verb} element {_IP} refused {{ {key} }}"


def _rules(door: Door) -> list[str]:
    """Return the rules that choose an endpoint.

    A packet that is half-way through one as the kernel passes to the next generation no longer finds anything in the
    map of the rule that goes. It may have gone anywhere a moment before: the last rule leads it to the first.
    """
    first = f"meta l4proto {door.protocol} dnat ip to {IPv4Address(door.endpoints[0][0])}:{door.target}"
    return [_choice(door), first] if len(door.endpoints) > 1 else [first]


def _choice(door: Door) -> str:
    if door.affinity:
        chosen, slots = f"jhash ip saddr mod {BUCKETS} seed {MARKED:#x}", _ranges(buckets(door.endpoints))
    else:
        weights = [max(weight, 1) for _, weight in door.endpoints]
        common = math.gcd(*weights)
        ends = list(accumulate(weight // common for weight in weights))
        starts = [0, *ends[:-1]]
        turns = zip(starts, ends, door.endpoints, strict=True)
        chosen, slots = f"numgen inc mod {ends[-1]}", [(start, end - 1, address) for start, end, (address, _) in turns]
    parts = (
        f"{first if first == last else f'{first}-{last}'} : {IPv4Address(address)} . {door.target}"
        for first, last, address in slots
    )
    return f"meta l4proto {door.protocol} dnat ip to {chosen} map {{ {', '.join(parts)} }}"


def buckets(endpoints: Iterable[tuple[int, int]]) -> list[int]:
    """Return which endpoint each part of the clients has: by the highest score, the same on every node.

    When an endpoint goes only its own clients get others; one that comes takes its share evenly (rendezvous hashing).
    """
    known = sorted(endpoints)
    return [max(known, key=lambda endpoint: _score(bucket, *endpoint))[0] for bucket in range(BUCKETS)]


def _score(bucket: int, address: int, weight: int) -> float:
    digest = blake2b(bucket.to_bytes(2, "big") + address.to_bytes(4, "big"), digest_size=6).digest()
    return -max(weight, 1) / math.log((int.from_bytes(digest, "big") + 1) / ((1 << 48) + 1))


def _ranges(chosen: list[int]) -> list[tuple[int, int, int]]:
    """Return (first, last, address) of equal neighbours."""
    found = []
    for address, group in groupby(enumerate(chosen), key=lambda item: item[1]):
        places = [place for place, _ in group]
        found.append((places[0], places[-1], address))
    return found


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
