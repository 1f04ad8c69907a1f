"""What the leader makes of the silence of nodes: READY, AGENT_LOST, DOWN, or UNKNOWN while it cannot tell.

A node speaks with two voices: its agent's session and its launcher's own small beat, so a dead agent is not taken for
a dead host. `plan_nodes` is called by the node loop when a voice is heard after silence, and at the time that the last
plan named; both voices are kept in the leader's memory only, on its monotonic clock.

    agent heard within 3 periods                      READY
    host heard, agent not                             AGENT_LOST: nothing is replaced, for agent_lost_after
    neither, or AGENT_LOST for longer                 DOWN: its tasks are replaced; until its *agent* is heard again
    not heard yet since this leader began to listen   UNKNOWN (from READY), for a grace period
    one of many lost at once                          UNKNOWN, for brake_s: see below

**Verdicts outlive leaders.** DOWN and AGENT_LOST stay as they are stored until the agent is heard, by whichever leader;
of an agent that this one has not heard, `NodeStatus.since` tells how much of agent_lost_after is over. The same holds
after a leader was stalled itself: what it missed is held against nobody, and what it had found before stands.

**The brake.** When more than one node and over a third of them fall silent within one window, most likely something
between us and them failed, and to replace everything would make it worse. So these nodes stay UNKNOWN, and are
called DOWN only if they are silent for `brake_s` more. Nodes beat out of step, so when the first one's time is up,
others that are silent for two beats count as lost with it. They come back out of step, too: once so many are back that
the rest would be no mass loss, each of the rest has `lost_after_s` from the latest return to show up.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from argosy.controller.logic.actions import Plan, SetNodeStatus
from argosy.core.node import Node, NodeState, NodeStatus

BASE_PERIOD_S: Final = 0.9
"""Three of them missed is 2.7 s: a host that is cut off is noticed in under 3 s."""
MAX_BEATS_PER_S: Final = 2000
"""What the leader may have to hear: beyond it the period grows with the cluster."""
BEATS_PER_PERIOD: Final = 2
"""Of a node: its agent's and its host's."""
MISSED: Final = 3
JITTER: Final = 0.1
"""Nodes spread their beats by this share of the period, either way."""


@dataclass(frozen=True, slots=True)
class NodeTiming:
    """When silence means what, in seconds.

    `lost_after_s`: a voice not heard for so long is lost. `suspect_after_s`: silence that looks like the beginning of a
    loss. `grace_s`: how long a new leader waits for nodes that it has not heard yet. `brake_window_s`: losses within it
    are one event, which `brake_s` holds up.
    """

    period_s: float
    lost_after_s: float
    suspect_after_s: float
    grace_s: float = 10.0
    agent_lost_after_s: float = 600.0
    brake_s: float = 30.0
    brake_window_s: float = 10.0


def heartbeat_period(nodes: int) -> float:
    """Return the period, in seconds, at which agents and hosts of a cluster of so many nodes should beat."""
    return max(BASE_PERIOD_S, nodes * BEATS_PER_PERIOD / MAX_BEATS_PER_S)


def timing_for(nodes: int) -> NodeTiming:
    """Return the timing of a cluster of so many nodes."""
    period = heartbeat_period(nodes)
    lost_after = MISSED * period
    return NodeTiming(period, lost_after, lost_after - (1 + JITTER) * period, max(10.0, 2 * lost_after))


@dataclass(frozen=True, slots=True)
class Heard:
    """When a node's two voices were last heard, on the leader's monotonic clock; None: not in this leader's time.

    `trouble`: why its agent ended, as its host tells; "" where it does not.
    """

    agent_at: float | None = None
    host_at: float | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Silence:
    """A node with the moments at which its voices count as lost, if nothing more is heard of them.

    `lost_at` is when both are; `agent_heard` tells whether the agent spoke since this leader began to listen, `known`
    whether it spoke to this leader at all, before it was stalled; `trouble` what the host tells of its agent's end.
    """

    node: Node
    known: bool
    agent_heard: bool
    agent_lost_at: float
    lost_at: float
    trouble: str


def plan_nodes(
    nodes: Iterable[Node],
    heard: Mapping[str, Heard],
    *,
    listening_since: float,
    now: float,
    wall: float,
    timing: NodeTiming,
) -> Plan:
    """Return the changes of the nodes' states.

    `now` and `listening_since` (when this leader began to listen, or to listen again after it was stalled itself) are
    on its monotonic clock, as is `Plan.wake_at`; `wall` is the time for people, stored in `NodeStatus.since`.
    """
    silences = [_silence(node, heard.get(node.meta.id, Heard()), listening_since, timing) for node in nodes]
    brake = _Brake(silences, now, wall, timing)
    actions = []
    wake_at: float | None = None
    for silence in silences:
        old = silence.node.status
        state, message, until = _judge(silence, brake, now, wall, timing)
        if until is not None and (wake_at is None or until < wake_at):
            wake_at = until
        if state is not old.state or message != old.message:
            since = old.since if state is old.state else wall
            actions.append(SetNodeStatus(silence.node.meta.id, NodeStatus(state, message, since)))
    return Plan(tuple(actions), wake_at)


def _silence(node: Node, heard: Heard, listening_since: float, timing: NodeTiming) -> _Silence:
    """Work out a node's deadlines. Silence while the leader did not listen is not held against it."""
    agent_heard = heard.agent_at is not None and heard.agent_at >= listening_since
    if heard.agent_at is not None:
        agent_lost_at = max(heard.agent_at, listening_since) + timing.lost_after_s
    else:
        agent_lost_at = listening_since + timing.grace_s
    lost_at = agent_lost_at
    if heard.host_at is not None:
        lost_at = max(lost_at, max(heard.host_at, listening_since) + timing.lost_after_s)
    return _Silence(node, heard.agent_at is not None, agent_heard, agent_lost_at, lost_at, heard.trouble)


