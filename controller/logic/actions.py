"""What a decision may ask for: small records that the loops apply to the store, and that tests compare.

An action names stored objects by id and carries no generated id: applying it assigns those. The loop that planned it
applies it under compare-and-swap of every object that the plan read and would change; on a conflict it reads and plans
again. Actions of one plan never contradict each other, and are applied in the order they stand in (a plan too large
for one transaction may be cut anywhere: what is left over is planned again).
"""

from dataclasses import dataclass
from typing import TypeAlias

from argosy.core.node import NodeStatus
from argosy.core.service import JobStatus, UpdateStatus
from argosy.core.task_state import TaskState


@dataclass(frozen=True, slots=True)
class CreateTask:
    """Create a task in state NEW. Its `meta.created_at` is the `now` of the plan, by the leader's clock.

    `node_id` is "" where the scheduler chooses, and set for a global service's task. `desired_state` is RUNNING, or
    READY for one that is only to be prepared for now. The last six are stored in the task as they are: see Task.
    """

    service_id: str
    slot: int
    node_id: str
    revision: int
    desired_state: TaskState
    failures: int = 0
    not_before: float = 0.0
    attempts: int = 0
    attempts_since: float = 0.0
    canary: bool = False
    iteration: int = 0


@dataclass(frozen=True, slots=True)
class SetDesired:
    """Raise what is desired of a task: READY -> RUNNING -> SHUTDOWN -> REMOVE."""

    task_id: str
    state: TaskState


@dataclass(frozen=True, slots=True)
class OrphanTask:
    """Set a task's observed state to ORPHANED. Its addresses stay its own until its node confirms or is removed."""

    task_id: str


@dataclass(frozen=True, slots=True)
class DeleteTask:
    """Delete a task's record: it is released, never had a node, or its node was removed by the operator."""

    task_id: str


@dataclass(frozen=True, slots=True)
class SetUpdate:
    """Store the progress of a service's update."""

    service_id: str
    update: UpdateStatus


@dataclass(frozen=True, slots=True)
class SetJob:
    """Store how a job stands: which run was begun last, how it goes, when the next one is due."""

    service_id: str
    job: JobStatus


@dataclass(frozen=True, slots=True)
class RollBack:
    """Return a service to the tasks of an older revision, as a *new* revision (numbers only grow).

    Applied by `change_service.roll_back(service, to_revision, update, …)`: replicas, labels and update settings stay as
    they are. It is the only action of its plan.
    """

    service_id: str
    to_revision: int
    update: UpdateStatus


@dataclass(frozen=True, slots=True)
class DeleteService:
    """Delete a service that is being removed, with its revisions: no task of it is left."""

    service_id: str


@dataclass(frozen=True, slots=True)
class SetNodeStatus:
    """Store what the leader now knows of a node."""

    node_id: str
    status: NodeStatus


Action: TypeAlias = (
    CreateTask | SetDesired | OrphanTask | DeleteTask | SetUpdate | SetJob | RollBack | DeleteService | SetNodeStatus
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions to apply now, and when to plan again though nothing has changed (None: only on a change)."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
