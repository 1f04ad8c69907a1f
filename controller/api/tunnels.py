"""How the nodes of an encrypted network find their tunnels to each other, for people."""

from collections.abc import Iterator

from argosy.controller.api.network_usage import carriers
from argosy.controller.store import Snapshot
from argosy.core.codec import encode_into
from argosy.core.network import Network
from argosy.proto.argosy.v1 import control_pb2 as pb


def tunnels_between(snap: Snapshot, network: Network) -> Iterator[pb.NodeTunnels]:
    """Yield the tunnels of each node that carries the network, by name."""
    nodes = {node.meta.id: node for node in carriers(snap, network)}
    for node in sorted(nodes.values(), key=lambda n: n.spec.name):
        row = pb.NodeTunnels(node=node.spec.name, made_by=node.description.tunnels_by)
        for tunnel in node.tunnels:
            if other := nodes.get(tunnel.node_id):
                encode_into(tunnel, row.tunnels.add(to=other.spec.name).tunnel)
        yield row
