"""Why a task has no node, in words that say what to change, with how many nodes each reason holds for.

no node has 4 CPUs free: 3 nodes, most free 1.5
no suitable node: 2 of 5 are drained, 3 lack 1 GiB of memory (most free 512 MiB)
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a filter turned down `nodes` nodes.

    `verb` goes on after "1 of them", `verbs` after "3 of them"; `every` is the sentence for when it holds for all.
    """

    nodes: int
    verb: str
    verbs: str
    every: str


def state_refusal(nodes: int, state: str) -> Refusal:
    """Return the refusal of nodes that are something: drained, down."""
    return Refusal(nodes, f"is {state}", f"are {state}", f"{every_node(nodes)} {'is' if nodes == 1 else 'are'} {state}")


def every_node(nodes: int) -> str:
    """Return the subject of a sentence about all nodes there are."""
    return {1: "the only node", 2: "both nodes"}.get(nodes, f"all {nodes:,} nodes")


def count_nodes(nodes: int) -> str:
    """Return "1 node" or "3 nodes"."""
    return "1 node" if nodes == 1 else f"{nodes:,} nodes"


def sentence(refusals: Sequence[Refusal], total: int) -> str:
    """Return one reason for a task that none of `total` nodes can take; each node is in exactly one refusal."""
    if total == 0:
        return "the cluster has no nodes: join one"
    if len(refusals) == 1 and refusals[0].nodes == total:
        return refusals[0].every
    parts: list[str] = []
    for refusal in refusals:
        of_total = f" of {total:,}" if not parts else ""
        parts.append(f"{refusal.nodes:,}{of_total} {refusal.verb if refusal.nodes == 1 else refusal.verbs}")
    return f"no suitable node: {', '.join(parts)}"


def of_node(name: str, refusal: Refusal) -> str:
    """Return the reason for a task that is bound to one node."""
    return f"node {name} {refusal.verb}"
