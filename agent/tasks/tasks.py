"""All task owners of the node: starts one for each task that is assigned or found, ends it when it is forgotten."""

import asyncio
import shutil
from collections.abc import Mapping

import structlog

from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.succession import Ended
from argosy.agent.runtime.interface import ContainerState
from argosy.agent.state import TaskRecord
from argosy.agent.tasks.host import Host
from argosy.agent.tasks.owner import TaskOwner
from argosy.agent.tasks.prepare import LAYERS_LABEL
from argosy.core.assignment import Succession
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState, is_terminal

log = structlog.get_logger(__name__)


class Tasks:
    """The owners by task id. Used by one event loop; `group` owns their coroutines."""

    def __init__(self, host: Host, group: asyncio.TaskGroup) -> None:
        self._host = host
        self._group = group
        self._owners: dict[str, TaskOwner] = {}
        self._refused: dict[str, TaskStatus] = {}
        host.reporter.successions = host.successions
        host.reporter.on_stored = self._stored
        host.consoles.on_lost = self._lost
        host.kin = self

    def adopt(self, records: list[TaskRecord], found: list[ContainerState]) -> None:
        """Start owners for what a former life of the agent left: records and containers."""
        by_id = {c.id: c for c in found}
        self._host.layers.update({c.id: tuple(c.labels.get(LAYERS_LABEL, "").split()) for c in found})
        self._host.successions.update(_successions(records))
        for record in records:
            self._start(record.id, record, by_id.pop(record.id, None))
        for container in by_id.values():
            record = TaskRecord(container.id, TaskStatus(TaskState.ACCEPTED), id_range=-1)
            self._start(container.id, record, container)

    def apply(self, assignments: Assignments) -> None:
        """Give every owner what is desired of its task now; a new task gets an owner.

        On an unsynced view nothing is taken for gone.
        """
        self._refuse(assignments.unreadable_tasks())
        wanted = assignments.tasks()
        for task_id, assigned in wanted.items():
            owner = self._owners.get(task_id) or self._start(task_id, None, None)
            owner.assign(assigned)
            owner.refence()
            owner.say_trouble()
        if assignments.synced:
            for task_id, owner in list(self._owners.items()):
                if task_id not in wanted:
                    owner.assign(None)

    def _refuse(self, unreadable: Mapping[str, str]) -> None:
        """Have tasks rejected, with the reason, that only a newer agent could run: else nobody would hear of them."""
        for task_id in self._refused.keys() - unreadable.keys():
            del self._refused[task_id]
            self._host.reporter.drop(task_id)
        for task_id, problem in unreadable.items():
            if task_id not in self._refused and task_id not in self._owners:
                reason = f"this node's agent is too old for the task ({problem}): upgrade it"
                now = self._host.ambient.wall()
                self._refused[task_id] = TaskStatus(TaskState.REJECTED, at=now, reason=reason, released=True)
                self._host.reporter.put(task_id, self._refused[task_id])

    def networks_changed(self) -> None:
        """Have all tasks say what is wrong with their networks now."""
        for owner in self._owners.values():
            owner.say_trouble()

    def released(self, task_id: str) -> asyncio.Event | None:
        """Return what is set when a task is released; None for a task that is not known here."""
        owner = self._owners.get(task_id)
        return owner.released if owner else None

    def statuses(self) -> dict[str, TaskStatus]:
        """Return the present status of every task."""
        return {task_id: owner.status for task_id, owner in self._owners.items()}

    def reports(self) -> dict[str, TaskStatus]:
        """Return what a controller is to hear of every task."""
        return self._refused | {task_id: owner.reportable for task_id, owner in self._owners.items()}

    def ended(self) -> dict[str, Ended]:
        """Return the tasks that have ended here, as far as it is known what is desired of them."""
        found = ((task_id, owner.ended()) for task_id, owner in self._owners.items())
        return {task_id: ended for task_id, ended in found if ended is not None}

    def is_under_way(self, task_id: str) -> bool:
        """Whether there is such a task on this node and it has not ended."""
        owner = self._owners.get(task_id)
        return owner is not None and not is_terminal(owner.status.state)

    def wake_followers(self, task_id: str) -> None:
        """Tell the tasks that wait for one that it has ended."""
        for owner in self._owners.values():
            owner.predecessor_ended(task_id)

    def knows(self, task_id: str) -> bool:
        """Whether there is such a task on this node."""
        return task_id in self._owners

    def make(self, task_id: str, succession: Succession) -> None:
        """Start a task of this node's own making; it is on disk before anything is done for it."""
        status = TaskStatus(TaskState.ACCEPTED, at=self._host.ambient.wall())
        record = TaskRecord(task_id, status, id_range=-1, succession=succession)
        self._host.state.save_task(record)
        self._start(task_id, record, None)

    def hand_over(self, task_id: str) -> None:
        """Note that a task of this node's own making is the controller's now."""
        if owner := self._owners.get(task_id):
            owner.handed_over()

    async def watch_exits(self) -> None:
        """Hand every exit of a container to its owner; never returns."""
        async for end in self._host.runtime.exits():
            owner = self._owners.get(end.id)
            if owner:
                owner.exited(end)

    def _stored(self, task_id: str, status: TaskStatus) -> None:
        if owner := self._owners.get(task_id):
            owner.stored(status)

    def _lost(self, task_id: str, reason: str) -> None:
        if owner := self._owners.get(task_id):
            owner.given_up(reason)

    def _start(self, task_id: str, record: TaskRecord | None, found: ContainerState | None) -> TaskOwner:
        owner = TaskOwner(task_id, self._host, record, found)
        self._owners[task_id] = owner
        self._group.create_task(self._run(owner), name=f"task {task_id}")
        return owner

    async def _run(self, owner: TaskOwner) -> None:
        await owner.run()
        self._owners.pop(owner.task_id, None)
        self._host.reporter.drop(owner.task_id)
        shutil.rmtree(self._host.log_path(owner.task_id).parent, ignore_errors=True)


def _successions(records: list[TaskRecord]) -> dict[str, Succession]:
    found = {r.id: r.succession for r in records if r.succession}
    return dict(sorted(found.items(), key=lambda item: item[1].created_at))
