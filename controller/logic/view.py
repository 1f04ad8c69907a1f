"""One service as a plan sees it: the inputs of `plan_service` with the questions that all of its parts ask.

Answers that do not change within a plan are kept, so that a thousand tasks cost a comparison of specs per revision and
not per task. Nothing outside the plan holds a View.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from argosy.core.node import Availability, Node, NodeState
from argosy.core.service import (
    DEFAULT_STOP_GRACE_PERIOD_S,
    Disconnect,
    Placement,
    Revision,
    Service,
    ServiceMode,
    TaskSpec,
)
from argosy.core.task import Task
from argosy.core.task_state import TaskState

Fits = Callable[[Placement], Callable[[Node], bool]]
"""Whether a node meets a placement: constraints and platform, not its free room (filters.fits_placement)."""

ReplaceIn = Callable[[str, float], float]
"""In how many seconds a fenced task of a node, with that stop grace, may be replaced (core.fence.Grants.replace_in)."""

Arrived = Callable[[Task], bool]
"""Whether every node that may connect to a task knows how (controller/session/arrivals.py)."""

ARRIVAL_TIMEOUT_S: Final = 2.0
"""How long it is waited for that all nodes know of a task that runs: they take milliseconds, or something ails."""


class View:
    """Read-only but for what it notes of its answers; `now` is the leader's wall clock in seconds."""

    def __init__(
        self,
        service: Service,
        revisions: Mapping[int, Revision],
        nodes: Mapping[str, Node],
        now: float,
        fits: Fits,
        replace_in: ReplaceIn,
        arrived: Arrived = lambda task: True,
    ) -> None:
        self.service = service
        self.revisions = revisions
        self.nodes = nodes
        self.now = now
        self.fenced = service.spec.disconnect is Disconnect.FENCE
        self._keeps = service.spec.disconnect is Disconnect.KEEP
        self._fits = fits
        self._replace_in = replace_in
        self._arrived = arrived
        self.again_at: float | None = None
        """When to look again though nothing changes: a task then counts as known everywhere."""
        self._fits_of: dict[int, Callable[[Node], bool]] = {}
        self._node_fits: dict[tuple[int, str], bool] = {}
        self._spec_differs: dict[int, tuple[bool, bool]] = {}

    # What a task runs.

    def spec_of(self, revision: int) -> TaskSpec:
        """Return what tasks of a revision run; a revision that is gone counts as the present one."""
        stored = self.revisions.get(revision)
        return stored.spec.task if stored is not None else self.service.spec.task

    def is_current(self, task: Task) -> bool:
        """Whether a task runs what the service now wants, so that an update may leave it alone.

        A changed placement does not count where the task's node meets the new one. A task whose revision is not known
        is not current: nobody can say what it runs.
        """
        revision = task.revision
        if revision == self.service.revision:
            return True
        known = self._spec_differs.get(revision)
        if known is None:
            known = self._spec_differs[revision] = self._compare(revision)
        program, placement = known
        return not program and (not placement or self.node_fits(task.node_id))

    def _compare(self, revision: int) -> tuple[bool, bool]:
        """Return whether a revision differs from the service's spec in anything but placement, and in placement."""
        stored = self.revisions.get(revision)
        if stored is None:
            return True, True
        old, new = stored.spec.task, self.service.spec.task
        anywhere = Placement()
        return replace(old, placement=anywhere) != replace(new, placement=anywhere), old.placement != new.placement

    # Where it runs.

    def node_fits(self, node_id: str, revision: int | None = None) -> bool:
        """Whether a node exists and meets the service's present placement, or that of a revision."""
        number = self.service.revision if revision is None else revision
        known = self._node_fits.get((number, node_id))
        if known is None:
            node = self.nodes.get(node_id)
            known = self._node_fits[number, node_id] = node is not None and self._meets(number)(node)
        return known

    def _meets(self, revision: int) -> Callable[[Node], bool]:
        fits = self._fits_of.get(revision)
        if fits is None:
            present = revision == self.service.revision
            spec = self.service.spec.task if present else self.spec_of(revision)
            fits = self._fits_of[revision] = self._fits(spec.placement)
        return fits

    def is_away(self, task: Task) -> bool:
        """Whether a task counts for nothing any more because its node is DOWN (or removed), so that it is replaced.

        UNKNOWN and AGENT_LOST are not away: their containers most likely run. A fenced task is not away before it has
        surely ended, but then AGENT_LOST is enough: no agent, no grants. A task that is kept is never away.
        """
        if not task.node_id:
            return False
        node = self.nodes.get(task.node_id)
        if node is None:
            return True
        if self.fenced:
            return _cannot_be_granted(node) and self.fence_left(task) <= 0
        return node.status.state is NodeState.DOWN and not self.is_kept(task)

    def is_kept(self, task: Task) -> bool:
        """Whether a task is waited for though its node is DOWN: that is its service's policy, and it is to run."""
        if not self._keeps or task.desired_state > TaskState.RUNNING:
            return False
        node = self.nodes.get(task.node_id)
        return node is not None and node.status.state is NodeState.DOWN

    def fence_left(self, task: Task) -> float:
        """Return in how many seconds a fenced task has surely ended if its node is not heard again; <= 0: it has.

        Also 0 where nothing is waited for: the node is heard.
        """
        node = self.nodes.get(task.node_id)
        if not self.fenced or node is None or not _cannot_be_granted(node):
            return 0.0
        grace = self.spec_of(task.revision).container.stop_grace_period
        return self._replace_in(task.node_id, DEFAULT_STOP_GRACE_PERIOD_S if grace is None else grace)

    # Who can reach it.

    def has_arrived(self, task: Task) -> bool:
        """Whether a task that runs gets connections from everywhere, so that others may be stopped that get them now.

        It counts as if it did `ARRIVAL_TIMEOUT_S` after its record changed last; `again_at` is then.
        """
        over_at = task.meta.updated_at + ARRIVAL_TIMEOUT_S
        if self.now >= over_at or self._arrived(task):
            return True
        self.again_at = over_at if self.again_at is None else min(self.again_at, over_at)
        return False

    # Whether it has to leave.

    def is_leaving(self, task: Task) -> bool:
        """Whether a task has to move: its node is drained, or no longer fits it, or it was asked to (`evict`)."""
        return self.is_drained(task) or self.is_evicted(task)

    def is_drained(self, task: Task) -> bool:
        """Whether a task's node is drained."""
        node = self.nodes.get(task.node_id)
        return node is not None and node.spec.availability is Availability.DRAIN

    def is_evicted(self, task: Task) -> bool:
        """Whether a task's node no longer fits it, or it was asked to leave it."""
        return task.node_id in self.nodes and (task.evict or self._is_out_of_place(task))

    def _is_out_of_place(self, task: Task) -> bool:
        """Whether a task's node does not meet the placement by which it would be placed again.

        What a newer spec says is the update's business, at the update's pace; a global service has other nodes then.
        """
        if self.service.spec.mode in (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB):
            return False
        if task.revision == self.service.revision:
            return not self.node_fits(task.node_id)
        return not self.is_current(task) and not self.node_fits(task.node_id, task.revision)

    def is_overdue(self, task: Task) -> bool:
        """Whether the deadline of the drain of a task's node is over."""
        deadline = self.drain_deadline(task)
        return 0 < deadline <= self.now

    def drain_deadline(self, task: Task) -> float:
        """Return until when a drained task may take its time, by the wall clock; 0: for ever."""
        return self.nodes[task.node_id].spec.drain.deadline if self.is_drained(task) else 0.0

    def answers(self, task: Task) -> bool:
        """Whether a task's node is there, as far as is known: one whose agent alone is lost still serves."""
        node = self.nodes.get(task.node_id)
        return node is not None and node.status.state in (NodeState.READY, NodeState.AGENT_LOST)

    def is_given_up(self, task: Task) -> bool:
        """Whether a task's node is gone or lost for good, as far as anybody can tell."""
        node = self.nodes.get(task.node_id)
        return node is None or node.status.state is NodeState.DOWN


def _cannot_be_granted(node: Node) -> bool:
    return node.status.state in (NodeState.DOWN, NodeState.AGENT_LOST)
