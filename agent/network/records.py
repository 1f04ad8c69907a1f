"""What argosy-dns is to know, from the node's desired state. Pure; agent/dns/zone.py says what the records mean."""

from argosy.agent.dns.zone import Record
from argosy.agent.logic.network_services import difference
from argosy.agent.network.desired import NetworkState
from argosy.core.assignment import EndpointAssignment, NamesAssignment


class Records:
    """The records by their keys: those of names and endpoints, which may be many, are kept by change."""

    def __init__(self) -> None:
        self._state = NetworkState()
        self._services: dict[str, Record] = {}

    def of(self, state: NetworkState) -> dict[str, Record]:
        """Return the records of a state; the same objects as before where nothing changed."""
        gone_names, names = difference(self._state.names, state.names)
        gone_endpoints, endpoints = difference(self._state.endpoints, state.endpoints)
        self._state = state
        for gone in (*map(_name_key, gone_names), *map(_endpoint_key, gone_endpoints)):
            self._services.pop(gone, None)
        for name in names:
            self._services[_name_key(name)] = (name.virtual_address, *name.names)
        for one in endpoints:
            self._services[_endpoint_key(one)] = (one.service_id, one.slot, one.address, one.withdrawn)
        records = dict(self._services)
        records |= {f"network/{n.id}": (n.name, n.internal) for n in state.networks.values()}
        for task in state.tasks:
            records[f"task/{task.container_id}"] = tuple((a.network_id, a.address) for a in task.attachments)
            if task.nameservers:
                records[f"resolvers/{task.container_id}"] = task.nameservers
        return records


def _name_key(name: NamesAssignment) -> str:
    return f"names/{name.network_id}/{name.service_id}"


def _endpoint_key(endpoint: EndpointAssignment) -> str:
    return f"endpoint/{endpoint.network_id}/{endpoint.task_id}"
