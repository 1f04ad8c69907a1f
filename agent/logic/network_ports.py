"""Published ports in the host's namespace: which the node answers on, and where they lead. Pure.

A published port is translated to a *door*, a port at the inner end of the uplink of the service's network; from there
the network's own namespace goes on (network_ingress.py). A door mostly has the published port's number. Where a network
has the same port twice, at different addresses of the host, the second one has another.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from zlib import crc32

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_firewall import PublishedRules
from argosy.agent.logic.network_ingress import Door
from argosy.agent.logic.network_services import Services
from argosy.agent.logic.network_uplink import UplinkPair
from argosy.core.assignment import NetworkAssignment, PublishedAssignment
from argosy.core.service import PortSpec, PublishMode


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A port of the host: on the address `host_ip`, "" on all of its own."""

    host_ip: str
    protocol: str
    number: int

    def __str__(self) -> str:
        return f"{self.host_ip + ':' if self.host_ip else ''}{self.number}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Opening:
    """A published port of the node, and where it leads; with `local` to tasks of this node alone (host mode)."""

    port: HostPort
    network_id: str
    service_id: str
    door: int
    target: int
    local: bool = False
    affinity: bool = False


def host_port(port: PortSpec) -> HostPort:
    """Return what a published port takes of the host."""
    return HostPort("" if port.host_ip == "0.0.0.0" else port.host_ip, port.protocol, port.published)


def openings(published: Iterable[PublishedAssignment]) -> list[Opening]:
    """Return all published ports of the node in a stable order, each with its door."""
    wanted = sorted(
        ((host_port(port), piece, port) for piece in published for port in piece.ports if port.published),
        key=lambda item: (item[1].network_id, item[0], item[1].service_id),
    )
    taken: set[tuple[str, str, int]] = set()
    found: list[Opening] = []
    for held, piece, port in wanted:
        door = _door(held, piece.network_id, taken)
        taken.add((piece.network_id, held.protocol, door))
        local = port.mode is PublishMode.HOST
        found.append(Opening(held, piece.network_id, piece.service_id, door, port.target, local, piece.client_affinity))
    return found


def _door(port: HostPort, network_id: str, taken: set[tuple[str, str, int]]) -> int:
    """Return a free port of the uplink: the published number, else one that the port's address chooses."""
    door = port.number
    if (network_id, port.protocol, door) in taken:
        door = 1024 + crc32(str(port).encode()) % (65536 - 1024)
        while (network_id, port.protocol, door) in taken:
            door = door + 1 if door < 65535 else 1024
    return door


def doors_of(
    openings_: Iterable[Opening], network_id: str, services: Services, local: Iterable[int]
) -> tuple[Door, ...]:
    """Return a network's doors; `local`: the addresses of this node's own tasks."""
    own = set(local)
    return tuple(
        Door(
            o.port.protocol,
            o.door,
            o.target,
            tuple(e for e in services.active(network_id, o.service_id) if not o.local or e[0] in own),
            o.affinity,
        )
        for o in openings_
        if o.network_id == network_id
    )


def published_rules(
    openings_: Iterable[Opening],
    uplinks: Collection[tuple[NetworkAssignment, UplinkPair]],
) -> PublishedRules:
    """Return what the host's table says of published ports of the networks that have uplinks."""
    pairs = {network.id: pair for network, pair in uplinks}
    subnets = {network.id: network.subnet for network, _ in uplinks}
    known = [o for o in openings_ if o.network_id in pairs]
    if not known:
        return PublishedRules()
    everywhere = [_element("", o, pairs) for o in known if not o.port.host_ip]
    somewhere = [_element(f"{o.port.host_ip} . ", o, pairs) for o in known if o.port.host_ip]
    keys = "type inet_proto . inet_service : ipv4_addr . inet_service;"
    translate = (
        "  dnat ip to ip daddr . meta l4proto . th dport map @published_at",
        "  fib daddr type local dnat ip to meta l4proto . th dport map @published",
    )
    chains = (
        *_map("published", keys, everywhere),
        *_map("published_at", "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;", somewhere),
        "chain published_in {",
        "  type nat hook prerouting priority -101; policy accept;",
        *translate,
        "}",
        "chain published_out {",
        "  type nat hook output priority -101; policy accept;",
        *translate,
        "}",
    )
    masquerade = tuple(
        f'  oifname "{names.host_uplink_device(i)}" ip saddr {{ 127.0.0.0/8, {IPv4Network(subnets[i])} }} masquerade'
        for i in sorted({o.network_id for o in known})
    )
    return PublishedRules(chains, masquerade)


def _element(prefix: str, opening: Opening, pairs: Mapping[str, UplinkPair]) -> str:
    inner = IPv4Address(pairs[opening.network_id].inner)
    return f"{prefix}{opening.port.protocol} . {opening.port.number} : {inner} . {opening.door}"


def _map(name: str, keys: str, elements: list[str]) -> tuple[str, ...]:
    held = (f"  elements = {{ {', '.join(elements)} }}",) if elements else ()
    return (f"map {name} {{", f"  {keys}", *held, "}")
