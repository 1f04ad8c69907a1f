"""Jobs: completions, concurrency, the restart policy, iterations, nodes; and when cron begins runs."""

from dataclasses import replace

import pytest

from argosy.controller.logic import cron
from argosy.core.errors import PreconditionError
from argosy.core.node import Availability, NodeState
from argosy.core.service import (
    Cron,
    Disconnect,
    JobSpec,
    JobState,
    Overlap,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
)
from argosy.core.task_state import TaskState as S
from tests.sim.service_world import World, image

ON_FAILURE = RestartPolicy(RestartCondition.ON_FAILURE)
NEVER = RestartPolicy(RestartCondition.NONE)
NOON = 12 * 3600.0


def job(total: int = 1, at_once: int = 0, restart: RestartPolicy = ON_FAILURE, **fields: object) -> World:
    spec = ServiceSpec(
        name="web",
        mode=ServiceMode.REPLICATED_JOB,
        job=JobSpec(total, at_once),
        task=image("v1", restart=restart),
    )
    world = World(spec=replace(spec, **fields))  # type: ignore[arg-type]
    world.settle()
    return world


def cron_job(overlap: Overlap = Overlap.ALLOW, schedule: str = "0 * * * *", **fields: object) -> World:
    """A job of every hour; the world begins at 00:16:40."""
    return job(job=JobSpec(cron=Cron(schedule, overlap=overlap)), **fields)


def slots(world: World) -> list[int]:
    return [task.slot for task in world.running()]


def end(world: World, slot: int, state: S = S.COMPLETE, iteration: int = 0) -> None:
    wanted = [t for t in world.running() if t.slot == slot and t.iteration == (iteration or status(world).iteration)]
    assert len(wanted) == 1
    world.end(wanted[0].meta.id, state)
    world.settle()


def status(world: World) -> cron.JobStatus:
    assert world.service is not None
    return world.service.job


def ask(world: World) -> None:
    """Begin another run by hand."""
    assert world.service is not None
    world.now += 1
    world.service = replace(world.service, job=cron.asked(world.service, world.now))
    world.settle()


# ---------------------------------------------------------------- one run


def test_all_completions_run_at_once() -> None:
    world = job(3)
    assert slots(world) == [1, 2, 3]
    assert status(world).state is JobState.RUNNING


def test_what_leaves_a_drained_node_holds_its_place_until_it_has_ended() -> None:
    world = job(mode=ServiceMode.GLOBAL_JOB, job=JobSpec(max_concurrent=1))
    (first,) = world.running()
    world.drain(first.node_id, deadline=1)
    world.now += 1
    world.orchestrate()
    assert [t.desired_state for t in world.tasks.values()] == [S.SHUTDOWN]  # told to stop, and not succeeded yet
    world.settle()
    assert len(world.running()) == 1


def test_no_more_than_max_concurrent_run() -> None:
    world = job(5, 2)
    assert slots(world) == [1, 2]
    end(world, 1)
    assert slots(world) == [2, 3]
    end(world, 3)
    end(world, 2)
    assert slots(world) == [4, 5]


def test_complete_when_every_slot_is() -> None:
    world = job(2)
    end(world, 2)
    assert status(world).state is JobState.RUNNING
    end(world, 1)
    done = status(world)
    assert (done.state, done.finished_at, done.message) == (JobState.COMPLETE, world.now, "")
    world.run(3600)
    assert len(world.tasks) == 2, "its tasks stay as its history, and nothing runs again"


def test_a_failed_task_gets_a_successor_after_the_delay() -> None:
    world = job(1)
    end(world, 1, S.FAILED)
    assert slots(world) == []
    world.run(5)
    assert slots(world) == [1]
    end(world, 1)
    assert status(world).state is JobState.COMPLETE


def test_a_slot_that_waits_for_its_delay_holds_no_place() -> None:
    world = job(2, 1)
    end(world, 1, S.FAILED)
    assert slots(world) == [2]
    world.run(5)
    assert slots(world) == [2], "and gets none beyond the limit"
    end(world, 2)
    assert slots(world) == [1]


