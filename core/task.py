"""Tasks: one run of one slot of a service on one node. A stored task stays under 200 bytes."""

from dataclasses import dataclass

from argosy.core.meta import Meta
from argosy.core.network import Attachment
from argosy.core.task_state import TaskState


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What was observed of a task; written by its agent, and by the controller up to ASSIGNED.

    `exit_code` None means not ended, or unknown. `released`: ended, and the agent holds no resource of it any more.
    `unready`: its readiness check fails, so it gets no requests. `held`: it waits for another service, not for a node.
    `waits_for_old`: a node would take it if the task that it takes over from were gone, and only then.
    `ran_s`: of one that ended, for how long it had been RUNNING; None: it never was. `host_restarted`: of one that
    ended, that it did so with its host.
    """

    state: TaskState = TaskState.NEW
    at: float = 0.0
    reason: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    pid: int = 0
    released: bool = False
    unready: bool = False
    held: bool = False
    ran_s: float | None = None
    host_restarted: bool = False
    waits_for_old: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One run. Slot 0 is a global service's. See proto/argosy/v1/types.proto for each field."""

    meta: Meta = Meta()
    service_id: str = ""
    slot: int = 0
    node_id: str = ""
    revision: int = 0
    desired_state: TaskState = TaskState.RUNNING
    status: TaskStatus = TaskStatus()
    attachments: tuple[Attachment, ...] = ()
    failures: int = 0
    not_before: float = 0.0
    running_since: float = 0.0
    attempts: int = 0
    attempts_since: float = 0.0
    iteration: int = 0
    evict: bool = False
    canary: bool = False
    held_until: float = 0.0
    schema: int = 1

    @property
    def takes_requests(self) -> bool:
        """Whether it gets new requests, as far as it depends on the task: it runs, is ready, and is not to stop."""
        runs = self.status.state is TaskState.RUNNING and self.desired_state <= TaskState.RUNNING
        return runs and not self.status.unready
