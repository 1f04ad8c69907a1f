"""The availability budget: how many of a service's tasks may be missing at once by our own doing.

One budget holds for everything that the controller itself does to a service: updates, drains, rebalancing and the
evictions that follow a changed label or constraint. `Budget` is made anew for every plan from what serves at that
moment, so nothing has to be kept, and a new leader knows as much as the old one did. A slot that does not serve counts
as missing, whatever the reason: it failed, its node is lost, or it is just being replaced.

    ""      no budget of its own: an update keeps to its parallelism, moves start first, or go one at a time
    "2"     two tasks
    "25%"   that share of the wanted tasks, rounded down
"""

from dataclasses import dataclass
from math import inf
from typing import Final

from argosy.core.errors import InvalidError

MOST: Final = 100_000
"""As many as a service may have replicas."""
WAITING: Final = "waits for the availability budget"
"""How `Budget.explain` begins."""


@dataclass(frozen=True, slots=True)
class MaxUnavailable:
    """A `max_unavailable` that was read: a number of tasks, or (`percent`) a share of those that are wanted."""

    number: int
    percent: bool = False

    def of(self, wanted: int) -> int:
        """Return how many of so many tasks that is. A share is rounded down: the budget is a promise."""
        return wanted * self.number // 100 if self.percent else self.number

    def __str__(self) -> str:
        """Return it as one writes it."""
        return f"{self.number}%" if self.percent else str(self.number)


def parse_max_unavailable(text: str) -> MaxUnavailable | None:
    """Read "2", "25%" or "" (None: no budget of its own). InvalidError says what is wrong with anything else."""
    if not text:
        return None
    digits = text.removesuffix("%")
    percent = digits != text
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidError(f'max_unavailable is "{text}": write a number of tasks such as 2, or a share such as 25%')
    number = int(digits) if len(digits) <= len(str(MOST)) else MOST + 1
    if percent and number > 100:
        raise InvalidError(f"max_unavailable is {text}: more than 100% of the tasks cannot be missing")
    if number > MOST:
        raise InvalidError(f"max_unavailable is {text}: it can be at most {MOST:,}")
    return MaxUnavailable(number, percent)


class Budget:
    """What a plan may still take out of service. Mutable: it belongs to one plan of one service.

    `limit` None is no budget of its own. `missing`: slots that do not serve as the plan begins.
    """

    def __init__(self, limit: int | None, missing: int) -> None:
        self.limit = limit
        self.missing = missing

    @property
    def left(self) -> float:
        """How many more slots may be taken out of service now (inf: as many as one likes)."""
        return inf if self.limit is None else max(0, self.limit - self.missing)

    def explain(self) -> str:
        """Say why no more is taken out of service, in words that stay the same while one waits."""
        return f"{WAITING}: at most {self.limit} may be missing at once"
