"""Random updates with canaries, paused, resumed, promoted, rolled back and stopped, by a planner that forgets.

Every plan is made from objects that went through the store's own encoding, by a planner that knows nothing else: what
a new leader would see at that very moment. After every step: while the update tries, no slot but the canaries' runs
what is new; there are never more canaries than asked for, and none at rest; a rollback restores the revision exactly,
and one by policy returns only to what came through before. When the world calms down, every slot runs what the spec
wants.
"""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from argosy.controller.changes.updates import paused, promoted, resumed
from argosy.controller.logic.actions import Plan
from argosy.controller.logic.update import AT_REST, HELD
from argosy.core.codec import decode, encode
from argosy.core.errors import PreconditionError
from argosy.core.node import NodeState
from argosy.core.service import (
    Disconnect,
    FailureAction,
    RestartPolicy,
    Revision,
    Service,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
)
from argosy.core.task import Task
from argosy.core.task_state import TaskState as S
from argosy.proto.argosy.v1 import types_pb2 as types
from tests.sim.service_world import World, image

IMAGES = ("v1", "v2", "v3", "failing", "huge")
"""Of `huge` there is no room for a task on any node, however empty."""

pytestmark = pytest.mark.timeout(400)


class Forgetful(World):
    """A world whose controller is replaced before every plan."""

    def plan(self) -> Plan:
        """Plan from what the store gives back."""
        assert self.service is not None
        self.service = decode(encode(self.service, types.Service), Service)
        self.tasks = {i: decode(encode(t, types.Task), Task) for i, t in self.tasks.items()}
        self.revisions = {n: decode(encode(r, types.Revision), Revision) for n, r in self.revisions.items()}
        return super().plan()

    def _load(self, node_id: str, heir: Task | None = None) -> int:
        return 1_000_000 if heir and self.image_of(heir) == "huge" else super()._load(node_id, heir)


