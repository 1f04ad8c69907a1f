"""Whose turn it is: tasks that could not be placed are tried again, however busy the scheduler is with others."""

import asyncio
import itertools

from argosy.controller.loops import scheduler
from argosy.core.service import Dependency
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2
from tests.controller.harness import until


async def test_what_waits_is_tried_again_while_new_tasks_keep_coming(controllers, agents, monkeypatch):
    """New tasks came more often than once in the time between two tries, as where a program ends at once and again."""
    monkeypatch.setattr(scheduler, "RETRY_PERIOD_S", 1.0)
    leader = await (await controllers()).lead()
    await leader.add_image()
    await agents(leader.address, obedient=True, cpus=64)
    await leader.create("base", replicas=0)
    held = await leader.create("web", depends_on=(Dependency("base"),))

    def of(service):
        return leader.tasks(service.meta.id)

    async def keep_coming():
        for number in itertools.count():
            new = await leader.create(f"new-{number}")
            await until(lambda new=new: any(t.status.state is TaskState.RUNNING for t in of(new)))

    await until(lambda: any(t.status.held for t in of(held)))
    coming = asyncio.create_task(keep_coming())
    try:
        await leader.control.ScaleServices(control_pb2.ScaleServicesRequest(replicas={"base": 1}))
        await until(lambda: any(t.status.state is TaskState.RUNNING for t in of(held)))
    finally:
        coming.cancel()
        await asyncio.wait([coming])
    assert len(leader.tasks()) > 5


async def test_what_ran_on_a_host_that_is_back_counts_once_its_agent_has_told_so(leader, agents):
    await leader.add_image()
    agent = await agents(leader.address, obedient=True)
    base = await leader.create("base")
    web = await leader.create("web", replicas=0, depends_on=(Dependency("base"),))
    await until(lambda: any(t.status.state is TaskState.RUNNING for t in leader.tasks(base.meta.id)))
    await agent.close()
    agent.obedient = False
    await agent.connect(leader.address)  # perhaps from a restart: then nothing runs there any more
    await leader.control.ScaleServices(control_pb2.ScaleServicesRequest(replicas={"web": 1}))
    (waiting,) = await until(lambda: [t for t in leader.tasks(web.meta.id) if t.status.state > TaskState.NEW])
    assert waiting.status.reason == "waiting for base: started (n1, where it ran, has not told yet what runs there)"
    (running,) = leader.tasks(base.meta.id)
    await agent.report({running.meta.id: TaskStatus(TaskState.RUNNING)})
    await until(lambda: [t for t in leader.tasks(web.meta.id) if t.status.state is TaskState.ASSIGNED])
