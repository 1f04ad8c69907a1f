"""What is waited for, and whether a picture of the cluster shows that it has happened or has failed. Pure.

A first deploy fails when a slot has failed as often as its restart policy allows, three times at most, or when two
tasks were rejected for the same reason; an update fails when the cluster paused it or rolled it back. What only has to
wait (for room on a node, say) goes on until the caller's timeout.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from argosy.cli.progress.picture import Picture
from argosy.core.constraints import architecture_name, parse_constraint
from argosy.core.errors import InvalidError
from argosy.core.node import Availability, Node, NodeState
from argosy.core.service import (
    PAUSED_BY_HAND,
    ROLLED_BACK_BY_HAND,
    RestartCondition,
    Service,
    ServiceMode,
    UpdateState,
    UpdateStatus,
)
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_failure, is_terminal

FAILURES_BORNE: Final = 3
"""A slot that failed this often is not waited for any more."""
REJECTIONS_BORNE: Final = 2
"""So many tasks rejected for the same reason will not be joined by one that is not."""
STEADY_S: Final = 1.0
"""How long the tasks of a first deploy have to run before it counts: what cannot start usually ends at once."""

_AT_REST: Final = frozenset({UpdateState.NONE, UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED})


class Status(Enum):
    """Where a goal stands."""

    WAITING = 1
    DONE = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Assessment:
    """`summary`: one line for each thing waited for. `culprits`: the tasks that explain a failure; `hint`: what to do.

    `steady_s`: how long DONE has to hold before it is believed.
    """

    status: Status
    summary: tuple[str, ...] = ()
    reason: str = ""
    culprits: tuple[Task, ...] = ()
    hint: str = ""
    steady_s: float = 0.0


class Goal(Protocol):
    """Something to wait for."""

    def assess(self, picture: Picture) -> Assessment:
        """Return where it stands."""
        ...

    def concerns(self, task: Task) -> bool:
        """Whether the task is worth showing."""
        ...


@dataclass(frozen=True, slots=True)
class WantedService:
    """A service as the cluster acknowledged it.

    `exact`: its spec was deployed or updated, so it has to be the one that runs; a mere change of scale does not care
    for updates, of whomever. What brings a revision goes on with the number of replicas that somebody scales it to.
    """

    service: Service
    exact: bool = True

    @property
    def is_new(self) -> bool:
        """Whether all tasks of its revision were made for what is waited for, also those that one did not see end."""
        meta, state = self.service.meta, self.service.update.state
        moving = state in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
        return self.exact and (moving or meta.created_at == meta.updated_at)


@dataclass(frozen=True, slots=True)
class ServicesSettled:
    """The services run their wanted number of tasks, of the wanted revision, and no others."""

    wanted: tuple[WantedService, ...]
    ids: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", frozenset(w.service.meta.id for w in self.wanted))

    def concerns(self, task: Task) -> bool:
        """Whether the task is one of the services'."""
        return task.service_id in self.ids

    def assess(self, picture: Picture) -> Assessment:
        """Combine the services: failed if one has, done when all are."""
        by_service: dict[str, list[Task]] = {}
        for task in picture.tasks.values():
            by_service.setdefault(task.service_id, []).append(task)
        parts = [_assess_service(w, picture, by_service.get(w.service.meta.id, [])) for w in self.wanted]
        summary = tuple(line for part in parts for line in part.summary)
        failed = [part for part in parts if part.status is Status.FAILED]
        if failed:
            culprits = tuple(task for part in failed for task in part.culprits)
            hint = "\n  ".join(part.hint for part in failed if part.hint)
            return Assessment(Status.FAILED, summary, "\n".join(p.reason for p in failed), culprits, hint)
        if all(part.status is Status.DONE for part in parts):
            return Assessment(Status.DONE, summary, steady_s=max((p.steady_s for p in parts), default=0.0))
        waiting = [p.reason for p in parts if p.status is Status.WAITING and p.reason]
        return Assessment(Status.WAITING, summary, "\n".join(waiting))


