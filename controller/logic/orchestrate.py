"""Decides what becomes of a service's tasks: the one entry to the orchestrator's pure logic.

`plan_service` is called by the orchestrator loop whenever the service, one of its tasks or a node that matters to it
has changed, and at the time that the last plan named. It reads the whole desired and observed state and returns the
actions that lead one step on (level-triggered: it matters not what changed). The parts, each with its own rules:

    scale    which slots there are        update        which of them move to a new spec, and when
    slot     the next step of one slot    availability  what may be stopped or moved now
    jobs     what runs to completion      cron          when runs of a job begin
    reap     history, orphans, removal    restart       whether an ended task gets a successor (core/restart.py)

Cost: O(tasks of the service). Planning again after the actions were applied, at the same time, gives none, except
after a RollBack, which changes the spec itself, after a SetJob, from which a job's tasks follow, and after a task was
given up that was kept (`disconnect: keep`, its node DOWN): that opens its slot to the update, which left it out so far.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from argosy.controller.logic.actions import Plan
from argosy.controller.logic.availability import Allowance
from argosy.controller.logic.departures import Departures
from argosy.controller.logic.draft import Draft
from argosy.controller.logic.filters import fits_placement
from argosy.controller.logic.jobs import plan_job
from argosy.controller.logic.reap import drop_gone, forget_slot, plan_removal, reap, trim
from argosy.controller.logic.scale import Choice, choose_nodes, choose_replicas
from argosy.controller.logic.slot import plan_slot
from argosy.controller.logic.slots import group
from argosy.controller.logic.update import aim_of, plan_update
from argosy.controller.logic.view import Arrived, Fits, ReplaceIn, View
from argosy.core.budget import WAITING
from argosy.core.node import Node
from argosy.core.service import JOB_MODES, Revision, Service, ServiceMode, UpdateState
from argosy.core.task import Task
from argosy.core.task_state import is_terminal


def plan_service(
    service: Service,
    revisions: Mapping[int, Revision],
    tasks: Sequence[Task],
    nodes: Mapping[str, Node],
    now: float,
    fits: Fits = fits_placement,
    *,
    replace_in: ReplaceIn = lambda node_id, grace: 0.0,
    departures: Departures | None = None,
    arrived: Arrived = lambda task: True,
) -> Plan:
    """Return what to do about a service now.

    `revisions` are those of the service by number, `tasks` all of its tasks in any state, `nodes` the whole cluster by
    id, `now` the leader's wall clock in seconds; `fits` tells whether a node meets a placement's constraints and
    platform, `replace_in` in how many seconds a fenced task has surely ended, `arrived` whether every node that may
    connect to a task knows it; `departures` is shared by the plans of one round.
    """
    departures = departures or Departures()
    view = View(service, revisions, nodes, now, fits, replace_in, arrived)
    draft = Draft(service.meta.id, now)
    tasks = drop_gone(view, draft, tasks)
    if service.removing:
        plan_removal(view, draft, tasks)
        return draft.plan()
    _wake_for_fences(view, draft, tasks)
    if service.spec.mode in JOB_MODES:
        plan_job(view, draft, tasks)
        reap(view, draft, tasks)
        return draft.plan()
    choice = _choose(view, tasks, departures)
    rollout = plan_update(view, draft, choice.keep)
    if rollout.rollback is not None:
        return Plan((rollout.rollback,))
    allowance = Allowance(view, (slot for slot in choice.keep if not slot.canary), departures, rollout.stops)
    for slot in choice.keep:
        if slot.canary and rollout.is_over:
            forget_slot(view, draft, slot)
            continue
        plan_slot(view, draft, allowance, slot, aim_of(view, slot, rollout))
        trim(view, draft, slot)
        if service.spec.mode is ServiceMode.REPLICATED:
            for task in slot.lost:
                draft.stop(task)
    _say_what_holds(view, draft, allowance)
    for slot in choice.forget:
        forget_slot(view, draft, slot)
    reap(view, draft, tasks)
    if view.again_at is not None:
        draft.wake(view.again_at)
    return draft.plan()


def _choose(view: View, tasks: Sequence[Task], departures: Departures) -> Choice:
    if view.service.spec.mode is ServiceMode.GLOBAL:
        return choose_nodes(view, group(view, tasks, by_node=True), departures)
    return choose_replicas(view, group(view, tasks, by_node=False))


def _say_what_holds(view: View, draft: Draft, allowance: Allowance) -> None:
    """Have the update say so when it waits for the budget, until that has something left; nothing else is unsaid."""
    update = draft.update or view.service.update
    if update.state is not UpdateState.UPDATING or not (update.message == "" or update.message.startswith(WAITING)):
        return
    budget = allowance.budget
    if budget.left >= 1:
        message = ""
    else:
        message = budget.explain() if allowance.refused else update.message
    if message != update.message:
        draft.set_update(replace(update, message=message))


def _wake_for_fences(view: View, draft: Draft, tasks: Sequence[Task]) -> None:
    if view.fenced:
        for task in tasks:
            if not is_terminal(task.status.state):
                draft.wake(view.now + view.fence_left(task))
