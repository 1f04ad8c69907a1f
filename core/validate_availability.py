"""Validation of what a service says of its availability: its budget, and what becomes of tasks that are cut off.

A budget that no update could ever keep to is refused at once, since the update would only stop and wait.
"""

from argosy.core.budget import parse_max_unavailable
from argosy.core.errors import InvalidError
from argosy.core.problem import Problem, Problems, when
from argosy.core.service import JOB_MODES, Disconnect, ServiceMode, ServiceSpec, UpdateOrder


def availability_problems(spec: ServiceSpec) -> Problems:
    """Yield what is wrong with `max_unavailable` and `disconnect`."""
    yield from _budget(spec)
    yield from _disconnect(spec)


def _budget(spec: ServiceSpec) -> Problems:
    where, text = "max_unavailable", spec.max_unavailable
    try:
        budget = parse_max_unavailable(text)
    except InvalidError as error:
        yield Problem(where, str(error))
        return
    if budget is None:
        return
    if spec.mode in JOB_MODES:
        yield Problem(where, "the tasks of a job run to their end and no update replaces them: leave it out")
        return
    stops_first = _stops_first(spec)
    is_global = spec.mode is ServiceMode.GLOBAL
    if not stops_first or (spec.replicas == 0 and not is_global):
        return
    if budget.number == 0:
        yield Problem(where, f"{text} means that no task may ever be missing, but {stops_first}: allow at least 1")
    elif not is_global and budget.of(spec.replicas) == 0:
        yield Problem(
            where,
            f"{text} of {spec.replicas} replica{'s' * (spec.replicas > 1)} is less than one task, but {stops_first}: "
            f"write a number such as 1, or at least {-(-100 // spec.replicas)}%",
        )


def _stops_first(spec: ServiceSpec) -> str:
    """Return why a task of the service sometimes stops before its replacement runs; "" if it never has to."""
    if spec.disconnect is Disconnect.FENCE:
        return "a fenced task stops before its replacement starts"
    if spec.task.host_ports:
        return "a host port is free for the new task only when the old one has stopped"
    for what, config in (("an update", spec.update), ("a rollback", spec.rollback)):
        if config.order is UpdateOrder.STOP_FIRST:
            return f"{what} stops the old task first (order: stop-first; start-first would do without)"
    return ""


def _disconnect(spec: ServiceSpec) -> Problems:
    if spec.disconnect not in tuple(Disconnect):
        yield Problem("disconnect", "use replace, keep or fence")
        return
    if spec.disconnect is not Disconnect.FENCE:
        return
    yield from when(
        spec.mode in (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB),
        "disconnect",
        "fence keeps a replacement from running beside a task that is cut off, and a global service's task is never "
        "replaced on another node: leave it out",
    )
    for where, config in (("update", spec.update), ("rollback", spec.rollback)):
        yield from when(
            config.order is UpdateOrder.START_FIRST,
            f"{where}.order",
            "start-first runs two tasks of a slot for a moment, and disconnect: fence promises that there is never "
            "more than one; use stop-first",
        )
