"""Whose turn it is: tasks that could not be placed are tried again, however busy the scheduler is with others."""

import asyncio
import itertools

from argosy.controller.loops import scheduler
from argosy.core.service import Dependency
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
