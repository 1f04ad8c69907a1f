"""When the nodes change the keys of their tunnels. Pure.

A rotation begins a new epoch (core/mesh.py): every node that carries an encrypted network makes a key for it, and goes
over to it peer by peer, as it finds that the new tunnel works. The epoch before is given up when no working tunnel
uses it any more. Session keys are another matter: WireGuard changes those every two minutes by itself.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from argosy.core.mesh import Mesh
from argosy.core.node import Node, NodeState

ROTATION_PERIOD_S: Final = 7 * 24 * 3600.0
OVERLAP_S: Final = 5.0
"""The least time for which both epochs are in use: packets under way with the old keys arrive."""


def carriers_behind(mesh: Mesh, carriers: Iterable[Node]) -> list[str]:
    """Return the names of the nodes for which the epoch before is still needed."""
    return sorted(node.spec.name for node in carriers if is_behind(mesh, node))


def is_behind(mesh: Mesh, node: Node) -> bool:
    """Whether the epoch before is still needed for a node.

    One that is down is not waited for, unless others find that its tunnel works all the same: then it is cut off from
    the controllers alone, and goes on with the keys that it has.
    """
    return node.status.state is not NodeState.DOWN and (_lacks(node, mesh.epoch) or _uses_older(node, mesh.epoch))


def advanced(mesh: Mesh, carriers: Collection[Node], now: float, period: float = ROTATION_PERIOD_S) -> Mesh:
    """Return where the cluster is to go; the same when it is to stay. `carriers`: nodes with an encrypted network."""
    if not mesh.epoch:
        return mesh
    if not mesh.settled:
        over = now - mesh.since >= OVERLAP_S and not any(is_behind(mesh, node) for node in carriers)
        return replace(mesh, settled=True) if over else mesh
    return rotated(mesh, now) if carriers and now - mesh.since >= period else mesh


def rotated(mesh: Mesh, now: float) -> Mesh:
    """Return the beginning of a new epoch."""
    return Mesh(mesh.epoch + 1, now, settled=mesh.epoch == 0)


def look_again_at(mesh: Mesh, period: float = ROTATION_PERIOD_S) -> float:
    """Return when time alone may change what is to be done, in seconds since 1970."""
    return mesh.since + (period if mesh.settled else OVERLAP_S)


def _lacks(node: Node, epoch: int) -> bool:
    return bool(node.description.tunnels_by) and all(k.epoch != epoch for k in node.description.mesh_keys)


def _uses_older(node: Node, epoch: int) -> bool:
    return any(t.epoch < epoch and not t.problem for t in node.tunnels)
