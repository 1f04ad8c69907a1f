"""What names mean to whom. Pure: records in, answers out.

Records have keys, so that an increment carries only what changed:

    network/NET             [name, internal, first address, number of addresses]
    names/NET/SERVICE       [virtual address or 0, name, alias, …]
    endpoint/NET/TASK       [service, slot, address, withdrawn]
    task/ID                 [[network, address], …]     a task of this host, its networks in order
    resolvers/ID            [address, …]                name servers of its own (Compose: `dns`) instead of the host's

Who asks is known by the address on the network whose socket the question came in by. Its networks are searched in
order, and the first one that knows the name answers:

    NAME                    the virtual addresses of the services called so, in random order; of one that has none its
                            endpoints
    tasks.NAME              all endpoints, in random order
    SLOT.NAME               the endpoint of one slot, withdrawn or not: tasks may need each other to get ready
    any of these + .NETWORK the same on the network of that name only

Other names without a dot do not exist: they are never sent upstream, where they would leak what runs
here and could be answered by strangers. Other names with dots, and the root, are asked upstream (of the task's own name
servers, if it has some, else of the host's), unless the task is on internal networks only. So are addresses, but for
link-local and loopback ones and those of the task's own networks: one that nobody has there does not exist.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from argosy.agent.dns import wire

Record: TypeAlias = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Found:
    """The name is ours; without addresses it exists and has none at the moment."""

    addresses: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundName:
    """The address asked about has this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such name, and it is for us to say so."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Not ours: ask these servers, or the host's if there are none."""

    servers: tuple[str, ...] = ()


Answer: TypeAlias = Found | FoundName | Missing | Elsewhere

_MISSING: Final = Missing()
_ELSEWHERE: Final = Elsewhere()
_STRANGER: Final = ("", ())
_LINK_LOCAL: Final = 169 << 8 | 254
_LOOPBACK: Final = 127
"""Addresses that nobody elsewhere knows (RFC 6303). The router is one: programs ask for its name as for a client's."""


class _Endpoint(NamedTuple):
    slot: int
    address: int
    withdrawn: bool


@dataclass(slots=True)
class _Network:
    name: str = ""
    internal: bool = False
    subnet: range = range(0)
    services: dict[str, set[str]] = field(default_factory=dict)  # name -> services
    own: dict[str, str] = field(default_factory=dict)  # service -> its name, which is no alias
    virtual: dict[str, int] = field(default_factory=dict)  # service -> address, where it has one
    endpoints: dict[str, dict[str, _Endpoint]] = field(default_factory=dict)  # service -> task
    holders: dict[int, str] = field(default_factory=dict)  # address -> task


