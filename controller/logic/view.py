"""One service as a plan sees it: the inputs of `plan_service` with the questions that all of its parts ask.

Answers that do not change within a plan are kept, so that a thousand tasks cost a comparison of specs per revision and
not per task. Nothing outside the plan holds a View.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from argosy.core.node import Availability, Node, NodeState
from argosy.core.service import Placement, Revision, Service, TaskSpec
from argosy.core.task import Task

Fits = Callable[[Node], bool]
"""Whether a node meets the placement of the service's present spec: constraints and platform, not its free room."""


class View:
    """Read-only; `now` is the leader's wall clock in seconds."""

    def __init__(
        self, service: Service, revisions: Mapping[int, Revision], nodes: Mapping[str, Node], now: float, fits: Fits
    ) -> None:
        self.service = service
        self.revisions = revisions
        self.nodes = nodes
        self.now = now
        self._fits = fits
        self._node_fits: dict[str, bool] = {}
        self._spec_differs: dict[int, tuple[bool, bool]] = {}

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

    def node_fits(self, node_id: str) -> bool:
        """Whether a node exists and meets the service's present placement."""
        known = self._node_fits.get(node_id)
        if known is None:
            node = self.nodes.get(node_id)
            known = self._node_fits[node_id] = node is not None and self._fits(node)
        return known

    def is_away(self, task: Task) -> bool:
        """Whether a task has to be replaced because its node is DOWN (or removed).

        UNKNOWN and AGENT_LOST are not away: their containers most likely run.
        """
        if not task.node_id:
            return False
        node = self.nodes.get(task.node_id)
        return node is None or node.status.state is NodeState.DOWN

    def is_leaving(self, task: Task) -> bool:
        """Whether a task has to move because its node is drained."""
        node = self.nodes.get(task.node_id)
        return node is not None and node.spec.availability is Availability.DRAIN

    def takes_tasks(self, node_id: str) -> bool:
        """Whether the node could run a new task of the service, as far as its state and the placement say."""
        node = self.nodes.get(node_id)
        return (
            node is not None
            and node.status.state is NodeState.READY
            and node.spec.availability is Availability.ACTIVE
            and self.node_fits(node_id)
        )
