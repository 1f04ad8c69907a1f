"""The MTU of a network's links: what the links between its hosts leave, and no more than the network asks for. Pure.

What a network asks for is compared with the nodes when it is made; a node with a narrower link that comes later lowers
it for all links of the network, since the network would lose packets otherwise. That is said, with what would fit.
"""

from collections.abc import Iterable

from argosy.core.network import LEAST_MTU, NetworkSpec, carried_mtu
from argosy.core.node import Node


def links_mtu(spec: NetworkSpec, carriers: Iterable[Node]) -> int:
    """Return the MTU of a network that some nodes carry; 0 where nothing is known of their links."""
    left = [carried_mtu(mtu, encrypted=spec.encrypted) for n in carriers if (mtu := n.description.underlay_mtu)]
    known = [mtu for mtu in (*left, spec.mtu) if mtu]
    return max(min(known), LEAST_MTU) if known else 0


def too_large(spec: NetworkSpec, nodes: Iterable[Node]) -> str:
    """Return why a network that is to be made cannot have the MTU it asks for, with what would fit; "" when it can.

    A link that is too narrow for any network does not count: its agent refuses the tasks.
    """
    wide = (n for n in nodes if carried_mtu(n.description.underlay_mtu, encrypted=spec.encrypted) >= LEAST_MTU)
    node = _narrowest(spec, wide)
    if node is None:
        return ""
    mtu = node.description.underlay_mtu
    return (
        f"an MTU of {spec.mtu} is too large: the link of node {node.spec.name} to other hosts takes {mtu} bytes, which "
        f"leaves {carried_mtu(mtu, encrypted=spec.encrypted)}: ask for that at most, or leave the MTU out: the network "
        "then has what its own hosts' links leave"
    )


def lowered(spec: NetworkSpec, carriers: Iterable[Node]) -> str:
    """Return why a network's links have less than it asks for, or needs, with what would fit; "" when they do not."""
    node = _narrowest(spec, carriers)
    if node is None:
        return ""
    mtu = node.description.underlay_mtu
    left = carried_mtu(mtu, encrypted=spec.encrypted)
    where = f"the link of node {node.spec.name} to other hosts takes {mtu} bytes"
    if spec.mtu > LEAST_MTU:
        told = f"its links have an MTU of {max(left, LEAST_MTU)}, not the {spec.mtu} that it asks for: {where}"
    else:
        told = f"its links have an MTU of {LEAST_MTU}, and {where}, which leaves {left}"
    wider = _needed(spec) + mtu - left
    return f"{told}: give that link {wider}, or keep the network's tasks off the node"


def _needed(spec: NetworkSpec) -> int:
    return max(spec.mtu, LEAST_MTU)


def _narrowest(spec: NetworkSpec, nodes: Iterable[Node]) -> Node | None:
    """Return the node of the narrowest link, if that is too narrow for what a network asks for, or needs."""
    known = (n for n in nodes if n.description.underlay_mtu)
    node = min(known, key=lambda n: (n.description.underlay_mtu, n.spec.name), default=None)
    if node is None or _needed(spec) <= carried_mtu(node.description.underlay_mtu, encrypted=spec.encrypted):
        return None
    return node
