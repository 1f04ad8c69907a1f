"""Random lives of a service: whatever people, programs and nodes do, and whenever, the promises hold.

After every step: states never fall, a plan applied twice is empty the second time, no record goes before its task is
released (all three inside World), the number of slots is exact, no slot runs twice (of a fenced service nowhere, cut
off or not; of others only while one moves), no more than `parallelism` slots are in flight, nothing is taken out of
service beyond the budget. And when the world calms down, every slot runs once and the update has come to an end.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from argosy.controller.logic.reap import HISTORY_PER_SLOT
from argosy.core.node import Availability, NodeState
from argosy.core.service import (
    Disconnect,
    FailureAction,
    HostPort,
    Placement,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
)
from argosy.core.task import Task
from argosy.core.task_state import TaskState as S
from argosy.core.task_state import is_terminal
from tests.sim.service_world import World, image

IN_EU = Placement(constraints=("node.labels.zone == eu",))
GOOD = ("v1", "v2", "v3")
IMAGES = (*GOOD, "rejected", "failing", "crashing")
Key = tuple[int, str]

pytestmark = pytest.mark.timeout(400)  # 10 s of work, but the machine may be busy

configs = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 3),
    delay=st.sampled_from((0.0, 0.0, 3.0)),
    failure_action=st.sampled_from(FailureAction),
    monitor=st.sampled_from((0.0, 5.0)),
    max_failure_ratio=st.sampled_from((0.0, 0.0, 0.4)),
    order=st.sampled_from(UpdateOrder),
)


class Life(RuleBasedStateMachine):
    """One service's life."""

    @initialize(
        mode=st.sampled_from((ServiceMode.REPLICATED, ServiceMode.REPLICATED, ServiceMode.GLOBAL)),
        replicas=st.integers(0, 6),
        nodes=st.integers(1, 4),
        update=configs,
        rollback=configs,
        room=st.sampled_from((1000, 3, 2)),
        ports=st.sampled_from(((), (), (HostPort("tcp", 80),))),
        placement=st.sampled_from((Placement(), IN_EU)),
        max_unavailable=st.sampled_from(("", "", "1", "2")),
        disconnect=st.sampled_from(Disconnect),
    )
    def begin(
        self,
        mode: ServiceMode,
        replicas: int,
        nodes: int,
        update: UpdateConfig,
        rollback: UpdateConfig,
        room: int,
        ports: tuple[HostPort, ...],
        placement: Placement,
        max_unavailable: str,
        disconnect: Disconnect,
    ) -> None:
        task = image("v1", host_ports=ports, restart=RestartPolicy(delay=2), placement=placement)
        self.by_node = mode is ServiceMode.GLOBAL
        if disconnect is Disconnect.FENCE:
            update, rollback = (replace(config, order=UpdateOrder.STOP_FIRST) for config in (update, rollback))
        spec = ServiceSpec("web", {}, mode, replicas, task, update, rollback)
        self.world = World(replace(spec, max_unavailable=max_unavailable, disconnect=disconnect), nodes)
        for name in self.world.nodes:
            self.world.label(name, zone="eu")
        self.world.room = lambda node: room
        self.world.fate = self.fate
        self.slow: set[S] = set()
        self.away_once: set[str] = set()
        self.leaving_once: set[str] = set()
        self.available: set[str] = set()
        self.begun_in: dict[Key, bool] = {}
        self.revision = 1
        self.world.checks += [self.note_away, self.note_leaving, self.check_no_slot_runs_twice, self.check_in_flight]
        self.world.checks += [self.check_live, self.check_budget]
        self.world.settle()

    # What happens.

    def fate(self, task: Task, following: S) -> S:
        stays = self.world.containers[task.meta.id].state
        if following in self.slow:
            return stays
        name = self.world.image_of(task)
        if name == "rejected" and following is S.PREPARING:
            return S.REJECTED
        if (name == "failing" and following is S.STARTING) or (name == "crashing" and following is S.RUNNING):
            return S.FAILED
        return following

    @rule(steps=st.lists(st.sampled_from(("orchestrate", "schedule", "run_agents")), min_size=1, max_size=6))
    def some_parts_act(self, steps: list[str]) -> None:
        for step in steps:
            act: Callable[[], bool] = getattr(self.world, step)
            act()
        self.world.orchestrate()

    @rule()
    def all_act_until_nothing_happens(self) -> None:
        self.world.settle()

    @rule(seconds=st.sampled_from((0.5, 2.0, 5.0, 40.0, 700.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(states=st.sets(st.sampled_from((S.READY, S.RUNNING, S.SHUTDOWN))))
    def things_get_slow(self, states: set[S]) -> None:
        self.slow = states

    @rule(name=st.sampled_from(IMAGES))
    def update(self, name: str) -> None:
        task = self.world.service.spec.task  # type: ignore[union-attr]
        self.world.update(task=replace(task, container=replace(task.container, image=name)))
        self.note_revision()
        self.world.orchestrate()

    @rule(name=st.sampled_from(IMAGES))
    def update_and_let_it_come_to_an_end(self, name: str) -> None:
        self.update(name)
        self.world.run(100)

    @precondition(lambda self: self.world.service.previous_revision)
    @rule()
    def roll_back(self) -> None:
        service = self.world.service
        assert service is not None
        previous = self.world.revisions.get(service.previous_revision)
        if previous is not None and previous.spec.task != service.spec.task:
            self.world.roll_back(previous.number)
            assert self.world.service.spec.task == previous.spec.task  # type: ignore[union-attr]
            self.note_revision()
            self.world.orchestrate()

    @rule(replicas=st.integers(0, 7))
    def scale(self, replicas: int) -> None:
        self.world.scale(replicas)
        self.world.orchestrate()

    @rule(data=st.data(), state=st.sampled_from((S.FAILED, S.COMPLETE)))
    def a_program_ends(self, data: st.DataObject, state: S) -> None:
        running = sorted(t.meta.id for t in self.world.serving())
        if running:
            self.world.end(data.draw(st.sampled_from(running)), state)
            self.world.orchestrate()

    @rule(data=st.data(), state=st.sampled_from(NodeState))
    def a_node_changes(self, data: st.DataObject, state: NodeState) -> None:
        if self.world.nodes:
            self.world.set_node(data.draw(st.sampled_from(sorted(self.world.nodes))), state)
            self.world.orchestrate()

    @rule(data=st.data(), availability=st.sampled_from(Availability))
    def the_operator_changes_a_node(self, data: st.DataObject, availability: Availability) -> None:
        if self.world.nodes:
            self.world.set_availability(data.draw(st.sampled_from(sorted(self.world.nodes))), availability)
            self.world.orchestrate()

    @rule(data=st.data(), pace=st.integers(0, 2), deadline=st.sampled_from((0.0, 0.0, 10.0)))
    def the_operator_drains_a_node(self, data: st.DataObject, pace: int, deadline: float) -> None:
        if self.world.nodes:
            self.world.drain(data.draw(st.sampled_from(sorted(self.world.nodes))), pace, deadline)
            self.world.orchestrate()

    @rule(data=st.data(), zone=st.sampled_from(("eu", "us")))
    def the_operator_labels_a_node(self, data: st.DataObject, zone: str) -> None:
        if self.world.nodes:
            self.world.label(data.draw(st.sampled_from(sorted(self.world.nodes))), zone=zone)
            self.world.orchestrate()

    @rule(placement=st.sampled_from((Placement(), IN_EU)))
    def the_placement_changes(self, placement: Placement) -> None:
        task = self.world.service.spec.task  # type: ignore[union-attr]
        self.world.update(task=replace(task, placement=placement))
        self.note_revision()
        self.world.orchestrate()

    @rule(data=st.data())
    def a_task_is_to_run_elsewhere(self, data: st.DataObject) -> None:
        running = sorted(t.meta.id for t in self.world.running())
        if running and not self.by_node:
            self.world.evict(data.draw(st.sampled_from(running)))
            self.world.orchestrate()

    @rule(data=st.data(), unready=st.booleans())
    def a_readiness_check_changes_its_mind(self, data: st.DataObject, unready: bool) -> None:
        running = sorted(t.meta.id for t in self.world.running())
        if running:
            self.world.set_unready(data.draw(st.sampled_from(running)), unready)
            self.world.orchestrate()

    @rule()
    def a_node_joins(self) -> None:
        self.world.node_count += 1
        if len(self.world.nodes) < 5:
            self.world.add_node(f"n{self.world.node_count}")
            self.world.label(f"n{self.world.node_count}", zone="eu")

    @rule(data=st.data())
    def a_node_is_removed(self, data: st.DataObject) -> None:
        if len(self.world.nodes) > 1:
            name = data.draw(st.sampled_from(sorted(self.world.nodes)))
            for task in self.world.tasks.values():
                if task.node_id == name:  # what is gone is created anew, which is no update
                    self.begun_in.pop(self.key(task), None)
            self.world.remove_node(name)
            self.world.orchestrate()

    # What must hold.

    def key(self, task: Task) -> Key:
        return (0, task.node_id) if self.by_node else (task.slot, "")

    def stale(self, task: Task) -> bool:
        service = self.world.service
        assert service is not None
        old, new = self.world.revisions[task.revision].spec.task, service.spec.task
        if replace(old, placement=new.placement) != new:
            return True
        return old.placement != new.placement and not self.meets(task.node_id, new.placement)

    def meets(self, node_id: str, placement: Placement) -> bool:
        node = self.world.nodes.get(node_id)
        return node is not None and (not placement.constraints or node.spec.labels.get("zone") == "eu")

    def slots(self) -> dict[Key, list[Task]]:
        found: dict[Key, list[Task]] = {}
        for task in sorted(self.world.tasks.values(), key=lambda t: t.meta.id):
            if task.desired_state < S.REMOVE:
                found.setdefault(self.key(task), []).append(task)
        return found

    def note_away(self, world: World) -> None:
        """Remember the tasks whose node was away: they may run beside their replacement until they hear of it."""
        self.away_once |= {t.meta.id for t in world.tasks.values() if world.is_away(t)}

    def note_leaving(self, world: World) -> None:
        """Remember the tasks that had to leave their node: they run beside their replacement until that is well."""
        self.leaving_once |= {t.meta.id for t in world.tasks.values() if self.leaves(t)}

    def leaves(self, task: Task) -> bool:
        node = self.world.nodes.get(task.node_id)
        if node is None or self.by_node:
            return False
        drained = node.spec.availability is Availability.DRAIN
        return task.evict or drained or node.spec.labels.get("zone") != "eu"

    def check_no_slot_runs_twice(self, world: World) -> None:
        service = world.service
        assert service is not None
        if service.spec.disconnect is Disconnect.FENCE:
            boxes = [t for t in world.tasks.values() if t.node_id in world.nodes and self.runs(t)]
            assert max(Counter(map(self.key, boxes)).values(), default=0) <= 1, boxes
            return
        if UpdateOrder.START_FIRST in (service.spec.update.order, service.spec.rollback.order):
            return
        spared = self.away_once | self.leaving_once
        serving = Counter(self.key(t) for t in world.serving() if t.meta.id not in spared)
        assert all(count == 1 for count in serving.values()), serving

    def runs(self, task: Task) -> bool:
        box = self.world.containers.get(task.meta.id)
        return box is not None and S.STARTING <= box.state <= S.RUNNING

    def check_budget(self, world: World) -> None:
        """What the controller itself stopped in its last plan was within the budget, all that was missing counted."""
        service = world.service
        assert service is not None
        if service.revision != self.revision:
            self.note_revision()
        now = {t.meta.id for t in world.tasks.values() if self.does_its_work(t)}
        stopped = [
            task
            for task in world.tasks.values()
            if task.meta.id in self.available and task.desired_state is S.SHUTDOWN and self.would_do_its_work(task)
        ]
        self.available = now
        slots = self.slots()
        served = {self.key(world.tasks[task_id]) for task_id in now}
        taken = {self.key(task) for task in stopped if not self.is_overdue(task)} - served
        if taken and service.spec.max_unavailable:
            missing = len(slots.keys() - served)
            assert missing <= int(service.spec.max_unavailable), (taken, missing)

    def is_overdue(self, task: Task) -> bool:
        node = self.world.nodes.get(task.node_id)
        if node is None or node.spec.availability is not Availability.DRAIN:
            return False
        return 0 < node.spec.drain.deadline <= self.world.now

    def would_do_its_work(self, task: Task) -> bool:
        node = self.world.nodes.get(task.node_id)
        answers = node is not None and node.status.state in (NodeState.READY, NodeState.AGENT_LOST)
        given_up = self.world.is_away(task)
        return answers and not given_up and task.status.state is S.RUNNING and not task.status.unready

    def does_its_work(self, task: Task) -> bool:
        return self.would_do_its_work(task) and task.desired_state <= S.RUNNING

    def left_at(self, task: Task) -> tuple[float, str]:
        """The later a task ran in its slot, or was tried there, the greater."""
        by_itself = task.desired_state <= S.RUNNING and is_terminal(task.status.state)
        return (task.status.at if by_itself else task.meta.created_at), task.meta.id

    def note_revision(self) -> None:
        """Take down which slots are dirty as a new update (or rollback) begins."""
        service = self.world.service
        assert service is not None
        self.revision = service.revision
        live = {t.meta.id for t in self.world.live()}
        self.begun_in = {}
        for key, tasks in self.slots().items():
            matter = [t for t in tasks if t.meta.id in live] or [max(tasks, key=self.left_at)]
            if all(map(self.stale, matter)):
                self.begun_in[key] = False

    def check_in_flight(self, world: World) -> None:
        """No more than `parallelism` slots have a new task that neither ran nor ended yet.

        Under stop-first with a budget there may be as many more that did not serve when the update began them.
        """
        service = world.service
        assert service is not None
        if service.revision != self.revision:
            self.note_revision()
        rolling_back = service.update.state >= UpdateState.ROLLBACK_STARTED
        config = service.spec.rollback if rolling_back else service.spec.update
        in_flight = self.in_flight()
        passed_by = bool(service.spec.max_unavailable) and config.order is UpdateOrder.STOP_FIRST
        if config.parallelism:
            assert len(in_flight) <= config.parallelism * (2 if passed_by else 1), in_flight

    def in_flight(self) -> list[Key]:
        slots = self.slots()
        found = []
        for key, begun in list(self.begun_in.items()):
            tasks = slots.get(key, [])
            if not any(map(self.stale, tasks)):
                tasks = []  # only tasks that no node has known, or whose node was removed, vanish so soon
            new = [t for t in tasks if t.revision == self.revision]
            over = any(t.running_since or is_terminal(t.status.state) for t in new)
            clean = tasks and not self.stale(max(tasks, key=self.left_at))
            if not tasks or over or (clean and not new and not begun):
                del self.begun_in[key]
            elif new or begun:
                self.begun_in[key] = True
                found.append(key)
        return found

    def check_live(self, world: World) -> None:
        """A slot has its task and, while that is replaced, an heir; never more."""
        live = Counter(self.key(t) for t in world.live())
        assert max(live.values(), default=0) <= 2, live

    @invariant()
    def the_number_of_slots_is_exact(self) -> None:
        service = self.world.service
        assert service is not None
        slots = self.slots()
        if not self.by_node:
            assert len(slots) == service.spec.replicas, sorted(slots)
        for tasks in slots.values():
            history = [t for t in tasks if is_terminal(t.status.state)]
            assert len(history) <= HISTORY_PER_SLOT

    def teardown(self) -> None:
        """Calm the world, and see it come to what was declared."""
        if not hasattr(self, "world"):
            return
        world = self.world
        self.slow = set()
        if not world.nodes:
            world.add_node("last")
        for name in list(world.nodes):
            world.set_availability(name, Availability.ACTIVE)
            world.set_node(name, NodeState.READY)
        for number in range(10):
            world.add_node(f"more{number}")
        for name in world.nodes:
            world.label(name, zone="eu")
        for task in world.running():
            world.set_unready(task.meta.id, False)
        world.run(2)
        good = world.image_of_spec() in GOOD
        world.run(7200)
        assert world.service is not None
        state = world.update_state()
        if state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED):  # it leaves the slots that it did not come to
            good = good and all(world.image_of(max(t, key=self.left_at)) in GOOD for t in self.slots().values())
        if good:
            wanted = len(world.nodes) if self.by_node else world.service.spec.replicas
            keys = [self.key(t) for t in world.running()]
            assert (len(keys), len(set(keys))) == (wanted, wanted)
            assert state not in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
        if state in (UpdateState.NONE, UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED):
            assert not any(self.stale(t) for t in world.running())
        ending = [t for t in world.tasks.values() if t.desired_state >= S.SHUTDOWN and not t.status.released]
        assert ending == []


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
