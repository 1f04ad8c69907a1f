"""Watches a running task: asks its liveness and its readiness check for as long as it runs.

Works without a controller. What comes of it is told to the task's owner, which alone acts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import structlog

from argosy.agent.logic.health import Health, Told, effective_check
from argosy.agent.tasks.probe import Answer
from argosy.core.errors import ArgosyError
from argosy.core.image import Image
from argosy.core.service import ContainerSpec, Healthcheck

log = structlog.get_logger(__name__)

Ask: TypeAlias = Callable[[Healthcheck], Awaitable[Answer]]


class Watched(Protocol):
    """The owner's side."""

    def passed(self) -> None:
        """Liveness passed, perhaps not for the first time."""

    def unwell(self, why: str) -> None:
        """Liveness failed, and has never passed yet."""

    def given_up(self, reason: str) -> None:
        """Liveness failed too often; it is not asked any more."""

    def ready(self, ready: bool, why_not: str) -> None:
        """Readiness was asked, and what came of it is new."""


@dataclass(frozen=True, slots=True)
class Checks:
    """The two questions; None: taken for answered well. `was_well`, `was_ready`: as an earlier agent found it."""

    liveness: Healthcheck | None = None
    readiness: Healthcheck | None = None
    was_well: bool = False
    was_ready: bool = False


def checks_of(spec: ContainerSpec, image: Image | None, was_well: bool, unready: bool) -> Checks:
    """Return what is asked of a task. `was_well`, `unready`: as it was reported last."""
    liveness = effective_check(spec.healthcheck, image.config.healthcheck if image else None)
    return Checks(liveness, effective_check(spec.readiness, None), was_well, was_ready=was_well and not unready)


async def watch(checks: Checks, ask: Ask, owner: Watched) -> None:
    """Watch until liveness is given up; for ever where there is none but a readiness check."""
    async with asyncio.TaskGroup() as group:
        readiness = group.create_task(_watch_readiness(checks, ask, owner)) if checks.readiness else None
        if checks.liveness:
            await _watch_liveness(checks.liveness, checks.was_well, ask, owner)
            if readiness:
                readiness.cancel()


async def _watch_liveness(check: Healthcheck, was_well: bool, ask: Ask, owner: Watched) -> None:
    loop = asyncio.get_running_loop()
    health, told = Health(loop.time(), ever_well=was_well), Told()
    while not health.given_up(check):
        await asyncio.sleep(health.next_delay_s(check, loop.time()))
        answer = await _asked(ask, check)
        if answer is None:
            continue
        health = health.after(check, loop.time(), answer.well, answer.said)
        if answer.well:
            owner.passed()
        elif not health.ever_well:
            before, told = told, told.after(False, health.why_unwell(), loop.time())
            if told is not before:
                owner.unwell(told.why_not)
    owner.given_up(health.reason())


async def _watch_readiness(checks: Checks, ask: Ask, owner: Watched) -> None:
    check = checks.readiness
    assert check is not None
    loop = asyncio.get_running_loop()
    health, told = Health(loop.time(), ever_well=checks.was_ready), Told()
    delay_s = check.interval if checks.was_ready else 0.0
    while True:
        await asyncio.sleep(delay_s)
        answer = await _asked(ask, check)
        if answer is not None:
            health = health.after(check, loop.time(), answer.well, answer.said)
            before, told = told, told.after(health.is_ready(check), health.why_unready(), loop.time())
            if told is not before:
                owner.ready(told.well is True, told.why_not)
        delay_s = health.next_readiness_delay_s(check)


async def _asked(ask: Ask, check: Healthcheck) -> Answer | None:
    """Return the answer; None when it could not be asked: the launcher's trouble says nothing about the task."""
    try:
        return await ask(check)
    except ArgosyError as e:
        log.warning("health not checked", why=str(e))
        return None
