"""Decides what becomes of a service's tasks: the one entry to the orchestrator's pure logic.

`plan_service` is called by the orchestrator loop whenever the service, one of its tasks or a node that matters to it
has changed, and at the time that the last plan named. It reads the whole desired and observed state and returns the
actions that lead one step on (level-triggered: it matters not what changed). The parts, each with its own rules:

    scale    which slots there are        update   which of them move to a new spec, and when
    slot     the next step of one slot    restart  whether an ended task gets a successor
    reap     history, orphans, removal

Cost: O(tasks of the service). Planning again after the actions were applied, at the same time, gives none, except
after a RollBack, which changes the spec itself.
"""

from collections.abc import Mapping, Sequence

from argosy.controller.logic.actions import Plan
from argosy.controller.logic.draft import Draft
from argosy.controller.logic.reap import drop_gone, forget, plan_removal, reap, trim
from argosy.controller.logic.scale import Choice, choose_nodes, choose_replicas
from argosy.controller.logic.slot import plan_slot
from argosy.controller.logic.slots import group
from argosy.controller.logic.update import aim_of, plan_update
from argosy.controller.logic.view import Fits, View
from argosy.core.node import Node
from argosy.core.service import Revision, Service, ServiceMode
from argosy.core.task import Task


def plan_service(
    service: Service,
    revisions: Mapping[int, Revision],
    tasks: Sequence[Task],
    nodes: Mapping[str, Node],
    now: float,
    fits: Fits = lambda node: True,
) -> Plan:
    """Return what to do about a service now.

    `revisions` are those of the service by number, `tasks` all of its tasks in any state, `nodes` the whole cluster by
    id, `now` the leader's wall clock in seconds; `fits` tells whether a node meets the constraints and platform of the
    service's present spec.
    """
    view = View(service, revisions, nodes, now, fits)
    draft = Draft(service.meta.id, now)
    tasks = drop_gone(view, draft, tasks)
    if service.removing:
        plan_removal(view, draft, tasks)
        return draft.plan()
    choice = _choose(view, tasks)
    rollout = plan_update(view, draft, choice.keep)
    if rollout.rollback is not None:
        return Plan((rollout.rollback,))
    for slot in choice.keep:
        plan_slot(view, draft, slot, aim_of(view, slot, rollout))
        trim(view, draft, slot)
        if service.spec.mode is ServiceMode.REPLICATED:
            for task in slot.lost:
                draft.stop(task)
    for slot in choice.forget:
        for task in slot.records():
            forget(view, draft, task)
    reap(view, draft, tasks)
    return draft.plan()


def _choose(view: View, tasks: Sequence[Task]) -> Choice:
    if view.service.spec.mode is ServiceMode.GLOBAL:
        return choose_nodes(view, group(view, tasks, by_node=True))
    return choose_replicas(view, group(view, tasks, by_node=False))
