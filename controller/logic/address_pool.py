"""The addresses of one network, as the scheduler's commit hands them out: slices to nodes, addresses to tasks.

A node leases slices of 32 addresses as it fills; an address comes from its node's slices only, so that routes are per
slice and not per task. Slice 0 and those whose `use` says so are for services (virtual addresses) and for tasks whose
services asked for an address (static_addresses.py). A stored Task has its addresses, whatever its state, until
it is `released`: its agent confirmed that nothing of it is left. What its record says of them then is history. Records
that go before that, with their nodes, free them too.

So that an address does not come back at once, a node goes through its addresses in turn, beginning after the one that
was given last: the leader may remember it (`last_given`), else it is that of the node's newest task. A pool is built
from a snapshot and then follows the changes (`put` and `forget`), which may come again or late: it gives no address
twice. When a write of what it gave fails it is thrown away.
"""

import re
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from argosy.controller.logic.slice_uses import in_use
from argosy.controller.logic.static_addresses import FIRST_SLICE, leasable
from argosy.core.addresses import Subnet, format_ipv4
from argosy.core.meta import Meta
from argosy.core.network import SLICE_SIZE, Attachment, Network, Slice, SliceUse, slice_id
from argosy.core.task import Task


@dataclass(frozen=True, slots=True)
class Grant:
    """An address (IPv4, host byte order) for a task; `new_slice` has to be stored in the same transaction."""

    address: int
    new_slice: Slice | None = None


@dataclass(frozen=True, slots=True)
class Full:
    """No address can be had; `reason` is for the task. `held_by`: the task that has what was asked for."""

    reason: str
    held_by: str = ""


@dataclass(frozen=True, slots=True)
class Shortage:
    """No slice of a network can be leased any more: only the nodes `with_room` in theirs can have an address, by id."""

    reason: str
    with_room: frozenset[str]


@dataclass(frozen=True, slots=True)
class Attached:
    """Addresses for all networks of a task, and the slices to store with them."""

    attachments: tuple[Attachment, ...]
    new_slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """A task that is to have the addresses which its service asked for, by network.

    `whose` says, for the reason, which task of another service has one of them and until when. `lost`: nodes that are
    not waited for: what a task of this service there has is taken over.
    """

    task_id: str
    service_id: str
    addresses: Mapping[str, int]
    whose: Callable[[Task], str]
    lost: Collection[str] = frozenset()


