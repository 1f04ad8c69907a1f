"""Health of one task from the outcomes of its checks: a pure fold, after Compose's `healthcheck`.

While the task has never been well and its start period lasts, failures do not count and checks come every
`start_interval`. After that, `retries` failures in a row make it unhealthy.
"""

from dataclasses import dataclass, replace

from argosy.core.service import Healthcheck


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

    def reason(self) -> str:
        """Say why it was given up."""
        said = self.last_output.strip().splitlines()
        tail = f": {said[-1][:200]}" if said else ""
        return f"unhealthy: its health check failed {self.failures} times in a row{tail}"


def effective_check(spec: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """Return the check to run: the service's over the image's; None where there is none or it is switched off.

    A service that sets only times takes the test of the image (Compose).
    """
    check = spec or image
    if check is None:
        return None
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