def test_out_of_attempts_the_job_has_failed_and_says_so() -> None:
    world = job(1, restart=replace(ON_FAILURE, max_attempts=2))
    for _ in range(3):
        end(world, 1, S.FAILED)
        world.run(30)
    failed = status(world)
    assert failed.state is JobState.FAILED
    assert failed.message == "the only completion gave up; slot 1 after 3 attempts: failed"
    assert len(world.tasks) == 3


def test_the_other_completions_go_on_when_one_gave_up() -> None:
    world = job(3, 1, restart=NEVER)
    end(world, 1, S.FAILED)
    assert slots(world) == [2]
    assert (status(world).state, status(world).message) == (
        JobState.RUNNING,
        "1 of 3 completions gave up; slot 1: failed",
    )
    end(world, 2)
    end(world, 3)
    assert status(world).state is JobState.FAILED


def test_a_task_on_a_lost_node_runs_again_and_counts_once() -> None:
    world = job(1)
    (first,) = world.running()
    world.set_node(first.node_id, NodeState.DOWN)
    world.settle()
    (second,) = world.running()
    assert second.node_id != first.node_id
    world.end(first.meta.id, S.COMPLETE)  # there it completes unseen
    end(world, 1)
    world.set_node(first.node_id, NodeState.READY)
    world.settle()
    assert status(world).state is JobState.COMPLETE
    assert {t.status.state for t in world.tasks.values()} == {S.COMPLETE}


def test_a_fenced_jobs_task_on_a_lost_node_runs_again_only_when_it_has_surely_ended() -> None:
    world = job(1, disconnect=Disconnect.FENCE)
    (first,) = world.running()
    world.fence_ends[first.node_id] = world.now + 15
    world.set_node(first.node_id, NodeState.DOWN)
    world.run(24.9)  # its grace period is 10 s
    assert [task.meta.id for task in world.live()] == [first.meta.id]
    world.run(0.2)
    (second,) = world.running()
    assert second.node_id != first.node_id
    end(world, 1)
    assert status(world).state is JobState.COMPLETE


def test_a_kept_jobs_task_on_a_lost_node_is_waited_for() -> None:
    world = job(1, disconnect=Disconnect.KEEP)
    (first,) = world.running()
    world.set_node(first.node_id, NodeState.DOWN)
    world.run(3600)
    assert [task.meta.id for task in world.live()] == [first.meta.id]
    assert status(world).state is JobState.RUNNING
    world.set_node(first.node_id, NodeState.READY)
    end(world, 1)
    assert status(world).state is JobState.COMPLETE
    assert len(world.tasks) == 1


def test_what_runs_on_a_drained_node_goes_on_to_its_end() -> None:
    world = job(2, 1)
    (first,) = world.running()
    world.drain(first.node_id)
    world.run(3600)
    assert [t.meta.id for t in world.running()] == [first.meta.id]
    end(world, 1)
    (second,) = world.running()
    assert (second.slot, second.node_id != first.node_id) == (2, True)


def test_at_the_drains_deadline_it_is_run_again_elsewhere_which_is_no_attempt() -> None:
    world = job(1, restart=NEVER)
    (first,) = world.running()
    world.drain(first.node_id, deadline=60)
    world.run(59)
    assert [t.meta.id for t in world.running()] == [first.meta.id]
    world.run(1)
    (second,) = world.running()
    assert second.node_id != first.node_id
    assert second.attempts == 0


def test_what_fails_on_a_drained_node_is_tried_again_elsewhere() -> None:
    world = job(1)
    (first,) = world.running()
    world.drain(first.node_id)
    end(world, 1, S.FAILED)
    world.run(5)
    (second,) = world.running()
    assert (second.node_id != first.node_id, second.attempts) == (True, 1)


def test_what_has_not_begun_leaves_a_drained_node_at_once() -> None:
    world = World(
        spec=ServiceSpec("web", mode=ServiceMode.REPLICATED_JOB, job=JobSpec(), task=image("v1", restart=NEVER))
    )
    while not (waits := [t for t in world.tasks.values() if t.node_id]):
        assert world.orchestrate() | world.schedule()
    world.drain(waits[0].node_id)
    world.settle()
    (runs,) = world.running()
    assert runs.node_id != waits[0].node_id


