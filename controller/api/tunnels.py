"""How the nodes of an encrypted network find their tunnels to each other, for people."""

from collections.abc import Iterator

from argosy.controller.api.network_usage import ingress_networks
from argosy.controller.store import Snapshot
from argosy.core.codec import encode_into
from argosy.core.network import Network, SliceUse
from argosy.core.node import Node
from argosy.proto.argosy.v1 import control_pb2 as pb


def tunnels_between(snap: Snapshot, network: Network) -> Iterator[pb.NodeTunnels]:
    """Yield the tunnels of each node that carries the network, by name."""
    nodes = {i: node for i in _carriers(snap, network) if (node := snap.get(Node, i))}
    for node in sorted(nodes.values(), key=lambda n: n.spec.name):
        row = pb.NodeTunnels(node=node.spec.name, made_by=node.description.tunnels_by)
        for tunnel in node.tunnels:
            if other := nodes.get(tunnel.node_id):
                encode_into(tunnel, row.tunnels.add(to=other.spec.name).tunnel)
        yield row


def _carriers(snap: Snapshot, network: Network) -> set[str]:
    """Return the nodes that have addresses of a network; all of them where ports of every node lead into it."""
    if network.meta.id in ingress_networks(snap, network.meta.project):
        return {node.meta.id for node in snap.all(Node)}
    slices = list(snap.slices_of_network(network.meta.id))
    holders = {h.service_id for s in slices for h in s.holders}
    static = {t.node_id for i in holders for t in snap.tasks_of_service(i) if t.node_id}
    return {s.node_id for s in slices if s.use is SliceUse.TASKS} | static
