"""What argosy-dns is to know, from the node's desired state. Pure; agent/dns/zone.py says what the records mean."""

from argosy.agent.dns.zone import Record
from argosy.agent.network.desired import NetworkState


def records_of(state: NetworkState) -> dict[str, Record]:
    """Return the records by their keys."""
    records: dict[str, Record] = {f"network/{n.id}": (n.name, n.internal) for n in state.networks.values()}
    records |= {f"names/{n.network_id}/{n.service_id}": (n.virtual_address, *n.names) for n in state.names}
    records |= {
        f"endpoint/{e.network_id}/{e.task_id}": (e.service_id, e.slot, e.address, e.withdrawn) for e in state.endpoints
    }
    records |= {f"task/{t.container_id}": tuple((a.network_id, a.address) for a in t.attachments) for t in state.tasks}
    records |= {f"resolvers/{t.container_id}": t.nameservers for t in state.tasks if t.nameservers}
    return records
