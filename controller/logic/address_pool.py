"""The addresses of one network, as the scheduler's commit hands them out: slices to nodes, addresses to tasks.

A node leases slices of 32 addresses as it fills; an address comes from its node's slices only, so that routes are per
slice and not per task. Slice 0 and those whose `use` says so are for services (virtual addresses). Every stored Task
keeps its addresses, whatever its state: they are free when the reaper deletes the record, which it does only after the
agent confirmed.

So that an address does not come back at once, a node goes through its addresses in turn, beginning after the one that
was given last: the leader may remember it (`last_given`), else it is that of the node's newest task. A pool is built
from a snapshot and then follows the changes (`put` and `forget`), which may come again or late: it gives no address
twice. When a write of what it gave fails it is thrown away.
"""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from argosy.core.addresses import Subnet
from argosy.core.meta import Meta
from argosy.core.network import SLICE_SIZE, Attachment, Network, Slice, SliceUse, slice_id
from argosy.core.task import Task

FIRST_SLICE: Final = 1


@dataclass(frozen=True, slots=True)
class Grant:
    """An address (IPv4, host byte order) for a task; `new_slice` has to be stored in the same transaction."""

    address: int
    new_slice: Slice | None = None


@dataclass(frozen=True, slots=True)
class Full:
    """No address can be had; `reason` is for the task."""

    reason: str


@dataclass(frozen=True, slots=True)
class Attached:
    """Addresses for all networks of a task, and the slices to store with them."""

    attachments: tuple[Attachment, ...]
    new_slices: tuple[Slice, ...]


