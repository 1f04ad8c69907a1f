"""How the nodes of an encrypted network find their tunnels to each other, for people."""

from collections.abc import Iterator

from argosy.controller.api.network_usage import ingress_networks
from argosy.controller.logic.verification import carriers
from argosy.controller.store import Snapshot
from argosy.core.codec import encode_into
from argosy.core.network import Network
from argosy.core.node import Node
from argosy.proto.argosy.v1 import control_pb2 as pb


def tunnels_between(snap: Snapshot, network: Network) -> Iterator[pb.NodeTunnels]:
    """Yield the tunnels of each node that carries the network, by name.

    One that only holds addresses for tasks to come has no part in it, and needs no keys.
    """
    nodes = {node.meta.id: node for node in snap.all(Node)}
    network_id = network.meta.id
    ingress = ingress_networks(snap, network.meta.project)
    found = carriers(snap.tasks_on_network(network_id), [network_id], ingress, nodes)[network_id]
    carrying = {node_id: nodes[node_id] for node_id in found if node_id in nodes}
    for node in sorted(carrying.values(), key=lambda n: n.spec.name):
        row = pb.NodeTunnels(node=node.spec.name, made_by=node.description.tunnels_by)
        for tunnel in node.tunnels:
            if other := carrying.get(tunnel.node_id):
                encode_into(tunnel, row.tunnels.add(to=other.spec.name).tunnel)
        yield row
