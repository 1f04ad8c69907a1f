"""Validation of how a service is updated, of its canaries, and of how tasks leave: each knob, and how they agree."""

from typing import Final

from argosy.core.problem import Problem, Problems, between, duration, when
from argosy.core.service import (
    JOB_MODES,
    FailureAction,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
)

MOST_AT_ONCE: Final = 100_000
"""As many as a service may have replicas."""
LEAST_DEADLINE_S: Final = 1.0
"""Nothing is placed, prepared and started for certain in less: a smaller number was meant in another unit."""
MOST_WEIGHT: Final = 100


def update_problems(spec: ServiceSpec) -> Problems:
    """Yield what is wrong with a service's update and rollback settings, and its canaries."""
    yield from _config(spec.update, "update")
    yield from _config(spec.rollback, "rollback")
    yield from when(
        spec.rollback.failure_action is FailureAction.ROLLBACK,
        "rollback.failure_action",
        "a rollback that fails is not rolled back again: use pause or continue",
    )
    yield from _orders(spec)
    yield from _canaries(spec)


def leaving_problems(task: TaskSpec, where: str) -> Problems:
    """Yield what is wrong with how requests leave a task, and how many come."""
    if task.drain_timeout is not None:
        yield from duration(f"{where}.drain_timeout", task.drain_timeout, "the drain timeout")
    yield from between(f"{where}.weight", task.weight, 0, MOST_WEIGHT, "the weight")


def _config(config: UpdateConfig, where: str) -> Problems:
    yield from between(f"{where}.parallelism", config.parallelism, 0, MOST_AT_ONCE, "the parallelism")
    yield from duration(f"{where}.delay", config.delay, "the delay")
    yield from duration(f"{where}.monitor", config.monitor, "the monitor period")
    deadline = config.progress_deadline
    least = LEAST_DEADLINE_S if deadline > 0 else 0.0
    yield from duration(f"{where}.progress_deadline", deadline, "the progress deadline (0: none)", least)
    ratio = config.max_failure_ratio
    if not 0 <= ratio <= 1:
        hint = f", such as {ratio / 100:g} for {ratio:g} %" if 1 < ratio <= 100 else ""
        yield Problem(f"{where}.max_failure_ratio", f"the ratio is {ratio:g}: it has to be from 0 to 1{hint}")


def _orders(spec: ServiceSpec) -> Problems:
    for where, config in (("update", spec.update), ("rollback", spec.rollback)):
        if config.order is not UpdateOrder.START_FIRST:
            continue
        yield from when(
            spec.mode is ServiceMode.GLOBAL and bool(spec.task.host_ports),
            f"{where}.order",
            "start-first cannot work: the new task of a global service is on the same node, and its host port is still "
            "taken by the old one; use stop-first",
        )
        yield from when(
            spec.mode is ServiceMode.GLOBAL and spec.task.placement.max_replicas_per_node == 1,
            f"{where}.order",
            "start-first cannot work: it needs two tasks on a node for a moment, and max_replicas_per_node is 1; use "
            "stop-first",
        )


def _canaries(spec: ServiceSpec) -> Problems:
    yield from between("canary", spec.canary, 0, MOST_AT_ONCE, "the number of canaries")
    yield from when(
        spec.auto_promote and not spec.canary, "auto_promote", "there are no canaries to promote: set canary as well"
    )
    if not spec.canary:
        return
    yield from when(
        spec.mode is ServiceMode.REPLICATED and 0 < spec.replicas < spec.canary,
        "canary",
        f"{spec.canary} canaries cannot try the update of {spec.replicas} replica{'s' * (spec.replicas > 1)}: "
        f"use {spec.replicas} at most",
    )
    yield from when(
        spec.mode in JOB_MODES, "canary", "a job has no update that canaries could try: its next run is the new one"
    )
    yield from when(
        spec.update.failure_action is FailureAction.CONTINUE,
        "update.failure_action",
        "continue would go on over failing canaries: use pause or rollback, or no canaries",
    )
