"""What must hold of canaries, of completed updates, and of drains that have a pace."""

from typing import Any

from argosy.core.node import Availability, Node, NodeState
from argosy.core.service import Disconnect, Service, ServiceMode, UpdateState, revision_id
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from tests.sim.judge_disconnect import KNOWN_S

S = TaskState
FORWARD = (UpdateState.UPDATING, UpdateState.PAUSED)
COMPLETED = (UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED)


class Updates:
    """Hears of every change of a service, of every new task, and of all that is told to stop."""

    def __init__(self, watcher: Any) -> None:
        self._watcher = watcher
        self._draining_since: dict[str, float] = {}
        self._on_their_way: set[str] = set()
        self._completes: set[str] = set()

    # ---- canaries

    def service_changed(self, old: Service | None, new: Service, *, by_user: bool) -> None:
        """Judge that only people promote, where nothing else was asked for; note when an update completes."""
        if old is None or by_user:
            return
        if new.update.state in COMPLETED and old.update.state not in COMPLETED:
            self._completes.add(new.meta.id)
        if not new.spec.canary or new.spec.auto_promote:
            return
        same = old.update.started_at == new.update.started_at and new.revision == old.revision
        if same and new.update.promoted and not old.update.promoted:
            self._watcher.fail("canaries wait for people", f"the update of {new.spec.name} was promoted by itself")

    def after(self, service: Service) -> None:
        """Judge what an update leaves that has just completed: what is kept on a node that is cut off, and it says so.

        A global service's task on a node that takes none now is left alone, too.
        """
        if service.meta.id not in self._completes:
            return
        self._completes.discard(service.meta.id)
        if service.spec.mode is not ServiceMode.REPLICATED or service.removing:
            return
        for task in self._watcher.tasks.values():
            stored = self._watcher.revisions.get(revision_id(service.meta.id, task.revision))
            if task.service_id != service.meta.id or not S.ASSIGNED <= task.status.state <= S.RUNNING:
                continue
            if task.desired_state > S.RUNNING or stored is None or stored.spec.task == service.spec.task:
                continue
            node: Node | None = self._watcher.nodes.get(task.node_id)
            was_down = node is None or node.status.state is NodeState.DOWN or self._changed_lately(node)
            if service.spec.disconnect is not Disconnect.KEEP or not was_down:
                self._watcher.fail("updates complete", f"{service.spec.name} is completed without {task.meta.id}")
            if not service.update.message:
                self._watcher.fail("updates complete", f"{service.spec.name} is, and hides {task.meta.id}")

    def _changed_lately(self, node: Node) -> bool:
        """Whether a leader may not have known a node's state yet."""
        return bool(self._watcher.now() - node.status.since <= KNOWN_S)

    def task_stopped(self, old: Task, service: Service, siblings: list[Task]) -> None:
        """Judge a task that served and is told to stop: no update takes it while canaries are tried."""
        self._judge_that_it_has_a_place(old, service, siblings)
        spec, update = service.spec, service.update
        if spec.mode is not ServiceMode.REPLICATED or not spec.canary or update.state not in FORWARD:
            return
        if update.promoted or old.canary or old.revision == service.revision or spec.stopped or service.removing:
            return
        node: Node | None = self._watcher.nodes.get(old.node_id)
        if node is None or node.status.state is not NodeState.READY or old.status.state is not S.RUNNING:
            return
        if any(t.revision == service.revision and t.desired_state <= S.RUNNING for t in siblings):
            self._watcher.fail("canaries wait for people", f"{old.meta.id} of {spec.name} makes way for the untried")

    def _judge_that_it_has_a_place(self, old: Task, service: Service, siblings: list[Task]) -> None:
        """Nothing that serves makes way for a task that no node can take."""
        node: Node | None = self._watcher.nodes.get(old.node_id)
        if node is None or node.status.state is not NodeState.READY or self.is_overdue(node):
            return
        if service.spec.mode is not ServiceMode.REPLICATED or service.removing or old.status.unready:
            return
        heirs = [t for t in siblings if t.desired_state <= S.RUNNING and t.status.state <= S.RUNNING]
        placeless = [t for t in heirs if t.status.state < S.ASSIGNED and not t.status.waits_for_old]
        if old.status.state is S.RUNNING and heirs and len(placeless) == len(heirs):
            self._watcher.fail(
                "nothing goes in vain", f"{old.meta.id} makes way for {heirs[0].meta.id}: no node has room"
            )

    # ---- drains

    def node_changed(self, old: Node | None, new: Node) -> None:
        """Follow since when a node is drained as it is; what has an heir by then, of an update, has set out before."""
        if new.spec.availability is not Availability.DRAIN:
            self._draining_since.pop(new.meta.id, None)
        elif old is None or old.spec.availability != new.spec.availability or old.spec.drain != new.spec.drain:
            self._draining_since[new.meta.id] = self._watcher.now()
            self._on_their_way |= {t.meta.id for t in self._served(new.meta.id) if self._has_heir(t, 0.0)}

    def task_created(self, task: Task) -> None:
        """Judge the heir of a task that leaves: no more of its node are on their way than the pace says.

        Those count that served when their heir was made: what does not serve leaves at once.
        """
        for node_id, since in self._draining_since.items():
            node: Node | None = self._watcher.nodes.get(node_id)
            if node is None or not node.spec.drain.pace or self.is_overdue(node):
                continue
            leaving = [old for old in self._served(node_id) if self._has_heir(old, since)]
            fresh = [old for old in leaving if _key(old) == _key(task) and old.meta.id not in self._on_their_way]
            self._on_their_way |= {old.meta.id for old in fresh}
            begun = [old for old in leaving if old.meta.id in self._on_their_way]
            if fresh and len(begun) > node.spec.drain.pace:
                self._watcher.fail(
                    "drains keep their pace", f"{len(begun)} tasks of {node.spec.name} are on their way at once"
                )

    def is_overdue(self, node: Node) -> bool:
        """Whether a node is drained, and the time that was given for it is over."""
        deadline = node.spec.drain.deadline
        return bool(deadline) and self._watcher.now() >= deadline

    def _served(self, node_id: str) -> list[Task]:
        return [
            t
            for t in self._watcher.tasks.values()
            if t.node_id == node_id and t.slot and t.status.state is S.RUNNING and t.desired_state is S.RUNNING
        ]

    def _has_heir(self, old: Task, since: float) -> bool:
        return any(
            t.meta.id != old.meta.id
            and _key(t) == _key(old)
            and t.desired_state <= S.RUNNING
            and t.status.state <= S.RUNNING
            and self._watcher.created_at.get(t.meta.id, 0.0) > since
            for t in self._watcher.tasks.values()
        )


def _key(task: Task) -> tuple[str, int, int]:
    return task.service_id, task.slot, task.iteration
