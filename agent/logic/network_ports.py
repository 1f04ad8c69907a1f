"""Published ports in the host's namespace: which the node answers on, and where they lead. Pure.

A published port is translated to a *door*, a port at the inner end of the uplink of the service's network; from there
the network's own namespace goes on (network_ingress.py). A door mostly has the published port's number. Where a network
has the same port twice, at different addresses of the host, the second one has another.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from zlib import crc32

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_firewall import PublishedRules
from argosy.agent.logic.network_foreign import CAME, PASSED
from argosy.agent.logic.network_ingress import Door, Place
from argosy.agent.logic.network_services import Services
from argosy.agent.logic.network_uplink import UplinkPair
from argosy.core import service as spec
from argosy.core.assignment import NetworkAssignment, PublishedAssignment
from argosy.core.ports import plain_host_ip, said


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A port of the host: on the address `host_ip`, "" on all of its own."""

    host_ip: str
    protocol: str
    number: int

    def __str__(self) -> str:
        return said(self.protocol, self.number, self.host_ip)


@dataclass(frozen=True, slots=True)
class Opening:
    """A published port of the node, and where it leads.

    `only`: in host mode, the addresses of this node's tasks that have the port; None: it leads to all of the service.
    """

    port: HostPort
    network_id: str
    service_id: str
    door: int
    target: int
    affinity: bool = False
    only: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class LocalPort:
    """A port in host mode of a task of this node, which has an address on a network that leads outside."""

    service_id: str
    network_id: str
    address: int
    port: spec.HostPort


def host_port(port: spec.HostPort) -> HostPort:
    """Return what a port of a task takes of the host."""
    return HostPort(plain_host_ip(port.host_ip), port.protocol, port.port)


def openings(published: Iterable[PublishedAssignment], local: Iterable[LocalPort] = ()) -> list[Opening]:
    """Return all published ports of the node in a stable order, each with its door; none twice.

    A port in host mode that is everybody's already stays that.
    """
    found: dict[HostPort, Opening] = {}
    for piece in published:
        for port in piece.ports:
            held = HostPort(plain_host_ip(port.host_ip), port.protocol, port.published)
            if port.published and (held not in found or piece.service_id < found[held].service_id):
                found[held] = Opening(held, piece.network_id, piece.service_id, 0, port.target, piece.client_affinity)
    for one in sorted(local, key=lambda one: (one.service_id, one.address)):
        held = host_port(one.port)
        other = found.get(held)
        mine = Opening(held, one.network_id, one.service_id, 0, one.port.target, only=frozenset({one.address}))
        if other is None:
            found[held] = mine
        elif other.only is not None and replace(other, only=mine.only) == mine:
            found[held] = replace(other, only=other.only | {one.address})
    taken: set[tuple[str, str, int]] = set()
    return [_with_door(found[held], taken) for held in sorted(found)]


def lost_ports(local: Iterable[LocalPort], wanted: Iterable[Opening]) -> Iterator[tuple[LocalPort, str]]:
    """Yield the ports of this node's tasks that are another service's here, and what to say of each.

    A rollback may bring back a port that was given away meanwhile. One that every node has for the same service leads
    to its tasks anyway.
    """
    holders = {opening.port: opening for opening in wanted}
    for one in local:
        port = host_port(one.port)
        holder = holders[port]
        if holder.only is None and holder.service_id == one.service_id:
            continue
        if holder.only is None or one.address not in holder.only:
            yield one, f"port {port} is published by another service of the cluster ({holder.service_id})"


def _with_door(opening: Opening, taken: set[tuple[str, str, int]]) -> Opening:
    """Choose a free port of the uplink: the published number, else one that the whole port chooses."""
    network, protocol, door = opening.network_id, opening.port.protocol, opening.port.number
    if (network, protocol, door) in taken:
        door = 1024 + crc32(str(opening.port).encode()) % (65536 - 1024)
        while (network, protocol, door) in taken:
            door = door + 1 if door < 65535 else 1024
    taken.add((network, protocol, door))
    return replace(opening, door=door)


def doors_of(wanted: Iterable[Opening], network_id: str, services: Services) -> tuple[Door, ...]:
    """Return a network's doors."""
    return tuple(
        Door(
            o.port.protocol,
            o.door,
            o.target,
            tuple(e for e in services.active(network_id, o.service_id) if o.only is None or e[0] in o.only),
            o.affinity,
        )
        for o in wanted
        if o.network_id == network_id
    )


def led_datagrams(wanted: Iterable[Opening], pairs: Mapping[str, UplinkPair]) -> dict[tuple[str, int], Place]:
    """Return the doors that UDP ports of the host lead to, by address ("" is all of its own) and number."""
    return {
        (o.port.host_ip, o.port.number): (pairs[o.network_id].inner, o.door)
        for o in wanted
        if o.port.protocol == "udp" and o.network_id in pairs
    }


def published_rules(
    wanted: Iterable[Opening],
    with_uplinks: Collection[tuple[NetworkAssignment, UplinkPair]],
) -> PublishedRules:
    """Return what the host's table says of published ports of the networks that have uplinks.

    Where each leads is in a table of its own (network_leads.py), since that changes more often.
    """
    subnets = {network.id: network.subnet for network, _ in with_uplinks}
    joined = sorted({o.network_id for o in wanted} & subnets.keys())
    if not joined:
        return PublishedRules()
    uplinks = f'"{names.HOST_UPLINK_PREFIX}*"'
    chains = (
        f"counter {CAME} {{ }}",
        f"counter {PASSED} {{ }}",
        "chain published_passed {",
        "  type filter hook forward priority 1000; policy accept;",
        f"  oifname {uplinks} ct state new ct status dnat counter name {PASSED}",
        "}",
    )
    masquerade = tuple(
        f'  oifname "{names.host_uplink_device(i)}" ip saddr {{ 127.0.0.0/8, {IPv4Network(subnets[i])} }} masquerade'
        for i in joined
    )
    return PublishedRules(chains, masquerade)