def _assess_service(wanted: WantedService, picture: Picture, tasks: list[Task]) -> Assessment:
    name = wanted.service.spec.name
    service = picture.services.get(wanted.service.meta.id)
    if service is None or service.meta.updated_at < wanted.service.meta.updated_at:
        return Assessment(Status.WAITING, (f"{name}: waiting for the cluster",), f"{name}: the cluster has not begun")
    if service.removing:
        return _failed(name, "it is being removed")
    count = _count(service, picture, tasks)
    target = _target(service, picture)
    summary = _summary(service, count, target)
    verdict = _judge_update(wanted, service, summary, _failures(wanted.service, picture, tasks))
    if verdict is not None:
        return verdict
    if wanted.exact and service.update.ready:
        return Assessment(Status.DONE, (summary,))
    busy = count.others or (wanted.exact and count.canaries)
    if count.running + count.finished + count.kept == target and not busy and _is_at_rest(wanted, service):
        first = service.update.state is UpdateState.NONE and wanted.exact
        told = wanted.exact and service.update.message not in ("", ROLLED_BACK_BY_HAND)
        remarks = [f"{name}: {service.update.message}"] if told else []
        remarks += [f"{name}: {_scaled(service)}"] if _is_scaled(wanted, service) else []
        return Assessment(Status.DONE, (summary, *remarks), steady_s=STEADY_S if first else 0.0)
    lost_cause = hopeless(service, picture, tasks, counts_all=wanted.is_new)
    if lost_cause is not None:
        reason, culprits = lost_cause
        return Assessment(Status.FAILED, (summary,), f"{name}: {reason}", culprits)
    return Assessment(Status.WAITING, (summary,), f"{summary}{why_waiting(tasks)}")


def _failed(name: str, reason: str, summary: str = "", culprits: tuple[Task, ...] = (), hint: str = "") -> Assessment:
    return Assessment(Status.FAILED, (summary or f"{name}: {reason}",), f"{name}: {reason}", culprits, hint)


def _judge_update(
    wanted: WantedService, service: Service, summary: str, failures: tuple[Task, ...]
) -> Assessment | None:
    """Return a failure if what was asked for was undone, or its update has failed or was replaced; else None."""
    name, asked = service.spec.name, wanted.service
    if wanted.exact and service.revision != asked.revision:
        return _replaced(service, summary, failures)
    if service.spec.stopped != asked.spec.stopped:
        done = "stopped" if service.spec.stopped else "started"
        return _failed(name, f"somebody else has {done} it meanwhile", summary)
    if _is_scaled(wanted, service) and not wanted.is_new:
        return _failed(name, _scaled(service), summary)
    if not wanted.exact:
        return None
    if service.update.state is UpdateState.PAUSED:
        hint = f"'argosy service rollback {name}' takes it back, 'argosy service resume {name}' goes on with it"
        return _failed(name, f"the update {_why_paused(service.update)}", summary, failures, hint)
    if service.update.state is UpdateState.ROLLBACK_PAUSED:
        return _failed(name, f"the rollback {_why_paused(service.update)}", summary, failures, _resume(name))
    return None


def _is_scaled(wanted: WantedService, service: Service) -> bool:
    return service.spec.replicas != wanted.service.spec.replicas


def _scaled(service: Service) -> str:
    return f"somebody else has scaled it to {service.spec.replicas} meanwhile"


def _resume(name: str) -> str:
    return f"'argosy service resume {name}' goes on with the rollback, 'argosy service update {name}' replaces it"


def _replaced(service: Service, summary: str, failures: tuple[Task, ...]) -> Assessment:
    """Return what became of an update whose revision is no longer the service's."""
    name, update = service.spec.name, service.update
    message = f": {update.message}" if update.message else ""
    if update.message == ROLLED_BACK_BY_HAND:
        return _failed(name, f"somebody else has rolled it back meanwhile, as revision {service.revision}", summary)
    match update.state:
        case UpdateState.ROLLBACK_STARTED:
            return Assessment(Status.WAITING, (summary,), f"{name}: rolling back{message}")
        case UpdateState.ROLLBACK_COMPLETED:
            return _failed(name, f"the update failed and was rolled back{message}", summary, failures)
        case UpdateState.ROLLBACK_PAUSED:
            why = f"the update failed, and so did the rollback, which is paused{message}"
            return _failed(name, why, summary, failures, _resume(name))
        case _:
            return _failed(name, "somebody else has changed it meanwhile", summary)


