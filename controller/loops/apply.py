"""Turns planned actions into store operations: the only place where actions meet ids and versions.

Pure but for the ids, which `new_id` gives. Every object that an action touches is written once, under the version that
the plan read; creating a task also checks that its service is the one that was read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from argosy.controller.changes.services import operations, revisions_in_use
from argosy.controller.logic import change_service
from argosy.controller.logic.actions import (
    Action,
    CreateTask,
    DeleteService,
    DeleteTask,
    OrphanTask,
    RollBack,
    SetDesired,
    SetJob,
    SetNodeStatus,
    SetUpdate,
)
from argosy.controller.store import Op, Snapshot, check, create, delete, update
from argosy.core.meta import Meta
from argosy.core.node import Node
from argosy.core.service import Service
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

OPS_IN_GROUP = 100
"""Operations in one transaction, below etcd's 128 with room for the checks."""


def groups_of(
    actions: Iterable[Action], snap: Snapshot, service: Service, now: float, new_id: Callable[[], str]
) -> list[list[Op]]:
    """Return the operations of a service's plan in groups that are each atomic, in order."""
    tasks: dict[str, Task] = {}
    deleted: set[str] = set()
    ops: list[Op] = []
    last: list[Op] = []
    for action in actions:
        match action:
            case CreateTask():
                ops.append(create(_new_task(action, service, now, new_id())))
            case SetDesired(task_id, state):
                task = tasks.get(task_id) or _task(snap, task_id)
                tasks[task_id] = replace(task, desired_state=state, meta=replace(task.meta, updated_at=now))
            case OrphanTask(task_id):
                task = tasks.get(task_id) or _task(snap, task_id)
                status = replace(
                    task.status, state=TaskState.ORPHANED, at=now, reason="its node has been away too long"
                )
                tasks[task_id] = replace(task, status=status, meta=replace(task.meta, updated_at=now))
            case DeleteTask(task_id):
                deleted.add(task_id)
            case SetUpdate(_, status):
                ops.append(update(replace(service, update=status, meta=replace(service.meta, updated_at=now))))
            case SetJob(_, job):
                ops.append(update(replace(service, job=job, meta=replace(service.meta, updated_at=now))))
            case RollBack(_, to_revision, status):
                return [_rolled_back(snap, service, to_revision, status, now)]
            case DeleteService():
                # Last, and with nothing after it: every group before it checks that the service is there.
                last += [*(delete(r) for r in snap.revisions_of_service(service.meta.id)), delete(service)]
            case SetNodeStatus():
                raise AssertionError("a node's status is no service's business")
    ops += [update(task) for task_id, task in tasks.items() if task_id not in deleted]
    ops += [delete(_task(snap, task_id)) for task_id in sorted(deleted)]
    return _grouped([*ops, *last], service)


def node_groups(actions: Iterable[Action], snap: Snapshot, now: float) -> list[list[Op]]:
    """Return the operations that store nodes' statuses, each on its own."""
    groups: list[list[Op]] = []
    for action in actions:
        if not isinstance(action, SetNodeStatus):
            raise AssertionError(f"not about a node: {action}")
        node = snap.get(Node, action.node_id)
        if node is not None:
            groups.append([update(replace(node, status=action.status, meta=replace(node.meta, updated_at=now)))])
    return groups


def _new_task(action: CreateTask, service: Service, now: float, task_id: str) -> Task:
    return Task(
        meta=Meta(task_id, service.meta.project, created_at=now, updated_at=now),
        service_id=service.meta.id,
        slot=action.slot,
        node_id=action.node_id,
        revision=action.revision,
        desired_state=action.desired_state,
        status=TaskStatus(TaskState.NEW, at=now),
        failures=action.failures,
        not_before=action.not_before,
        attempts=action.attempts,
        attempts_since=action.attempts_since,
        canary=action.canary,
        iteration=action.iteration,
    )


def _task(snap: Snapshot, task_id: str) -> Task:
    task = snap.get(Task, task_id)
    assert task is not None, f"planned for a task that the snapshot lacks: {task_id}"
    return task


def _rolled_back(snap: Snapshot, service: Service, to_revision: int, status: object, now: float) -> list[Op]:
    from argosy.core.service import UpdateStatus

    assert isinstance(status, UpdateStatus)
    change = change_service.roll_back(
        service, to_revision, status, snap.revisions_of_service(service.meta.id), revisions_in_use(snap, service), now
    )
    return operations(change)


def _grouped(ops: Sequence[Op], service: Service) -> list[list[Op]]:
    groups = [list(ops[i : i + OPS_IN_GROUP]) for i in range(0, len(ops), OPS_IN_GROUP)]
    for group in groups:
        if not any(
            getattr(op, "obj", None).__class__ is Service or getattr(op, "kind", None) is Service for op in group
        ):
            group.append(check(service))
    return groups