class Rollouts(RuleBasedStateMachine):
    """One service's updates."""

    @initialize(
        mode=st.sampled_from((ServiceMode.REPLICATED, ServiceMode.REPLICATED, ServiceMode.GLOBAL)),
        replicas=st.integers(0, 5),
        canary=st.integers(0, 3),
        auto=st.booleans(),
        parallelism=st.integers(0, 2),
        order=st.sampled_from(UpdateOrder),
        action=st.sampled_from((FailureAction.PAUSE, FailureAction.ROLLBACK)),
        disconnect=st.sampled_from((Disconnect.REPLACE, Disconnect.KEEP)),
    )
    def begin(
        self,
        mode: ServiceMode,
        replicas: int,
        canary: int,
        auto: bool,
        parallelism: int,
        order: UpdateOrder,
        action: FailureAction,
        disconnect: Disconnect,
    ) -> None:
        config = UpdateConfig(parallelism=parallelism, order=order, failure_action=action, monitor=2)
        spec = ServiceSpec("web", {}, mode, replicas, image("v1", restart=RestartPolicy(delay=1)), config)
        spec = replace(spec, canary=canary, auto_promote=auto and canary > 0, disconnect=disconnect)
        self.world = Forgetful(spec)
        self.world.fate = self.fate
        self.stuck = False
        self.broken = {"failing"}
        self.wanted: dict[str, S] = {}
        self.came_through: set[str] = set()
        self.revision = 0
        self.world.checks += [self.check_canaries, self.check_that_it_only_tries, self.check_that_nothing_goes_in_vain]
        self.world.checks.append(self.check_where_a_policy_returns_to)
        self.world.settle()

    def fate(self, task: Task, following: S) -> S:
        if self.stuck and following is S.READY:
            return self.world.containers[task.meta.id].state
        failing = self.world.image_of(task) in self.broken and following is S.RUNNING
        return S.FAILED if failing else following

    @property
    def service(self) -> Service:
        assert self.world.service is not None
        return self.world.service

    # What people do.

    @rule(name=st.sampled_from(IMAGES))
    def update(self, name: str) -> None:
        task = self.service.spec.task
        self.world.update(task=replace(task, container=replace(task.container, image=name)))
        self.world.orchestrate()

    @precondition(lambda self: self.service.update.state not in AT_REST)
    @rule(verb=st.sampled_from((paused, resumed)))
    def pause_or_resume(self, verb: object) -> None:
        self.world.now += 2.0**-10
        self.adopt(verb(replace(self.service, meta=replace(self.service.meta, version=1)), self.world.now)[1])  # type: ignore[operator]

    @rule(force=st.booleans())
    def promote(self, force: bool) -> None:
        self.world.now += 2.0**-10
        try:
            changed = promoted(replace(self.service, meta=replace(self.service.meta, version=1)), force, self.world.now)
        except PreconditionError:
            return
        self.adopt(changed[1])

    def adopt(self, service: Service) -> None:
        self.world.service = service
        self.world.orchestrate()

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.world.revisions)))
        wanted = self.world.revisions[number].spec.task
        if wanted != self.service.spec.task:
            self.world.roll_back(number)
            assert self.service.spec.task == wanted
            self.world.orchestrate()

    @rule(replicas=st.integers(0, 6))
    def scale(self, replicas: int) -> None:
        self.world.scale(replicas)
        self.world.orchestrate()

    @rule(stopped=st.booleans())
    def stop_or_start(self, stopped: bool) -> None:
        self.world.update(stopped=stopped)
        self.world.orchestrate()

    # What else happens.

    @rule(data=st.data(), state=st.sampled_from((S.FAILED, S.COMPLETE)))
    def a_program_ends(self, data: st.DataObject, state: S) -> None:
        running = sorted(t.meta.id for t in self.world.serving())
        if running:
            self.world.end(data.draw(st.sampled_from(running)), state)
            self.world.orchestrate()

    @rule(seconds=st.sampled_from((0.5, 2.0, 10.0, 700.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule()
    def some_parts_act(self) -> None:
        self.world.schedule()
        self.world.run_agents()
        self.world.orchestrate()

    @rule(name=st.sampled_from(("v1", "v2")), broken=st.booleans())
    def a_program_fails_from_now_on_or_no_more(self, name: str, broken: bool) -> None:
        (self.broken.add if broken else self.broken.discard)(name)

    @rule(action=st.sampled_from((FailureAction.PAUSE, FailureAction.ROLLBACK)))
    def what_follows_failures_changes(self, action: FailureAction) -> None:
        self.world.update(update=replace(self.service.spec.update, failure_action=action))
        self.world.orchestrate()

    @rule(stuck=st.booleans())
    def preparing_gets_stuck(self, stuck: bool) -> None:
        self.stuck = stuck

    @rule(data=st.data(), state=st.sampled_from((NodeState.READY, NodeState.DOWN)))
    def a_node_goes_or_comes_back(self, data: st.DataObject, state: NodeState) -> None:
        self.world.set_node(data.draw(st.sampled_from(sorted(self.world.nodes))), state)
        self.world.orchestrate()

    # What must hold.

    def check_where_a_policy_returns_to(self, world: World) -> None:
        """A rollback that nobody asked for is to what the service ran when no update was going on."""
        update, name = self.service.update, world.image_of_spec()
        is_new, self.revision = self.service.revision != self.revision, self.service.revision
        if is_new and update.state is UpdateState.ROLLBACK_STARTED and update.message:
            assert name in self.came_through, (name, update)
        if update.state in AT_REST:
            self.came_through.add(name)

    def check_canaries(self, world: World) -> None:
        live = {t.slot for t in world.live() if t.canary}
        assert len(live) <= self.service.spec.canary or self.service.update.state is UpdateState.UPDATING
        if self.service.update.state in AT_REST:
            assert live == set()

    def check_that_it_only_tries(self, world: World) -> None:
        """While the update tries, what is new runs in the canaries alone."""
        spec, update = self.service.spec, self.service.update
        trying = update.state in (UpdateState.UPDATING, UpdateState.PAUSED) and not update.promoted and spec.canary
        if not trying or spec.mode is not ServiceMode.REPLICATED or not any(t.canary for t in world.live()):
            return
        made = [t for t in world.live() if t.revision == self.service.revision and not t.canary]
        before = {t.slot for t in world.live() if t.revision != self.service.revision}
        assert not before & {t.slot for t in made}, made

    def check_that_nothing_goes_in_vain(self, world: World) -> None:
        """What serves is told to stop only for an heir that has a place, or would have one then."""
        before, self.wanted = self.wanted, {t.meta.id: t.desired_state for t in world.tasks.values()}
        for task in world.tasks.values():
            told = task.desired_state is S.SHUTDOWN and before.get(task.meta.id, S.SHUTDOWN) <= S.RUNNING
            if told and task.status.state is S.RUNNING:
                heirs = [t for t in world.live() if (t.slot, t.canary) == (task.slot, task.canary)]
                heirs = [t for t in heirs if t.slot or t.node_id == task.node_id]
                assert any(world.image_of(heir) != "huge" for heir in heirs), (task, heirs)

    @invariant()
    def the_number_of_slots_is_exact(self) -> None:
        spec = self.service.spec
        if spec.mode is ServiceMode.REPLICATED:
            slots = {t.slot for t in self.world.tasks.values() if t.desired_state < S.REMOVE and not t.canary}
            assert len(slots) == (0 if spec.stopped else spec.replicas), slots

    def teardown(self) -> None:
        """Calm the world, decide what waits for a person, and see the spec come true."""
        if not hasattr(self, "world"):
            return
        self.stuck = False
        self.broken = {"failing"}
        for name in self.world.nodes:
            self.world.set_node(name, NodeState.READY)
        self.stop_or_start(False)
        for _ in range(3):
            self.world.run(1000)
            if self.service.update.state in HELD:
                self.pause_or_resume(resumed)
            if self.service.update.ready:
                self.promote(False)
        self.world.run(1000)
        if self.world.image_of_spec() in ("failing", "huge"):
            return
        spec = self.service.spec
        wanted = len(self.world.nodes) if spec.mode is ServiceMode.GLOBAL else spec.replicas
        assert self.world.images() == [self.world.image_of_spec()] * wanted, self.service.update
        assert self.service.update.state in AT_REST


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