def test_an_evicted_task_is_run_again_elsewhere_at_once() -> None:
    world = job(1)
    (first,) = world.running()
    world.evict(first.meta.id)
    world.settle()
    (second,) = world.running()
    assert second.meta.id != first.meta.id


def test_removal_leaves_nothing() -> None:
    world = job(3, 1)
    end(world, 1)
    world.remove()
    world.settle()
    assert world.service is None
    assert not world.tasks


def test_no_more_than_ten_runs_go_on_side_by_side() -> None:
    world = cron_job(Overlap.ALLOW)
    world.run(12 * 3600)
    assert (status(world).iteration, len(world.running())) == (10, 10)
    assert status(world).message.endswith("was left out: 10 runs still went on, and no more may at once")
    world.end(world.running()[0].meta.id, S.COMPLETE)
    world.run(3600)
    assert (status(world).iteration, len(world.running())) == (11, 10)


# ---------------------------------------------------------------- global jobs


def test_a_global_job_completes_once_on_every_node() -> None:
    world = job(mode=ServiceMode.GLOBAL_JOB)
    assert [t.node_id for t in world.running()] == ["n1", "n2", "n3"]
    for task in world.running():
        world.end(task.meta.id, S.COMPLETE)
    world.settle()
    assert status(world).state is JobState.COMPLETE


def test_a_global_job_runs_on_a_node_that_joins() -> None:
    world = job(mode=ServiceMode.GLOBAL_JOB)
    for task in world.running():
        world.end(task.meta.id, S.COMPLETE)
    world.settle()
    world.add_node("n4")
    world.settle()
    assert [t.node_id for t in world.running()] == ["n4"]
    assert status(world).state is JobState.RUNNING


def test_a_global_job_ends_on_a_node_that_is_drained_meanwhile_and_begins_on_no_such() -> None:
    world = job(mode=ServiceMode.GLOBAL_JOB)
    world.drain("n1")
    world.add_node("n4")
    world.drain("n4")
    world.run(3600)
    assert [t.node_id for t in world.running()] == ["n1", "n2", "n3"]
    for task in world.running()[1:]:
        world.end(task.meta.id, S.COMPLETE)
    world.settle()
    assert status(world).state is JobState.RUNNING
    end(world, 0)
    assert status(world).state is JobState.COMPLETE


def test_a_global_job_that_has_run_on_its_only_node_is_complete_though_that_is_drained() -> None:
    world = World(spec=ServiceSpec("web", mode=ServiceMode.GLOBAL_JOB, task=image("v1", restart=NEVER)))
    for name in ("n2", "n3"):
        world.drain(name)
    world.settle()
    world.drain("n1")
    end(world, 0)
    assert status(world).state is JobState.COMPLETE


def test_a_global_job_does_not_wait_for_a_paused_node() -> None:
    world = World(spec=ServiceSpec(name="web", mode=ServiceMode.GLOBAL_JOB, task=image("v1", restart=NEVER)))
    world.set_availability("n2", Availability.PAUSE)
    world.settle()
    for task in world.running():
        world.end(task.meta.id, S.COMPLETE)
    world.settle()
    assert status(world).state is JobState.COMPLETE


# ---------------------------------------------------------------- iterations


def test_a_changed_spec_is_another_run_and_no_update() -> None:
    world = job(2)
    end(world, 1)
    world.update(task=image("v2", restart=ON_FAILURE))
    world.settle()
    assert world.images() == ["v2", "v2"]
    assert status(world).iteration == 2
    assert world.update_state().name == "NONE"


@pytest.mark.parametrize(
    ("change", "iteration"),
    [
        ({"labels": {"a": "b"}}, 1),
        ({"job": JobSpec(2, max_concurrent=1)}, 1),
        ({"job": JobSpec(3)}, 2),
        ({"job": JobSpec(2, cron=Cron("@daily"))}, 1),
    ],
)
def test_what_runs_a_job_again(change: dict[str, object], iteration: int) -> None:
    world = job(2)
    world.update(**change)
    world.settle()
    assert status(world).iteration == iteration


