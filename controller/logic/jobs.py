"""Jobs: services whose tasks run to completion. Decides what becomes of their tasks; called by `plan_service`.

A *slot* is one completion: a number from 1 to `total_completions` of a replicated job, an eligible node of a global
one. `Task.iteration` is the run it belongs to. In each run:

- A slot is complete as soon as one task of it ended with 0, and then gets no other. A task that failed gets a successor
  as the restart policy says (never `any`); where that allows no more the slot has given up, and the others go on.
- At most `max_concurrent` slots have a task that has not ended (0: all), the lowest numbers first. One that waits for
  its restart delay holds no place.
- A task that runs on a drained node goes on to its end there, or to the drain's deadline: it has no other to take over
  from it, so to stop it would throw its work away. One that has to leave its node otherwise, or has not begun, is
  stopped, then run again elsewhere; that is no attempt. On a node that is lost it counts as gone, so a completion can
  happen twice there, but is counted once.
- The run is COMPLETE when every slot is, FAILED when the others have given up and nothing runs.

A changed spec is another iteration, not an update: nothing rolls. When one begins, the tasks of those before are
stopped unless the job's overlap policy lets them go on; tasks of the last runs are kept to be looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from argosy.controller.logic.actions import CreateTask
from argosy.controller.logic.counted import of_all
from argosy.controller.logic.cron import due, job_of, runs_side_by_side
from argosy.controller.logic.draft import Draft
from argosy.controller.logic.reap import forget, trim
from argosy.controller.logic.slots import Key, Slot, group, serves
from argosy.controller.logic.view import View
from argosy.core.node import Availability, NodeState
from argosy.core.restart import Heritage, NoSuccessor, ended_by_itself, inherit, succeed
from argosy.core.service import JobState, ServiceMode
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal

ITERATIONS_KEPT: Final = 5
"""Runs whose tasks are kept, the present one included."""
OVER: Final = frozenset({JobState.COMPLETE, JobState.FAILED})


@dataclass(slots=True)
class _Run:
    """How one iteration stands: its slots by what they need.

    `busy`: a task of it has not ended; `ready`: it can have one now; `delayed`: later. Slots of nodes that take no task
    now are not counted: nobody waits for them; but what is `leaving` them still runs.
    """

    complete: int = 0
    busy: int = 0
    leaving: int = 0
    ready: list[tuple[Slot, Heritage]] = field(default_factory=list)
    delayed: int = 0
    gave_up: list[Task] = field(default_factory=list)


def plan_job(view: View, draft: Draft, tasks: Sequence[Task]) -> None:
    """Take the job's next steps: begin a run that is due, or lead those that go on nearer to their end."""
    service = view.service
    now_due = due(service, view.now, len({task.iteration for task in tasks if not is_terminal(task.status.state)}))
    if now_due is not None and now_due.iteration != service.job.iteration:
        draft.set_job(now_due)  # what follows from it is planned when it is stored
        return
    draft.wake(service.job.next_at)
    runs: dict[int, list[Task]] = {service.job.iteration: []} if service.job.iteration else {}
    for task in tasks:
        runs.setdefault(task.iteration, []).append(task)
    for iteration in sorted(runs):
        _plan_run(view, draft, iteration, runs[iteration])
    if now_due is not None and not draft.sets_job:  # left out; unless the present run is only now seen to be over
        draft.set_job(now_due)


def _plan_run(view: View, draft: Draft, iteration: int, tasks: list[Task]) -> None:
    service, present = view.service, iteration == view.service.job.iteration
    slots = group(view, tasks, by_node=_is_global(view))
    running = any(slot.live or slot.ending for slot in slots.values())
    kept = iteration > service.job.iteration - ITERATIONS_KEPT
    if not kept and not (running and runs_side_by_side(service.spec)):
        for task in tasks:
            forget(view, draft, task)
        return
    for slot in slots.values():
        trim(view, draft, slot)
    if service.spec.stopped or not (present or runs_side_by_side(service.spec)):
        _stop_all(draft, slots.values())
        return
    over = present and service.job.state in OVER and not _is_global(view)
    if over or not kept:
        return
    revision = max((task.revision for task in tasks), default=service.revision)
    run = _lead(view, draft, slots, revision)
    _fill(view, draft, run, iteration, revision)
    if present:
        _tell(view, draft, run)


def _is_global(view: View) -> bool:
    return view.service.spec.mode is ServiceMode.GLOBAL_JOB


def _stop_all(draft: Draft, slots: Iterable[Slot]) -> None:
    for slot in slots:
        for task in (*slot.live, *slot.lost):
            draft.stop(task)


def _lead(view: View, draft: Draft, slots: Mapping[Key, Slot], revision: int) -> _Run:
    """Stop what is not to run, and say what each slot needs."""
    run = _Run()
    keys, shut = _nodes(view, slots) if _is_global(view) else (_numbers(view), frozenset[Key]())
    for key in keys:
        slot = slots.get(key) or Slot(key)
        _sort(view, draft, run, slot, revision, shut=key in shut)
    wanted = frozenset(keys)
    unwanted = [slot for key, slot in slots.items() if key not in wanted]
    run.leaving = sum(bool(slot.live or slot.ending) for slot in unwanted)
    _stop_all(draft, unwanted)
    return run