class Zone:
    """All records, indexed for answering. A change costs what changed."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._networks: dict[str, _Network] = {}
        self._askers: dict[tuple[str, int], tuple[str, tuple[str, ...]]] = {}  # network, address -> task, its networks
        self._elsewhere: dict[str, Elsewhere] = {}  # of tasks with name servers of their own

    def replace(self, records: Mapping[str, Record]) -> None:
        """Take over all records, and forget those that are not among them."""
        self.change(records, [key for key in self.records if key not in records])

    def change(self, put: Mapping[str, Record], delete: Iterable[str]) -> None:
        """Take over some records and forget others; that one to forget is unknown is fine."""
        for key in delete:
            old = self.records.pop(key, None)
            if old is not None:
                self._index(key, old, add=False)
        for key, record in put.items():
            old = self.records.get(key)
            if old is not None:
                self._index(key, old, add=False)
            self.records[key] = record
            self._index(key, record, add=True)

    def resolve(self, network: str, source: int, name: str) -> Answer:
        """Return what a name means to whoever has an address on a network."""
        task, joined = self._askers.get((network, source), _STRANGER)
        networks = [self._networks[n] for n in joined or (network,) if f"network/{n}" in self.records]
        address = wire.reverse_address(name)
        if address is not None:
            if address >> 16 == _LINK_LOCAL or address >> 24 == _LOOPBACK:
                return _MISSING
            found = self._reverse(networks, address)
            return found or (_MISSING if any(address in n.subnet for n in networks) else self._outside(networks, task))
        for one in networks:
            found = _lookup(one, name)
            if found is not None:
                return found
        head, _, last = name.rpartition(".")
        for one in networks:
            if head and one.name == last:
                found = _lookup(one, head)
                if found is not None:
                    return found
        return self._outside(networks, task) if head or not name else _MISSING

    def _outside(self, networks: Sequence[_Network], task: str) -> Answer:
        if networks and all(n.internal for n in networks):
            return _MISSING
        return self._elsewhere.get(task, _ELSEWHERE)

    @staticmethod
    def _reverse(networks: Sequence[_Network], address: int) -> Answer | None:
        for one in networks:
            for service, virtual in one.virtual.items():
                if virtual == address and (named := one.own.get(service)):
                    return FoundName(f"{named}.{one.name}")
            task = one.holders.get(address)
            for service, endpoints in one.endpoints.items() if task else ():
                if task in endpoints and (named := one.own.get(service)):
                    slot = endpoints[task].slot
                    return FoundName(f"{slot}.{named}.{one.name}" if slot else f"{named}.{one.name}")
        return None

    def _index(self, key: str, record: Record, *, add: bool) -> None:
        kind, _, rest = key.partition("/")
        if kind == "network":
            network = self._networks.setdefault(rest, _Network())
            network.name, network.internal = (str(record[0]).lower(), bool(record[1])) if add else ("", False)
            first, size = record[2:] if len(record) == 4 else (0, 0)  # an older agent did not say
            network.subnet = range(first, first + size) if add else range(0)
        elif kind == "task":
            asker = rest, tuple(str(n) for n, _ in record)
            for network_id, address in record:
                if add:
                    self._askers[(network_id, address)] = asker
                elif self._askers.get((network_id, address)) == asker:
                    del self._askers[(network_id, address)]
        elif kind == "resolvers":
            if add:
                self._elsewhere[rest] = Elsewhere(tuple(map(str, record)))
            else:
                self._elsewhere.pop(rest, None)
        elif kind in ("names", "endpoint"):
            network_id, _, owner = rest.partition("/")
            network = self._networks.setdefault(network_id, _Network())
            (_index_names if kind == "names" else _index_endpoint)(network, owner, record, add)


def _index_names(network: _Network, service: str, record: Record, add: bool) -> None:
    address, *names = record
    network.own.pop(service, None)
    if add and names:
        network.own[service] = str(names[0]).lower()
    if add and address:
        network.virtual[service] = address
    else:
        network.virtual.pop(service, None)
    for name in names:
        owners = network.services.setdefault(str(name).lower(), set())
        if add:
            owners.add(service)
        else:
            owners.discard(service)
        if not owners:
            del network.services[str(name).lower()]


def _index_endpoint(network: _Network, task: str, record: Record, add: bool) -> None:
    service, slot, address, withdrawn = record
    tasks = network.endpoints.setdefault(service, {})
    if add:
        tasks[task] = _Endpoint(slot, address, bool(withdrawn))
        network.holders[address] = task
        return
    tasks.pop(task, None)
    if not tasks:
        del network.endpoints[service]
    if network.holders.get(address) == task:
        del network.holders[address]


def _lookup(network: _Network, name: str) -> Answer | None:
    """Return what a name means on one network; None if it is not known there."""
    services = network.services.get(name)
    if services:
        return Found(tuple(address for service in services for address in _addresses(network, service)))
    head, _, rest = name.partition(".")
    services = network.services.get(rest) if rest else None
    if not services:
        return None
    if head == "tasks":
        return Found(tuple(e.address for e in _endpoints(network, services) if not e.withdrawn))
    if head.isascii() and head.isdigit():
        slot = int(head)
        found = tuple(e.address for e in _endpoints(network, services) if e.slot == slot)
        return Found(found) if found else _MISSING
    return None


def _addresses(network: _Network, service: str) -> Iterable[int]:
    """Return what the name of a service stands for."""
    if service in network.virtual:
        return (network.virtual[service],)
    return (e.address for e in _endpoints(network, (service,)) if not e.withdrawn)


def _endpoints(network: _Network, services: Iterable[str]) -> Iterable[_Endpoint]:
    return (endpoint for service in services for endpoint in network.endpoints.get(service, {}).values())
