"""Rolling updates: which slots move to the present spec now, and where the update stands.

Nothing is remembered between plans. The update's state and start stand in the service; what it did stands in the tasks:
those that run the present spec and were created since it started are *made by it*. So a new leader goes on exactly
where the old one was. The rules (docs/updates.md):

- A slot is dirty if a live task of it, or the last one it had, does not run the present spec.
- With `canary` the update tries so many new tasks first, and leaves the rest alone until it is promoted (canary.py).
- At most `parallelism` slots are in flight: begun, and their new task neither ran yet nor ended, or it did so less than
  `delay` ago. Slots that do not serve go first; under stop-first with a budget they do not even wait for slots in
  flight that still serve, for which the budget may have nothing left (as many more may then be in flight). A slot whose
  new task failed has had its turn: from then on the restart policy tries it again, so that it does not stop the others.
  A slot whose other tasks never had a node moves at once: there is nothing to lose in it.
- When the share of slots with a failure (attempts.py) is over `max_failure_ratio`, or there was no progress for
  `progress_deadline` (progress.py), the failure action follows.
- A slot whose new task runs lets the next one begin, but it counts as missing until every node knows the new task.
- The update is complete when every slot runs the present spec, and has done so for `monitor`. Slots whose task is kept
  on a node that is DOWN are left out until it is back, and the update says so (left_behind.py).
- Creating slots (first deploy, scaling up) is no update: it happens all at once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from argosy.controller.logic.actions import RollBack
from argosy.controller.logic.ask import clashing
from argosy.controller.logic.attempts import failures, good_at, has_given_up, say_failed, turn_of
from argosy.controller.logic.availability import is_available, is_still_there
from argosy.controller.logic.canary import former_revision, is_trying
from argosy.controller.logic.counted import of_all
from argosy.controller.logic.dirty import is_dirty, stale_task
from argosy.controller.logic.draft import Draft
from argosy.controller.logic.left_behind import is_cut_off, remark
from argosy.controller.logic.progress import stalled
from argosy.controller.logic.slot import Aim, Order, is_fixed
from argosy.controller.logic.slots import Key, Slot, is_unassigned, serves
from argosy.controller.logic.view import View
from argosy.core.service import (
    FailureAction,
    Revision,
    Service,
    ServiceMode,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
    UpdateStatus,
)
from argosy.core.units import format_duration

AT_REST: Final = frozenset({UpdateState.NONE, UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED})
HELD: Final = frozenset({UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED})
ROLLING_BACK: Final = frozenset(
    {UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_COMPLETED}
)


@dataclass(frozen=True, slots=True)
class Rollout:
    """How this plan treats the slots: `moving` ones go to the present revision, `hold` keeps what serves.

    `fresh`: what a slot runs that has no task yet. `is_over`: the update completes with this plan. `stops`: how many
    tasks may be stopped before their heirs run, None: those of all `moving` slots.
    """

    config: UpdateConfig
    since: float
    fresh: int
    moving: Collection[Key] = ()
    hold: bool = False
    is_over: bool = False
    rollback: RollBack | None = None
    stops: int | None = None


def plan_update(view: View, draft: Draft, slots: Sequence[Slot]) -> Rollout:
    """Move the update on: begin slots, or pause, roll back or complete it."""
    spec, update = view.service.spec, view.service.update
    wanted = [slot for slot in slots if not slot.canary]
    dirty = [slot for slot in wanted if slot.may_create and is_dirty(view, slot)]
    if update.state in AT_REST:
        if not dirty:
            return _resting(view, draft, spec.update, update, wanted)
        update = UpdateStatus(UpdateState.UPDATING, started_at=view.now, promoted=True)
        draft.set_update(update)
    config = spec.rollback if update.state in ROLLING_BACK else spec.update
    course = _Course(view, draft, update, config)
    if is_trying(view, update, slots):
        if update.state in HELD:
            return course.rollout(former_revision(view, slots), hold=True)
        tried = course.try_out(slots, dirty)
        if tried is not None:
            return tried
    elif update.state in HELD:
        return course.rollout(hold=True)
    return course.go_on(wanted, dirty)


def aim_of(view: View, slot: Slot, rollout: Rollout) -> Aim:
    """Return what the slot is to become in this plan: the present revision, or the one that it has."""
    present = view.service.revision
    old = stale_task(view, slot)
    if slot.canary or slot.key in rollout.moving or any(view.is_current(task) for task in slot.live):
        return Aim(present, _order(view, slot, rollout.config), rollout.hold, rollout.since)
    revision = rollout.fresh if not slot.exists else present
    if old is not None and old.revision in view.revisions:
        revision = old.revision
    order = _order(view, slot, rollout.config) if old is None else _order_of_config(rollout.config)
    return Aim(revision, order, rollout.hold, rollout.since)


def _order_of_config(config: UpdateConfig) -> Order:
    return Order.START_FIRST if config.order is UpdateOrder.START_FIRST else Order.PREPARE_FIRST


def _order(view: View, slot: Slot, config: UpdateConfig) -> Order:
    """Return the order for a slot. Two tasks with the same port of a host, or address, cannot stand side by side."""
    if any(is_fixed(task) for task in (*slot.live, *slot.ending)):
        return Order.PREPARE_FIRST
    ports = view.service.spec.task.host_ports
    if ports:
        stale = (task for task in slot.live if not view.is_current(task) and not is_unassigned(task))
        before = [*slot.ending, *stale]
        if clashing(ports, (port for task in before for port in view.spec_of(task.revision).host_ports)):
            return Order.PREPARE_FIRST
    return _order_of_config(config)


def _resting(view: View, draft: Draft, config: UpdateConfig, update: UpdateStatus, slots: Sequence[Slot]) -> Rollout:
    message = remark(view, slots, update.message)
    if message != update.message:
        draft.set_update(replace(update, message=message))
    return Rollout(config, update.started_at, view.service.revision)


def rollback_target(service: Service, revisions: Mapping[int, Revision]) -> Revision | None:
    """Return where to go back to: the latest revision that came through and whose tasks differ from now."""
    revision = revisions.get(service.revision)
    while revision is not None:
        revision = revisions.get(revision.previous)
        if revision is not None and revision.spec.task != service.spec.task:
            return revision
    return None


def _has_nothing_to_lose(view: View, slot: Slot) -> bool:
    """Whether no task of the slot that is not as the present spec wants it ever had a node."""
    return all(is_unassigned(task) for task in slot.records() if not view.is_current(task))


class _Course:
    """One plan's look at an update that goes on. `update` is where it stands, with what this plan has stored of it."""

    def __init__(self, view: View, draft: Draft, update: UpdateStatus, config: UpdateConfig) -> None:
        self.view = view
        self.draft = draft
        self.update = update
        self.config = config

    def rollout(
        self,
        fresh: int | None = None,
        *,
        moving: Collection[Key] = (),
        hold: bool = False,
        is_over: bool = False,
        rollback: RollBack | None = None,
    ) -> Rollout:
        """Return a rollout; `fresh` None: new slots run the present revision."""
        present = self.view.service.revision
        since = self.update.started_at
        return Rollout(self.config, since, present if fresh is None else fresh, moving, hold, is_over, rollback)

    # The canaries.

    def try_out(self, slots: Sequence[Slot], dirty: Sequence[Slot]) -> Rollout | None:
        """Try the present spec in the canaries; None when they have done well and the update goes on by itself.

        It goes on, too, where there is nothing to try on: all that is left to do is kept on nodes that are cut off.
        """
        view, spec = self.view, self.view.service.spec
        fresh = former_revision(view, slots)
        idle = {slot.key for slot in dirty if spec.mode is ServiceMode.GLOBAL and _has_nothing_to_lose(view, slot)}
        if spec.mode is ServiceMode.GLOBAL:
            canaries = [slot for slot in slots if turn_of(view, slot, self.update) is not None]
            begun = idle | {slot.key for slot in canaries}
            canaries = [slot for slot in canaries if not self._is_untold(slot)]
            waiting = sorted((slot for slot in dirty if slot.key not in begun), key=self._use)
            canaries += waiting[: max(0, spec.canary - len(canaries))]
        else:
            canaries = [slot for slot in slots if slot.canary]
        if not canaries:
            return None
        failed = self._failed(canaries)
        if self._too_many(failed, len(canaries)):
            said = say_failed(view, self.update, self.config, failed, len(canaries), "canary", "canaries")
            return self._give_in(said, fresh)
        well = self._all_well(canaries)
        if well and spec.auto_promote:
            self._store(promoted=True, ready=False, message="")
            return None
        names = f"{len(canaries)} canaries" if len(canaries) != 1 else "1 canary"
        if well:
            way = f"'argosy service promote {spec.name}' goes on, 'argosy service rollback {spec.name}' takes it back"
            self._store(ready=True, message=f"{names} did well: {way}")
        else:
            waits_for = stalled(view, self.draft, self.update, self.config, canaries)
            if waits_for and self.config.failure_action is not FailureAction.CONTINUE:
                return self._give_in(f"{names}: {waits_for}", fresh)
            self._store(ready=False, message=self._goes_on() if waits_for else f"trying {names}")
        return self.rollout(fresh, moving=idle | {slot.key for slot in canaries})

    def _is_untold(self, slot: Slot) -> bool:
        """Whether a node that the update tries on was cut off before its task had done well."""
        if not is_cut_off(self.view, slot):
            return False
        good = good_at(self.view, self.update, self.config, slot)
        return good is None or good > self.view.nodes[slot.key[1]].status.since

    def _all_well(self, canaries: Sequence[Slot]) -> bool:
        moments = [good_at(self.view, self.update, self.config, slot) for slot in canaries]
        known = [moment for moment in moments if moment is not None]
        if len(known) < len(moments):
            return False
        until = max(known, default=0.0)
        self.draft.wake(until)
        return until <= self.view.now

    # The others.

    def go_on(self, slots: Sequence[Slot], dirty: Sequence[Slot]) -> Rollout:
        """Complete the update, follow the failure action, or work on the next slots."""
        failed = self._failed(slots)
        if self._too_many(failed, len(slots)):
            said = say_failed(self.view, self.update, self.config, failed, len(slots), "replica", "replicas")
            return self._give_in(said)
        settled = self._settled(slots)
        if settled is not None:
            return settled
        slots = [slot for slot in slots if not is_cut_off(self.view, slot)]
        waits_for = stalled(self.view, self.draft, self.update, self.config, slots)
        if waits_for:
            if self.config.failure_action is not FailureAction.CONTINUE:
                return self._give_in(waits_for)
            self._store(message=self._goes_on())
        return replace(self.rollout(moving=self._moving(slots, dirty)), stops=self._stops(slots))

    def _failed(self, slots: Sequence[Slot]) -> list[Slot]:
        return [slot for slot in slots if failures(self.view, slot, self.update, self.config)]

    def _too_many(self, failed: Sequence[Slot], total: int) -> bool:
        goes_on = self.config.failure_action is FailureAction.CONTINUE
        return len(failed) > self.config.max_failure_ratio * total and not goes_on

    def _give_in(self, message: str, fresh: int | None = None) -> Rollout:
        """Follow the failure action: pause, or roll back if this is no rollback already and there is where to go."""
        rolling_back = self.update.state in ROLLING_BACK
        if self.config.failure_action is FailureAction.ROLLBACK and not rolling_back:
            target = rollback_target(self.view.service, self.view.revisions)
            if target is not None:
                started = UpdateStatus(UpdateState.ROLLBACK_STARTED, started_at=self.view.now, message=message)
                return self.rollout(hold=True, rollback=RollBack(self.view.service.meta.id, target.number, started))
            message += "; there is no earlier revision to return to"
        self._pause(message)
        return self.rollout(fresh, hold=True)

    def _pause(self, message: str) -> None:
        rolling_back = self.update.state in ROLLING_BACK
        self._store(state=UpdateState.ROLLBACK_PAUSED if rolling_back else UpdateState.PAUSED, message=message)

    def _goes_on(self) -> str:
        deadline = format_duration(self.config.progress_deadline)
        return f"no progress for {deadline}; it goes on trying, since its failure action is continue"

    def _store(self, **changes: Any) -> None:
        """Store how the update stands, if that is anything new."""
        changed = replace(self.update, **changes)
        if changed != self.update:
            self.update = changed
            self.draft.set_update(changed)

    def _settled(self, slots: Sequence[Slot]) -> Rollout | None:
        """Complete the update if all slots are as wanted, pause it if some gave up and nothing else is going on."""
        gave_up = 0
        waits_until = 0.0
        for slot in slots:
            if not slot.may_create:
                continue
            good = good_at(self.view, self.update, self.config, slot)
            if good is None:
                if not has_given_up(self.view, slot, self.update):
                    return None
                gave_up += 1
            else:
                waits_until = max(waits_until, good)
        if waits_until > self.view.now:
            self.draft.wake(waits_until)
            return None
        if gave_up:
            who, whose = of_all(gave_up, len(slots), "replica", "replicas"), "its" if gave_up == 1 else "their"
            self._pause(f"{who} gave up under {whose} restart policy")
            return self.rollout()
        rolled_back = self.update.state in ROLLING_BACK
        state = UpdateState.ROLLBACK_COMPLETED if rolled_back else UpdateState.COMPLETED
        message = remark(self.view, slots, self.update.message if rolled_back else "")
        self._store(state=state, completed_at=self.view.now, message=message, ready=False)
        return replace(self.rollout(is_over=True), config=self.view.service.spec.update)

    def _use(self, slot: Slot) -> tuple[bool, Key]:
        """Return a sort key: what is missed least first.

        A task that was only just told to stop counts, too: what a plan stops does not change what the next one begins.
        """
        return any(is_still_there(self.view, task) for task in (*slot.live, *slot.ending)), slot.key

    def _moving(self, slots: Sequence[Slot], dirty: Sequence[Slot]) -> Collection[Key]:
        """Return the slots to work on: those in flight, those to retry, and as many more as there is room for."""
        view, config = self.view, self.config
        moving: set[Key] = set()
        fresh: list[Slot] = []
        occupied = waiting = 0
        dirty_keys = {slot.key for slot in dirty}
        for slot in slots:
            turn = turn_of(view, slot, self.update)
            if turn is not None:
                in_flight = turn == 0.0 or view.now < turn + config.delay
                occupied += in_flight
                waiting += turn == 0.0 and self._may_wait(slot)
                self.draft.wake(turn + config.delay)
            if slot.key not in dirty_keys or has_given_up(view, slot, self.update):
                continue
            if turn is not None or _has_nothing_to_lose(view, slot):
                moving.add(slot.key)
            else:
                fresh.append(slot)
        fresh.sort(key=self._use)
        if config.parallelism == 0:
            moving.update(slot.key for slot in fresh)
            return moving
        room = config.parallelism - occupied
        for slot in fresh:
            served, key = self._use(slot)
            if room > 0 or (not served and room + waiting > 0):
                moving.add(key)
                room -= 1
        return moving

    def _stops(self, slots: Sequence[Slot]) -> int | None:
        """Return how many more tasks may be stopped before their heirs run, None: as many as are begun.

        A slot whose new task runs has made room for the next, but is missed until every node knows it.
        """
        strangers = sum(self._is_stranger(slot) for slot in slots)
        if not strangers or not self.config.parallelism:
            return None
        missed = sum(not any(map(serves, s.live)) and turn_of(self.view, s, self.update) == 0.0 for s in slots)
        return max(0, self.config.parallelism - strangers - missed)

    def _is_stranger(self, slot: Slot) -> bool:
        """Whether a slot's new task runs, and not every node knows it yet."""
        new = (t for t in slot.live if t.meta.created_at >= self.update.started_at and is_available(self.view, t))
        return len(slot.live) == 1 and any(not self.view.has_arrived(task) for task in new)

    def _may_wait(self, slot: Slot) -> bool:
        """Whether a slot in flight may have to wait for the budget, so that slots that spend nothing pass it by."""
        budgeted = self.view.service.spec.max_unavailable and self.config.order is UpdateOrder.STOP_FIRST
        return bool(budgeted) and self._use(slot)[0]
