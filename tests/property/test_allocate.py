"""Addresses over random lives of tasks: never two tasks with one, slices exclusive, nothing lost, nothing invented."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from argosy.controller.logic.address_pool import AddressPool, Full, Grant
from argosy.controller.logic.allocate import choose_subnet
from argosy.controller.logic.idle_slices import QUIET_S, IdleSlices, blocks_of
from argosy.core.addresses import Subnet
from argosy.core.meta import Meta
from argosy.core.network import Attachment, Network, NetworkSpec, Slice
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

NODES = st.sampled_from(["a", "b", "c"])
SUBNET = Subnet.parse("10.9.0.0/25")
NETWORK = Network(Meta("net"), NetworkSpec("net"), 4096, str(SUBNET))


class Lives(RuleBasedStateMachine):
    """A leader that keeps a pool and tells it what changes, as the scheduler does; changes may be told twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, Task] = {}
        self.slices: dict[int, Slice] = {}
        self.clock = 0
        self.last: dict[str, int] = {}
        self.kept = self.pool()
        self.now = 0.0
        self.idle = IdleSlices(self.now)
        self.emptied: dict[int, float] = {}

    def pool(self) -> AddressPool:
        return AddressPool.build(NETWORK, self.slices.values(), self.tasks.values(), self.last)

    @rule(wanted=st.lists(NODES, max_size=40))
    def allocate(self, wanted):
        pool = self.kept
        for node_id in wanted:
            self.clock += 1
            grant = pool.take(node_id)
            if isinstance(grant, Full):
                assert not self._room(node_id)
                continue
            assert isinstance(grant, Grant)
            self._check_turn(node_id, grant)
            self._store(node_id, grant)
        assert pool.last_given == self.last

    @rule()
    def fail_over(self):
        """A new leader knows only what is stored."""
        self.idle = IdleSlices(self.now)
        self.last = dict(AddressPool.build(NETWORK, self.slices.values(), self.tasks.values()).last_given)
        self.kept = self.pool()

    def _room(self, node_id: str) -> bool:
        used = {a.address for t in self.tasks.values() for a in t.attachments}
        mine = [i for i in range(1, SUBNET.slices) if i not in self.slices or self.slices[i].node_id == node_id]
        return any(a not in used for i in mine for a in range(SUBNET.slice_base(i), SUBNET.slice_base(i) + 32))

    def _check_turn(self, node_id: str, grant: Grant) -> None:
        """The address given last does not come back while the node has another one that is free."""
        if grant.address == self.last.get(node_id):
            used = {a.address for t in self.tasks.values() for a in t.attachments}
            mine = [s.index for s in self.slices.values() if s.node_id == node_id]
            free = {a for i in mine for a in range(SUBNET.slice_base(i), SUBNET.slice_base(i) + 32)} - used
            assert free <= {grant.address}

    def _store(self, node_id: str, grant: Grant) -> None:
        if grant.new_slice is not None:
            assert grant.new_slice.index not in self.slices
            assert grant.new_slice.node_id == node_id
            self.slices[grant.new_slice.index] = grant.new_slice
        owner = self.slices[SUBNET.slice_of(grant.address)]
        assert owner.node_id == node_id
        task_id = f"t{self.clock:05d}"
        meta = Meta(task_id, created_at=float(self.clock))
        self.tasks[task_id] = Task(meta, "s", 1, node_id, 1, attachments=(Attachment("net", grant.address),))
        self.last[node_id] = grant.address
        for _ in range(2):
            self.kept.put(self.tasks[task_id])

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), state=st.sampled_from([TaskState.FAILED, TaskState.ORPHANED, TaskState.SHUTDOWN]))
    def end(self, data, state):
        task = self.tasks[data.draw(st.sampled_from(sorted(self.tasks)))]
        self.tasks[task.meta.id] = Task(
            task.meta, "s", 1, task.node_id, 1, status=TaskStatus(state), attachments=task.attachments
        )

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def reap(self, data):
        for task_id in data.draw(st.sets(st.sampled_from(sorted(self.tasks)))):
            task = self.tasks.pop(task_id)
            for _ in range(2):
                self.kept.forget(task)
            self.idle.left(task, self.now)
            self.emptied.update((SUBNET.slice_of(a.address), self.now) for a in task.attachments)

    @rule(passed=st.sampled_from([0.0, QUIET_S / 2, QUIET_S]))
    def give_back_what_is_idle(self, passed):
        self.now += passed
        held = {block for task in self.tasks.values() for block in blocks_of(task)}
        in_use = {SUBNET.slice_of(a.address) for t in self.tasks.values() for a in t.attachments}
        for lease in self.idle.due([NETWORK], self.slices.values(), held, self.now):
            assert lease.index not in in_use
            assert self.now - self.emptied.get(lease.index, 0.0) >= QUIET_S
            del self.slices[lease.index]
            self.kept.forget_slice(lease)
        if passed == QUIET_S:
            for node_id in ("a", "b", "c"):
                mine = sorted(i for i, s in self.slices.items() if s.node_id == node_id)
                assert set(mine[1:]) <= in_use, "one is kept, and no other that is empty"
                assert not mine or in_use & set(mine)

    @rule(node_id=NODES)
    def give_slices_back(self, node_id):
        for index in [i for i, s in self.slices.items() if s.node_id == node_id]:
            lease = self.slices.pop(index)
            for _ in range(2):
                self.kept.forget_slice(lease)

    @invariant()
    def the_pool_that_follows_is_the_one_that_is_built(self):
        built = self.pool()
        assert self.kept.used == built.used
        for node_id in ("a", "b", "c"):
            assert self.kept.lacks(node_id) == built.lacks(node_id)
            assert self.kept._open[node_id] == built._open[node_id]

    @invariant()
    def nobody_shares_an_address(self):
        given_out = [a.address for t in self.tasks.values() for a in t.attachments]
        assert len(given_out) == len(set(given_out))
        assert all(SUBNET.contains(a) and SUBNET.slice_of(a) > 0 for a in given_out)

    @invariant()
    def the_count_is_right(self):
        assert self.pool().used == len(self.tasks)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


@given(
    st.lists(st.builds(Subnet.around, st.integers(0x0A400000, 0x0A7FFFFF), st.integers(10, 32)).map(str), max_size=6)
)
def test_a_chosen_subnet_is_clear_of_hosts_and_where_possible_of_networks(others):
    underlay, taken = others[:2], others[2:]
    pool = [Subnet(base, 16) for base in Subnet.parse("10.64.0.0/10").subnets(16)]
    clear = [s for s in pool if not any(s.overlaps(Subnet.parse(u)) for u in underlay)]
    if not clear:
        return
    chosen = Subnet.parse(choose_subnet("", taken, underlay))
    assert chosen in clear
    free = [s for s in clear if not any(s.overlaps(Subnet.parse(t)) for t in taken)]
    assert not free or chosen == free[0]
