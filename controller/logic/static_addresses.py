"""Static addresses: which slice has them, whose they are, and which node announces them. Pure.

A service with one replica may ask for the very address that its task has. Such addresses lie in slices whose `use` is
STATIC, which are leased to no node: the first service that asks for an address in a slice makes it one, in the
transaction that stores the service, so that a node's lease of the same slice and the claim exclude each other. The
slice says whose each address is; peers get a route to each address by itself (PeerAssignment.addresses). A slice that
nobody has an address of is given back (loops/networks.py).

So static addresses and those that nodes lease never meet, wherever in the subnet they are. That a slice is not leased
already is certain with an `ip_range`: then nodes lease slices within that range alone, and all others are free.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from typing import Final

from argosy.core.addresses import Subnet, format_ipv4, parse_ipv4
from argosy.core.errors import InvalidError, PreconditionError
from argosy.core.meta import Meta
from argosy.core.network import SLICE_SIZE, Network, Slice, SliceUse, StaticAddress, slice_id
from argosy.core.service import ServiceSpec
from argosy.core.task import Task
from argosy.core.task_state import TaskState

FIRST_SLICE: Final = 1
"""Slice 0 is for virtual addresses."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An address that a service asks for on a network; `service` is its name, `field` where its spec says so."""

    network_id: str
    address: int
    service_id: str
    service: str
    field: str = ""


def claims_of(service_id: str, spec: ServiceSpec) -> list[Claim]:
    """Return the addresses that a (valid) spec asks for."""
    return [
        Claim(n.target, parse_ipv4(n.address), service_id, spec.name, f"task.networks[{i}].address")
        for i, n in enumerate(spec.task.networks)
        if n.address
    ]


def leasable(network: Network) -> range:
    """Return the slices of which nodes may lease any: those of the ip_range, else all but slice 0."""
    subnet = Subnet.parse(network.subnet)
    if not network.spec.ip_range:
        return range(FIRST_SLICE, subnet.slices)
    part = Subnet.parse(network.spec.ip_range)
    first = subnet.slice_of(part.base)
    return range(max(first, FIRST_SLICE), first + part.slices)


def claimed(
    network: Network, there: Slice | None, claim: Claim, used: Iterable[int], name_of: Callable[[str], str]
) -> Slice:
    """Return the slice of an address with the claim in it; `there` is as it is stored.

    `used`: indexes of slices that are anybody's, for what is said instead; `name_of` names nodes and services by id.
    InvalidError where the address can be nobody's, PreconditionError where somebody else has it or its slice.
    """
    subnet, address = Subnet.parse(network.subnet), format_ipv4(claim.address)
    what = f"service {claim.service} cannot have {address} on network {network.spec.name}"
    if not subnet.contains(claim.address):
        raise InvalidError(f"{what}: it is none of {subnet}{_instead(network, claim.address, used)}")
    index = subnet.slice_of(claim.address)
    if index == 0:
        raise InvalidError(
            f"{what}: {subnet.slice(0)} is for virtual addresses{_instead(network, claim.address, used)}"
        )
    if network.spec.ip_range and index in leasable(network):
        raise InvalidError(
            f"{what}: the cluster chooses addresses in {network.spec.ip_range}, the network's ip_range"
            f"{_instead(network, claim.address, used)}"
        )
    if there is None:
        there = Slice(Meta(slice_id(network.meta.id, index)), network.meta.id, index, use=SliceUse.STATIC)
    if there.use is not SliceUse.STATIC:
        whose = f"leased to node {name_of(there.node_id)}" if there.use is SliceUse.TASKS else "for virtual addresses"
        raise PreconditionError(
            f"{what}: {subnet.slice(index)} is {whose}{_instead(network, claim.address, used)}; a network with an "
            "ip_range keeps the rest of its subnet free for such addresses"
        )
    for holder in there.holders:
        if holder.address == claim.address and holder.service_id != claim.service_id:
            raise PreconditionError(
                f"{what}: service {name_of(holder.service_id)} has it{_instead(network, claim.address + 1, used)}"
            )
    if any(h.address == claim.address for h in there.holders):
        return there
    holders = (*there.holders, StaticAddress(claim.address, claim.service_id))
    return replace(there, holders=tuple(sorted(holders, key=lambda h: h.address)))


def _instead(network: Network, address: int, used: Iterable[int]) -> str:
    """Name an address that could be had: in the highest slice that is nobody's and that no node would lease early."""
    subnet, taken = Subnet.parse(network.subnet), {0, *used}
    if network.spec.ip_range:
        taken |= set(leasable(network))
    free = next((i for i in range(subnet.slices - 1, 0, -1) if i not in taken), None)
    if free is None:
        return ": nothing else is free for such addresses; give the network a larger subnet"
    return f": choose another, such as {format_ipv4(subnet.slice_base(free) + address % SLICE_SIZE)}"


def settled(piece: Slice, subnet: Subnet, wanted: Container[StaticAddress], held: Iterable[int]) -> Slice | None:
    """Return a static slice with only the claims that are `wanted`; None where it can be given back.

    `held`: addresses that task records have.
    """
    holders = tuple(h for h in piece.holders if h in wanted)
    if not holders and not any(subnet.slice_of(a) == piece.index for a in held if subnet.contains(a)):
        return None
    return replace(piece, holders=holders)


def hosts(network_id: str, holders: Iterable[Task]) -> dict[int, str]:
    """Return the node of each static address of a network: where the task that is to have it last got it.

    `holders`: the tasks that were given one there, and have not given it back (Snapshot.static_holders). A task that is
    to stop has it as long as no other was given it; so has one whose service asks for it no more.
    """
    found: dict[int, tuple[bool, float, str, str]] = {}
    for task in holders:
        rank = (task.desired_state <= TaskState.RUNNING, task.meta.created_at, task.meta.id, task.node_id)
        for attachment in task.attachments:
            if attachment.fixed and attachment.network_id == network_id:
                found[attachment.address] = max(found.get(attachment.address, rank), rank)
    return {address: node_id for address, (*_, node_id) in found.items()}
