"""Waiting for jobs, and how they are listed."""

from dataclasses import replace

import pytest

from argosy.cli.commands.service import tasks_text
from argosy.cli.progress.goals import ServicesSettled, Status
from argosy.cli.progress.jobs import AllOf, JobRun
from argosy.cli.progress.picture import Picture
from argosy.cli.rows import job_rows, service_rows
from argosy.cli.waiting import revision_text
from argosy.core.codec import encode
from argosy.core.meta import Meta
from argosy.core.node import Availability, Node, NodeSpec, NodeState, NodeStatus
from argosy.core.service import (
    Cron,
    JobSpec,
    JobState,
    JobStatus,
    RestartCondition,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState as S
from argosy.proto.argosy.v1 import types_pb2

ONCE = TaskSpec(restart=RestartPolicy(RestartCondition.ON_FAILURE))
SPEC = ServiceSpec(name="job", mode=ServiceMode.REPLICATED_JOB, task=ONCE, job=JobSpec(2))


def service(state: JobState = JobState.RUNNING, run: int = 1, **fields: object) -> Service:
    job = JobStatus(run, started_at=5.0, state=state, message=str(fields.pop("message", "")))
    return replace(Service(Meta("j"), SPEC, revision=1, job=job), **fields)  # type: ignore[arg-type]


def task(slot: int, state: S, run: int = 1, reason: str = "") -> Task:
    meta = Meta(f"{run}-{slot}-{state.name}")
    return Task(meta, "j", slot, "n1", 1, status=TaskStatus(state, at=6.0, reason=reason), iteration=run)


def assess(wanted: Service, present: Service | None, *objects: Task | Node, scheduled: bool = False):  # type: ignore[no-untyped-def]
    picture = Picture()
    for obj in (present, *objects):
        if obj is not None:
            picture.put(obj)
    picture.mark_synced()
    return JobRun(wanted, scheduled).assess(picture)


@pytest.mark.parametrize(
    ("present", "tasks", "status", "summary"),
    [
        (None, [], Status.WAITING, "job: waiting for the cluster"),
        (service(), [], Status.WAITING, "job: 0/2 complete"),
        (service(), [task(1, S.COMPLETE), task(2, S.RUNNING)], Status.WAITING, "job: 1/2 complete, 1 running"),
        (service(JobState.COMPLETE), [task(1, S.COMPLETE), task(2, S.COMPLETE)], Status.DONE, "job: 2/2 complete"),
        (service(JobState.FAILED), [task(1, S.FAILED)], Status.FAILED, "job: 0/2 complete"),
        (service(removing=True), [], Status.FAILED, "job: it is being removed"),
        (service(spec=replace(SPEC, stopped=True)), [], Status.DONE, "job: stopped"),
        # Another run has begun: this one's own tasks tell.
        (service(run=2), [task(1, S.COMPLETE), task(2, S.COMPLETE)], Status.DONE, "job: 2/2 complete"),
        (service(run=2), [task(1, S.COMPLETE), task(2, S.RUNNING)], Status.WAITING, "job: 1/2 complete, 1 running"),
        (service(run=2), [task(1, S.COMPLETE), task(2, S.SHUTDOWN)], Status.FAILED, "job: 1/2 complete"),
    ],
)
def test_a_run(present: Service | None, tasks: list[Task], status: Status, summary: str) -> None:
    found = assess(service(), present, *tasks)
    assert (found.status, found.summary) == (status, (summary,))


def test_a_failed_run_says_why_and_shows_the_task() -> None:
    failed = task(1, S.FAILED, reason="exit code 3")
    found = assess(service(), service(JobState.FAILED, message="1 of 2 completions gave up"), failed)
    assert (found.reason, found.culprits) == ("job: 1 of 2 completions gave up", (failed,))


def test_a_run_that_cannot_begin_says_why() -> None:
    assert assess(service(), service(), task(1, S.PENDING, reason="no node has 4 CPUs free")).reason == (
        "job: 0/2 complete: no node has 4 CPUs free"
    )


def test_a_deployed_schedule_is_only_waited_for_until_the_cluster_has_it() -> None:
    cron = replace(SPEC, job=JobSpec(2, cron=Cron("30 4 * * *", "Asia/Kolkata")))
    waits = service(JobState.NONE, 0, spec=cron)
    waits = replace(waits, job=replace(waits.job, next_at=1769900400.0))
    assert assess(waits, waits, scheduled=True).summary == ("job: next run 2026-02-01 04:30 IST",)
    assert assess(waits, waits, scheduled=False).status is Status.WAITING


def test_all_of_several_goals() -> None:
    picture = Picture()
    picture.put(service(JobState.COMPLETE))
    both = AllOf((ServicesSettled(()), JobRun(service())))
    assert both.assess(picture).status is Status.DONE
    picture.put(service(JobState.FAILED, message="why"))
    assert (both.assess(picture).status, both.assess(picture).reason) == (Status.FAILED, "job: why")


def test_what_is_said_of_a_job_that_was_updated() -> None:
    assert revision_text(service(JobState.COMPLETE, run=2)) == "job: run 2 is complete"
    assert (
        revision_text(service(spec=replace(SPEC, job=JobSpec(2, cron=Cron("30 4 * * *")))))
        == "job: its schedule is set"
    )


def test_rows() -> None:
    messages = [encode(service(JobState.COMPLETE), types_pb2.Service)]
    tasks = [encode(t, types_pb2.Task) for t in (task(1, S.COMPLETE), task(2, S.COMPLETE), task(1, S.COMPLETE, run=0))]
    (row,) = job_rows(messages, tasks)
    assert (row["mode"], row["run"], row["state"], row["complete"], row["total"]) == (
        "replicated-job",
        1,
        "COMPLETE",
        2,
        2,
    )
    listed = service_rows(messages, tasks)[0]
    assert (listed["job"]["state"], tasks_text(listed)) == ("COMPLETE", "0/0 (2/2 completed)")


def node(name: str, state: NodeState = NodeState.READY, availability: Availability = Availability.ACTIVE) -> Node:
    return Node(Meta(name), NodeSpec(name, availability=availability), status=NodeStatus(state))


def on(name: str, state: S, desired: S = S.RUNNING) -> Task:
    status = TaskStatus(state, at=6.0)
    return Task(Meta(f"t-{name}-{state.name}"), "j", 0, name, 1, desired, status, iteration=1)


DRAIN = Availability.DRAIN


@pytest.mark.parametrize(
    ("nodes", "tasks", "complete", "total"),
    [
        # One at once: what other nodes are to do is not begun.
        ([node("a"), node("b"), node("c")], [on("a", S.RUNNING)], 0, 3),
        # Between two tries of a node it has no task.
        ([node("a"), node("b")], [on("a", S.COMPLETE), on("b", S.FAILED)], 1, 2),
        # A drained node has done its part, or goes on with it; else nobody waits for it.
        ([node("a"), node("b", availability=DRAIN)], [on("a", S.RUNNING), on("b", S.COMPLETE)], 1, 2),
        ([node("a"), node("b", availability=DRAIN)], [on("a", S.COMPLETE), on("b", S.RUNNING)], 1, 2),
        ([node("a"), node("b", availability=DRAIN)], [on("a", S.COMPLETE), on("b", S.RUNNING, S.SHUTDOWN)], 1, 1),
        ([node("a"), node("b", availability=DRAIN)], [on("a", S.COMPLETE)], 1, 1),
        # Nor for one that is down.
        ([node("a"), node("b", NodeState.DOWN)], [on("a", S.COMPLETE), on("b", S.RUNNING)], 1, 1),
        ([node("a"), node("b", NodeState.DOWN)], [on("a", S.COMPLETE), on("b", S.COMPLETE)], 2, 2),
        # A node that was removed after it had done its part.
        ([node("a")], [on("a", S.COMPLETE), on("b", S.COMPLETE)], 2, 2),
    ],
)
def test_all_lists_count_the_completions_of_a_global_job_alike(
    nodes: list[Node], tasks: list[Task], complete: int, total: int
) -> None:
    job = service(spec=replace(SPEC, mode=ServiceMode.GLOBAL_JOB, job=JobSpec()))
    messages = [encode(job, types_pb2.Service)], [encode(t, types_pb2.Task) for t in tasks]
    known = [encode(n, types_pb2.Node) for n in nodes]
    (listed,) = job_rows(*messages, known)
    assert (listed["complete"], listed["total"]) == (complete, total)
    (as_service,) = service_rows(*messages, known)
    assert (as_service["completed"], as_service["completions"]) == (complete, total)
    assert assess(job, job, *nodes, *tasks).summary[0].startswith(f"job: {complete}/{total} complete")


def test_a_global_service_is_not_wanted_on_a_node_that_is_down() -> None:
    spec = ServiceSpec(name="agent", mode=ServiceMode.GLOBAL)
    tasks = [replace(on(name, S.RUNNING), iteration=0) for name in ("a", "b")]
    (row,) = service_rows(
        [encode(Service(Meta("j"), spec, revision=1), types_pb2.Service)],
        [encode(t, types_pb2.Task) for t in tasks],
        [encode(n, types_pb2.Node) for n in (node("a"), node("b", NodeState.DOWN))],
    )
    assert tasks_text(row) == "1/1"


def test_a_service_that_is_over_is_listed_as_completed() -> None:
    once = Service(Meta("j"), ServiceSpec(name="init", replicas=2, task=ONCE), revision=1)
    tasks = [task(1, S.COMPLETE, run=0), task(2, S.RUNNING, run=0), task(2, S.COMPLETE, run=0)]
    rows = service_rows([encode(once, types_pb2.Service)], [encode(t, types_pb2.Task) for t in tasks])
    assert tasks_text(rows[0]) == "1/2 (1/2 completed)"


def test_a_run_that_waits_says_for_what() -> None:
    waiting = task(1, S.PENDING, reason="no node has 4 CPUs free")
    (row,) = job_rows([encode(service(), types_pb2.Service)], [encode(waiting, types_pb2.Task)])
    assert row["message"] == "no node has 4 CPUs free"
