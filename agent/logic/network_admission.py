"""Who may send VXLAN packets to this host, as an nftables table of the host's namespace. Pure.

A VTEP takes what comes to its port from anyone, and the number of a network is no secret: any machine that reaches the
host could put frames into its networks. So packets for the port are dropped unless they come from an address of a
peer. Whoever can use a peer's address as its own on this wire is not kept out by that: encryption does.

The table is apart from the one of the uplinks: it is needed by internal networks, too, and a peer that comes or goes
costs one element. Its chain is the only one that a peer's packet passes on its way in. Connection tracking, which would
cost time and room for nothing, is told so there. What is routed through this host is not judged. Of what comes in
fragments the first is dropped, so that the rest is never put together.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final

from argosy.agent.logic.network_firewall import removal

_SET: Final = re.compile(r"set peers \{(.*?)\n\t\}", re.DOTALL)
_ADDRESS: Final = re.compile(r"\d+\.\d+\.\d+\.\d+")
_HOOK: Final = "type filter hook prerouting priority raw; policy accept;"


def change(table: str, port: int, held: frozenset[int] | None, wanted: frozenset[int] | None) -> str:
    """Return the commands that lead from the peers held to those wanted; None: there is to be no table at all."""
    if held == wanted:
        return ""
    if wanted is None:
        return removal(table)
    if held is None:
        rules = "".join(f"    {rule}\n" for rule in (_HOOK, *_rules(port)))
        body = f"  set peers {{ type ipv4_addr; }}\n  chain admit {{\n{rules}  }}\n"
        return f"{removal(table)}table ip {table} {{\n{body}}}\n{_elements('add', table, wanted)}"
    return _elements("add", table, wanted - held) + _elements("delete", table, held - wanted)


def read(listing: str, port: int) -> frozenset[int] | None:
    """Return the peers in a listed table; None if the rest of it is not as it should be."""
    lines = [line.strip() for line in _SET.sub("", listing).splitlines()]
    body = [re.sub(r"packets \d+ bytes \d+ ", "", line) for line in lines if line not in ("", "}")][1:]
    found = _SET.search(listing)
    if found is None or body != ["chain admit {", _HOOK, *_rules(port)]:
        return None
    return frozenset(int(IPv4Address(address)) for address in _ADDRESS.findall(found.group(1)))


def _rules(port: int) -> tuple[str, ...]:
    return (
        f"udp dport {port} ip saddr @peers notrack accept",
        # Broadcasts come in, too.
        f"udp dport {port} fib daddr type != unicast counter drop",
    )


def _elements(verb: str, table: str, addresses: Iterable[int]) -> str:
    listed = ", ".join(str(IPv4Address(address)) for address in sorted(addresses))
    return f"{verb} element ip {table} peers {{ {listed} }}\n" if listed else ""