def _numbers(view: View) -> list[Key]:
    return [(number, "") for number in range(1, job_of(view.service.spec).total_completions + 1)]


def _nodes(view: View, slots: Mapping[Key, Slot]) -> tuple[list[Key], frozenset[Key]]:
    """Return a global job's slots, and those of them that get no new task for now."""
    keys, shut = [], set()
    for node_id in sorted(view.nodes):
        node, key = view.nodes[node_id], (0, node_id)
        drained = node.spec.availability is Availability.DRAIN
        if not view.node_fits(node_id) or (drained and not _counts_though_drained(view, slots.get(key) or Slot(key))):
            continue
        keys.append(key)
        answers = node.status.state in (NodeState.READY, NodeState.UNKNOWN)
        if not answers or node.spec.availability is not Availability.ACTIVE:
            shut.add(key)
    return keys, frozenset(shut)


def _counts_though_drained(view: View, slot: Slot) -> bool:
    """Whether a drained node has done its part of a global job, or is about to."""
    done = any(task.status.state is TaskState.COMPLETE for task in slot.ended)
    return done or any(not _has_to_leave(view, task) for task in slot.live)


def _sort(view: View, draft: Draft, run: _Run, slot: Slot, revision: int, *, shut: bool) -> None:
    if any(task.status.state is TaskState.COMPLETE for task in slot.records()):
        run.complete += 1
        _stop_all(draft, [slot])
        return
    if not _is_global(view):  # a node that comes back must not go on with what is done elsewhere now
        for task in slot.lost:
            draft.stop(task)
    if slot.live or slot.ending:
        run.busy += 1
        slot.live.sort(key=lambda t: (view.is_leaving(t), -t.status.state, t.meta.created_at, t.meta.id))
        for task in slot.live if slot.ending else slot.live[1:]:
            draft.stop(task)
        if slot.live:
            draft.wake(view.drain_deadline(slot.live[0]))
            if _has_to_leave(view, slot.live[0]):
                draft.stop(slot.live[0])
        return
    if shut:
        return
    heritage = _heritage(view, slot.past, revision)
    if isinstance(heritage, NoSuccessor):
        assert slot.past is not None
        run.gave_up.append(slot.past)
    elif heritage.not_before > view.now:
        run.delayed += 1
        draft.wake(heritage.not_before)
    else:
        run.ready.append((slot, heritage))


def _has_to_leave(view: View, task: Task) -> bool:
    """Whether a task is stopped to be run again elsewhere."""
    goes_on = serves(task) and not view.is_overdue(task)
    return view.is_evicted(task) or (view.is_drained(task) and not goes_on)


def _heritage(view: View, last: Task | None, revision: int) -> Heritage | NoSuccessor:
    if last is None:
        return Heritage()
    if ended_by_itself(last):
        return succeed(last, view.spec_of(revision).restart, view.now)
    return inherit(last, view.now)


def _fill(view: View, draft: Draft, run: _Run, iteration: int, revision: int) -> None:
    """Create tasks for the slots that wait for one, as many as may run at once."""
    most = job_of(view.service.spec).max_concurrent
    room = max(0, most - run.busy - run.leaving) if most else len(run.ready)
    for slot, heritage in run.ready[:room]:
        number, node_id = slot.key
        draft.create(
            CreateTask(
                view.service.meta.id,
                number,
                node_id,
                revision,
                TaskState.RUNNING,
                heritage.failures,
                heritage.not_before,
                heritage.attempts,
                heritage.attempts_since,
                iteration=iteration,
            )
        )


def _tell(view: View, draft: Draft, run: _Run) -> None:
    """Store how the present run stands, when that has changed."""
    job = view.service.job
    waits = run.busy or run.ready or run.delayed
    state = JobState.RUNNING
    if not waits and run.gave_up:
        state = JobState.FAILED
    elif not waits and run.complete:
        state = JobState.COMPLETE
    message = _say(view, run) if run.gave_up else job.message
    if state is not job.state or message != job.message:
        finished_at = view.now if state in OVER else 0.0
        draft.set_job(replace(job, state=state, message=message, finished_at=finished_at))


def _say(view: View, run: _Run) -> str:
    total = run.complete + run.busy + len(run.ready) + run.delayed + len(run.gave_up)
    last = max(run.gave_up, key=lambda task: (task.status.at, task.meta.id))
    node = view.nodes.get(last.node_id)
    where = f"slot {last.slot}" if last.slot else f"node {node.spec.name if node is not None else last.node_id}"
    tries = f" after {last.attempts + 1} attempts" if last.attempts else ""
    reason = last.status.reason or last.status.state.name.lower()
    who = of_all(len(run.gave_up), total, "completion", "completions")
    return f"{who} gave up; {where}{tries}: {reason}"
