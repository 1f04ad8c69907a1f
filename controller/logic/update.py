"""Rolling updates: which slots move to the present spec now, and where the update stands.

Nothing is remembered between plans. The update's state and start stand in the service; what it did stands in the tasks:
those that run the present spec and were created since it started are *made by it*. So a new leader goes on exactly
where the old one was. The rules (docs/semantics):

- A slot is dirty if a live task of it, or the last one it had, does not run the present spec.
- At most `parallelism` slots are in flight: begun, and their new task neither ran yet nor ended, or it did so less than
  `delay` ago. Slots that do not serve go first. A slot whose new task failed has had its turn: from then on the restart
  policy tries it again, so that it does not stop the others. A slot whose other tasks never had a node moves at
  once: there is nothing to lose in it.
- A failure is a slot with a task made by this update that ended by itself before it was RUNNING for `monitor` (unless
  it completed, and its restart policy lets it). When the share of such slots is over `max_failure_ratio`, the failure
  action follows.
- The update is complete when every slot runs the present spec, and has done so for `monitor`.
- Creating slots (first deploy, scaling up) is no update: it happens all at once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from argosy.controller.logic.actions import RollBack
from argosy.controller.logic.draft import Draft
from argosy.controller.logic.slot import Aim, Order, succession
from argosy.controller.logic.slots import Key, Slot, age, is_unassigned, serves
from argosy.controller.logic.view import View
from argosy.core.restart import NoSuccessor, ended_at, ended_by_itself
from argosy.core.service import (
    FailureAction,
    RestartCondition,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
    UpdateStatus,
)
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_failure

AT_REST: Final = frozenset({UpdateState.NONE, UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED})
HELD: Final = frozenset({UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED})
ROLLING_BACK: Final = frozenset(
    {UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_COMPLETED}
)


@dataclass(frozen=True, slots=True)
class Rollout:
    """How this plan treats the slots: `moving` ones go to the present revision, `hold` keeps what serves."""

    config: UpdateConfig
    since: float
    moving: Collection[Key] = ()
    hold: bool = False
    rollback: RollBack | None = None


def plan_update(view: View, draft: Draft, slots: Sequence[Slot]) -> Rollout:
    """Move the update on: begin slots, or pause, roll back or complete it."""
    spec, update = view.service.spec, view.service.update
    config = spec.rollback if update.state in ROLLING_BACK else spec.update
    dirty = [slot for slot in slots if slot.may_create and is_dirty(view, slot)]
    if update.state in AT_REST:
        if not dirty:
            return Rollout(config, update.started_at)
        config = spec.update
        update = UpdateStatus(UpdateState.UPDATING, started_at=view.now)
        draft.set_update(update)
    if update.state in HELD:
        return Rollout(config, update.started_at, hold=True)
    failed = [slot for slot in slots if _failures(view, slot, update, config)]
    if len(failed) > config.max_failure_ratio * len(slots) and config.failure_action is not FailureAction.CONTINUE:
        return _give_in(view, draft, update, config, failed, len(slots))
    if _is_settled(view, draft, update, config, slots):
        return Rollout(config, update.started_at)
    return Rollout(config, update.started_at, moving=_moving(view, draft, update, config, slots, dirty))


def aim_of(view: View, slot: Slot, rollout: Rollout) -> Aim:
    """Return what the slot is to become in this plan: the present revision, or the one that it has."""
    old = _stale(view, slot)
    if old is None or slot.key in rollout.moving or any(view.is_current(task) for task in slot.live):
        return Aim(view.service.revision, _order(view, slot, rollout.config), rollout.hold, rollout.since)
    revision = old.revision if old.revision in view.revisions else view.service.revision
    return Aim(revision, _order_of_config(rollout.config), rollout.hold, rollout.since)


def is_dirty(view: View, slot: Slot) -> bool:
    """Whether the slot is not (only) what the present spec wants."""
    return _stale(view, slot) is not None


def _stale(view: View, slot: Slot) -> Task | None:
    """Return the live task that does not run the present spec, or the last one of a slot without live ones."""
    if not slot.live:
        last = slot.past
        return last if last is not None and not view.is_current(last) else None
    stale = [task for task in slot.live if not view.is_current(task)]
    return max(stale, key=lambda t: (t.status.state, age(t))) if stale else None


def _order_of_config(config: UpdateConfig) -> Order:
    return Order.START_FIRST if config.order is UpdateOrder.START_FIRST else Order.PREPARE_FIRST


def _order(view: View, slot: Slot, config: UpdateConfig) -> Order:
    """Return the order for a slot. Two tasks that want the same port of a host cannot stand side by side."""
    ports = set(view.service.spec.task.host_ports)
    if ports:
        before = [*slot.ending, *(task for task in slot.live if not view.is_current(task))]
        if not all(ports.isdisjoint(view.spec_of(task.revision).host_ports) for task in before):
            return Order.STOP_BEFORE
    return _order_of_config(config)


def _made(view: View, slot: Slot, update: UpdateStatus) -> list[Task]:
    """Return the slot's tasks that this update made."""
    return [t for t in slot.records() if t.meta.created_at >= update.started_at and view.is_current(t)]


