"""Who is where: the nodes that are near tasks of a service, or near tasks that keep a service away.

A *place* is all nodes with one value of an attribute ("node.labels.rack"), or a single node. A node without the label
is a place of its own: it is near to nothing but itself. ClusterView counts tasks by node; a Presence follows one such
count, so that asking for the set of nodes costs nothing, however many tasks there are.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeAlias

from argosy.controller.logic.node_set import NodeSet

Place: TypeAlias = tuple[str, NodeSet]
"""What tells a place from others, and its nodes."""


class Sort(Enum):
    """Which tasks a count is of: those of a service that are to go on, those that have not ended, those that repel."""

    GOING_ON = 0
    THERE = 1
    REPELLING = 2


class Presence:
    """The nodes of all places that have a task of some sort."""

    def __init__(self, place_of: Callable[[int], Place], counts: Mapping[int, int]) -> None:
        self._place_of = place_of
        self._tasks: dict[str, int] = {}
        self.nodes: NodeSet = 0
        for position, count in counts.items():
            self.add(position, count)

    def add(self, position: int, count: int) -> None:
        """Note so many tasks more at a position (fewer, if negative)."""
        key, nodes = self._place_of(position)
        total = self._tasks.get(key, 0) + count
        if total:
            self._tasks[key] = total
            self.nodes |= nodes
        else:
            self._tasks.pop(key, None)
            self.nodes &= ~nodes
