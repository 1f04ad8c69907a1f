"""Takes a node into the cluster, or back: what a first message of an agent means for the stored Node."""

from dataclasses import replace
from hashlib import blake2s

from argosy.controller.store import Claim, Op, Snapshot, create, update
from argosy.core.errors import ExistsError, InvalidError
from argosy.core.ids import ID_PATTERN
from argosy.core.mesh import Tunnel
from argosy.core.meta import Meta
from argosy.core.node import BeatKey, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, PortProblem
from argosy.core.validate import validate_node_spec


def registered(
    snap: Snapshot, node_id: str, spec: NodeSpec, description: NodeDescription, beat_key: bytes, now: float
) -> tuple[list[Op], Node]:
    """Return the node as it is to be stored; ExistsError when another node has its name.

    Labels and availability of a known node are the operator's: what the agent was started with counts only once.
    """
    if not ID_PATTERN.fullmatch(node_id):
        raise InvalidError(f"{node_id!r} is no node id")
    known = snap.get(Node, node_id)
    if known is None:
        ops, node = _new(snap, node_id, spec, description, now)
    else:
        ops, node = _described(known, description, now)
    return [*ops, *_signed_with(snap, node_id, beat_key)], node


def described(snap: Snapshot, node_id: str, description: NodeDescription, now: float) -> tuple[list[Op], Node | None]:
    """Take what a known node says of itself now; one that was removed meanwhile says nothing any more."""
    known = snap.get(Node, node_id)
    return _described(known, description, now) if known else ([], None)


def tunnelled(snap: Snapshot, node_id: str, tunnels: tuple[Tunnel, ...]) -> tuple[list[Op], Node | None]:
    """Take how a known node finds its tunnels now."""
    known = snap.get(Node, node_id)
    if known is None or known.tunnels == tunnels:
        return [], known
    changed = replace(known, tunnels=tunnels)
    return [update(changed)], changed


def with_port_problems(snap: Snapshot, node_id: str, problems: tuple[PortProblem, ...]) -> tuple[list[Op], Node | None]:
    """Take what stands in the way of published ports on a known node now."""
    known = snap.get(Node, node_id)
    if known is None or known.port_problems == problems:
        return [], known
    changed = replace(known, port_problems=problems)
    return [update(changed)], changed


def _described(known: Node, description: NodeDescription, now: float) -> tuple[list[Op], Node]:
    if known.description == description:
        return [], known
    changed = replace(known, description=description, meta=replace(known.meta, updated_at=now))
    return [update(changed)], changed


def _signed_with(snap: Snapshot, node_id: str, key: bytes) -> list[Op]:
    """Keep the key of the host's beats for the leaders to come."""
    if len(key) > blake2s.MAX_KEY_SIZE:
        raise InvalidError(f"a beat key has at most {blake2s.MAX_KEY_SIZE} bytes, and this one has {len(key)}")
    stored = snap.get(BeatKey, node_id)
    if not key or (stored is not None and stored.key == key):
        return []
    return [create(BeatKey(Meta(node_id), key)) if stored is None else update(replace(stored, key=key))]


def _new(
    snap: Snapshot, node_id: str, spec: NodeSpec, description: NodeDescription, now: float
) -> tuple[list[Op], Node]:
    problems = validate_node_spec(spec)
    if problems:
        raise InvalidError("this node cannot join", tuple((p.where, p.what) for p in problems))
    holder = snap.by_name(Node, "", spec.name)
    if holder is not None:
        raise ExistsError(
            f"the name {spec.name} belongs to node {holder.meta.id} ({holder.status.state.name}): start this agent "
            f"with another --name, or, if that host is gone for good, `argosy node rm {holder.meta.id}`"
        )
    node = Node(
        meta=Meta(node_id, created_at=now, updated_at=now),
        spec=spec,
        description=description,
        status=NodeStatus(NodeState.UNKNOWN, "has just joined", now),
    )
    return [Claim(Node, "", spec.name, node_id), create(node)], node
