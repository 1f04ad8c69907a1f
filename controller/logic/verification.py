"""Which ways between nodes a verification tries. Pure.

A network is carried by the nodes that run tasks on it, and by all nodes where ports of every node lead into it. Of few
carriers each tries the way to each other one; of many, each tries the way to some that follow it in the order of their
ids, so that the cost grows with their number and every node is tried from as many.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from argosy.core.task import Task
from argosy.core.task_state import TaskState

ALL_WAYS: Final = 24
"""Up to so many carriers every way between two of them is tried: 552."""
SOME_WAYS: Final = 16
"""Else so many from each."""


def carriers(
    tasks: Iterable[Task], network_ids: Iterable[str], ingress: Collection[str], nodes: Iterable[str]
) -> dict[str, list[str]]:
    """Return the nodes that carry each network, in order: those where tasks hold an address of it, and of the `ingress`
    networks all `nodes`.
    """
    found: defaultdict[str, set[str]] = defaultdict(set, {network_id: set(nodes) for network_id in ingress})
    for task in tasks:
        if task.node_id and not task.status.released and task.status.state is not TaskState.ORPHANED:
            for attachment in task.attachments:
                found[attachment.network_id].add(task.node_id)
    return {network_id: sorted(found[network_id]) for network_id in network_ids}


def ways(nodes: Sequence[str], most: int = ALL_WAYS, some: int = SOME_WAYS) -> Mapping[str, list[str]]:
    """Return whom each node tries; with more than `most` nodes `some` of them each."""
    if len(nodes) <= most:
        return {node: [other for other in nodes if other != node] for node in nodes}
    ring = [*nodes, *nodes]
    return {node: ring[i + 1 : i + 1 + some] for i, node in enumerate(nodes)}


def notice(nodes: Sequence[str], most: int = ALL_WAYS, some: int = SOME_WAYS) -> str:
    """Say what of the ways between nodes is not tried; "" when all are."""
    if len(nodes) <= most:
        return ""
    return f"{len(nodes)} nodes carry it: each tried the ways to {some} of the others"
