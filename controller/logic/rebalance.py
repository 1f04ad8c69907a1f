"""Which running tasks should move so that services are spread evenly again, as after a node has joined. Pure.

A task is better off elsewhere if the scheduler, had it to place the task now, would choose a node that is strictly
better in what placement weighs (spread.py): fewer tasks of the service in the label values that it spreads over, then
on the node; then, once every service is even, fewer tasks at all. Such a move lowers the sum of squares of the first of
these numbers that it changes, and raises none before it: so moves come to an end, and what is even stays as it is.

Each move is between the extremes, so no even spread is reached with fewer. Constraints, ports, room, limits and
affinities are the scheduler's own filters'. Tasks that are not at rest are left alone: those of services being updated,
of jobs, and of global services, which are where they have to be.
"""

from collections.abc import Collection, Iterable, Mapping
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
    moves: dict[str, Move] = {}
    for service_id in movable.services():
        while movable.move_one([service_id], moves, load=False):
            pass
    while movable.move_one(movable.services(), moves, load=True):
        pass
    return tuple(move for move in moves.values() if move.to != move.task.node_id)


class _Movable:
    """The tasks that have not been moved yet."""

    def __init__(self, tasks: Iterable[Task], specs: Mapping[tuple[str, int], TaskSpec], view: ClusterView) -> None:
        self._view = view
        self._left: dict[str, dict[str, Task]] = {}
        self._asks: dict[tuple[str, int], Ask] = {}
        for task in sorted(tasks, key=lambda t: (t.service_id, -t.slot, t.meta.id)):
            key = (task.service_id, task.revision)
            position = view.position(task.node_id)
            if key not in specs or position is None or view.held(task.meta.id) is None:
                continue
            if view.infos[position].node.status.state is not NodeState.READY:
                continue  # it is replaced if its node is lost, and left alone if not
            try:
                self._asks.setdefault(key, Ask.of(view.name_of(task.service_id), specs[key]))
            except InvalidError:
                continue
            self._left.setdefault(task.service_id, {})[task.meta.id] = task

    def services(self) -> list[str]:
        return sorted(self._left)

    def move_one(self, services: Collection[str], moves: dict[str, Move], *, load: bool) -> bool:
        """Move the task that is worst off, if it is better off elsewhere; tell whether there was one."""
        seen: set[tuple[str, int, int]] = set()  # tasks of a revision on a node are alike
        for task in sorted((t for s in services for t in self._left[s].values()), key=self._badness, reverse=True):
            held = self._view.held(task.meta.id)
            if held is None or (task.service_id, task.revision, held.position) in seen:
                continue
            seen.add((task.service_id, task.revision, held.position))
            to = self._better(task, held, load=load)
            if to is not None:
                self._view.hold(Held(held.task_id, to, held.service, held.needs))
                del self._left[task.service_id][task.meta.id]
                moves[task.meta.id] = Move(task, self._view.infos[to].node.meta.id)
                return True
        return False

    def _badness(self, task: Task) -> tuple[int, int]:
        info = self._view.infos[self._position(task)]
        return info.services.get(self._view.name_of(task.service_id), 0), info.tasks

    def _position(self, task: Task) -> int:
        held = self._view.held(task.meta.id)
        assert held is not None
        return held.position

    def _better(self, task: Task, held: Held, *, load: bool) -> int | None:
        """Return where a task would be better off, or None."""
        ask = self._asks[task.service_id, task.revision]
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
        if better is not None and not self._fits_beside(ask, held, better):
            return None
        return better

    def _fits_beside(self, ask: Ask, held: Held, there: int) -> bool:
        """Whether the new task may run there while the old one still does: it starts before that one stops."""
        return bool(Candidates(self._view, ask).takes(there))
