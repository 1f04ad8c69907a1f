"""Changes of the mesh: what a network needs that asks for encryption, and a rotation that is asked for."""

from collections.abc import Sequence
from dataclasses import replace

from argosy.controller.changes.networks import CLUSTER_ID
from argosy.controller.logic.mesh_keys import carriers_behind, rotated
from argosy.controller.store import Op, Put, Snapshot
from argosy.core.errors import PreconditionError
from argosy.core.meta import Cluster
from argosy.core.node import Node


def carriers(snap: Snapshot) -> list[Node]:
    """Return the nodes that carry an encrypted network: while they do they have keys."""
    return [node for node in snap.all(Node) if node.description.mesh_keys]


def rotation(snap: Snapshot, now: float) -> tuple[list[Op], Cluster]:
    """Begin a rotation; PreconditionError while there is nothing to rotate, or the last one goes on."""
    cluster = snap.get(Cluster, CLUSTER_ID)
    there = carriers(snap)
    if cluster is None or not cluster.mesh.epoch or not there:
        raise PreconditionError("no node carries an encrypted network, and so there are no keys to rotate")
    if not cluster.mesh.settled:
        behind = carriers_behind(cluster.mesh, there)
        raise PreconditionError(f"a rotation goes on already{waiting_for(behind)}")
    changed = replace(cluster, mesh=rotated(cluster.mesh, now), meta=replace(cluster.meta, updated_at=now))
    return [Put(changed, expect=cluster.meta.version)], changed


def waiting_for(behind: Sequence[str]) -> str:
    """Say which nodes a rotation waits for."""
    return f": it waits for {', '.join(behind)}" if behind else ""
