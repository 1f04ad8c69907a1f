"""Changes of nodes by the operator."""

from dataclasses import replace

from argosy.controller.store import Op, Release, Snapshot, delete, update
from argosy.core.errors import ConflictError, InvalidError, PreconditionError
from argosy.core.node import Availability, BeatKey, Node, NodeSpec, NodeState
from argosy.core.problem import duration, when
from argosy.core.validate import validate_node_spec

LEAST_DRAIN_S = 1.0
"""Shorter than it takes to start a task elsewhere, a drain would only stop what runs."""


def updated(node: Node, spec: NodeSpec, now: float, version: int = 0, drain_for: float = 0.0) -> tuple[list[Op], Node]:
    """Give a node another spec; its name stays. `version` 0: of any version.

    `drain_for`: the drain's deadline is so many seconds from now; 0: it is as the spec says.
    ConflictError when the node was changed since: the caller reads it again, and changes what is there by then.
    """
    if version and version != node.meta.version:
        raise ConflictError(f"node {node.spec.name} was changed since version {version}: read it again")
    problems = validate_node_spec(spec)
    if drain_for:
        problems += duration("drain_for", drain_for, "the time for the drain", least=LEAST_DRAIN_S)
        problems += when(
            spec.availability is not Availability.DRAIN,
            "drain_for",
            "only a node that is drained has a deadline for it",
        )
        spec = replace(spec, drain=replace(spec.drain, deadline=now + drain_for))
    if problems:
        raise InvalidError(f"node {node.spec.name} cannot be changed so", tuple((p.where, p.what) for p in problems))
    if spec.name != node.spec.name:
        raise InvalidError(f"node {node.spec.name} cannot be renamed: its name is its agent's (--name)")
    if spec == node.spec:
        return [], node
    changed = replace(node, spec=spec, meta=replace(node.meta, updated_at=now))
    return [update(changed)], changed


def removed(snap: Snapshot, node: Node) -> tuple[list[Op], Node]:
    """Remove a node that is down: the operator's word that nothing runs there any more.

    Its tasks and slices are given up by the reaper when the object is gone.
    """
    name = node.spec.name
    if node.status.state is NodeState.READY:
        raise PreconditionError(
            f"node {name} is READY: drain it (`argosy node drain {name}`), stop its agent, and remove it when it is "
            "DOWN"
        )
    if node.status.state is NodeState.AGENT_LOST:
        raise PreconditionError(
            f"node {name} is AGENT_LOST, and its tasks may run on: start its agent and drain it, or turn its host off, "
            "and remove it when it is DOWN"
        )
    key = snap.get(BeatKey, node.meta.id)
    return [delete(node), Release(Node, "", node.spec.name, node.meta.id), *([delete(key)] if key else [])], node
