"""What a container's own namespace gets for its attachments: addresses, the way out, one table an attachment. Pure.

With one attachment there is only a default route. With several, traffic follows its source address: a rule and a
table for each attachment, so that an answer leaves by the link that the question came in by. The main table, for
sockets that have not chosen an address yet, knows each network's subnet, and a default route over the first attachment
whose network is not internal; if all are internal there is none and the outside is unreachable at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_plan import ROUTER, Site, link_mtu
from argosy.agent.logic.network_state import (
    MAIN_TABLE,
    Address,
    Entry,
    Link,
    LinkKind,
    Neighbour,
    Route,
    RouteKind,
    Rule,
)
from argosy.core.assignment import NetworkAssignment
from argosy.core.errors import PreconditionError

FIRST_TABLE: Final = 1000
"""Table, and priority of its rule, of the first attachment."""

FIRST_INDEX: Final = 10
"""Interface index of eth0: set by us, so that nothing need be asked back; below are the kernel's own devices."""


@dataclass(frozen=True, slots=True)
class ContainerRoute:
    """A route in a container; through the router, or straight to it where `via_router` is false."""

    destination: int
    prefix: int
    via_router: bool = True
    table: int = MAIN_TABLE


@dataclass(frozen=True, slots=True)
class ContainerLink:
    """One attachment: a link, its address, its routes, and `rule_table` if its source address chooses a table."""

    network_id: str
    name: str
    index: int
    mtu: int
    address: int
    mac: bytes
    router_mac: bytes
    default_route: bool
    routes: tuple[ContainerRoute, ...]
    rule_table: int = 0


def plan_container_links(site: Site, attachments: Sequence[tuple[NetworkAssignment, int]]) -> tuple[ContainerLink, ...]:
    """Return the links of a container attached to networks at addresses, in that order.

    Raises PreconditionError if two networks overlap: one address would mean two things to the container.
    """
    _refuse_overlap([network for network, _ in attachments])
    default = next((i for i, (network, _) in enumerate(attachments) if not network.internal), -1)
    several = len(attachments) > 1
    return tuple(
        _link(site, network, address, index, several=several, default=index == default)
        for index, (network, address) in enumerate(attachments)
    )


def rules_of(link: ContainerLink) -> list[Rule]:
    """Return the rules by which an attachment's source address chooses its table."""
    return [Rule(0, 0, link.rule_table, source=link.address)] if link.rule_table else []


def plan_inside(link: ContainerLink) -> list[Entry]:
    """Return what the container's own namespace holds for an attachment; what else is there is its own affair."""
    return [
        Link(names.LOOPBACK, LinkKind.LOOPBACK),
        Link(link.name, LinkKind.CONTAINER, mtu=link.mtu, mac=link.mac),
        Address(link.name, link.address),
        Neighbour(link.name, ROUTER, link.router_mac),
        *(
            Route(r.destination, r.prefix, RouteKind.UNICAST, link.name, ROUTER if r.via_router else 0, table=r.table)
            for r in link.routes
        ),
        *rules_of(link),
    ]


def _link(
    site: Site, network: NetworkAssignment, address: int, index: int, *, several: bool, default: bool
) -> ContainerLink:
    subnet = IPv4Network(network.subnet)
    table = FIRST_TABLE + index if several else 0
    routes: list[ContainerRoute] = []
    if several or not default:
        routes.append(ContainerRoute(int(subnet.network_address), subnet.prefixlen))
    if default:
        routes.append(ContainerRoute(0, 0))
    elif index == 0:
        # The name server must be reached over a link even if there is no default route.
        routes.append(ContainerRoute(ROUTER, 32, via_router=False))
    if several:
        routes.append(ContainerRoute(0, 0, table=table))
    return ContainerLink(
        network_id=network.id,
        name=names.container_interface(index),
        index=FIRST_INDEX + index,
        mtu=link_mtu(site, network),
        address=address,
        mac=names.container_mac(network.id, address),
        router_mac=names.router_mac(network.id),
        default_route=default,
        routes=tuple(routes),
        rule_table=table,
    )


def _refuse_overlap(networks: Sequence[NetworkAssignment]) -> None:
    for index, one in enumerate(networks):
        for other in networks[index + 1 :]:
            if IPv4Network(one.subnet).overlaps(IPv4Network(other.subnet)):
                raise PreconditionError(
                    f"networks {one.name} ({one.subnet}) and {other.name} ({other.subnet}) overlap: "
                    "one task cannot be on both; give one of them another subnet"
                )
