"""What argosy-dns is to know, from the node's desired state. Pure; agent/dns/zone.py says what the records mean."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from argosy.agent.dns.zone import Record
from argosy.agent.logic.network_services import difference
from argosy.agent.network.desired import NetworkState
from argosy.core.addresses import Subnet
from argosy.core.assignment import EndpointAssignment, NamesAssignment


@dataclass(frozen=True, slots=True)
class Book:
    """All records by their keys, and the keys of those that may differ from the book of the number before."""

    records: Mapping[str, Record]
    number: int
    changed: Collection[str]

    def since(self, other: "Book") -> tuple[dict[str, Record], list[str]]:
        """Return the records that another book has not, and the keys of those that only it has."""
        follows = self.number == other.number + 1
        keys = self.changed if follows else self.records.keys() | other.records.keys()
        put = {k: self.records[k] for k in keys if k in self.records and other.records.get(k) != self.records[k]}
        return put, [k for k in keys if k in other.records and k not in self.records]


class Records:
    """Records of names and endpoints, which may be many, are kept by change."""

    def __init__(self) -> None:
        self._state = NetworkState()
        self._services: dict[str, Record] = {}
        self._others: dict[str, Record] = {}
        self._number = 0

    def of(self, state: NetworkState) -> Book:
        """Return the records of a state."""
        gone_names, names = difference(self._state.names, state.names)
        gone_endpoints, endpoints = difference(self._state.endpoints, state.endpoints)
        self._state = state
        put: dict[str, Record] = {_name_key(name): (name.virtual_address, *name.names) for name in names}
        for one in endpoints:
            put[_endpoint_key(one)] = (one.service_id, one.slot, one.address, one.withdrawn)
        gone = {*map(_name_key, gone_names), *map(_endpoint_key, gone_endpoints)}
        for key in gone - put.keys():
            self._services.pop(key, None)
        self._services |= put
        before, self._others = self._others, _others(state)
        self._number += 1
        return Book(
            self._services | self._others,
            self._number,
            {*gone, *put, *(k for k in before.keys() | self._others.keys() if before.get(k) != self._others.get(k))},
        )


def _others(state: NetworkState) -> dict[str, Record]:
    records: dict[str, Record] = {}
    for network in state.networks.values():
        subnet = Subnet.parse(network.subnet)
        records[f"network/{network.id}"] = (network.name, network.internal, subnet.base, 1 << 32 - subnet.prefix)
    for task in state.tasks:
        records[f"task/{task.container_id}"] = tuple((a.network_id, a.address) for a in task.attachments)
        if task.nameservers:
            records[f"resolvers/{task.container_id}"] = task.nameservers
    return records


def _name_key(name: NamesAssignment) -> str:
    return f"names/{name.network_id}/{name.service_id}"


def _endpoint_key(endpoint: EndpointAssignment) -> str:
    return f"endpoint/{endpoint.network_id}/{endpoint.task_id}"