def _failures(view: View, slot: Slot, update: UpdateStatus, config: UpdateConfig) -> list[Task]:
    """Return the slot's tasks that count as failures of the update."""
    if not slot.ended:
        return []
    return [task for task in _made(view, slot, update) if _failed_young(view, task, config)]


def _failed_young(view: View, task: Task, config: UpdateConfig) -> bool:
    if not ended_by_itself(task):
        return False
    if not is_failure(task.status.state):
        restarts = view.spec_of(task.revision).restart.condition is RestartCondition.ANY
        if not restarts:
            return False
    return task.running_since == 0 or ended_at(task, view.now) - task.running_since < config.monitor


def _give_in(
    view: View, draft: Draft, update: UpdateStatus, config: UpdateConfig, failed: Sequence[Slot], total: int
) -> Rollout:
    """Follow the failure action: pause, or roll back if this is not a rollback already and there is where to go."""
    message = _say_failed(view, update, config, failed, total)
    rolling_back = update.state in ROLLING_BACK
    if config.failure_action is FailureAction.ROLLBACK and not rolling_back:
        target = rollback_target(view)
        if target is not None:
            started = UpdateStatus(UpdateState.ROLLBACK_STARTED, started_at=view.now, message=message)
            return Rollout(
                config, update.started_at, hold=True, rollback=RollBack(view.service.meta.id, target, started)
            )
        message += "; there is no earlier revision to return to"
    _pause(draft, update, message)
    return Rollout(config, update.started_at, hold=True)


def _pause(draft: Draft, update: UpdateStatus, message: str) -> None:
    rolling_back = update.state in ROLLING_BACK
    state = UpdateState.ROLLBACK_PAUSED if rolling_back else UpdateState.PAUSED
    draft.set_update(replace(update, state=state, message=message))


def rollback_target(view: View) -> int | None:
    """Return where to go back to: the previous revision, or the latest older one whose tasks differ from now."""
    service = view.service
    older = sorted((n for n in view.revisions if n < service.revision and n != service.previous_revision), reverse=True)
    for number in (service.previous_revision, *older):
        revision = view.revisions.get(number)
        if revision is not None and revision.spec.task != service.spec.task:
            return number
    return None


def _say_failed(view: View, update: UpdateStatus, config: UpdateConfig, failed: Sequence[Slot], total: int) -> str:
    tasks = [task for slot in failed for task in _failures(view, slot, update, config)]
    last = max(tasks, key=age)
    number, node_id = last.slot, last.node_id
    where = f"slot {number}" if number else f"node {_name(view, node_id)}"
    reason = last.status.reason or (f"exit code {last.status.exit_code}" if last.status.exit_code is not None else "")
    said = f"{len(failed)} of {total} replicas failed before they had run for {config.monitor:g} s; {where}"
    return f"{said}: {reason}" if reason else f"{said} {last.status.state.name.lower()}"


