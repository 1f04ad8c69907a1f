"""Comparing what is intended with what the kernel has."""

from collections.abc import Iterator

from argosy.agent.logic.network_state import State, Sysctl
from argosy.agent.network.desired import Drift, DriftKind


def differences(network_id: str, wanted: State, actual: State) -> Iterator[Drift]:
    """Yield each difference, in the words of `ip`; settings that nobody wants are nobody's business."""
    for key, entry in wanted.items():
        there = actual.get(key)
        if there is None:
            yield Drift(network_id, DriftKind.MISSING, str(entry))
        elif there != entry:
            yield Drift(network_id, DriftKind.DIFFERENT, f"{there}, not {entry}")
    for key, entry in actual.items():
        if key not in wanted and not isinstance(entry, Sysctl):
            yield Drift(network_id, DriftKind.UNEXPECTED, str(entry))
