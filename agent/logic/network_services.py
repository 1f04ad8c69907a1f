"""The services of all networks, as a node's balancers need them: kept by change. Pure.

Names and endpoints come whole each time. What they know of how they differ is believed; those that are the same objects
as before are taken for unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from zlib import crc32

from argosy.agent.logic.network_balance import Balanced
from argosy.agent.logic.pieces import Kind
from argosy.core.assignment import EndpointAssignment, NamesAssignment

K = TypeVar("K", str, int)
P = TypeVar("P", NamesAssignment, EndpointAssignment)


@dataclass(slots=True)
class Changed:
    """What may differ on a network: services, and addresses whose endpoints are gone, or get no new connections."""

    services: set[str] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    withdrawn: set[int] = field(default_factory=set)

    def add(self, later: "Changed") -> None:
        """Join with what has changed since."""
        self.services |= later.services
        self.gone |= later.gone
        self.withdrawn |= later.withdrawn


@dataclass(slots=True)
class _Network:
    names: dict[str, NamesAssignment] = field(default_factory=dict)
    endpoints: dict[str, dict[str, EndpointAssignment]] = field(default_factory=dict)  # service -> task
    serving: dict[int, dict[str, EndpointAssignment]] = field(default_factory=dict)  # address -> task


class Services:
    """`seed` differs between nodes, so that not all begin with the same endpoint."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._names: Sequence[NamesAssignment] = ()
        self._endpoints: Sequence[EndpointAssignment] = ()
        self._networks: dict[str, _Network] = {}

    def update(self, names: Sequence[NamesAssignment], endpoints: Sequence[EndpointAssignment]) -> dict[str, Changed]:
        """Take over what is assigned; return what differs, by network."""
        changes: dict[str, Changed] = {}
        gone_names, new_names = difference(self._names, names)
        gone_endpoints, new_endpoints = difference(self._endpoints, endpoints)
        self._names, self._endpoints = names, endpoints
        for name in gone_names:
            self._networks[name.network_id].names.pop(name.service_id, None)
        for name in new_names:
            self._networks.setdefault(name.network_id, _Network()).names[name.service_id] = name
        for name in (*gone_names, *new_names):
            changes.setdefault(name.network_id, Changed()).services.add(name.service_id)
        for endpoint in gone_endpoints:
            self._drop(endpoint)
            changed = changes.setdefault(endpoint.network_id, Changed())
            changed.services.add(endpoint.service_id)
            changed.gone.add(endpoint.address)
            changed.withdrawn.add(endpoint.address)
        for endpoint in new_endpoints:
            network = self._networks.setdefault(endpoint.network_id, _Network())
            network.endpoints.setdefault(endpoint.service_id, {})[endpoint.task_id] = endpoint
            network.serving.setdefault(endpoint.address, {})[endpoint.task_id] = endpoint
            changes.setdefault(endpoint.network_id, Changed()).services.add(endpoint.service_id)
        return changes

    def on(self, network_id: str) -> set[str]:
        """Return the services of a network."""
        return set(self._networks[network_id].names) if network_id in self._networks else set()

    def balanced(self, network_id: str, service_id: str) -> Balanced | None:
        """Return what a balancer needs of a service; None for one without a virtual address."""
        network = self._networks.get(network_id, _Network())
        name = network.names.get(service_id)
        if name is None or not name.virtual_address:
            return None
        return Balanced(name.virtual_address, tuple(self.active(network_id, service_id)), name.client_affinity)

    def active(self, network_id: str, service_id: str) -> list[tuple[int, int]]:
        """Return the (address, weight) of a service's endpoints that get new connections, in this node's order."""
        network = self._networks.get(network_id, _Network())
        active = (e for e in network.endpoints.get(service_id, {}).values() if not e.withdrawn)
        return sorted(((e.address, e.weight) for e in active), key=self._turn)

    def addresses(self, network_id: str) -> set[int]:
        """Return the addresses of a network's endpoints."""
        return set(self._networks.get(network_id, _Network()).serving)

    def serves(self, network_id: str, address: int, *, active: bool = False) -> bool:
        """Tell whether an endpoint has an address; with `active` only one that gets new connections."""
        endpoints = self._networks.get(network_id, _Network()).serving.get(address, {})
        return any(not (active and e.withdrawn) for e in endpoints.values())

    def _turn(self, endpoint: tuple[int, int]) -> int:
        return crc32(self._seed + endpoint[0].to_bytes(4, "big"))

    def _drop(self, endpoint: EndpointAssignment) -> None:
        network = self._networks[endpoint.network_id]
        _remove(network.endpoints, endpoint.service_id, endpoint.task_id)
        _remove(network.serving, endpoint.address, endpoint.task_id)


def _remove(tasks: dict[K, dict[str, EndpointAssignment]], key: K, task_id: str) -> None:
    tasks[key].pop(task_id, None)
    if not tasks[key]:
        del tasks[key]


def difference(old: Sequence[P], new: Sequence[P]) -> tuple[list[P], list[P]]:
    """Return what only the old, and what only the new has.

    Both are alive, so that an id stands for one object.
    """
    known = new.since(old) if isinstance(new, Kind) else None
    if known is not None:
        return known
    before, now = set(map(id, old)), set(map(id, new))
    gone = [piece for piece in old if id(piece) not in now]
    fresh = [piece for piece in new if id(piece) not in before]
    same = set(gone) & set(fresh) if gone and fresh else set()
    return [p for p in gone if p not in same], [p for p in fresh if p not in same]
