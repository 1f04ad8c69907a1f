"""What a node is assigned: a pure function of a snapshot.

The result is keyed (core/assignment.py), so that the session sends only pieces that differ from what it sent before.
What is a node's own is apart from what all nodes of a network are told alike: the latter is worked out, compared and
encoded once for all of them (controller/session/feeds.py).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from argosy.controller.logic import static_addresses
from argosy.controller.logic.network_mtu import links_mtu
from argosy.controller.logic.published_ports import leads_over, network_of
from argosy.core.assignment import (
    ConfigAssignment,
    EndpointAssignment,
    MeshAssignment,
    MeshPeerAssignment,
    NamesAssignment,
    NetworkAssignment,
    PeerAssignment,
    Piece,
    PublishedAssignment,
    RevisionAssignment,
    SecretAssignment,
    TaskAssignment,
    key_of,
)
from argosy.core.image import Image
from argosy.core.mesh import Mesh
from argosy.core.network import Network, Slice, SliceUse
from argosy.core.node import Node, NodeState
from argosy.core.service import DependencyCondition, Disconnect, EndpointMode, Revision, Service, ServiceSpec
from argosy.core.task import Task
from argosy.core.task_state import TaskState


class ClusterObjects(Protocol):
    """The reads that an assignment needs; the store's Snapshot has them."""

    def task_list(self, node_id: str) -> Iterable[Task]:
        """Return the tasks of a node."""

    def revision(self, service_id: str, number: int) -> Revision | None:
        """Return a revision."""

    def service(self, service_id: str) -> Service | None:
        """Return a service."""

    def network(self, network_id: str) -> Network | None:
        """Return a network."""

    def slices(self, network_id: str) -> Iterable[Slice]:
        """Return the slices of a network."""

    def static_holders(self, network_id: str) -> Iterable[Task]:
        """Return the tasks that have a static address on a network."""

    def node(self, node_id: str) -> Node | None:
        """Return a node."""

    def image(self, project: str, digest: str) -> Image | None:
        """Return an image by its manifest's digest."""

    def endpoints(self, network_id: str) -> Mapping[str, EndpointAssignment]:
        """Return the endpoints of a network by task."""

    def drained(self, task: Task) -> bool:
        """Whether a task that is to stop gets no new connections from any node any more."""

    def names(self, network_id: str) -> Iterable[NamesAssignment]:
        """Return what services are called on a network."""

    def ingress_networks(self) -> Collection[str]:
        """Return the networks that ports of every node lead into: every node carries them."""

    def published(self, network_id: str) -> Iterable[PublishedAssignment]:
        """Return the ports of every node that lead into a network."""

    def nodes(self) -> Iterable[Node]:
        """Return all nodes."""

    def mesh(self) -> Mesh:
        """Return where the cluster is with the keys of its tunnels."""


Place: TypeAlias = tuple[str, int, int]
"""A service, a slot of it, and the iteration of a job: one task runs there at a time."""


@dataclass(frozen=True, slots=True)
class NodeSet:
    """What a node is told: pieces of its own, by key, and of each of its networks what `network_pieces` gives."""

    pieces: Mapping[str, Piece] = field(default_factory=dict)
    networks: tuple[str, ...] = ()


def assignments_for(node_id: str, objects: ClusterObjects) -> NodeSet:
    """Return what a node needs."""
    pieces: dict[str, Piece] = {}

    def put(piece: Piece | None) -> None:
        if piece is not None:
            pieces[key_of(piece)] = piece

    networks: set[str] = set(objects.ingress_networks())
    revisions: set[tuple[str, int]] = set()
    tasks = list(objects.task_list(node_id))
    leaving = leaving_from(tasks)
    for task in tasks:
        if task.status.state < TaskState.ASSIGNED and not task.attachments:
            continue  # a global service's task that waits for the scheduler
        put(task_assignment(task, drained=objects.drained(task), after=predecessors(task, leaving)))
        if task.status.released:
            continue
        if (task.service_id, task.revision) not in revisions:
            revisions.add((task.service_id, task.revision))
            for piece in _revision_pieces(task, objects):
                put(piece)
        networks.update(a.network_id for a in task.attachments)
    if any((n := objects.network(i)) and n.spec.encrypted for i in networks):
        mesh = objects.mesh()
        put(MeshAssignment(mesh.epoch, mesh.previous))
    return NodeSet(pieces, tuple(sorted(networks)))


def told(task: Task | None) -> tuple[object, ...] | None:
    """Return what `assignments_for` reads of a task: while that stays the same, so does what its node is told."""
    if task is None:
        return None
    return (
        task.node_id,
        task.desired_state,
        task.status.released,
        task.status.state < TaskState.ASSIGNED,
        task.revision,
        task.attachments,
        task.not_before,
        task.failures,
        task.attempts,
        task.attempts_since,
        task.iteration,
    )


def told_of_spec(spec: ServiceSpec) -> tuple[Mapping[str, str], bool, bool]:
    """Return what the nodes of a service's tasks are told of its present spec: labels, `fenced` and `dependent`.

    What had only to complete holds no restart (logic/dependencies.py).
    """
    dependent = any(d.condition is not DependencyCondition.COMPLETED for d in spec.depends_on)
    return spec.labels, spec.disconnect is Disconnect.FENCE, dependent


def leaving_from(tasks: Iterable[Task]) -> Mapping[Place, Sequence[str]]:
    """Return the tasks of a node that are to stop, by place."""
    leaving: dict[Place, list[str]] = {}
    for task in tasks:
        if task.desired_state > TaskState.RUNNING and not task.status.released:
            leaving.setdefault(_place(task), []).append(task.meta.id)
    return leaving


