"""Claims of static addresses, as store operations: part of every transaction that stores services which ask for some.

Two services that ask for the same address at once, or a service and a node that leases the slice, change the same
object: one of them conflicts, and is decided anew.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from argosy.controller.logic.static_addresses import claimed, claims_of
from argosy.controller.store import Op, Put, Snapshot
from argosy.core.addresses import Subnet
from argosy.core.errors import about
from argosy.core.network import Network, Slice, slice_id
from argosy.core.node import Node
from argosy.core.service import Service, ServiceSpec


def claims(
    snap: Snapshot, services: Iterable[tuple[str, ServiceSpec]], new: Mapping[str, Network], now: float
) -> list[Op]:
    """Claim what services, given as (id, resolved spec), ask for. `new`: networks of the same request, by id.

    InvalidError, PreconditionError: why an address cannot be had, and which could.
    """
    changed: dict[str, Slice] = {}
    names: dict[str, str] = {}
    for service_id, spec in services:
        names[service_id] = spec.name
        for claim in claims_of(service_id, spec):
            network = new.get(claim.network_id) or snap.get(Network, claim.network_id)
            if network is None:
                continue
            subnet = Subnet.parse(network.subnet)
            index = subnet.slice_of(claim.address) if subnet.contains(claim.address) else 0
            key = slice_id(claim.network_id, index)
            used = {s.index for s in snap.slices_of_network(claim.network_id)}
            there = changed.get(key) or snap.get(Slice, key)
            with about("service", spec.name, claim.field):
                changed[key] = claimed(network, there, claim, used, _namer(snap, names))
    stored = (
        replace(s, meta=replace(s.meta, created_at=s.meta.created_at or now, updated_at=now)) for s in changed.values()
    )
    return [Put(s, expect=s.meta.version) for s in stored]


def _namer(snap: Snapshot, new: Mapping[str, str]) -> Callable[[str], str]:
    def name_of(object_id: str) -> str:
        found = snap.get(Service, object_id) or snap.get(Node, object_id)
        return found.spec.name if found is not None else new.get(object_id, object_id)

    return name_of
