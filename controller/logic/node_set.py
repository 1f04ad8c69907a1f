"""Sets of nodes as integers: bit p stands for the node at position p of a ClusterView.

A filter that looks at 5,000 nodes one by one costs a millisecond; the conjunction of two such sets costs 100 ns. With
10,000 tasks of hundreds of services to place, that is the difference between minutes and a second. Positions run
against the order of node ids, so that the first node of a set is its highest bit, which int.bit_length finds at once.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

NodeSet: TypeAlias = int
"""A set of positions; 0 is the empty set, & the conjunction, int.bit_count the size."""


def first(nodes: NodeSet) -> int:
    """Return the position of the node with the lowest id; -1 for the empty set."""
    return nodes.bit_length() - 1


def from_flags(flags: Iterable[bool]) -> NodeSet:
    """Return the set of those positions whose flag is true; flags come in the order of positions."""
    digits = "".join(["1" if flag else "0" for flag in flags])
    return int(digits[::-1] or "0", 2)


def from_positions(members: Iterable[int]) -> NodeSet:
    """Return the set of those positions."""
    result = 0
    for position in members:
        result |= 1 << position
    return result


def positions(nodes: NodeSet) -> Iterator[int]:
    """Yield the positions in a set, highest (lowest node id) first."""
    digits = bin(nodes)[2:]
    at, top = digits.find("1"), len(digits) - 1
    while at >= 0 and nodes:
        yield top - at
        at = digits.find("1", at + 1)
