"""Which service gets which virtual address: a plan over a snapshot of one network. Pure.

Slice 0 of a network is for virtual addresses from the beginning, but for its first four, which stay reserved. When it
is full, a slice is taken whose `use` says so and which no node leases (core/network.SliceUse); it is given back when
no service has an address of it. Such slices come from the top of the subnet and nodes' from the bottom, so that the two
seldom want the same one.

An address belongs to its service as long as that stands in the store, and comes back as late as can be: addresses are
given in turn, beginning after the one that was given last.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from argosy.controller.logic.slice_uses import in_use
from argosy.core.addresses import Subnet
from argosy.core.meta import Meta
from argosy.core.network import SLICE_SIZE, Attachment, Network, Slice, SliceUse, slice_id
from argosy.core.service import JOB_MODES, EndpointMode, Service
from argosy.core.task import Task

RESERVED: Final = 4
"""Addresses at the beginning of a network that nobody gets."""


@dataclass(frozen=True, slots=True)
class Lack:
    """A network has no virtual address left; `reason` is for a person."""

    reason: str


@dataclass(frozen=True, slots=True)
class Readdressed:
    """A service with the virtual addresses that it should have, and what has to be stored with it."""

    service: Service
    new_slices: tuple[Slice, ...] = ()
    networks: tuple[str, ...] = ()


class VirtualPool:
    """The virtual addresses of one network. `take` changes it; build it anew for the next snapshot."""

    def __init__(self, network: Network, last_given: int = 0) -> None:
        self._id = network.meta.id
        self._name = network.spec.name or network.meta.id
        self._subnet = Subnet.parse(network.subnet)
        self._used: set[int] = set()
        self._slices: set[int] = {0}
        self._others: dict[int, SliceUse | None] = {}  # slices in other use; None: tasks hold addresses of them
        self.last_given = last_given

    @classmethod
    def build(
        cls,
        network: Network,
        slices: Iterable[Slice],
        services: Iterable[Service],
        tasks: Iterable[Task],
        last_given: int = 0,
    ) -> "VirtualPool":
        """Return the pool of `network`; the others may be those of all networks."""
        pool = cls(network, last_given)
        for piece in slices:
            if piece.network_id == pool._id:
                if piece.use is SliceUse.SERVICES:
                    pool._slices.add(piece.index)
                else:
                    pool._others[piece.index] = piece.use
        pool._used.update(a.address for s in services for a in s.virtual_addresses if a.network_id == pool._id)
        for attachment in (a for t in tasks if not t.status.released for a in t.attachments):
            if attachment.network_id == pool._id and pool._subnet.contains(attachment.address):
                pool._others.setdefault(pool._subnet.slice_of(attachment.address))
        return pool

    def take(self) -> tuple[int, Slice | None] | Lack:
        """Return an address that no service has, and the slice that has to be stored with it, if one has."""
        free = next((a for a in self._in_turn() if a not in self._used), None)
        if free is not None:
            return self._give(free), None
        taken = self._slices | self._others.keys()
        index = next((i for i in range(self._subnet.slices - 1, 0, -1) if i not in taken), None)
        if index is None:
            return Lack(
                f"network {self._name} has no virtual address left{self._others_in_use()}, so the name stands for the "
                "tasks: give the network a larger subnet, or the service endpoint_mode: dnsrr"
            )
        self._slices.add(index)
        piece = Slice(Meta(slice_id(self._id, index)), self._id, index, use=SliceUse.SERVICES)
        return self._give(self._subnet.slice_base(index)), piece

    def unused(self) -> list[int]:
        """Return the slices, but for slice 0, that no service has an address of."""
        used = {self._subnet.slice_of(a) for a in self._used}
        return sorted(self._slices - used - {0})

    def _others_in_use(self) -> str:
        uses = Counter(use for index, use in self._others.items() if index not in self._slices)
        if not uses:
            return ""
        return f" (its other {'slice' if uses.total() == 1 else 'slices'} {in_use(uses)})"

    def _give(self, address: int) -> int:
        self._used.add(address)
        self.last_given = address
        return address

    def _in_turn(self) -> Iterator[int]:
        addresses = [a for i in sorted(self._slices) for a in self._addresses(i)]
        yield from (a for a in addresses if a > self.last_given)
        yield from (a for a in addresses if a <= self.last_given)

    def _addresses(self, index: int) -> range:
        base = self._subnet.slice_base(index)
        return range(base + (0 if index else RESERVED), base + SLICE_SIZE)


def wants(service: Service) -> frozenset[str]:
    """Return the networks on which a service should have a virtual address."""
    spec = service.spec
    if service.removing or spec.endpoint.mode is not EndpointMode.VIP or spec.mode in JOB_MODES:
        return frozenset()
    return frozenset(n.target for n in spec.task.networks)


def is_settled(service: Service) -> bool:
    """Whether a service has just the addresses that it should. One that is being removed keeps them to its end."""
    has_them = wants(service) == {a.network_id for a in service.virtual_addresses}
    return service.removing or (has_them and not service.address_problems)


def readdress(service: Service, pools: dict[str, VirtualPool]) -> Readdressed:
    """Give a service the addresses that it lacks and take those that it should not have.

    `pools` by network; a network that is missing there, since it is being removed, gives none.
    """
    wanted = wants(service)
    addresses = [a for a in service.virtual_addresses if a.network_id in wanted]
    missing = sorted(wanted - {a.network_id for a in addresses})
    new_slices, problems, networks = [], [], []
    for network_id in missing:
        if network_id not in pools:
            continue
        taken = pools[network_id].take()
        if isinstance(taken, Lack):
            problems.append(taken.reason)
            continue
        address, piece = taken
        addresses.append(Attachment(network_id, address))
        networks.append(network_id)
        if piece is not None:
            new_slices.append(piece)
    changed = replace(service, virtual_addresses=tuple(addresses), address_problems=tuple(problems))
    return Readdressed(changed, tuple(new_slices), tuple(networks))
