"""Which slices of a network a node gives back: those that none of its tasks has had an address of for a while.

Without this a node that once ran many tasks would keep their slices for ever, and another find none. The scheduler
alone gives addresses, so it alone decides this, between two rounds: nothing is placed in a slice as it is given back.

An address is not used again on another node until the peers have heard of it and clients have forgotten it: that time
(QUIET_S) counts from when the agent confirmed that nothing of the last task there is left, or its record went with
the node. A new leader did not see when that was, and counts from its own beginning. A node keeps its lowest slice while
it has any in use: the next task needs no other one, and what peers call the node by stays (network.md).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from argosy.core.addresses import Subnet
from argosy.core.network import SLICE_SIZE, Network, Slice, SliceUse
from argosy.core.task import Task

QUIET_S: Final = 300.0
"""How long a slice has to be empty: clients forget names after seconds, and an idle connection after minutes."""

Block = tuple[str, int]
"""Of a network, 32 addresses: the slice that they are, as addresses tell it (a subnet begins with a slice)."""


def blocks_of(task: Task) -> Iterator[Block]:
    """Yield the slices that a task has addresses of."""
    for attachment in task.attachments:
        yield attachment.network_id, attachment.address // SLICE_SIZE


class IdleSlices:
    """When each slice became empty, as far as this leader saw it. `now` is of one clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._watched_since = now
        self._emptied: dict[Block, float] = {}

    def left(self, task: Task, now: float) -> None:
        """Take note that nothing of a task is left."""
        for block in blocks_of(task):
            self._emptied[block] = now

    def due(self, networks: Iterable[Network], slices: Iterable[Slice], held: set[Block], now: float) -> list[Slice]:
        """Return the slices to give back now; `held` are those that some task has an address of."""
        bases = {n.meta.id: Subnet.parse(n.subnet).base // SLICE_SIZE for n in networks}
        leased: dict[tuple[str, str], list[tuple[Slice, Block]]] = {}
        for lease in sorted(slices, key=lambda s: s.index):
            if lease.use is SliceUse.TASKS and lease.network_id in bases:
                block = (lease.network_id, bases[lease.network_id] + lease.index)
                leased.setdefault((lease.network_id, lease.node_id), []).append((lease, block))
        due: list[Slice] = []
        for of_node in leased.values():
            kept = 1 if any(block in held for _, block in of_node) else 0
            due += [lease for lease, block in of_node[kept:] if block not in held and self._is_quiet(block, now)]
        return due

    def expire(self, now: float) -> None:
        """Forget what is no reason to wait any more."""
        self._emptied = {block: at for block, at in self._emptied.items() if now - at < QUIET_S}

    def _is_quiet(self, block: Block, now: float) -> bool:
        return now - self._emptied.get(block, self._watched_since) >= QUIET_S
