"""Where the published ports of the host lead, as a table of its own in the host's namespace. Pure.

Two maps, from a port (at any of the host's addresses, or at one) to a door: the inner end of an uplink, with a port.
What is around them never changes, and a change is the elements that differ: a packet that is half-way through a table
that is replaced finds nothing in its maps any more, once the kernel has passed to the next generation, and connections
to ports that did not change would be refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from argosy.agent.logic.network_firewall import removal
from argosy.agent.logic.network_ports import Opening
from argosy.agent.logic.network_uplink import UplinkPair

_TRANSLATE = (
    "dnat ip to ip daddr . meta l4proto . th dport map @published_at",
    "fib daddr type local dnat ip to meta l4proto . th dport map @published",
)
_DOOR = "ipv4_addr . inet_service"


@dataclass(frozen=True, slots=True, order=True)
class Lead:
    """An element of one of the maps, in nft's words."""

    map: str
    key: str
    door: str


def leads(wanted: Iterable[Opening], pairs: Mapping[str, UplinkPair]) -> frozenset[Lead] | None:
    """Return where ports lead, of the networks that have uplinks; None where none does."""
    return frozenset(_lead(o, pairs[o.network_id]) for o in wanted if o.network_id in pairs) or None


def _lead(opening: Opening, pair: UplinkPair) -> Lead:
    port = f"{opening.port.protocol} . {opening.port.number}"
    door = f"{IPv4Address(pair.inner)} . {opening.door}"
    if opening.port.host_ip:
        return Lead("published_at", f"{opening.port.host_ip} . {port}", door)
    return Lead("published", port, door)


def change(table: str, held: frozenset[Lead] | None, wanted: frozenset[Lead] | None) -> str:
    """Return the commands that lead from the elements held to those wanted; None: of no table, or of an unknown one."""
    if wanted is None:
        return removal(table)
    if held is None:
        return _base(table) + _elements("add", table, wanted)
    return _elements("delete", table, held - wanted) + _elements("add", table, wanted - held)


def _base(table: str) -> str:
    hooks = "".join(
        f"  chain {hook} {{\n    type nat hook {hook} priority -101; policy accept;\n"
        + "".join(f"    {rule}\n" for rule in _TRANSLATE)
        + "  }\n"
        for hook in ("prerouting", "output")
    )
    maps = (
        f"  map published {{ type inet_proto . inet_service : {_DOOR}; }}\n"
        f"  map published_at {{ type ipv4_addr . inet_proto . inet_service : {_DOOR}; }}\n"
    )
    return f"{removal(table)}table ip {table} {{\n{maps}{hooks}}}\n"


def _elements(verb: str, table: str, these: Iterable[Lead]) -> str:
    return "".join(f"{verb} element ip {table} {one.map} {{ {one.key} : {one.door} }}\n" for one in sorted(these))
