"""depends_on: which tasks wait, for what, and which never do."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from argosy.controller.logic.dependencies import Gate, Held, Objects
from argosy.core.meta import Meta
from argosy.core.node import Node, NodeSpec, NodeState, NodeStatus
from argosy.core.service import (
    Dependency,
    DependencyCondition,
    HostPort,
    JobState,
    JobStatus,
    RestartCondition,
    RestartPolicy,
    Revision,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateState,
    UpdateStatus,
)
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState as S
from tests.sim import service_world
from tests.sim.service_world import image

STARTED, HEALTHY, COMPLETED = DependencyCondition
ONCE = TaskSpec(restart=RestartPolicy(RestartCondition.ON_FAILURE))


def a_task(name: str, state: S, slot: int = 1, **fields: object) -> Task:
    flags = {name: bool(fields.pop(name, False)) for name in ("held", "host_restarted")}
    status = TaskStatus(state, at=5.0, reason=str(fields.pop("reason", "")), **flags)
    task = Task(Meta(f"{name}-{slot}-{state.name}"), name, slot, "n1", 1, status=status)
    return replace(task, **fields)  # type: ignore[arg-type]


@dataclass
class World:
    """`web` depends on `db`."""

    condition: DependencyCondition = STARTED
    db: Service | None = field(default_factory=lambda: Service(Meta("db", "p"), ServiceSpec(name="db"), revision=1))
    tasks: list[Task] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    optional: bool = False
    node_state: NodeState = NodeState.READY
    vouched: bool = True

    def why(self, task: Task | None = None) -> str:
        """Return what a new task of web waits for."""
        held = self.what_holds(task)
        return held.reason if held is not None else ""

    def what_holds(self, task: Task | None = None) -> Held | None:
        depends = (Dependency("db", self.condition, optional=self.optional),)
        web = Service(Meta("web", "p"), ServiceSpec(name="web", depends_on=depends), revision=1)
        node = Node(Meta("n1"), NodeSpec("host1"), status=NodeStatus(self.node_state))
        objects = Objects(
            service=lambda project, name: self.db if (project, name) == ("p", "db") else None,
            tasks=lambda service_id: [t for t in self.tasks if t.service_id == service_id],
            revisions=lambda service_id: [r for r in self.revisions if r.service_id == service_id],
            node=lambda node_id: node if node_id == "n1" else None,
            runs=lambda node, task_id: self.vouched,
        )
        return Gate(objects).what_holds(web, task or replace(a_task("web", S.NEW), node_id=""))


def states(states: Iterable[S]) -> list[Task]:
    return [a_task("db", state, slot) for slot, state in enumerate(states, 1)]


@pytest.mark.parametrize(
    ("condition", "db", "waits"),
    [
        (STARTED, [], "waiting for db: started"),
        (STARTED, [S.READY], "waiting for db: started"),
        (STARTED, [S.STARTING], ""),
        (STARTED, [S.RUNNING], ""),
        (STARTED, [S.COMPLETE], ""),
        (STARTED, [S.PENDING, S.RUNNING], ""),  # one is enough
        (HEALTHY, [S.STARTING], "waiting for db: healthy"),
        (HEALTHY, [S.RUNNING], ""),
        (HEALTHY, [S.STARTING, S.RUNNING], ""),
        (COMPLETED, [S.RUNNING], "waiting for db: completed"),
        (COMPLETED, [S.COMPLETE], ""),
        (COMPLETED, [S.COMPLETE, S.RUNNING], "waiting for db: completed"),
        (COMPLETED, [S.FAILED], "waiting for db: completed"),
    ],
)
def test_conditions(condition: DependencyCondition, db: list[S], waits: str) -> None:
    world = World(condition, tasks=states(db))
    assert world.db is not None
    world.db = replace(world.db, spec=replace(world.db.spec, task=ONCE))
    assert world.why() == waits


def test_a_task_that_is_not_ready_is_not_healthy() -> None:
    (running,) = states([S.RUNNING])
    assert World(HEALTHY, tasks=[replace(running, status=replace(running.status, unready=True))]).why()


def test_stopping_tasks_do_not_count() -> None:
    assert World(tasks=[a_task("db", S.RUNNING, desired_state=S.SHUTDOWN)]).why()


NOT_HEARD = " (host1, where it ran, has not told yet what runs there)"


@pytest.mark.parametrize("condition", [STARTED, HEALTHY])
@pytest.mark.parametrize("before", [False, True], ids=["first", "replacement"])
@pytest.mark.parametrize(
    ("state", "vouched", "counts", "why"),
    [
        (NodeState.READY, True, True, ""),
        (NodeState.READY, False, False, NOT_HEARD),  # it is back: perhaps from a restart
        (NodeState.UNKNOWN, True, False, NOT_HEARD),  # one of many that fell silent
        (NodeState.UNKNOWN, False, False, NOT_HEARD),  # a new leader has not heard it
        (NodeState.AGENT_LOST, True, True, ""),  # its host has been up all the time: so most likely it runs
        (NodeState.AGENT_LOST, False, False, NOT_HEARD),  # so it was stored: this leader has not heard the host
        (NodeState.DOWN, True, False, ""),
    ],
)
def test_only_what_is_known_to_run_counts(
    condition: DependencyCondition, before: bool, state: NodeState, vouched: bool, counts: bool, why: str
) -> None:
    ran = [a_task("web", S.FAILED, running_since=3.0, node_id="gone")] if before else []
    world = World(condition, tasks=[*states([S.RUNNING]), *ran], node_state=state, vouched=vouched)
    assert world.why() == ("" if counts else f"waiting for db: {condition.name.lower()}{why}")


def test_what_may_still_run_has_not_completed() -> None:
    world = World(COMPLETED, tasks=states([S.COMPLETE, S.RUNNING]), node_state=NodeState.UNKNOWN)
    assert world.db is not None
    world.db = replace(world.db, spec=replace(world.db.spec, task=ONCE))
    assert world.why()


def test_a_service_that_is_not_there() -> None:
    assert World(db=None).why() == "waiting for db: there is no such service"
    assert World(db=None, optional=True).why() == ""


@pytest.mark.parametrize(
    ("spec", "tasks", "why"),
    [
        ({"stopped": True}, [], " (it is stopped)"),
        ({"replicas": 0}, [], " (it has no replicas)"),
        ({}, [a_task("db", S.PENDING, reason="no node has 4 CPUs free")], " (no node has 4 CPUs free)"),
        (
            {},
            [a_task("db", S.PENDING, reason="waiting for init: completed", held=True)],
            " (db is waiting for init: completed)",
        ),
        ({}, [a_task("db", S.FAILED, reason="exit code 1")], " (exit code 1)"),
    ],
)
def test_what_keeps_the_dependency_is_told(spec: dict[str, object], tasks: list[Task], why: str) -> None:
    db = Service(Meta("db", "p"), ServiceSpec(name="db", **spec), revision=1)  # type: ignore[arg-type]
    assert World(HEALTHY, db=db, tasks=tasks).why() == f"waiting for db: healthy{why}"


def test_what_restarts_whenever_it_ends_never_completes() -> None:
    assert "it restarts whenever it ends" in World(COMPLETED, tasks=states([S.RUNNING])).why()


# ---------------------------------------------------------------- jobs


def job(state: JobState, iteration: int = 1, message: str = "") -> Service:
    spec = ServiceSpec(name="db", mode=ServiceMode.REPLICATED_JOB, task=ONCE)
    return Service(Meta("db", "p"), spec, revision=1, job=JobStatus(iteration, state=state, message=message))


@pytest.mark.parametrize(
    ("condition", "db", "waits"),
    [
        (COMPLETED, job(JobState.COMPLETE), ""),
        (STARTED, job(JobState.COMPLETE), ""),
        (COMPLETED, job(JobState.RUNNING), "waiting for db: completed"),
        (
            COMPLETED,
            job(JobState.FAILED, message="slot 1: exit code 3"),
            "waiting for db: completed (slot 1: exit code 3)",
        ),
        (COMPLETED, job(JobState.NONE, 0), "waiting for db: completed (its schedule has not started it yet)"),
    ],
)
def test_jobs(condition: DependencyCondition, db: Service, waits: str) -> None:
    assert World(condition, db=db).why() == waits


def test_what_a_former_run_of_a_job_did_counts_no_more() -> None:
    tasks = [a_task("db", S.COMPLETE, iteration=1)]
    assert World(STARTED, db=job(JobState.RUNNING, 2), tasks=tasks).why()


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        ([a_task("db", S.FAILED, reason="exit code 1", iteration=2)], " (exit code 1)"),
        ([a_task("db", S.FAILED, reason="exit code 1", iteration=1)], ""),
        (
            [
                a_task("db", S.FAILED, reason="exit code 1", iteration=2),
                a_task("db", S.COMPLETE, iteration=2),
                a_task("db", S.READY, slot=2, iteration=2),
            ],
            "",
        ),
    ],
)
def test_only_a_failure_that_was_not_made_good_is_told_of_a_job(tasks: list[Task], why: str) -> None:
    assert World(COMPLETED, db=job(JobState.RUNNING, 2), tasks=tasks).why() == f"waiting for db: completed{why}"


# ---------------------------------------------------------------- replacements


@pytest.mark.parametrize(
    ("condition", "db", "waits"),
    [
        (HEALTHY, [S.STARTING], False),  # it runs: that is enough
        (HEALTHY, [S.READY], True),  # nothing of it runs: the whole cluster was restarted
        (STARTED, [], True),
        (COMPLETED, [S.FAILED], False),
    ],
)
def test_a_replacement(condition: DependencyCondition, db: list[S], waits: bool) -> None:
    before = a_task("web", S.FAILED, running_since=3.0)
    world = World(condition, tasks=[*states(db), before])
    assert bool(world.why()) is waits


LOST = [
    a_task("web", S.FAILED, running_since=3.0, host_restarted=True),
    a_task("web", S.ORPHANED, running_since=3.0),
    a_task("web", S.RUNNING, running_since=3.0, node_id="gone", desired_state=S.SHUTDOWN),
]


@pytest.mark.parametrize(
    ("condition", "db", "waits"),
    [
        (STARTED, [S.READY], True),
        (STARTED, [S.STARTING], False),
        (HEALTHY, [S.STARTING], True),  # it runs, which is not enough: all begins anew
        (HEALTHY, [S.RUNNING], False),
        (COMPLETED, [S.FAILED], False),  # it had completed when the revision was first run
    ],
)
@pytest.mark.parametrize("before", LOST, ids=lambda t: t.status.state.name)
def test_what_went_with_its_host_is_held_as_at_first(
    before: Task, condition: DependencyCondition, db: list[S], waits: bool
) -> None:
    world = World(condition, tasks=[*states(db), before])
    assert bool(world.why()) is waits


def test_only_the_latest_end_counts() -> None:
    lost = replace(LOST[0], meta=Meta("web-a", created_at=1.0))
    crashed = a_task("web", S.FAILED, running_since=4.0, meta=Meta("web-b", created_at=2.0))
    assert World(HEALTHY, tasks=[*states([S.STARTING]), crashed, lost]).why() == ""


def test_what_went_with_its_host_beside_a_dependency_that_was_removed_or_rolled_back() -> None:
    assert World(db=None, tasks=[LOST[0]]).why() == ""
    revisions = [revision("db", 1, 1.0), revision("db", 2, 7.0), revision("web", 1, 7.0)]
    world = World(tasks=[*states([S.RUNNING]), LOST[0]], revisions=revisions)
    assert world.db is not None
    world.db = replace(world.db, revision=3, update=UpdateStatus(UpdateState.ROLLBACK_COMPLETED))
    assert world.why() == ""


def test_a_replacement_beside_a_removed_dependency() -> None:
    assert World(db=None, tasks=[a_task("web", S.FAILED, running_since=3.0)]).why() == ""


@pytest.mark.parametrize("before", [{"running_since": 0.0}, {"slot": 2}, {"revision": 2}])
def test_what_is_no_replacement(before: dict[str, float]) -> None:
    earlier = replace(a_task("web", S.FAILED, running_since=3.0), **before)  # type: ignore[arg-type]
    assert World(HEALTHY, tasks=[*states([S.STARTING]), earlier]).why()


# ---------------------------------------------------------------- updates in one deploy


def revision(service_id: str, number: int, at: float) -> Revision:
    return Revision(Meta(f"{service_id}.{number}", "p", created_at=at), service_id, number)


@pytest.mark.parametrize(
    ("state", "number", "waits"),
    [
        (UpdateState.UPDATING, 2, "waiting for db: its update"),
        (UpdateState.PAUSED, 2, "waiting for db: its update, which is paused"),
        (UpdateState.ROLLBACK_STARTED, 3, "waiting for db: its update, which was rolled back"),
        (UpdateState.ROLLBACK_COMPLETED, 3, "waiting for db: its update, which was rolled back"),
        (UpdateState.COMPLETED, 2, ""),
        (UpdateState.UPDATING, 3, ""),  # a later one, of another deploy
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_new_tasks_wait_for_the_update_of_the_same_deploy(
    state: UpdateState, number: int, waits: str, together: bool
) -> None:
    revisions = [revision("db", 1, 1.0), revision("db", 2, 7.0), revision("web", 1, 7.0 if together else 8.0)]
    world = World(tasks=states([S.RUNNING]), revisions=revisions)
    assert world.db is not None
    world.db = replace(world.db, revision=number, update=UpdateStatus(state))
    assert world.why() == (waits if together else "")
    held = world.what_holds()
    assert bool(held and held.at_rest) == (together and "which" in waits)


@pytest.mark.parametrize("ports", [(), (HostPort(port=8080),)])
def test_what_serves_goes_on_while_its_heir_is_held(ports: tuple[HostPort, ...]) -> None:
    spec = ServiceSpec(name="web", task=image("v1", host_ports=ports), depends_on=(Dependency("db"),))
    world = service_world.World(spec=spec)
    world.settle()
    world.update(task=image("v2", host_ports=ports))
    world.orchestrate()
    (heir,) = (t for t in world.live() if world.image_of(t) == "v2")
    held = TaskStatus(S.PENDING, reason="waiting for db: its update", held=True)
    world.tasks[heir.meta.id] = replace(heir, status=held)
    world.orchestrate()
    assert world.images() == ["v1"]
    world.tasks[heir.meta.id] = replace(heir, status=TaskStatus(S.PENDING))
    world.settle()
    assert world.images() == ["v2"]
