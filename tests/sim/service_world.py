"""A world of one service in memory: applies the orchestrator's plans, places tasks, plays the nodes' agents.

It stands in for store, scheduler and agents, so that tests can lead `plan_service` through whole lives of a service and
check after every step what must always hold. Time stands still until a test moves it. Nodes run containers of their
own truth (`Container`), which the stored tasks learn of only while the node is connected.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from argosy.controller.logic import change_service
from argosy.controller.logic.actions import (
    Action,
    CreateTask,
    DeleteService,
    DeleteTask,
    OrphanTask,
    Plan,
    RollBack,
    SetDesired,
    SetJob,
    SetUpdate,
)
from argosy.controller.logic.assign import leaving_from, predecessors
from argosy.controller.logic.departures import Departures
from argosy.controller.logic.filters import fits_placement
from argosy.controller.logic.orchestrate import plan_service
from argosy.controller.logic.schedule import predecessor_of
from argosy.controller.logic.view import Fits
from argosy.core.fence import GRANT_S
from argosy.core.meta import Meta
from argosy.core.node import Availability, Drain, Node, NodeSpec, NodeState, NodeStatus
from argosy.core.service import (
    DEFAULT_STOP_GRACE_PERIOD_S,
    ContainerSpec,
    Disconnect,
    Service,
    ServiceSpec,
    TaskSpec,
    UpdateState,
    UpdateStatus,
)
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState, broken_invariants, is_terminal

S = TaskState
LIFE = (S.ASSIGNED, S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING)

MOMENT = 2.0**-10
"""Seconds between what was created before a change of the spec and what comes of it (a fraction without rounding)."""

Fate = Callable[[Task, TaskState], TaskState]
"""(task, the state that would come next) -> the state that does come."""


def go_well(task: Task, following: TaskState) -> TaskState:
    """Let every task go its way."""
    return following


def image(name: str, **fields: object) -> TaskSpec:
    """Return a task spec that differs from others by its image."""
    return replace(TaskSpec(container=ContainerSpec(image=name)), **fields)  # type: ignore[arg-type]


@dataclass(slots=True)
class Container:
    """What a node has of a task: its true state, whatever is stored."""

    state: TaskState
    released: bool = False


@dataclass(slots=True)
class World:
    """One service and its cluster."""

    spec: ServiceSpec = ServiceSpec(name="web", task=image("v1"))
    node_count: int = 3
    now: float = 1000.0
    fate: Fate = go_well
    fits: Fits = fits_placement
    room: Callable[[Node], int] = lambda node: 1000
    service: Service | None = None
    revisions: dict[int, change_service.Revision] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    cut_off: set[str] = field(default_factory=set)
    others: dict[str, list[Task]] = field(default_factory=dict)  # of other services, by node
    fence_ends: dict[str, float] = field(default_factory=dict)  # when a node's last grant is over
    arrived: Callable[[Task], bool] = lambda task: True  # whether all nodes know a task
    held: Callable[[Task], bool] = lambda task: False  # whether a task waits for services that its own depends on
    wake_at: float | None = None
    created: int = 0
    checks: list[Callable[["World"], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(1, self.node_count + 1):
            self.add_node(f"n{number}")
        change = change_service.create("web", "default", self.spec, self.now)
        self._adopt(change)

    # What people do.

    def add_node(self, name: str) -> None:
        """Have a node join."""
        status = NodeStatus(NodeState.READY, since=self.now)
        self.nodes[name] = Node(Meta(name), NodeSpec(name=name), status=status)

    def remove_node(self, name: str) -> None:
        """Have the operator remove a node."""
        del self.nodes[name]
        self.cut_off.discard(name)

    def set_node(self, name: str, state: NodeState) -> None:
        """Have the leader see a node in a state; it hears of the node only when READY."""
        node = self.nodes[name]
        self.nodes[name] = replace(node, status=NodeStatus(state, since=self.now))
        if state is NodeState.READY:
            self.cut_off.discard(name)
            self.fence_ends.pop(name, None)
        else:
            self.cut_off.add(name)
            self.fence_ends.setdefault(name, self.now + GRANT_S)

    def set_availability(self, name: str, availability: Availability) -> None:
        """Drain, pause or activate a node."""
        node = self.nodes[name]
        self.nodes[name] = replace(node, spec=replace(node.spec, availability=availability))

    def drain(self, name: str, pace: int = 0, deadline: float = 0.0) -> None:
        """Drain a node; `deadline` in seconds from now, 0 for none."""
        node = self.nodes[name]
        drain = Drain(pace, self.now + deadline if deadline else 0.0)
        self.nodes[name] = replace(node, spec=replace(node.spec, availability=Availability.DRAIN, drain=drain))

    def label(self, name: str, **labels: str) -> None:
        """Give a node these labels, and no others."""
        node = self.nodes[name]
        self.nodes[name] = replace(node, spec=replace(node.spec, labels=labels))
        self.check()

    def evict(self, task_id: str) -> None:
        """Ask for a task to run elsewhere, as a rebalance does."""
        self.tasks[task_id] = replace(self.tasks[task_id], evict=True)

    def set_unready(self, task_id: str, unready: bool = True) -> None:
        """Have a task's readiness check fail, or pass."""
        task = self.tasks[task_id]
        self.tasks[task_id] = replace(task, status=replace(task.status, unready=unready))

    def update(self, **fields: object) -> None:
        """Change the service's spec as a user does."""
        self.now += MOMENT
        spec = replace(self.service.spec, **fields)  # type: ignore[union-attr, arg-type]
        revisions = list(self.revisions.values())
        self._adopt(change_service.update(self._service, spec, revisions, self._in_use(), self.now))

    def scale(self, replicas: int) -> None:
        """Change the number of replicas."""
        self.update(replicas=replicas)

    def roll_back(self, to_revision: int = 0) -> None:
        """Roll back by hand; 0: to the previous revision."""
        self.now += MOMENT
        started = UpdateStatus(UpdateState.ROLLBACK_STARTED, started_at=self.now)
        revisions = list(self.revisions.values())
        change = change_service.roll_back(self._service, to_revision, started, revisions, self._in_use(), self.now)
        self._adopt(change)

    def remove(self) -> None:
        """Ask for the service's removal."""
        self.service = replace(self._service, removing=True)

    # What the controller does.

    def plan(self) -> Plan:
        """Return what the orchestrator wants now."""
        tasks = list(self.tasks.values())
        departures = Departures.build(self.nodes.values(), self.tasks_on, self._tasks_of)
        return plan_service(
            self._service,
            self.revisions,
            tasks,
            self.nodes,
            self.now,
            self.fits,
            replace_in=self._replace_in,
            departures=departures,
            arrived=self.arrived,
        )

    def tasks_on(self, node_id: str) -> list[Task]:
        """Return the tasks on a node, those of other services included."""
        return [t for t in self.tasks.values() if t.node_id == node_id] + self.others.get(node_id, [])

    def _tasks_of(self, service_id: str) -> list[Task]:
        others = [t for tasks in self.others.values() for t in tasks]
        return [t for t in (*self.tasks.values(), *others) if t.service_id == service_id]

    def _replace_in(self, node_id: str, grace: float) -> float:
        return self.fence_ends.get(node_id, self.now) + grace - self.now

    def orchestrate(self) -> bool:
        """Plan and apply until nothing is left to do at this moment; say whether anything was."""
        if self.service is None:
            return False
        plan = self.plan()
        did = bool(plan.actions)
        rounds = 0
        while plan.actions:
            begins = any(isinstance(a, (RollBack, SetJob)) or self._lets_go(a) for a in plan.actions)  # more follows
            self.apply(plan)
            if self.service is None:
                return True
            plan = self.plan()
            rounds += 1
            assert not plan.actions or (begins and rounds < 3), f"not at rest after applying: {plan.actions}"
        self.wake_at = plan.wake_at
        return did

    def _lets_go(self, action: Action) -> bool:
        """Whether an action gives up a task that is kept, so that its slot is open again to all that was held off."""
        if not isinstance(action, SetDesired) or self._service.spec.disconnect is not Disconnect.KEEP:
            return False
        node = self.nodes.get(self.tasks[action.task_id].node_id)
        return action.state > S.RUNNING and node is not None and node.status.state is NodeState.DOWN

    def apply(self, plan: Plan) -> None:
        """Apply a plan's actions, each under the invariants."""
        for action in plan.actions:
            self._apply(action)
        self.check()

    def schedule(self) -> bool:
        """Place what has no node: on the READY node with the fewest tasks that has room; else it is PENDING.

        What a task that is only to be made READY takes over from holds no room against it, as in the scheduler.
        """
        did = False
        for task in sorted(self.tasks.values(), key=lambda t: t.meta.id):
            if task.status.state >= S.ASSIGNED or task.desired_state >= S.SHUTDOWN:
                continue
            if self.held(task):
                if not task.status.held:
                    status = replace(self._status(S.PENDING), reason="waiting for db: its update", held=True)
                    self._store(replace(task, status=status), by_agent=False)
                    did = True
                continue
            if task.status.held:
                task = replace(task, held_until=self.now, status=self._status(S.NEW))
            node_id = task.node_id or self._choose_node(task)
            pending = replace(self._status(S.PENDING), waits_for_old=self._waits_for_old(task))
            if node_id and self._load(node_id, task) < self.room(self.nodes[node_id]):
                self._store(replace(task, node_id=node_id, status=self._status(S.ASSIGNED)), by_agent=False)
                did = True
            elif replace(pending, at=task.status.at) != task.status:
                self._store(replace(task, status=pending), by_agent=False)
                did = True
        if did:
            self.check()
        return did

    # What the nodes do.

    def run_agents(self) -> bool:
        """Let every container take one step, and connected nodes hear what is desired and tell how it stands."""
        did = False
        for task in sorted(self.tasks.values(), key=lambda t: t.meta.id):
            connected = task.node_id in self.nodes and task.node_id not in self.cut_off
            if task.status.state >= S.ASSIGNED and connected:
                did = self._step(task) or did
        return did

    def guard(self) -> None:
        """Let the guards of nodes that hold no grant any more end what is fenced there."""
        if self._service.spec.disconnect is not Disconnect.FENCE:
            return
        for task in self.tasks.values():
            box = self.containers.get(task.meta.id)
            over = self._replace_in(task.node_id, DEFAULT_STOP_GRACE_PERIOD_S) <= 0
            if box is not None and task.node_id in self.cut_off and over and not is_terminal(box.state):
                box.state = S.FAILED

    def _step(self, task: Task) -> bool:
        box = self.containers.setdefault(task.meta.id, Container(S.ASSIGNED))
        before = replace(box)
        if is_terminal(box.state):
            box.released = True
        elif task.desired_state >= S.SHUTDOWN:
            box.state = self.fate(task, S.SHUTDOWN)
        else:
            starts = task.desired_state is S.RUNNING and self.now >= task.not_before and not self._waits(task)
            limit = S.RUNNING if starts else S.READY
            following = next((state for state in LIFE if state > box.state), box.state)
            if following <= limit:
                box.state = self.fate(task, following)
        return self._report(task, box) or box != before

    def _waits(self, task: Task) -> bool:
        """Whether a container that this one is to follow has not ended on its node."""
        before = predecessors(task, leaving_from(self.tasks_on(task.node_id)))
        boxes = (self.containers.get(task_id) for task_id in before)
        return any(box is not None and not is_terminal(box.state) for box in boxes)

    def _report(self, task: Task, box: Container) -> bool:
        state = task.status.state if is_terminal(task.status.state) else box.state
        if (state, box.released) == (task.status.state, task.status.released):
            return False
        changed = replace(task, status=replace(task.status, state=state, released=box.released))
        if state is not task.status.state:
            changed = replace(changed, status=replace(changed.status, at=self.now))
        if state is S.RUNNING and not task.running_since:
            changed = replace(changed, running_since=self.now)
        self._store(changed, by_agent=True)
        return True

    def end(self, task_id: str, state: TaskState) -> None:
        """Have a running container end by itself."""
        self.containers[task_id].state = state
        if self.tasks[task_id].node_id not in self.cut_off:
            self._report(self.tasks[task_id], self.containers[task_id])

    # Time.

    def tick(self) -> bool:
        """Let all parts act once at this moment; say whether anything happened."""
        if self.service is not None:
            self.guard()
        did = self.orchestrate()
        did = self.schedule() or did
        did = self.orchestrate() or did
        did = self.run_agents() or did
        return self.orchestrate() or did

    def settle(self) -> None:
        """Let all parts act until nothing more happens at this moment."""
        for _ in range(1000):
            if not self.tick():
                return
        raise AssertionError(f"the world does not come to rest: {self.plan().actions}")

    def run(self, seconds: float) -> None:
        """Let time pass: from one moment at which something is due to the next."""
        until = self.now + seconds
        self.settle()
        while self.service is not None and (due := self._next_moment()) is not None and due <= until:
            assert due > self.now
            self.now = due
            self.settle()
        self.now = until
        self.settle()

    def _next_moment(self) -> float | None:
        """Return when something is due next: for the controller, or for a node with a task that waits to start."""
        starts = (
            task.not_before
            for task in self.live()
            if task.desired_state is S.RUNNING and task.status.state < S.STARTING and task.not_before > self.now
        )
        return min((at for at in (self.wake_at, *starts) if at is not None), default=None)

    # What tests ask.

    @property
    def _service(self) -> Service:
        assert self.service is not None
        return self.service

    def update_state(self) -> UpdateState:
        """Return where the update stands."""
        return self._service.update.state

    def images(self) -> list[str]:
        """Return the images of the RUNNING tasks, in order."""
        return sorted(self.image_of(task) for task in self.running())

    def image_of(self, task: Task) -> str:
        """Return a task's image."""
        return self.revisions[task.revision].spec.task.container.image

    def image_of_spec(self) -> str:
        """Return the image that the service's spec wants now."""
        return self._service.spec.task.container.image

    def running(self) -> list[Task]:
        """Return the tasks that are wanted and RUNNING, by slot and node."""
        found = [t for t in self.live() if t.status.state is S.RUNNING]
        return sorted(found, key=lambda t: (t.slot, t.node_id, t.meta.id))

    def live(self) -> list[Task]:
        """Return the tasks that are wanted, have not ended, and are not on a node that is away."""
        return [
            task
            for task in self.tasks.values()
            if task.desired_state <= S.RUNNING and not is_terminal(task.status.state) and not self.is_away(task)
        ]

    def is_away(self, task: Task) -> bool:
        """Whether the task's node is DOWN or removed, and nobody waits for it by the service's disconnect policy."""
        node = self.nodes.get(task.node_id)
        if node is None:
            return task.node_id != ""
        state, policy = node.status.state, self._service.spec.disconnect
        if policy is Disconnect.FENCE:
            lost = state in (NodeState.DOWN, NodeState.AGENT_LOST)
            return lost and self._replace_in(task.node_id, DEFAULT_STOP_GRACE_PERIOD_S) <= 0
        kept = policy is Disconnect.KEEP and task.desired_state <= S.RUNNING
        return state is NodeState.DOWN and not kept

    def serving(self) -> Iterator[Task]:
        """Yield the tasks whose program truly runs, on nodes that are not away."""
        for task in self.tasks.values():
            box = self.containers.get(task.meta.id)
            if box is not None and S.STARTING <= box.state <= S.RUNNING and not self.is_away(task):
                yield task

    def check(self) -> None:
        """Check what must hold after every change."""
        for check in self.checks:
            check(self)

    # The store.

    def _adopt(self, change: change_service.ServiceChange) -> None:
        self.service = change.service
        for revision in change.outdated:
            del self.revisions[revision.number]
        if change.revision is not None:
            self.revisions[change.revision.number] = change.revision

    def _in_use(self) -> frozenset[int]:
        return frozenset(task.revision for task in self.tasks.values())

    def _status(self, state: TaskState) -> TaskStatus:
        return TaskStatus(state, at=self.now)

    def _store(self, task: Task, *, by_agent: bool) -> None:
        task = replace(task, meta=replace(task.meta, updated_at=self.now))
        old = self.tasks.get(task.meta.id)
        before = (old.status.state, old.desired_state) if old is not None else None
        after = (task.status.state, task.desired_state)
        broken = broken_invariants(before, after, node_id=task.node_id, by_agent=by_agent)
        assert not broken, (broken, old, task)
        self.tasks[task.meta.id] = task

    def _choose_node(self, task: Task) -> str:
        open_nodes = [
            node.meta.id
            for node in self.nodes.values()
            if node.status.state is NodeState.READY
            and node.spec.availability is Availability.ACTIVE
            and self.fits(self.revisions[task.revision].spec.task.placement)(node)
            and self._load(node.meta.id, task) < self.room(node)
        ]
        return min(open_nodes, key=lambda n: (self._load(n), n), default="")

    def _waits_for_old(self, task: Task) -> bool:
        """Whether a task that has no node would have one, were the one that it takes over from gone."""
        return False

    def _load(self, node_id: str, heir: Task | None = None) -> int:
        old = predecessor_of(heir, self.tasks.values()) if heir and heir.desired_state is S.READY else None
        return sum(
            task.node_id == node_id
            and task.status.state >= S.ASSIGNED
            and not is_terminal(task.status.state)
            and task is not old
            for task in self.tasks.values()
        )

    def _apply(self, action: Action) -> None:
        match action:
            case CreateTask():
                self._create(action)
            case SetDesired():
                task = self.tasks[action.task_id]
                assert action.state > task.desired_state
                self._store(replace(task, desired_state=action.state), by_agent=False)
            case OrphanTask():
                task = self.tasks[action.task_id]
                self._store(replace(task, status=replace(task.status, state=S.ORPHANED)), by_agent=False)
            case DeleteTask():
                task = self.tasks.pop(action.task_id)
                gone = task.node_id != "" and task.node_id not in self.nodes
                assert task.status.released or task.status.state < S.ASSIGNED or gone, task
            case SetUpdate():
                self.service = replace(self._service, update=action.update)
            case SetJob():
                self.service = replace(self._service, job=action.job)
            case RollBack():
                self.now += MOMENT
                revisions = list(self.revisions.values())
                change = change_service.roll_back(
                    self._service, action.to_revision, action.update, revisions, self._in_use(), self.now
                )
                self._adopt(change)
            case DeleteService():
                assert not self.tasks
                self.service = None
            case _:
                raise AssertionError(action)

    def _create(self, action: CreateTask) -> None:
        self.created += 1
        task = Task(
            meta=Meta(f"t{self.created:06}", "default", created_at=self.now),
            service_id=action.service_id,
            slot=action.slot,
            node_id=action.node_id,
            revision=action.revision,
            desired_state=action.desired_state,
            failures=action.failures,
            not_before=action.not_before,
            attempts=action.attempts,
            attempts_since=action.attempts_since,
            canary=action.canary,
            iteration=action.iteration,
        )
        assert action.revision in self.revisions
        self._store(task, by_agent=False)