def _name(view: View, node_id: str) -> str:
    node = view.nodes.get(node_id)
    return (node.spec.name if node is not None else "") or node_id


def _is_settled(view: View, draft: Draft, update: UpdateStatus, config: UpdateConfig, slots: Sequence[Slot]) -> bool:
    """Complete the update if all slots are as wanted, pause it if some gave up and nothing else is going on."""
    gave_up = 0
    waits_until = 0.0
    for slot in slots:
        if not slot.may_create:
            continue
        wait = _good_in(view, update, config, slot)
        if wait is None:
            if not _has_given_up(view, slot, update):
                return False
            gave_up += 1
        else:
            waits_until = max(waits_until, wait)
    if waits_until > view.now:
        draft.wake(waits_until)
        return False
    if gave_up:
        _pause(draft, update, f"{gave_up} of {len(slots)} replicas gave up under their restart policy")
        return True
    done = UpdateState.ROLLBACK_COMPLETED if update.state in ROLLING_BACK else UpdateState.COMPLETED
    draft.set_update(replace(update, state=done, completed_at=view.now))
    return True


def _good_in(view: View, update: UpdateStatus, config: UpdateConfig, slot: Slot) -> float | None:
    """Return when the slot will have done well for long enough, if it does well and nothing else is left; else None."""
    if slot.ending:
        return None
    if not slot.live:
        last = slot.past
        if last is None or not view.is_current(last) or last.status.state is not TaskState.COMPLETE:
            return None
        finished = succession(view, slot, view.service.revision, update.started_at) is NoSuccessor.FINISHED
        return ended_at(last, view.now) if finished else None
    current = [task for task in slot.live if view.is_current(task)]
    if any(task.status.state is not TaskState.RUNNING for task in current):
        return None
    others = [task for task in slot.live if not is_unassigned(task)]
    if not current or len(others) > len(current):
        return None
    return max(task.running_since for task in current) + config.monitor


def _has_given_up(view: View, slot: Slot, update: UpdateStatus) -> bool:
    """Whether the present spec was tried in the slot, and the restart policy allows no further attempt."""
    last = slot.latest(update.started_at)
    if last is None or last in slot.live or not view.is_current(last):
        return False
    return isinstance(succession(view, slot, view.service.revision, update.started_at), NoSuccessor)


def _moving(
    view: View,
    draft: Draft,
    update: UpdateStatus,
    config: UpdateConfig,
    slots: Sequence[Slot],
    dirty: Sequence[Slot],
) -> Collection[Key]:
    """Return the slots to work on: those in flight, those to retry, and as many more as `parallelism` has room for."""
    moving: set[Key] = set()
    fresh: list[Slot] = []
    occupied = 0
    dirty_keys = {slot.key for slot in dirty}
    for slot in slots:
        turn = _turn(view, slot, update)
        if turn is not None:
            in_flight = turn == 0.0 or view.now < turn + config.delay
            occupied += in_flight
            draft.wake(turn + config.delay)
        if slot.key not in dirty_keys or _has_given_up(view, slot, update):
            continue
        if turn is not None or all(is_unassigned(t) for t in slot.records() if not view.is_current(t)):
            moving.add(slot.key)
        else:
            fresh.append(slot)
    fresh.sort(key=lambda slot: (any(map(serves, slot.live)), slot.key))
    room = len(fresh) if config.parallelism == 0 else max(0, config.parallelism - occupied)
    moving.update(slot.key for slot in fresh[:room])
    return moving


def _turn(view: View, slot: Slot, update: UpdateStatus) -> float | None:
    """Return when the slot's new task first ran or ended, 0 if it did not yet, None if the update has not begun it.

    A slot that has only ever run the present spec was created, not updated.
    """
    new: list[Task] = []
    was_stale = False
    for task in slot.records():
        if view.is_current(task):
            if task.meta.created_at >= update.started_at or task in slot.live:
                new.append(task)
        else:
            was_stale = True
    if not new or not was_stale:
        return None
    over = [t.running_since or ended_at(t, view.now) for t in new if t.running_since or ended_by_itself(t)]
    return min(over, default=0.0)
