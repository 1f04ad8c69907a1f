"""What a controller assigns to a node: keyed pieces, so that an increment carries only what changed.

The key says which piece it is ("task/ID", "revision/SERVICE.N", "image/DIGEST", "network/ID", "peer/NET/NODE",
"names/NET/SERVICE", "endpoint/NET/TASK", "config/VERSION", "secret/VERSION", "mesh", "mesh/NET/NODE",
"published/NETWORK/SERVICE"); the same key again replaces the piece.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from argosy.core.image import Image
from argosy.core.mesh import MeshKey
from argosy.core.network import Attachment
from argosy.core.service import PortSpec, TaskSpec
from argosy.core.task_state import TaskState


@dataclass(frozen=True, slots=True)
class TaskAssignment:
    """A task for this node, and what is desired of it.

    `drained`: it is to stop, and no node that has confirmed sends it new connections any more. From `failures` to
    `iteration` as in Task: for a restart that the node decides while there is no controller. `after`: the tasks of this
    node whose slot it takes over; it starts when they have ended. `over`: it ended by itself, and nothing was left of
    it: a node that has forgotten that does not run it again.
    """

    id: str = ""
    project: str = ""
    service_id: str = ""
    slot: int = 0
    revision: int = 0
    desired_state: TaskState = TaskState.RUNNING
    attachments: tuple[Attachment, ...] = ()
    not_before: float = 0.0
    drained: bool = False
    failures: int = 0
    attempts: int = 0
    attempts_since: float = 0.0
    iteration: int = 0
    after: tuple[str, ...] = ()
    over: bool = False


@dataclass(frozen=True, slots=True)
class Succession:
    """How a task came to be that its node made while there was no controller, out of one that had ended there.

    `root` is the assigned task that it descends from, over any number of such restarts: it has its slot, revision and
    addresses. The rest is as in Task.
    """

    root: str = ""
    created_at: float = 0.0
    failures: int = 0
    not_before: float = 0.0
    attempts: int = 0
    attempts_since: float = 0.0


@dataclass(frozen=True, slots=True)
class RevisionAssignment:
    """The spec that tasks of one revision run; sent once for all of them.

    `fenced`: they run only while their node holds a grant (core/fence.py). `dependent`: their service depends on others
    that have to run; after a restart of the host a controller says when they start (agent/logic/succession.py).
    """

    service_id: str = ""
    number: int = 0
    service_name: str = ""
    service_labels: Mapping[str, str] = field(default_factory=dict)
    spec: TaskSpec = TaskSpec()
    fenced: bool = False
    dependent: bool = False


@dataclass(frozen=True, slots=True)
class NetworkAssignment:
    """A network that this node carries; `mtu` is that of the containers' links."""

    id: str = ""
    name: str = ""
    vni: int = 0
    subnet: str = ""
    internal: bool = False
    mtu: int = 0
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class PeerAssignment:
    """A node with slices of a network that this node carries; `addresses` are static ones of tasks that it runs."""

    network_id: str = ""
    node_id: str = ""
    underlay_address: str = ""
    slices: tuple[int, ...] = ()
    addresses: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NamesAssignment:
    """What a service is called on a network: its name and aliases.

    They stand for `virtual_address` (IPv4, host byte order), whose connections are spread over the endpoints; where it
    is 0, for the endpoints themselves. With `client_affinity` a client's address keeps its endpoint.
    """

    network_id: str = ""
    service_id: str = ""
    names: tuple[str, ...] = ()
    virtual_address: int = 0
    client_affinity: bool = False


@dataclass(frozen=True, slots=True)
class EndpointAssignment:
    """A running task of a service on a network; `weight` is its share of the new connections, 0 means 1.

    `withdrawn`: it gets no new ones, those that it has go on; it is about to stop, or not ready.
    """

    network_id: str = ""
    task_id: str = ""
    service_id: str = ""
    slot: int = 0
    address: int = 0
    weight: int = 0
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class MeshAssignment:
    """The epochs that a node which carries an encrypted network has keys for; `previous` 0: that one alone."""

    epoch: int = 0
    previous: int = 0


@dataclass(frozen=True, slots=True)
class MeshPeerAssignment:
    """A node that carries an encrypted network, and its public keys: told to all that carry it.

    `down`: the controllers do not hear from it either, so that it is no wonder if its tunnel does not work.
    """

    node_id: str = ""
    node_name: str = ""
    underlay_address: str = ""
    keys: tuple[MeshKey, ...] = ()
    down: bool = False
    network_id: str = ""


@dataclass(frozen=True, slots=True)
class PublishedAssignment:
    """Ports of a service that every node answers on, and the network over which they reach the service's tasks.

    Without ports: they lead over another network. But some came over this one, or will: every node carries it.
    """

    network_id: str = ""
    service_id: str = ""
    service_name: str = ""
    client_affinity: bool = False
    ports: tuple[PortSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigAssignment:
    """A version of a config that a task here has as a file.

    `data` is put in when it is sent: the controller's set of what a node should have goes without. `problem`: why it
    cannot be had.
    """

    id: str = ""
    data: bytes = b""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SecretAssignment:
    """As ConfigAssignment, of a secret. On a node its `data` is taken out before anything is stored."""

    id: str = ""
    data: bytes = field(default=b"", repr=False)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class UnreadableAssignment:
    """What a node makes of a piece that it cannot read, of a newer controller's; `problem` says why. Never sent."""

    key: str = ""
    problem: str = ""


Piece: TypeAlias = (
    TaskAssignment
    | RevisionAssignment
    | Image
    | NetworkAssignment
    | PeerAssignment
    | NamesAssignment
    | EndpointAssignment
    | ConfigAssignment
    | SecretAssignment
    | MeshAssignment
    | MeshPeerAssignment
    | PublishedAssignment
    | UnreadableAssignment
)


@dataclass(frozen=True, slots=True)
class LeaderEpoch:
    """Fencing token of a leader's message; ordered. An agent refuses what is lower than the highest it applied."""

    epoch: int = 0
    revision: int = 0


def key_of(piece: Piece) -> str:
    """Return the key under which a piece is assigned."""
    match piece:
        case TaskAssignment():
            return f"task/{piece.id}"
        case RevisionAssignment():
            return f"revision/{piece.service_id}.{piece.number}"
        case Image():
            return f"image/{piece.digest}"
        case NetworkAssignment():
            return f"network/{piece.id}"
        case PeerAssignment():
            return f"peer/{piece.network_id}/{piece.node_id}"
        case NamesAssignment():
            return f"names/{piece.network_id}/{piece.service_id}"
        case EndpointAssignment():
            return f"endpoint/{piece.network_id}/{piece.task_id}"
        case PublishedAssignment():
            return f"published/{piece.network_id}/{piece.service_id}"
        case ConfigAssignment():
            return f"config/{piece.id}"
        case SecretAssignment():
            return f"secret/{piece.id}"
        case MeshAssignment():
            return "mesh"
        case MeshPeerAssignment():
            return f"mesh/{piece.network_id}/{piece.node_id}"
        case UnreadableAssignment():
            return piece.key