def _failures(asked: Service, picture: Picture, tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the latest failure of each slot in what was asked for and in its rollback, the last one first."""
    seen = {**{t.meta.id: t for t in tasks}, **picture.endings}.values()
    failed = (t for t in seen if t.service_id == asked.meta.id and is_failure(t.status.state))
    latest: dict[tuple[int, str], Task] = {}
    for task in sorted((t for t in failed if t.revision >= asked.revision), key=lambda t: -t.status.at):
        latest.setdefault(_key(task), task)
    return tuple(latest.values())


def _why_paused(update: UpdateStatus) -> str:
    if update.message == PAUSED_BY_HAND:
        return "was paused by hand"
    return f"failed and is paused: {update.message}" if update.message else "failed and is paused"


def _is_at_rest(wanted: WantedService, service: Service) -> bool:
    return not wanted.exact or service.update.state in _AT_REST


@dataclass(frozen=True, slots=True)
class _Count:
    running: int
    finished: int
    canaries: int
    others: int
    """Neither: still coming, or still going."""
    kept: int
    """Slots whose task is kept on a node that is cut off: nothing can be done about them for now."""


def _count(service: Service, picture: Picture, tasks: Iterable[Task]) -> _Count:
    running = canaries = others = 0
    newest: dict[tuple[int, str], Task] = {}
    tasks = list(tasks)
    kept = {_key(task) for task in tasks if task.slot and picture.is_kept(task)}
    for task in tasks:
        if task.desired_state is not TaskState.REMOVE:
            key = (task.slot, "" if task.slot else task.node_id)
            if key not in newest or task.meta.created_at >= newest[key].meta.created_at:
                newest[key] = task
        state, wanted = task.status.state, task.desired_state <= TaskState.RUNNING
        if is_terminal(state) or picture.is_away(task):
            continue
        if state is TaskState.RUNNING and task.desired_state is TaskState.RUNNING and not task.status.unready:
            running += not task.canary
            canaries += task.canary
            kept.discard(_key(task))
        elif _key(task) in kept:
            continue
        elif wanted or (state >= TaskState.ASSIGNED and not picture.cannot_hear(task)):
            others += 1
    may_finish = service.spec.task.restart.condition is not RestartCondition.ANY
    finished = sum(may_finish and task.status.state is TaskState.COMPLETE for task in newest.values())
    return _Count(running, finished, canaries, others, len(kept))


def _target(service: Service, picture: Picture) -> int:
    if service.spec.stopped:
        return 0
    if service.spec.mode is ServiceMode.REPLICATED:
        return service.spec.replicas
    return sum(takes(node, service) for node in picture.nodes.values())


def takes(node: Node, service: Service) -> bool:
    """Whether a node is to run a task of a global service or job."""
    if node.status.state is not NodeState.READY or node.spec.availability is not Availability.ACTIVE:
        return False
    placement = service.spec.task.placement
    try:
        fits = all(parse_constraint(text).matches(node) for text in placement.constraints)
    except InvalidError:
        return False
    have = node.description.platform
    return fits and (
        not placement.platforms
        or any(
            p.os in ("", have.os) and p.architecture in ("", architecture_name(have.architecture))
            for p in placement.platforms
        )
    )


def _summary(service: Service, count: _Count, target: int) -> str:
    text = f"{service.spec.name}: {count.running}/{target} running"
    if count.finished:
        text += f", {count.finished} finished"
    if count.kept:
        text += f", {count.kept} cut off"
    if count.canaries:
        text += f", {count.canaries} {'canary' if count.canaries == 1 else 'canaries'}"
    state = service.update.state
    if state not in _AT_REST:
        text += f", {state.name.lower().replace('_', ' ')}"
    return text


def why_waiting(tasks: Iterable[Task]) -> str:
    """Return the commonest reason of tasks that do not run, and how many have it."""
    reasons = Counter(
        task.status.reason
        for task in tasks
        if task.status.reason and not is_terminal(task.status.state) and task.desired_state <= TaskState.RUNNING
    )
    if not reasons:
        return ""
    reason, number = reasons.most_common(1)[0]
    return f": {reason}" + (f" ({number} tasks)" if number > 1 else "")


def hopeless(
    service: Service, picture: Picture, tasks: list[Task], *, counts_all: bool
) -> tuple[str, tuple[Task, ...]] | None:
    """Return why the service will not come up, and the tasks that show it; None while there is hope.

    `counts_all`: also tasks that had ended when one began to look.
    """
    before = {task.meta.id: task for task in tasks if is_terminal(task.status.state)} if counts_all else {}
    ended = [
        task
        for task in {**before, **picture.endings}.values()
        if task.service_id == service.meta.id and task.revision == service.revision and _ended_badly(service, task)
    ]
    if not ended:
        return None
    rejected = Counter(task.status.reason for task in ended if task.status.state is TaskState.REJECTED)
    for reason, number in rejected.items():
        if number >= REJECTIONS_BORNE and not any(t.status.state is TaskState.RUNNING for t in tasks):
            culprits = tuple(t for t in ended if t.status.reason == reason)[:1]
            return f"its tasks are rejected: {reason}", culprits
    policy = service.spec.task.restart
    borne = FAILURES_BORNE
    if policy.condition is RestartCondition.NONE:
        borne = 1
    elif policy.max_attempts:
        borne = min(borne, policy.max_attempts + 1)
    slots: dict[tuple[int, str], list[Task]] = {}
    for task in ended:
        slots.setdefault((task.slot, "" if task.slot else task.node_id), []).append(task)
    for key, failed in slots.items():
        runs = any(_key(t) == key and t.status.state is TaskState.RUNNING for t in tasks if not picture.is_away(t))
        if len(failed) >= borne and not runs:
            last = max(failed, key=lambda t: t.status.at)
            times = "once" if len(failed) == 1 else f"{len(failed)} times"
            how = f"failed {times}" if is_failure(last.status.state) else f"ended {times} instead of running"
            return f"{picture.task_name(last)} has {how}", (last,)
    return None


def _key(task: Task) -> tuple[int, str]:
    return task.slot, "" if task.slot else task.node_id


def _ended_badly(service: Service, task: Task) -> bool:
    if is_failure(task.status.state):
        return True
    restarts = service.spec.task.restart.condition is RestartCondition.ANY
    return task.status.state is TaskState.COMPLETE and restarts and task.desired_state <= TaskState.RUNNING


def _tasks(number: int) -> str:
    return f"{number} task{'s' if number != 1 else ''}"


@dataclass(frozen=True, slots=True)
class ServicesGone:
    """Removed services, and networks, are gone with all their tasks."""

    services: tuple[Service, ...] = ()
    network_ids: tuple[str, ...] = ()
    ids: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", frozenset(s.meta.id for s in self.services))

    def concerns(self, task: Task) -> bool:
        """Whether the task is one of the services'."""
        return task.service_id in self.ids

    def assess(self, picture: Picture) -> Assessment:
        """Done when nothing is left."""
        summary = []
        left = 0
        for service in self.services:
            tasks = sum(not is_terminal(task.status.state) for task in picture.tasks_of(service.meta.id))
            if service.meta.id in picture.services:
                left += 1
                summary.append(f"{service.spec.name}: {_tasks(tasks)} left")
            else:
                summary.append(f"{service.spec.name}: removed")
        networks = [picture.networks[i].spec.name for i in self.network_ids if i in picture.networks]
        if networks:
            summary.append(f"networks left: {', '.join(networks)}")
        if left or networks:
            own = [t for t in picture.tasks.values() if self.concerns(t)]
            away = {picture.node_name(t.node_id) for t in own if picture.cannot_hear(t)}
            why = f"; it waits for {', '.join(sorted(away))}, which cannot be reached" if away else ""
            return Assessment(Status.WAITING, tuple(summary), "; ".join(summary) + why)
        return Assessment(Status.DONE, tuple(summary))
