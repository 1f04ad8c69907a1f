"""Jobs and start order with the real loops on real etcd: runs begin once across failovers; what is held, and let go."""

import time

import grpc
import pytest

from argosy.core.ambient import Ambient
from argosy.core.codec import encode
from argosy.core.service import (
    ContainerSpec,
    Cron,
    Dependency,
    JobSpec,
    JobState,
    RestartCondition,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2
from tests.controller.harness import Controller, a_service_spec, until

DAY_S = 86400.0


class Clock:
    """The wall's clock, shifted as a test wants it."""

    def __init__(self) -> None:
        self.shift = 0.0

    def wall(self) -> float:
        """Return the time."""
        return time.time() + self.shift


def a_job(name: str = "job", cron: Cron | None = None) -> types_pb2.ServiceSpec:
    task = TaskSpec(container=ContainerSpec(image="web:1"), restart=RestartPolicy(RestartCondition.ON_FAILURE))
    spec = ServiceSpec(name=name, mode=ServiceMode.REPLICATED_JOB, job=JobSpec(cron=cron), task=task)
    return encode(spec, types_pb2.ServiceSpec)


async def create(controller: Controller, spec: types_pb2.ServiceSpec) -> Service:
    created = await controller.control.CreateService(pb.CreateServiceRequest(spec=spec))
    return stored(controller, created.meta.id)


def stored(controller: Controller, service_id: str) -> Service:
    service = controller.cache.snapshot.get(Service, service_id)
    assert service is not None
    return service


async def test_a_run_begins_once_however_often_the_leader_changes(controllers):
    clock = Clock()
    pair = [await controllers(name, ambient=Ambient(wall=clock.wall)) for name in ("c1", "c2")]
    await pair[0].lead()
    await pair[0].add_image()
    job = await create(pair[0], a_job(cron=Cron("0 4 * * *")))
    await pair[0].resign()
    clock.shift = job.job.next_at - time.time() - 0.3
    for turn in range(6):  # from just before the time until after it
        leader = await pair[turn % 2].lead()
        if turn == 4:
            await until(lambda: stored(leader, job.meta.id).job.iteration)  # noqa: B023
        await leader.resign()
    last = await pair[0].lead()
    await until(lambda: last.tasks(job.meta.id))
    now = stored(last, job.meta.id).job
    assert (now.iteration, now.state, now.next_at) == (1, JobState.RUNNING, job.job.next_at + DAY_S)
    assert now.started_at >= job.job.next_at
    assert [(t.slot, t.iteration) for t in last.tasks(job.meta.id)] == [(1, 1)]


async def test_times_that_passed_while_nobody_led_are_one_run(controllers):
    clock = Clock()
    leader = await (await controllers(ambient=Ambient(wall=clock.wall))).lead()
    await leader.add_image()
    job = await create(leader, a_job(cron=Cron("0 4 * * *")))
    await leader.resign()
    clock.shift = 10 * DAY_S
    await leader.lead()
    await until(lambda: leader.tasks(job.meta.id))
    now = stored(leader, job.meta.id).job
    assert (now.iteration, len(leader.tasks(job.meta.id))) == (1, 1)
    assert clock.wall() < now.next_at <= clock.wall() + DAY_S


async def test_a_run_that_is_asked_for_begins_and_what_is_no_job_is_refused(leader, agents):
    await leader.add_image()
    job = await create(leader, a_job())
    run = await leader.control.RunJob(pb.RunJobRequest(ref="job"))
    assert run.job.iteration == job.job.iteration + 1 == 2
    await create(leader, a_service_spec("web"))
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await leader.control.RunJob(pb.RunJobRequest(ref="web"))
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "is no job" in refusal.value.details()


async def test_a_task_is_held_until_what_it_depends_on_runs(leader, agents):
    await leader.add_image()
    db = await create(leader, a_service_spec("db"))
    web = await create(leader, a_service_spec("web", depends_on=(Dependency("db"),)))

    def held() -> bool:
        (task,) = leader.tasks(web.meta.id)
        return task.status.held and task.status.reason.startswith("waiting for db: started (the cluster has no nodes")

    await until(lambda: leader.tasks(web.meta.id))
    await until(held)
    await agents(leader.address, obedient=True)
    await until(lambda: [t.status.state for t in leader.tasks(web.meta.id)] == [TaskState.RUNNING])
    (first,), (second,) = leader.tasks(db.meta.id), leader.tasks(web.meta.id)
    assert first.running_since <= second.running_since


async def test_a_cycle_and_what_is_not_there_are_refused(leader):
    await leader.add_image()
    await create(leader, a_service_spec("db"))
    await create(leader, a_service_spec("web", depends_on=(Dependency("db"),)))
    for spec, said in (
        (a_service_spec("api", depends_on=(Dependency("gone"),)), "there is no such service"),
        (a_service_spec("db", depends_on=(Dependency("web"),)), "db -> web -> db"),
    ):
        call = leader.control.UpdateService(pb.UpdateServiceRequest(ref="db", spec=spec))
        if spec.name == "api":
            call = leader.control.CreateService(pb.CreateServiceRequest(spec=spec))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert said in refusal.value.details()