def test_asked_to_run_it_runs_again_and_the_last_run_stops() -> None:
    world = job(1)
    (first,) = world.running()
    ask(world)
    (second,) = world.running()
    assert (second.iteration, world.tasks[first.meta.id].status.state) == (2, S.SHUTDOWN)


def test_the_tasks_of_the_last_runs_are_kept() -> None:
    world = job(1)
    for _ in range(7):
        end(world, 1)
        ask(world)
    assert sorted(t.iteration for t in world.tasks.values()) == [4, 5, 6, 7, 8]


def test_a_stopped_job_runs_nothing_and_goes_on_where_it_was() -> None:
    world = job(2, 1)
    end(world, 1)
    world.update(stopped=True)
    world.settle()
    assert slots(world) == []
    with pytest.raises(PreconditionError, match="is stopped"):
        ask(world)
    world.update(stopped=False)
    world.settle()
    assert slots(world) == [2]
    assert status(world).iteration == 1


# ---------------------------------------------------------------- cron


def test_nothing_runs_before_its_time() -> None:
    world = cron_job()
    assert (status(world).iteration, status(world).next_at, slots(world)) == (0, 3600.0, [])
    world.run(3600 - world.now - 1)
    assert slots(world) == []
    world.run(1)
    assert slots(world) == [1]
    assert (status(world).iteration, status(world).started_at, status(world).next_at) == (1, 3600.0, 7200.0)


def test_times_that_passed_without_a_leader_are_one_run() -> None:
    world = cron_job()
    world.now = NOON + 90
    world.settle()
    assert (status(world).iteration, status(world).next_at) == (1, NOON + 3600)
    world.settle()
    assert status(world).iteration == 1


def test_overlap_allow() -> None:
    world = cron_job(Overlap.ALLOW)
    world.run(2 * 3600)
    assert [t.iteration for t in world.running()] == [1, 2]
    end(world, 1, S.FAILED, iteration=1)
    world.run(5)
    assert sorted(t.iteration for t in world.running()) == [1, 2], "each run by its own"


def test_overlap_replace() -> None:
    world = cron_job(Overlap.REPLACE)
    world.run(2 * 3600)
    assert [t.iteration for t in world.running()] == [2]


def test_overlap_forbid() -> None:
    world = cron_job(Overlap.FORBID)
    world.run(2 * 3600)
    assert [t.iteration for t in world.running()] == [1]
    assert status(world).next_at == 3 * 3600
    assert status(world).message == "the run of 1970-01-01 02:00 UTC was left out: run 1 still went on"
    with pytest.raises(PreconditionError, match="still goes on"):
        ask(world)
    end(world, 1)
    world.run(3600)
    assert [t.iteration for t in world.running()] == [2]
    assert status(world).message == ""


def test_a_run_whose_end_is_seen_only_when_the_next_is_due_forbids_nothing() -> None:
    world = cron_job(Overlap.FORBID)
    world.run(3600)
    (task,) = world.running()
    world.now = 2 * 3600  # while nobody leads it completes, and the next time comes
    world.end(task.meta.id, S.COMPLETE)
    world.settle()
    assert [t.iteration for t in world.running()] == [2]


def test_a_stopped_job_leaves_its_times_out() -> None:
    world = cron_job(stopped=True)
    world.run(3600)
    assert status(world).iteration == 0
    assert status(world).message == "the run of 1970-01-01 01:00 UTC was left out: the service was stopped"


def test_a_changed_schedule_counts_from_now_and_starts_nothing() -> None:
    world = cron_job()
    world.update(job=JobSpec(cron=Cron("30 * * * *")))
    assert (status(world).iteration, status(world).next_at) == (0, 1800.0)


def test_a_changed_program_waits_for_the_next_time() -> None:
    world = cron_job()
    world.run(3600)
    world.update(task=image("v2", restart=ON_FAILURE))
    world.settle()
    assert world.images() == ["v1"]
    world.run(3600)
    assert world.images() == ["v1", "v2"]


def test_asked_to_run_between_two_times() -> None:
    world = cron_job()
    ask(world)
    assert slots(world) == [1]
    assert status(world).next_at == 3600.0


def test_only_jobs_are_run() -> None:
    world = World()
    with pytest.raises(PreconditionError, match="is no job"):
        ask(world)
