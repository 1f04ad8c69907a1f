"""What `network inspect` says beside the network: addresses used and free, whose, who waits for one; its links' MTU."""

from argosy.controller.changes.networks import usage
from argosy.controller.logic import static_addresses
from argosy.controller.logic.address_pool import lacks_address
from argosy.controller.logic.network_mtu import links_mtu, lowered
from argosy.controller.logic.published_ports import count_ready, leads_over
from argosy.controller.logic.virtual_addresses import wants
from argosy.controller.store import Snapshot
from argosy.core.addresses import Subnet, format_ipv4
from argosy.core.codec import encode_into
from argosy.core.network import Network, SliceUse
from argosy.core.node import Node, NodeState
from argosy.core.service import Service
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2 as pb


def add_usage(snap: Snapshot, network: Network, response: pb.GetNetworkResponse) -> None:
    """Fill in what there is to say of a network's addresses."""
    used = usage(snap, network)
    response.addresses_used, response.addresses_total = used.used, used.total
    response.addresses_free = used.total - used.used
    response.slices_free, response.slices_total = used.slices_free, Subnet.parse(network.subnet).slices
    network_id = network.meta.id
    for piece in sorted(snap.slices_of_network(network_id), key=lambda s: s.index):
        for holder in piece.holders:
            service = snap.get(Service, holder.service_id)
            name = service.spec.name if service is not None else holder.service_id
            response.statics.add(address=format_ipv4(holder.address), service=name)
    on_it = [s for s in snap.all(Service) if any(n.target == network_id for n in s.spec.task.networks)]
    for service in sorted(on_it, key=lambda s: s.spec.name):
        if network_id in wants(service) and not any(a.network_id == network_id for a in service.virtual_addresses):
            response.without_virtual.append(service.spec.name)
        for task in snap.tasks_of_service(service.meta.id):
            if _waits(task) and lacks_address(network, task.status.reason):
                encode_into(task, response.waiting.add())


def add_mtu(snap: Snapshot, network: Network, response: pb.GetNetworkResponse) -> None:
    """Fill in the MTU of a network's links, and why it is not what the network asks for."""
    nodes = carriers(snap, network)
    response.mtu, response.mtu_notice = links_mtu(network.spec, nodes) if nodes else 0, lowered(network.spec, nodes)


def carriers(snap: Snapshot, network: Network) -> list[Node]:
    """Return the nodes that are told of a network, by which the MTU of its links goes (logic/assign.py)."""
    network_id = network.meta.id
    if network_id in ingress_networks(snap, network.meta.project):
        return list(snap.all(Node))
    fixed = static_addresses.hosts(network_id, snap.static_holders(network_id))
    found = {*(s.node_id for s in snap.slices_of_network(network_id) if s.use is SliceUse.TASKS), *fixed.values()}
    return [node for node_id in sorted(found) if (node := snap.get(Node, node_id)) is not None]


def ingress_networks(snap: Snapshot, project: str | None = None) -> set[str]:
    """Return the networks that ports of every node lead into (those of a project): all nodes carry them."""
    networks = {n.meta.id: n for n in snap.all(Network)}
    down = {n.meta.id for n in snap.all(Node) if n.status.state is NodeState.DOWN}
    publishing = (s for s in snap.all(Service, project=project) if s.ports)
    ready = ((s, count_ready(snap.tasks_of_service(s.meta.id), down.__contains__)) for s in publishing)
    return {leads_over(service, networks, serving) for service, serving in ready} - {""}


def _waits(task: Task) -> bool:
    """Whether a task waits for a node, and not for another service: that is told with what the other one waits for."""
    status = task.status
    return status.state is TaskState.PENDING and not status.held and task.desired_state <= TaskState.RUNNING
