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
    """How the records differ from the book of the number before; `records`: all of them, until the next book."""

    number: int
    records: Mapping[str, Record]
    put: Mapping[str, Record]
    delete: Collection[str]


class Records:
    """Kept by change: those of names and endpoints may be many."""

    def __init__(self) -> None:
        self._state = NetworkState()
        self._records: dict[str, Record] = {}
        self._others: dict[str, Record] = {}
        self._number = 0

    def of(self, state: NetworkState) -> Book:
        """Return the records of a state."""
        gone_names, names = difference(self._state.names, state.names)
        gone_endpoints, endpoints = difference(self._state.endpoints, state.endpoints)
        before, self._others = self._others, _others(state)
        self._state = state
        put: dict[str, Record] = {_name_key(name): (name.virtual_address, *name.names) for name in names}
        for one in endpoints:
            put[_endpoint_key(one)] = (one.service_id, one.slot, one.address, one.withdrawn)
        put |= self._others
        put = {key: record for key, record in put.items() if self._records.get(key) != record}
        gone = {*map(_name_key, gone_names), *map(_endpoint_key, gone_endpoints)}
        gone -= {*map(_name_key, names), *map(_endpoint_key, endpoints)}
        gone |= before.keys() - self._others.keys()
        for key in gone:
            self._records.pop(key, None)
        self._records |= put
        self._number += 1
        return Book(self._number, self._records, put, gone)


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
