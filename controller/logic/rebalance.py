"""Which running tasks should move so that services are spread evenly again, as after a node has joined. Pure.

A task is better off elsewhere if the scheduler, had it to place the task now, would choose a node that is strictly
better in what placement weighs (spread.py): fewer tasks of the service in the label values that it spreads over, then
on the node; then, once every service is even, fewer tasks at all. Such a move lowers the sum of squares of the first of
these numbers that it changes, and raises none before it: so moves come to an end, and what is even stays as it is.

Each move is between the extremes, so no even spread is reached with fewer. Constraints, ports, room, limits and
affinities are the scheduler's own filters'. Tasks that are not at rest are left alone: those of services being updated,
of jobs, and of global services, which are where they have to be.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from argosy.controller.logic.ask import Ask
from argosy.controller.logic.cluster_view import ClusterView, Held
from argosy.controller.logic.spread import Candidates
from argosy.core.errors import InvalidError
from argosy.core.node import NodeState
from argosy.core.service import Service, ServiceMode, TaskSpec, UpdateState
from argosy.core.task import Task
from argosy.core.task_state import TaskState

_AT_REST = frozenset({UpdateState.NONE, UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED})


@dataclass(frozen=True, slots=True)
class Move:
    """A task that is to leave its node; `to` is where the scheduler would put it as things are."""

    task: Task
    to: str


def is_at_rest(service: Service) -> bool:
    """Whether a service's tasks may be moved: nothing else is being done to it."""
    spec = service.spec
    busy = service.removing or spec.stopped or service.update.state not in _AT_REST
    return spec.mode is ServiceMode.REPLICATED and not busy


def is_movable(task: Task) -> bool:
    """Whether a task does its work, and nothing is going on with it."""
    return task.status.state is TaskState.RUNNING and task.desired_state is TaskState.RUNNING and not task.evict


def plan_moves(tasks: Iterable[Task], specs: Mapping[tuple[str, int], TaskSpec], view: ClusterView) -> tuple[Move, ...]:
    """Return the moves that even out `tasks`, which are those that may move; `view` is changed by them.

    `specs` has the spec of each (service id, revision). In a packed cluster there is nothing to even out: the caller
    does not ask.
    """
    movable = _Movable(tasks, specs, view)
    for load in (False, True):
        while movable.go_over(load=load):
            pass
    return tuple(movable.moves)


class _Movable:
    """The tasks that have not been moved yet, and the moves of the others. No task is moved twice."""

    def __init__(self, tasks: Iterable[Task], specs: Mapping[tuple[str, int], TaskSpec], view: ClusterView) -> None:
        self.moves: list[Move] = []
        self._view = view
        self._left: list[Task] = []
        self._asks: dict[tuple[str, int], Ask] = {}
        for task in sorted(tasks, key=lambda t: (t.service_id, -t.slot, t.meta.id)):
            key = (task.service_id, task.revision)
            held = view.held(task.meta.id)
            if key not in specs or held is None:
                continue
            if view.infos[held.position].node.status.state is not NodeState.READY:
                continue  # it is replaced if its node is lost, and left alone if not
            try:
                self._asks.setdefault(key, Ask.of(held.service, specs[key]))
            except InvalidError:
                continue
            self._left.append(task)

    def go_over(self, *, load: bool) -> bool:
        """Move every task that is better off elsewhere, those that are worst off first; tell whether any was moved.

        `load`: also those for which only the nodes' numbers of tasks would be more even.
        """
        hopeless: set[tuple[str, int, int]] = set()  # tasks of a revision on a node are alike
        least = self._least_tasks()
        left: list[Task] = []
        before = len(self.moves)
        worst = [(self._badness(task), number, task) for number, task in enumerate(self._left)]
        heapq.heapify(worst)
        while worst:
            badness, number, task = heapq.heappop(worst)
            now = self._badness(task)
            if now > badness:  # others have moved away from there since
                heapq.heappush(worst, (now, number, task))
                continue
            held = self._held(task)
            ask = self._asks[task.service_id, task.revision]
            alike = (task.service_id, task.revision, held.position)
            to = None
            if alike not in hopeless and self._may_gain(ask, held, least, load=load):
                to = self._better(ask, held, load=load)
            if to is None:
                hopeless.add(alike)
                left.append(task)
            else:
                self._view.hold(Held(held.task_id, to, held.service, held.needs))
                self.moves.append(Move(task, self._view.infos[to].node.meta.id))
                hopeless.clear()
        self._left = left
        return len(self.moves) > before

    def _least_tasks(self) -> int:
        counts = (info.tasks for info in self._view.infos if info.node.status.state is NodeState.READY)
        return min(counts, default=0)

    def _may_gain(self, ask: Ask, held: Held, least: int, *, load: bool) -> bool:
        """Whether it is worth a look, in an instant: most tasks of a large cluster are where they should be."""
        info = self._view.infos[held.position]
        spread = bool(ask.spread) or info.services.get(held.service, 0) > 1
        return spread or (load and info.tasks > least + 1)

    def _badness(self, task: Task) -> tuple[int, int]:
        """Return a sort key: the lower, the worse off."""
        held = self._held(task)
        info = self._view.infos[held.position]
        return -info.services.get(held.service, 0), -info.tasks

    def _held(self, task: Task) -> Held:
        held = self._view.held(task.meta.id)
        assert held is not None
        return held

    def _better(self, ask: Ask, held: Held, *, load: bool) -> int | None:
        """Return where a task would be better off, or None."""
        view, here = self._view, held.position
        view.forget(held.task_id)
        candidates = Candidates(view, ask)
        there = candidates.best()
        better = None
        if there is not None and there != here and candidates.prefers(there, here):
            spread, total = candidates.spread_of(here), view.infos[here].tasks
            other, other_total = candidates.spread_of(there), view.infos[there].tasks
            if other < spread or (load and other == spread and other_total < total):
                better = there
        view.hold(held)
        # The new task has to fit beside the old one: it starts before that one stops.
        return better if better is not None and Candidates(view, ask).takes(better) else None