def _place(task: Task) -> Place:
    return task.service_id, task.slot, task.iteration


def predecessors(task: Task, leaving: Mapping[Place, Sequence[str]]) -> tuple[str, ...]:
    """Return the tasks that have to have ended on the node before a task that does not run yet is started there."""
    if task.desired_state is not TaskState.RUNNING or task.status.state >= TaskState.STARTING:
        return ()
    return tuple(sorted(leaving.get(_place(task), ())))


def task_assignment(task: Task, *, drained: bool = False, after: tuple[str, ...] = ()) -> TaskAssignment:
    """Return what a node is told of one task."""
    return TaskAssignment(
        id=task.meta.id,
        project=task.meta.project,
        service_id=task.service_id,
        slot=task.slot,
        revision=task.revision,
        desired_state=task.desired_state,
        attachments=task.attachments,
        not_before=task.not_before,
        drained=drained,
        failures=task.failures,
        attempts=task.attempts,
        attempts_since=task.attempts_since,
        iteration=task.iteration,
        after=after,
        over=task.status.released and task.desired_state <= TaskState.RUNNING,
    )


def endpoint_of(task: Task, network_id: str, weight: int = 0) -> EndpointAssignment | None:
    """Return a task's endpoint on a network: it has one while it runs.

    It is withdrawn while it is not ready, and once it is to stop: so it leaves every balancer before it stops.
    """
    if task.status.state is not TaskState.RUNNING:
        return None
    for attachment in task.attachments:
        if attachment.network_id == network_id:
            return EndpointAssignment(
                network_id,
                task.meta.id,
                task.service_id,
                task.slot,
                attachment.address,
                weight,
                withdrawn=not task.takes_requests,
            )
    return None


def names_of(service: Service, network_id: str) -> NamesAssignment | None:
    """Return what a service is called on a network; None where it is not on it."""
    for attachment in service.spec.task.networks:
        if attachment.target == network_id:
            names = dict.fromkeys((service.spec.name, *attachment.aliases))
            address = next((a.address for a in service.virtual_addresses if a.network_id == network_id), 0)
            endpoint = service.spec.endpoint
            if endpoint.mode is not EndpointMode.VIP:
                address = 0  # the cluster is about to take it away
            return NamesAssignment(network_id, service.meta.id, tuple(names), address, endpoint.client_affinity)
    return None


def published_of(
    service: Service, networks: Mapping[str, Network], serving: Mapping[str, int], led: Iterable[str] = ()
) -> dict[str, PublishedAssignment]:
    """Return by network what nodes are told of the ports that all of them answer on for a service.

    `serving`: by network, how many of its tasks are ready. The ports lead over one; nodes carry also the network that
    they are to lead over, before they do, and those of `led`, over which connections may have come.
    """
    network_id = leads_over(service, networks, serving)
    if not network_id:
        return {}
    first = PublishedAssignment(
        network_id, service.meta.id, service.spec.name, service.spec.endpoint.client_affinity, service.ports
    )
    beside = {*led, network_of(service.spec, networks)} & networks.keys() - {network_id}
    return {network_id: first, **{i: replace(first, network_id=i, ports=()) for i in sorted(beside)}}


def _revision_pieces(task: Task, objects: ClusterObjects) -> Iterable[Piece | None]:
    revision, service = objects.revision(task.service_id, task.revision), objects.service(task.service_id)
    if revision is None:
        return
    labels, fenced, dependent = told_of_spec(service.spec if service else revision.spec)
    yield RevisionAssignment(
        task.service_id, task.revision, revision.spec.name, labels, revision.spec.task, fenced, dependent
    )
    yield objects.image(task.meta.project, revision.spec.task.container.image_digest)
    for ref in revision.spec.task.container.files:  # without what they hold: that is put in when it is sent
        yield SecretAssignment(ref.id) if ref.secret else ConfigAssignment(ref.id)


def network_pieces(network_id: str, objects: ClusterObjects) -> Iterable[Piece]:
    """Return what every node is told that carries a network, all alike."""
    network = objects.network(network_id)
    if network is None:
        return
    held = _held(network_id, objects)
    carriers = {node_id: node for node_id in held if (node := objects.node(node_id))}
    spec = network.spec
    mtu = links_mtu(spec, carriers.values())
    yield NetworkAssignment(
        network_id, spec.name, network.vni, network.subnet, spec.internal, mtu, encrypted=spec.encrypted
    )
    for node_id, node in carriers.items():
        about, down = node.description, node.status.state is NodeState.DOWN
        yield PeerAssignment(network_id, node_id, about.underlay_address, *held[node_id])
        if spec.encrypted:
            yield MeshPeerAssignment(
                node_id, node.spec.name, about.underlay_address, about.mesh_keys, down, network_id=network_id
            )
    yield from objects.names(network_id)
    yield from objects.endpoints(network_id).values()
    yield from objects.published(network_id)


def _held(network_id: str, objects: ClusterObjects) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the nodes that carry a network, with what each has of it: slices, and static addresses."""
    slices: defaultdict[str, list[int]] = defaultdict(list)
    for piece in objects.slices(network_id):
        if piece.use is SliceUse.TASKS:
            slices[piece.node_id].append(piece.index)
    statics: defaultdict[str, list[int]] = defaultdict(list)
    for address, node_id in static_addresses.hosts(network_id, objects.static_holders(network_id)).items():
        statics[node_id].append(address)
    everywhere = (one.meta.id for one in objects.nodes()) if network_id in objects.ingress_networks() else ()
    nodes = dict.fromkeys((*slices, *statics, *everywhere))
    return {i: (tuple(sorted(slices.get(i, ()))), tuple(sorted(statics.get(i, ())))) for i in nodes}
