"""Jobs through random lives: completions, concurrency and runs stay within their bounds, and jobs come to an end."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.controller.logic import cron
from argosy.core.node import NodeState
from argosy.core.service import (
    Cron,
    JobSpec,
    JobState,
    Overlap,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
)
from argosy.core.task_state import TaskState as S
from argosy.core.task_state import is_terminal
from tests.sim.service_world import World, image

PERIOD_S = 600
POLICY = RestartPolicy(RestartCondition.ON_FAILURE)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("complete"), st.integers(0, 9)),
        st.tuples(st.just("fail"), st.integers(0, 9)),
        st.tuples(st.just("down"), st.integers(1, 3)),
        st.tuples(st.just("up"), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.integers(1, 900)),
        st.tuples(st.just("no leader"), st.integers(1, 3000)),
        st.tuples(st.just("ask"), st.just(0)),
        st.tuples(st.just("change"), st.integers(1, 9)),
    ),
    max_size=25,
)


def within_bounds(world: World, lost: set[str]) -> None:
    """Check what holds at every moment. `lost`: tasks whose node was away once, and which may have been replaced."""
    assert world.service is not None
    total, most = world.service.spec.job.total_completions, world.service.spec.job.max_concurrent  # type: ignore[union-attr]
    by_run: dict[int, list[int]] = {}
    for task in world.tasks.values():
        assert 1 <= task.slot <= total
        assert task.iteration <= world.service.job.iteration
        if not is_terminal(task.status.state) and (task.meta.id not in lost or task.desired_state <= S.RUNNING):
            by_run.setdefault(task.iteration, []).append(task.slot)
    for slots in by_run.values():
        assert len(slots) == len(set(slots)), "two tasks of one completion at once"
        assert not most or len(slots) <= most


def happen(world: World, lost: set[str], event: str, number: int) -> None:
    assert world.service is not None
    running = world.running()
    match event:
        case "complete" if running:
            world.end(running[number % len(running)].meta.id, S.COMPLETE)
        case "fail" if running:
            world.end(running[number % len(running)].meta.id, S.FAILED)
        case "down":
            lost.update(t.meta.id for t in world.tasks.values() if t.node_id == f"n{number}")
            world.set_node(f"n{number}", NodeState.DOWN)
        case "up":
            world.set_node(f"n{number}", NodeState.READY)
        case "wait":
            world.run(number)
        case "no leader":
            world.now += number
        case "ask":
            world.now += 1
            if cron._overlap(world.service.spec) is not Overlap.FORBID:
                world.service = replace(world.service, job=cron.asked(world.service, world.now))
        case "change":
            world.update(task=image(f"v{number}", restart=POLICY))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(0, 3),
    st.one_of(st.none(), st.sampled_from(Overlap).map(lambda o: Cron("*/10 * * * *", overlap=o))),
    EVENTS,
)
def test_a_job_stays_within_its_bounds_and_ends(
    total: int, most: int, schedule: Cron | None, events: list[tuple[str, int]]
) -> None:
    spec = ServiceSpec(
        name="web",
        mode=ServiceMode.REPLICATED_JOB,
        job=JobSpec(total, most, schedule),
        task=image("v0", restart=POLICY),
    )
    lost: set[str] = set()
    world = World(spec=spec, checks=[lambda world: within_bounds(world, lost)])
    began: dict[int, float] = {}
    by_hand = 0
    for event in [("wait", 1), *events]:
        assert world.service is not None
        before = world.service.job.iteration
        happen(world, lost, *event)
        by_hand += event[0] == "ask" and world.service.job.iteration > before
        world.settle()
        job = world.service.job
        assert began.setdefault(job.iteration, job.started_at) == job.started_at, "a run began twice"
        assert job.next_at > world.now if schedule else job.next_at == 0
    if schedule:  # at most one run for each time that has come, and never two for one
        due = int(world.now // PERIOD_S) - int(1000 // PERIOD_S)
        assert job.iteration <= due + by_hand
    for name in list(world.nodes):
        world.set_node(name, NodeState.READY)
    world.update(job=replace(spec.job, cron=None))  # type: ignore[type-var]
    for _ in range(100):
        world.run(700)
        if world.service.job.state is JobState.COMPLETE:
            break
        for task in world.running():
            world.end(task.meta.id, S.COMPLETE)
    assert world.service.job.state is JobState.COMPLETE
    last = [t for t in world.tasks.values() if t.iteration == world.service.job.iteration]
    assert {t.slot for t in last if t.status.state is S.COMPLETE} == set(range(1, total + 1))
