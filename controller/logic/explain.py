"""Which nodes could run one more task of a service, and why each of the others could not: for `service explain`. Pure.

The same filters answer as when the scheduler places a task (filters.py), so what is said here is why it decided so.
"""

from dataclasses import dataclass
from typing import Final

from argosy.controller.logic.ask import Ask
from argosy.controller.logic.cluster_view import ClusterView
from argosy.controller.logic.filters import explain, refusal_of
from argosy.controller.logic.shunned import FAILURES, WINDOW_S
from argosy.controller.logic.spread import Candidates

COMES_LAST: Final = (
    f"comes last: within {WINDOW_S:g} s it rejected a task of the service, or {FAILURES} or more failed there"
)


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """What the scheduler makes of one node. `fits`: it could run another task; `next`: it would get it.

    `reason`: why it does not fit, or why it comes last though it does.
    """

    node: str
    fits: bool
    reason: str
    tasks: int
    next: bool = False


def verdicts(ask: Ask, view: ClusterView) -> tuple[NodeVerdict, ...]:
    """Return what is to say of each node, by name."""
    best = Candidates(view, ask).best()
    found = []
    for position, info in enumerate(view.infos):
        refusal = refusal_of(ask, view, position)
        last = COMES_LAST if view.shunned(ask.service) >> position & 1 else ""
        reason = refusal.verb if refusal is not None else last
        count = info.services.get(ask.service, 0)
        found.append(NodeVerdict(info.name, refusal is None, reason, count, position == best))
    return tuple(sorted(found, key=lambda verdict: verdict.node))


def summary(ask: Ask, view: ClusterView) -> str:
    """Say why no node could run another task, counted; "" when one could."""
    return "" if Candidates(view, ask).best() is not None else explain(ask, view)
