"""The dispatcher's reads: a snapshot, the endpoint index and the drains, in the words of controller/logic/assign.py."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from argosy.controller.changes.images import by_digest
from argosy.controller.session.drains import Drains
from argosy.controller.session.endpoints import EndpointIndex
from argosy.controller.store import Snapshot
from argosy.core.assignment import EndpointAssignment, NamesAssignment, PublishedAssignment
from argosy.core.image import Image
from argosy.core.mesh import Mesh
from argosy.core.meta import Cluster
from argosy.core.network import Network, Slice
from argosy.core.node import Node
from argosy.core.service import Revision, Service, revision_id
from argosy.core.task import Task


@dataclass(frozen=True, slots=True)
class SnapshotObjects:
    """Implements `ClusterObjects`."""

    snap: Snapshot
    index: EndpointIndex
    drains: Drains

    def task_list(self, node_id: str) -> Iterable[Task]:
        """Return the tasks of a node."""
        return self.snap.tasks_on_node(node_id)

    def revision(self, service_id: str, number: int) -> Revision | None:
        """Return a revision."""
        return self.snap.get(Revision, revision_id(service_id, number))

    def service(self, service_id: str) -> Service | None:
        """Return a service."""
        return self.snap.get(Service, service_id)

    def network(self, network_id: str) -> Network | None:
        """Return a network."""
        return self.snap.get(Network, network_id)

    def slices(self, network_id: str) -> Iterable[Slice]:
        """Return the slices of a network."""
        return self.snap.slices_of_network(network_id)

    def static_holders(self, network_id: str) -> Iterable[Task]:
        """Return the tasks that have a static address on a network."""
        return self.snap.static_holders(network_id)

    def node(self, node_id: str) -> Node | None:
        """Return a node."""
        return self.snap.get(Node, node_id)

    def image(self, project: str, digest: str) -> Image | None:
        """Return an image by its manifest's digest."""
        return by_digest(self.snap, project, digest)

    def endpoints(self, network_id: str) -> Mapping[str, EndpointAssignment]:
        """Return the endpoints of a network by task."""
        return self.index.endpoints(network_id)

    def drained(self, task: Task) -> bool:
        """Whether a task that is to stop gets no new connections from any node any more."""
        return self.drains.over(task.meta.id)

    def names(self, network_id: str) -> Iterable[NamesAssignment]:
        """Return what services are called on a network."""
        return self.index.names(network_id)

    def ingress_networks(self) -> Collection[str]:
        """Return the networks that ports of every node lead into."""
        return self.index.ingress_networks

    def published(self, network_id: str) -> Iterable[PublishedAssignment]:
        """Return the ports of every node that lead into a network."""
        return self.index.published(network_id)

    def nodes(self) -> Iterable[Node]:
        """Return all nodes."""
        return self.snap.all(Node)

    def mesh(self) -> Mesh:
        """Return where the cluster is with the keys of its tunnels."""
        return next((cluster.mesh for cluster in self.snap.all(Cluster)), Mesh())