def _judge(
    silence: _Silence, brake: "_Brake", now: float, wall: float, timing: NodeTiming
) -> tuple[NodeState, str, float | None]:
    """Return a node's state, what to say of it, and when that will change if nothing is heard (None: never)."""
    stored = silence.node.status
    if now < silence.agent_lost_at and silence.agent_heard:
        return NodeState.READY, "", silence.agent_lost_at
    if stored.state is NodeState.DOWN:
        return stored.state, stored.message, None
    if now < silence.agent_lost_at:
        if stored.state is NodeState.READY and not silence.known:
            message = "the controller that leads now has not heard of it yet"
            return NodeState.UNKNOWN, message, silence.agent_lost_at
        return stored.state, stored.message, silence.agent_lost_at
    if now < silence.lost_at:
        return _while_host_beats(silence, now, wall, timing)
    held_until = brake.holds_until(silence)
    if now < held_until:
        return NodeState.UNKNOWN, _brake_message(timing), held_until
    return NodeState.DOWN, "neither its agent nor its host is heard", None


def _while_host_beats(
    silence: _Silence, now: float, wall: float, timing: NodeTiming
) -> tuple[NodeState, str, float | None]:
    lost_at = silence.agent_lost_at
    stored = silence.node.status
    if stored.state is NodeState.AGENT_LOST and not silence.agent_heard:  # found before this leader began to listen
        lost_at = min(lost_at, now - (wall - stored.since))
    replace_at = lost_at + timing.agent_lost_after_s
    why = f" ({silence.trouble})" if silence.trouble else ""
    if now >= replace_at:
        return NodeState.DOWN, f"its agent has been away for {timing.agent_lost_after_s:g} s{why}", None
    message = f"its host is up but its agent is away{why}: nothing is replaced for {timing.agent_lost_after_s:g} s"
    return NodeState.AGENT_LOST, message, min(silence.lost_at, replace_at)


def _brake_message(timing: NodeTiming) -> str:
    return f"lost together with many other nodes: replacing its tasks waits {timing.brake_s:g} s"


class _Brake:
    """Tells which lost nodes are part of a mass loss that is still to be waited for."""

    def __init__(self, silences: Sequence[_Silence], now: float, wall: float, timing: NodeTiming) -> None:
        warning = timing.lost_after_s - timing.suspect_after_s
        silent = [s for s in silences if now >= s.lost_at - warning and not _is_old_loss(s)]
        self._losses = sorted(s.lost_at for s in silent)
        self._losses_of_down = sorted(s.lost_at for s in silent if _is_down(s))
        self._not_down = sum(1 for s in silences if not _is_down(s))
        self._timing = timing
        self._latest_return = max((_returned_at(s, now, wall) for s in silences), default=-inf)

    def holds_until(self, silence: _Silence) -> float:
        """Return until when the loss of this node is held up, if nothing more happens; -inf: it is not."""
        longest = silence.lost_at + self._timing.brake_s
        lost = self._within_window(self._losses, silence.lost_at)
        of_how_many = self._not_down + self._within_window(self._losses_of_down, silence.lost_at)
        if lost > 1 and 3 * lost > of_how_many:
            return longest
        status = silence.node.status
        if status.state is NodeState.UNKNOWN and status.message == _brake_message(self._timing):
            return min(longest, self._latest_return + self._timing.lost_after_s)
        return -inf

    def _within_window(self, losses: Sequence[float], around: float) -> int:
        window = self._timing.brake_window_s
        return bisect_right(losses, around + window) - bisect_left(losses, around - window)


def _returned_at(silence: _Silence, now: float, wall: float) -> float:
    """Return since when a node has been READY, on the leader's monotonic clock; -inf while it is not."""
    status = silence.node.status
    if not silence.agent_heard or now >= silence.agent_lost_at:
        return -inf
    return status.since - wall + now if status.state is NodeState.READY else now


def _is_down(silence: _Silence) -> bool:
    return silence.node.status.state is NodeState.DOWN


def _is_old_loss(silence: _Silence) -> bool:
    """Whether a node was DOWN before this leader's time, so that nobody knows when it was lost."""
    return _is_down(silence) and not silence.agent_heard
