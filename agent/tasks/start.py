"""How a task's program is started once and only once, and what an owner knows of its task when it is itself started."""

import asyncio
from dataclasses import replace

import structlog

from argosy.agent.logic.task_step import ContainerState, ExitStatus, Observed
from argosy.agent.runtime.errors import ContainerUnstarted
from argosy.agent.runtime.interface import ContainerState as RuntimeState
from argosy.agent.runtime.interface import Runtime
from argosy.agent.session.backoff import Backoff
from argosy.agent.state import TaskRecord
from argosy.core.errors import ArgosyError, RejectedError
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState

log = structlog.get_logger(__name__)

_FOUND = {"created": ContainerState.CREATED, "running": ContainerState.RUNNING, "stopped": ContainerState.STOPPED}


def observed_at_start(record: TaskRecord | None, found: RuntimeState | None, now: float) -> Observed:
    """Put together what the disk and the runtime know of a task when its owner starts."""
    status = record.status if record else TaskStatus(TaskState.ACCEPTED, at=now)
    seen = Observed(status=status)
    if record:
        seen = replace(seen, stop_at=record.stop_at, signalled=record.signalled)
    if found is None or status.released:
        return seen
    container = _FOUND[found.status]
    if container is ContainerState.CREATED and status.state < TaskState.READY:
        return seen  # half prepared: `prepare` removes it and begins anew
    seen = replace(seen, container=container)
    if _was_started(found) and status.state < TaskState.STARTING:
        seen = replace(seen, status=replace(status, state=TaskState.STARTING, pid=found.pid))
    if not _was_started(found) and status.state is TaskState.STARTING:
        seen = replace(seen, status=replace(status, state=TaskState.READY))
    if found.exit is not None:
        code = found.exit.code if found.exit.signal is None else 128 + found.exit.signal
        seen = replace(seen, exit=ExitStatus(code, found.exit.oom_killed, found.exit.finished_at))
    return seen


def _was_started(found: RuntimeState) -> bool:
    return found.started_at is not None


async def execute(runtime: Runtime, task_id: str) -> None:
    """Start the program once, however often the launcher dies over it.

    RejectedError when it cannot be; ContainerUnstarted when the container has ended before.
    """
    started = False
    while not started:
        try:
            await runtime.start(task_id)
            started = True
        except (RejectedError, ContainerUnstarted):
            raise
        except ArgosyError as e:
            log.warning("start not confirmed", task=task_id, why=str(e))
            started = _was_started(await _found(runtime, task_id))


async def _found(runtime: Runtime, task_id: str) -> RuntimeState:
    """Return what became of a start without an answer; RejectedError when the container is gone."""
    backoff = Backoff(0.1, 5.0)
    while True:
        await asyncio.sleep(backoff.next())
        try:
            found = next((c for c in await runtime.list() if c.id == task_id), None)
        except ArgosyError as e:
            log.warning("cannot see whether it was started", task=task_id, why=str(e))
            continue
        if found is None:
            raise RejectedError("its container was lost while it was being started")
        return found