class AddressPool:
    """Free and used addresses of one network."""

    def __init__(self, network: Network) -> None:
        self._id = network.meta.id
        self._name = _name_of(network)
        self._subnet = Subnet.parse(network.subnet)
        self._used: dict[int, tuple[str, ...]] = {}  # tasks that have it: an agent may begin one in place of another
        self._used_in: Counter[int] = Counter()
        self._leased: dict[int, str] = {}  # slice -> node, "" where it is for something else
        self._open: defaultdict[str, list[int]] = defaultdict(list)  # slices with room, in order
        self._newest: dict[str, tuple[float, str, int]] = {}
        self.last_given: dict[str, int] = {}
        self._leasable = leasable(network)
        self._lowest = self._leasable.start  # no slice below this one can be leased any more
        self._uses: dict[SliceUse, set[int]] = {use: set() for use in SliceUse}  # of the leasable slices
        self._claimed: dict[int, dict[int, str]] = {}  # slice -> static address -> service
        self._static: defaultdict[int, dict[str, Task]] = defaultdict(dict)  # static address -> tasks that have it

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
        released = task.status.released
        if released:
            self.forget(task)
        for attachment in task.attachments:
            if attachment.network_id != self._id:
                continue
            if attachment.fixed:
                if not released:
                    self._static[attachment.address][task.meta.id] = task
            else:
                if not released:
                    self._use(attachment.address, task.meta.id)
                age = (task.meta.created_at, task.meta.id, attachment.address)
                if age > self._newest.get(task.node_id, (-1.0, "", 0)):
                    self._newest[task.node_id] = age

    def forget(self, task: Task) -> None:
        """Note that nothing of a task is left; without effect where another has the address by now."""
        for attachment in task.attachments:
            address = attachment.address
            if attachment.network_id == self._id and attachment.fixed:
                self._static[address].pop(task.meta.id, None)
                continue
            if attachment.network_id != self._id or task.meta.id not in self._used.get(address, ()):
                continue
            self._used[address] = tuple(other for other in self._used[address] if other != task.meta.id)
            if not self._used[address]:
                index = self._subnet.slice_of(address)
                del self._used[address]
                self._used_in[index] -= 1
                self._lowest = min(self._lowest, max(index, self._leasable.start))
                self._open_up(index)

    def put_slice(self, lease: Slice) -> None:
        """Take note of a slice that is leased; idempotent."""
        for use, indexes in self._uses.items():
            if use is lease.use and lease.index in self._leasable:
                indexes.add(lease.index)
            else:
                indexes.discard(lease.index)
        if lease.use is SliceUse.TASKS:
            self._leased[lease.index] = lease.node_id
            self._open_up(lease.index)
        else:
            self._leased[lease.index] = ""
            self._claimed[lease.index] = {h.address: h.service_id for h in lease.holders}

    def forget_slice(self, lease: Slice) -> None:
        """Note that a slice is not leased any more; without effect where another leases it by now."""
        if self._leased.get(lease.index) == lease.node_id:
            del self._leased[lease.index]
            self._claimed.pop(lease.index, None)
            for indexes in self._uses.values():
                indexes.discard(lease.index)
            self._lowest = min(self._lowest, max(lease.index, self._leasable.start))
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
        others = (other for other in self._used.get(address, ()) if other and other != task_id)
        self._used[address] = (*others, task_id)

    @property
    def used(self) -> int:
        """How many of the addresses for tasks are in use."""
        return len(self._used) - self._used_in[0] + sum(bool(tasks) for tasks in self._static.values())

    @property
    def capacity(self) -> int:
        """How many addresses tasks can have."""
        return self._subnet.capacity

    @property
    def slices_free(self) -> int:
        """How many slices nodes may yet lease."""
        return sum(i not in self._leased and self._used_in[i] < SLICE_SIZE for i in self._leasable)

    def lacks(self, node_id: str) -> Full | None:
        """Return why `take` would fail for a node, or None when it would not."""
        if self._open[node_id] or self._next_slice() is not None:
            return None
        return Full(self._why_short())

    def shortage(self) -> Shortage | None:
        """Return which nodes alone can still have an address, and why; None when each can have one."""
        if self._next_slice() is not None:
            return None
        return Shortage(self._why_short(), frozenset(node_id for node_id, room in self._open.items() if room))

    def _why_short(self) -> str:
        used = f"{self.used:,} of {self.capacity:,} addresses used"
        if self.used >= self.capacity:
            return f"network {self._name} is full: {used}"
        slices, where, wider = len(self._leasable), f"network {self._name}", "subnet"
        if slices < self._subnet.slices - FIRST_SLICE:
            where, wider = f"{where}'s ip_range", "ip_range"
        which = f"the only slice of {where}" if slices == 1 else f"all {slices:,} slices of {where}"
        counts: dict[SliceUse | None, int] = {use: len(indexes) for use, indexes in self._uses.items()}
        counts[None] = slices - sum(counts.values())  # nobody's, but full of addresses that tasks still hold
        return f"{which} {in_use(counts)} ({used}): give the network a larger {wider}"

    def lacks_static(self, asking: Asking) -> Full | None:
        """Return why a task cannot have the address that its service asked for, or None when it can.

        It is its service's as long as nobody else claimed it, and free when no other task has anything of it left. What
        a task on a lost node has only its own service takes over: the task may run there yet, and an address that
        leads to either of two services is worse than a wait.
        """
        address = asking.addresses[self._id]
        text = f"{format_ipv4(address)} on network {self._name}"
        claimed = self._claimed.get(self._subnet.slice_of(address), {}) if self._subnet.contains(address) else {}
        if claimed.get(address) != asking.service_id:
            whose = "another service's: give it another address" if address in claimed else "not its service's yet"
            return Full(f"{text} is {whose}")
        for other in self._static.get(address, {}).values():
            if other.service_id != asking.service_id:
                return Full(f"{text} is still held by {asking.whose(other)}", held_by=other.meta.id)
            if other.meta.id != asking.task_id and other.node_id not in asking.lost:
                reason = f"{text} is held by the task that it replaces, until nothing of that is left"
                return Full(reason, held_by=other.meta.id)
        return None

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
        while self._lowest < self._leasable.stop:
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


def lacks_address(network: Network, reason: str) -> bool:
    """Whether a task's reason, which may tell of several nodes, has one of a Full or Shortage of this very network."""
    return re.search(rf"\bnetwork {re.escape(_name_of(network))}(?:'s ip_range)? (?:is|are) ", reason) is not None


def _name_of(network: Network) -> str:
    return network.spec.name or network.meta.id


def attach(
    pools: Mapping[str, AddressPool], network_ids: Sequence[str], node_id: str, asking: Asking | None = None
) -> Attached | Full:
    """Give a task on `node_id` an address on each of its networks, or on none and the reason.

    `pools` has the pool of each network by id; a network that is missing there is a reason too. `asking`: what the
    task's service asked for.
    """
    asked = asking.addresses if asking else {}
    for network_id in network_ids:
        pool = pools.get(network_id)
        if pool is None:
            return Full(f"network {network_id} does not exist any more")
        lack = pool.lacks_static(asking) if asking and network_id in asked else pool.lacks(node_id)
        if lack is not None:
            return lack
    attachments, new_slices = [], []
    for network_id in network_ids:
        if network_id in asked:
            attachments.append(Attachment(network_id, asked[network_id], fixed=True))
            continue
        grant = pools[network_id].take(node_id)
        if isinstance(grant, Full):  # the same network twice: validation refuses that
            raise AssertionError(grant.reason)
        attachments.append(Attachment(network_id, grant.address))
        if grant.new_slice is not None:
            new_slices.append(grant.new_slice)
    return Attached(tuple(attachments), tuple(new_slices))
