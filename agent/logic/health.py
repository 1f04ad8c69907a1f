"""Health of one task from the outcomes of its checks: a pure fold, after Compose's `healthcheck`.

While the task has never been well and its start period lasts, failures do not count and checks come every
`start_interval`. After that, `retries` failures in a row mean: of liveness, that the task is unhealthy for good and
is ended; of readiness, that it gets no requests until a check passes again. A task with a readiness check is not ready
before one passed, so that is asked at once and then every `start_interval`.
"""

from dataclasses import dataclass, replace
from typing import Final

from argosy.core.service import Healthcheck

LONGEST_ANSWER: Final = 200
"""Characters of a bad answer that a reason quotes."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
"""How soon other words for the same are told: at first, and at last."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the checks so far say. `started_at` and `now` below are on one clock, in seconds."""

    started_at: float
    ever_well: bool = False
    failures: int = 0
    last_output: str = ""

    def after(self, check: Healthcheck, now: float, well: bool, output: str) -> "Health":
        """Return the health after one more check."""
        if well:
            return replace(self, ever_well=True, failures=0, last_output="")
        if self.in_start_period(check, now):
            return replace(self, last_output=output)
        return replace(self, failures=self.failures + 1, last_output=output)

    def in_start_period(self, check: Healthcheck, now: float) -> bool:
        """Whether failures do not count yet."""
        return not self.ever_well and now - self.started_at < check.start_period

    def given_up(self, check: Healthcheck) -> bool:
        """Whether the task is unhealthy for good."""
        return self.failures >= max(1, check.retries)

    def next_delay_s(self, check: Healthcheck, now: float) -> float:
        """Return the seconds until the next check."""
        return check.start_interval if self.in_start_period(check, now) else check.interval

    def is_ready(self, check: Healthcheck) -> bool:
        """Whether a task with this readiness check gets requests."""
        return self.ever_well and not self.given_up(check)

    def next_readiness_delay_s(self, check: Healthcheck) -> float:
        """Return the seconds until readiness is asked again: soon while the task has never been ready."""
        return check.interval if self.ever_well else min(check.start_interval, check.interval)

    def reason(self) -> str:
        """Say why liveness was given up."""
        times = "once" if self.failures == 1 else f"{self.failures} times"
        return f"health check failed {times}{self._tail()}"

    def why_unwell(self) -> str:
        """Say why the task does not count as running yet."""
        return f"its health check fails{self._tail()}"

    def why_unready(self) -> str:
        """Say why the task gets no requests."""
        return f"not ready{self._tail() or ': waiting for the first answer of its readiness check'}"

    def _tail(self) -> str:
        said = self.last_output.strip().splitlines()
        return f": {said[0].strip()[:LONGEST_ANSWER]}" if said else ""


@dataclass(frozen=True, slots=True)
class Told:
    """What was told of a task last. Each telling is a write of the controller's.

    So of a bad answer that reads differently each time (a time, a request's id) not every one is told.
    """

    well: bool | None = None
    why_not: str = ""
    again_at: float = 0.0
    pause_s: float = 0.0

    def after(self, well: bool, why_not: str, now: float) -> "Told":
        """Return what is to be told now; itself, if that is nothing."""
        if well is not self.well:
            return Told(well, why_not, now + FIRST_PAUSE_S, FIRST_PAUSE_S)
        if well or why_not == self.why_not or now < self.again_at:
            return self
        pause_s = min(LONGEST_PAUSE_S, 2 * self.pause_s)
        return Told(well, why_not, now + pause_s, pause_s)


def effective_check(spec: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """Return the check to run: the service's over the image's; None where there is none or it is switched off.

    A service that sets only times takes the test of the image (Compose).
    """
    check = spec or image
    if check is None or check.http or check.tcp or check.grpc:
        return check
    if not check.test and image is not None:
        check = replace(check, test=image.test)
    if not check.test or check.test[0] == "NONE":
        return None
    return check


def command_of(check: Healthcheck) -> tuple[str, ...]:
    """Return the argument vector that a check runs."""
    kind, *rest = check.test
    if kind == "CMD":
        return tuple(rest)
    return ("/bin/sh", "-c", " ".join(rest))