class AddressPool:
    """Free and used addresses of one network."""

    def __init__(self, network: Network) -> None:
        self._id = network.meta.id
        self._name = network.spec.name or network.meta.id
        self._subnet = Subnet.parse(network.subnet)
        self._used: dict[int, str] = {}  # id of the task that has it; "" while it is not known to be stored
        self._used_in: Counter[int] = Counter()
        self._leased: dict[int, str] = {}  # slice -> node
        self._open: defaultdict[str, list[int]] = defaultdict(list)  # slices with room, in order
        self._newest: dict[str, tuple[float, str, int]] = {}
        self.last_given: dict[str, int] = {}
        self._lowest = FIRST_SLICE  # no slice below this one can be leased any more

    @classmethod
    def build(
        cls,
        network: Network,
        slices: Iterable[Slice],
        tasks: Iterable[Task],
        last_given: Mapping[str, int] | None = None,
    ) -> "AddressPool":
        """Return the pool of `network` from all stored tasks; `slices` and `tasks` may be those of all networks.

        `last_given`: what the pool of the batch before this one had under that name, where this leader has it.
        """
        pool = cls(network)
        for lease in slices:
            if lease.network_id == network.meta.id:
                pool.put_slice(lease)
        for task in tasks:
            pool.put(task)
        pool.last_given = {node_id: address for node_id, (_, _, address) in pool._newest.items()}
        pool.last_given.update(last_given or {})
        return pool

    def put(self, task: Task) -> None:
        """Take note of a task as it is stored; idempotent."""
        for attachment in task.attachments:
            if attachment.network_id == self._id:
                self._use(attachment.address, task.meta.id)
                age = (task.meta.created_at, task.meta.id, attachment.address)
                if age > self._newest.get(task.node_id, (-1.0, "", 0)):
                    self._newest[task.node_id] = age

    def forget(self, task: Task) -> None:
        """Note that a task's record is gone; without effect where another has the address by now."""
        for attachment in task.attachments:
            address = attachment.address
            if attachment.network_id == self._id and self._used.get(address) == task.meta.id:
                index = self._subnet.slice_of(address)
                del self._used[address]
                self._used_in[index] -= 1
                self._lowest = min(self._lowest, max(index, FIRST_SLICE))
                self._open_up(index)

    def put_slice(self, lease: Slice) -> None:
        """Take note of a slice that is leased; idempotent."""
        if lease.use is SliceUse.TASKS:
            self._leased[lease.index] = lease.node_id
            self._open_up(lease.index)
        else:
            self._leased[lease.index] = ""

    def forget_slice(self, lease: Slice) -> None:
        """Note that a slice is not leased any more; without effect where another leases it by now."""
        if self._leased.get(lease.index) == lease.node_id:
            del self._leased[lease.index]
            self._lowest = min(self._lowest, lease.index)
            if lease.index in self._open[lease.node_id]:
                self._open[lease.node_id].remove(lease.index)

    def _open_up(self, index: int) -> None:
        node_id = self._leased.get(index)
        if node_id and self._used_in[index] < SLICE_SIZE and index not in self._open[node_id]:
            insort(self._open[node_id], index)

    def _use(self, address: int, task_id: str = "") -> None:
        if not self._subnet.contains(address):
            return
        if address not in self._used:
            index = self._subnet.slice_of(address)
            self._used_in[index] += 1
            node_id = self._leased.get(index, "")
            if self._used_in[index] == SLICE_SIZE and index in self._open[node_id]:
                self._open[node_id].remove(index)
        self._used[address] = task_id

    @property
    def used(self) -> int:
        """How many of the addresses for tasks are in use."""
        return len(self._used) - self._used_in[0]

    @property
    def capacity(self) -> int:
        """How many addresses tasks can have."""
        return self._subnet.capacity

    def lacks(self, node_id: str) -> Full | None:
        """Return why `take` would fail for a node, or None when it would not."""
        if self._open[node_id] or self._next_slice() is not None:
            return None
        if self.used >= self.capacity:
            return Full(f"network {self._name} is full: {self.used:,} of {self.capacity:,} addresses used")
        slices = self._subnet.slices - FIRST_SLICE
        return Full(
            f"network {self._name} has no addresses left for this node: all {slices:,} slices are leased, and "
            f"the node's own are full ({self.used:,} of {self.capacity:,} addresses used); "
            "give the network a larger subnet"
        )

    def take(self, node_id: str) -> Grant | Full:
        """Give a task on `node_id` an address that no task has, and the node a slice where it needs one more."""
        if self._open[node_id]:
            return Grant(self._give(node_id))
        index = self._next_slice()
        if index is None:
            return self.lacks(node_id) or Full(f"network {self._name} is full")
        lease = Slice(Meta(slice_id(self._id, index)), self._id, index, node_id)
        self.put_slice(lease)
        return Grant(self._give(node_id), lease)

    def _next_slice(self) -> int | None:
        """Return the lowest slice that nobody leases and that old tasks do not fill. O(1) over a batch."""
        while self._lowest < self._subnet.slices:
            if self._lowest not in self._leased and self._used_in[self._lowest] < SLICE_SIZE:
                return self._lowest
            self._lowest += 1
        return None

    def _give(self, node_id: str) -> int:
        address = next(a for a in self._in_turn(node_id) if a not in self._used)
        self._use(address)
        self.last_given[node_id] = address
        return address

    def _in_turn(self, node_id: str) -> Iterator[int]:
        """Yield the node's addresses (of slices with room) that come after the last one given, then the others."""
        last = self.last_given.get(node_id, -1)
        bases = [self._subnet.slice_base(index) for index in self._open[node_id]]
        for base in bases:
            yield from range(max(base, last + 1), base + SLICE_SIZE)
        for base in bases:
            yield from range(base, min(base + SLICE_SIZE, last + 1))


def attach(pools: Mapping[str, AddressPool], network_ids: Sequence[str], node_id: str) -> Attached | Full:
    """Give a task on `node_id` an address on each of its networks, or on none and the reason.

    `pools` has the pool of each network by id; a network that is missing there is a reason too.
    """
    for network_id in network_ids:
        pool = pools.get(network_id)
        lack = Full(f"network {network_id} does not exist any more") if pool is None else pool.lacks(node_id)
        if lack is not None:
            return lack
    attachments, new_slices = [], []
    for network_id in network_ids:
        grant = pools[network_id].take(node_id)
        if isinstance(grant, Full):  # the same network twice: validation refuses that
            raise AssertionError(grant.reason)
        attachments.append(Attachment(network_id, grant.address))
        if grant.new_slice is not None:
            new_slices.append(grant.new_slice)
    return Attached(tuple(attachments), tuple(new_slices))
