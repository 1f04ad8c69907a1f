"""The time rules of `disconnect: fence`: at most one running task in each slot, whatever is cut off from whom.

A node runs fenced tasks only while it holds a *grant*. A grant comes with each acknowledged heartbeat and ends after
so many seconds, counted by the node from when it *sent* that heartbeat; then the node's guard ends the fenced tasks, by
their stop signal and, after their grace period, by SIGKILL. They are never started again. The leader replaces a fenced
task of a node that it does not hear only when the node's last grant and all that follows it are surely over:

    last grant ends ── guard wakes and signals ── stop grace ── SIGKILL, reaped ── the replacement may start
                     └────────── MARGIN_S is for all but the grace, and for clocks that drift ──────────┘

Why it holds across leaders: a grant ends at most GRANT_S after the leader *sent* the last renewal of its lease that
etcd confirmed. Another can be elected only after that lease was ended, which is later than that renewal. So all grants
of former leaders end by election + GRANT_S, and a new leader treats every node as granted at its own election.

All times are seconds of CLOCK_BOOTTIME of the machine that counts them (a suspended machine counts on); a paused
virtual machine, whose clocks stand still, is outside the promise.
"""

from collections.abc import Callable
from typing import Final

GRANT_S: Final = 15.0
"""The longest grant. Leaders must agree on it; a failover and a new session take a few seconds, and with 5,000 nodes
heartbeats come every 5 s: neither may end a task that is well."""
WAKE_MARGIN_S: Final = 1.0
"""How late the guard may wake, signal, and see a killed task die, on a busy host."""
DRIFT: Final = 1e-3
"""How much two clocks may drift apart (NTP slews by at most 500 ppm, either way)."""
MARGIN_S: Final = WAKE_MARGIN_S + GRANT_S * DRIFT
"""What the leader waits beyond grant and grace."""


class Grants:
    """The leader's memory of the grants of its term. `clock` is CLOCK_BOOTTIME, read after the election."""

    def __init__(self, clock: Callable[[], float], confirmed_at: Callable[[], float]) -> None:
        """`confirmed_at`: when the last confirmed renewal of the leader's lease was sent."""
        self._clock = clock
        self._confirmed_at = confirmed_at
        self._former_end = clock() + GRANT_S
        self._ends: dict[str, float] = {}

    def grant(self, node_id: str) -> float:
        """Return for how many seconds a node that has just sent a heartbeat may run fenced tasks; 0: no longer.

        Call it before the answer goes out: what is granted counts from then on.
        """
        end = self._confirmed_at() + GRANT_S
        seconds = end - self._clock()
        if seconds <= 0:
            return 0.0
        self._ends[node_id] = max(end, self._ends.get(node_id, 0.0))
        return seconds

    def replace_in(self, node_id: str, grace_s: float) -> float:
        """Return in how many seconds a fenced task of a node may be replaced; not positive: now.

        `grace_s` is the task's stop grace period.
        """
        end = max(self._ends.get(node_id, 0.0), self._former_end)
        return end + grace_s + MARGIN_S - self._clock()
