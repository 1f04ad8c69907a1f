"""Static addresses over random lives: never two tasks with one, never one that nodes give, nothing left over."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from argosy.controller.logic.address_pool import AddressPool, Asking, Attached, Full, attach
from argosy.controller.logic.static_addresses import Claim, claimed, hosts, settled
from argosy.controller.store import Change, Snapshot
from argosy.core.addresses import Subnet
from argosy.core.errors import RejectedError
from argosy.core.meta import Meta
from argosy.core.network import Network, NetworkSpec, Slice, SliceUse, StaticAddress, slice_id
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

SUBNET = Subnet.parse("10.9.0.0/25")  # slices 1 to 3
NETWORK = Network(Meta("net"), NetworkSpec("net"), 4096, str(SUBNET))
NODES = st.sampled_from(["a", "b"])
SERVICES = st.sampled_from(["web", "db"])
ADDRESSES = st.sampled_from([SUBNET.base + n for n in (5, 40, 70, 71, 300)])


class Lives(RuleBasedStateMachine):
    """The store, a scheduler that keeps a pool, and services that ask for one address each, or none."""

    def __init__(self) -> None:
        super().__init__()
        self.asks: dict[str, int] = {}
        self.slices: dict[int, Slice] = {}
        self.tasks: dict[str, Task] = {}
        self.lost: set[str] = set()
        self.clock = 0
        self.pool = self.fresh()

    def fresh(self) -> AddressPool:
        return AddressPool.build(NETWORK, self.slices.values(), self.tasks.values())

    @rule(service=SERVICES, address=ADDRESSES)
    def ask(self, service, address):
        index = SUBNET.slice_of(address) if SUBNET.contains(address) else 0
        there = self.slices.get(index)
        try:
            piece = claimed(NETWORK, there, Claim("net", address, service, service), self.slices, str)
        except RejectedError:
            return
        self.asks[service] = address
        self._lease(piece)

    @rule(service=SERVICES)
    def ask_no_more(self, service):
        self.asks.pop(service, None)

    @rule()
    def settle(self):
        wanted = {StaticAddress(address, service) for service, address in self.asks.items()}
        held = [a.address for t in self.tasks.values() for a in t.attachments]
        for piece in [s for s in self.slices.values() if s.use is SliceUse.STATIC]:
            left = settled(piece, SUBNET, wanted, held)
            if left is not None:
                self._lease(left)
            else:
                self.pool.forget_slice(self.slices.pop(piece.index))

    @rule(service=SERVICES, node=NODES)
    def start(self, service, node):
        self.clock += 1
        task = Task(Meta(f"t{self.clock}", created_at=self.clock), service, 1, status=TaskStatus(TaskState.ASSIGNED))
        asking = None
        if service in self.asks:
            asking = Asking(task.meta.id, service, {"net": self.asks[service]}, str, frozenset(self.lost))
        found = attach({"net": self.pool}, ["net"], node, asking)
        if isinstance(found, Full):
            return
        assert isinstance(found, Attached)
        for piece in found.new_slices:
            assert piece.index not in self.slices
            self._lease(piece)
        self._put(replace(task, node_id=node, attachments=found.attachments))

    @rule(number=st.integers(0, 100))
    def let_go(self, number):
        if self.tasks:
            task = sorted(self.tasks.values(), key=lambda t: t.meta.id)[number % len(self.tasks)]
            self._put(replace(task, status=TaskStatus(TaskState.SHUTDOWN, released=True)))

    @rule(number=st.integers(0, 100))
    def forget(self, number):
        released = sorted(t.meta.id for t in self.tasks.values() if t.status.released)
        if released:
            self.pool.forget(self.tasks.pop(released[number % len(released)]))

    @rule(node=NODES)
    def lose(self, node):
        self.lost.add(node)

    @rule()
    def fail_over(self):
        self.pool = self.fresh()

    def _lease(self, piece: Slice) -> None:
        self.slices[piece.index] = replace(piece, meta=Meta(slice_id("net", piece.index)))
        self.pool.put_slice(self.slices[piece.index])

    def _put(self, task: Task) -> None:
        self.tasks[task.meta.id] = task
        self.pool.put(task)

    @invariant()
    def no_address_is_held_twice(self):
        there = [t for t in self.tasks.values() if not t.status.released and t.node_id not in self.lost]
        held = [a.address for t in there for a in t.attachments]
        assert len(held) == len(set(held))

    @invariant()
    def no_static_address_is_held_by_two_services(self):
        """Also not where one of them has it on a node that is lost: its task may run there."""
        there = [t for t in self.tasks.values() if not t.status.released]
        of = {(t.service_id, a.address) for t in there for a in t.attachments if a.fixed}
        assert len(of) == len({address for _, address in of})

    @invariant()
    def nodes_give_no_static_address_and_nobody_gets_a_virtual_one(self):
        static = {i for i, s in self.slices.items() if s.use is SliceUse.STATIC}
        for task in self.tasks.values():
            for attachment in task.attachments:
                assert SUBNET.contains(attachment.address)
                index = SUBNET.slice_of(attachment.address)
                assert index > 0
                assert attachment.fixed == (index in static)

    @invariant()
    def what_is_announced_is_held_there_and_what_is_held_is_announced(self):
        """Also of a service that asks for it no more, until the task has given it back."""
        held: dict[int, set[str]] = {}
        for task in self.tasks.values():
            if task.attachments and task.attachments[0].fixed and not task.status.released:
                held.setdefault(task.attachments[0].address, set()).add(task.node_id)
        announced = hosts("net", Snapshot().apply(1, self._records()).static_holders("net"))
        assert announced.keys() == held.keys()
        assert all(node in held[address] for address, node in announced.items())

    def _records(self):
        return [Change(Task, task.meta.id, None, task) for task in self.tasks.values()]


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
