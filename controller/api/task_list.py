"""Which tasks ListTasks tells of: those that were asked for, and what went before those that do not run. Pure."""

from collections.abc import Iterable
from typing import TypeAlias

from argosy.controller.changes import refs
from argosy.controller.store import Snapshot
from argosy.core.meta import STACK_LABEL
from argosy.core.service import Service
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_failure, is_terminal
from argosy.proto.argosy.v1 import control_pb2 as pb

_Slot: TypeAlias = tuple[str, int, str, int]


def matching(snap: Snapshot, project: str, request: pb.ListTasksRequest) -> list[Task]:
    """Return the tasks of a project that a request asks for, ended ones as well."""
    if request.service:
        tasks = list(snap.tasks_of_service(refs.service(snap, project, request.service).meta.id))
    elif request.node:
        tasks = [t for t in snap.tasks_on_node(refs.node(snap, request.node).meta.id) if t.meta.project == project]
    else:
        tasks = list(snap.all(Task, project=project))
    if request.service and request.node:
        node_id = refs.node(snap, request.node).meta.id
        tasks = [t for t in tasks if t.node_id == node_id]
    if request.stack:
        ids = {s.meta.id for s in snap.all(Service, project=project) if s.spec.labels.get(STACK_LABEL) == request.stack}
        tasks = [t for t in tasks if t.service_id in ids]
    return tasks


def before(snap: Snapshot, tasks: Iterable[Task]) -> list[Task]:
    """Return what ended last in slots of `tasks`: where a task was restarted; where it failed and there is none now."""
    restarted: set[_Slot] = set()
    failures: dict[str, _Slot] = {}
    for task in tasks:
        if not is_terminal(task.status.state):
            restarted |= {_slot_of(task)} if task.failures or task.not_before else set()
        elif is_failure(task.status.state) and task.desired_state <= TaskState.RUNNING and _is_present(snap, task):
            failures[task.meta.id] = _slot_of(task)
    looked_at = restarted.union(failures.values())
    live: set[_Slot] = set()
    latest: dict[_Slot, Task] = {}
    for service_id in sorted({service_id for service_id, *_ in looked_at}):
        for task in snap.tasks_of_service(service_id):
            slot = _slot_of(task)
            if not is_terminal(task.status.state):
                live.add(slot)
            elif slot in looked_at:
                latest[slot] = max(latest.get(slot, task), task, key=lambda t: t.meta.created_at)
    return [t for slot, t in latest.items() if slot in restarted or (t.meta.id in failures and slot not in live)]


def _is_present(snap: Snapshot, task: Task) -> bool:
    """Whether a task is of its job's last run; what is no job has one."""
    service = snap.get(Service, task.service_id)
    return service is not None and task.iteration == service.job.iteration


def _slot_of(task: Task) -> _Slot:
    return task.service_id, task.slot, "" if task.slot else task.node_id, task.iteration
