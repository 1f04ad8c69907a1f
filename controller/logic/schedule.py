"""Placement: which node runs which task, or why none can. The scheduler loop calls `place` and commits the outcome.

Requests are taken by revision, in the order in which revisions first appear: what a revision asks of nodes is worked
out once, and then only nodes that something was placed on are looked at again (node_set.py, spread.py).

A task that takes over a slot names its predecessor. The predecessor does not count in the spread; where it will have
stopped before the new task starts, its resources and ports count as free for that task alone. So an update in place
works on a full node and with host ports, and for a moment a node may hold reservations of both: what *runs* never
exceeds the node, since the one starts only when the other has ended. The node of a task that was asked to move
(`Task.evict`) is the last choice for its heir: only what can run nowhere else comes back.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from argosy.controller.logic.ask import Ask
from argosy.controller.logic.cluster_view import ClusterView, Held
from argosy.controller.logic.filters import explain, refusal_of
from argosy.controller.logic.refusals import of_node
from argosy.controller.logic.spread import Candidates
from argosy.core.errors import InvalidError
from argosy.core.service import TaskSpec
from argosy.core.task import Task
from argosy.core.task_state import TaskState


@dataclass(frozen=True, slots=True)
class Request:
    """A task that wants a node.

    `node_id`: bound to this node (global services), which is only checked. `replaces`: id of the task that it takes
    over from; `after_stop`: that task will have ended before this one starts. `avoids`: id of the node that is the last
    choice, "" for none.
    """

    task_id: str
    service_id: str
    revision: int
    spec: TaskSpec
    node_id: str = ""
    replaces: str = ""
    after_stop: bool = False
    avoids: str = ""


@dataclass(frozen=True, slots=True)
class Placements:
    """The outcome: each requested task is in one of the two, by id: with its node's id, or with the reason."""

    assigned: Mapping[str, str]
    refused: Mapping[str, str]


def predecessor_of(task: Task, siblings: Iterable[Task]) -> Task | None:
    """Return the task that a stored task without place takes over from, or None.

    `siblings` are tasks of its service. Of a global service the slot is the node. The newest that has not ended counts.
    """
    old = [
        t
        for t in siblings
        if t.meta.id != task.meta.id
        and (t.slot == task.slot if task.slot else t.node_id == task.node_id)
        and TaskState.ASSIGNED <= t.status.state <= TaskState.RUNNING
    ]
    return max(old, key=lambda t: (t.meta.created_at, t.meta.id), default=None)


def request_for(task: Task, spec: TaskSpec, predecessor: Task | None) -> Request:
    """Return the request for a stored task that has no place yet.

    A task that is only to be made READY for now starts when its predecessor has ended.
    """
    request = Request(task.meta.id, task.service_id, task.revision, spec, task.node_id)
    if predecessor is None:
        return request
    waits = task.desired_state is TaskState.READY
    avoids = predecessor.node_id if predecessor.evict else ""
    return replace(request, replaces=predecessor.meta.id, after_stop=waits, avoids=avoids)


def place(requests: Sequence[Request], view: ClusterView) -> Placements:
    """Give each request a node, or a reason. `view` then holds the placed tasks."""
    groups: defaultdict[tuple[str, int], list[Request]] = defaultdict(list)
    for request in requests:
        groups[request.service_id, request.revision].append(request)
    assigned: dict[str, str] = {}
    refused: dict[str, str] = {}
    for (service_id, _), group in groups.items():
        try:
            ask = Ask.of(view.name_of(service_id), group[0].spec)
        except InvalidError as error:
            refused.update((request.task_id, str(error)) for request in group)
            continue
        _Group(view, ask).place(group, assigned, refused)
    return Placements(assigned, refused)


class _Group:
    """Places the requests of one revision."""

    def __init__(self, view: ClusterView, ask: Ask) -> None:
        self._view, self._ask = view, ask
        self._candidates: Candidates | None = None
        self._reason = ""  # why no node can take a task, as long as nothing changes

    def place(self, requests: Sequence[Request], assigned: dict[str, str], refused: dict[str, str]) -> None:
        """Put each request into one of the two results."""
        for request in requests:
            old = self._view.lift(request.replaces, room=request.after_stop) if request.replaces else None
            if old is not None:
                self._changed(old.position)
            position = self._choose(request, refused)
            if position is not None:
                self._view.hold(Held(request.task_id, position, self._ask.service, self._ask.needs))
                assigned[request.task_id] = self._view.infos[position].node.meta.id
                self._changed(position)
            if old is not None:
                self._view.lower(old, room=request.after_stop)
                self._changed(old.position)

    def _changed(self, position: int) -> None:
        self._reason = ""
        if self._candidates is not None:
            self._candidates.refresh(position)

    def _choose(self, request: Request, refused: dict[str, str]) -> int | None:
        if request.node_id:
            return self._check_bound(request, refused)
        if self._candidates is None:
            self._candidates = Candidates(self._view, self._ask)
        position = self._candidates.best(self._view.set_of((request.avoids,)))
        if position is None:
            self._reason = self._reason or explain(self._ask, self._view)
            refused[request.task_id] = self._reason
        return position

    def _check_bound(self, request: Request, refused: dict[str, str]) -> int | None:
        position = self._view.position(request.node_id)
        if position is None:
            refused[request.task_id] = f"node {request.node_id} does not exist any more"
            return None
        info = self._view.infos[position]
        refusal = refusal_of(self._ask, self._view, position)
        if refusal is not None:
            refused[request.task_id] = of_node(info.name, refusal)
            return None
        return position
