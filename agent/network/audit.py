"""Comparing what is intended with what the kernel has."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from argosy.agent.logic.network_state import Setting, State
from argosy.agent.network.desired import Drift, DriftKind

MESH: Final = "mesh"
"""Stands for the namespace of the mesh (mesh.py) where else there are networks' ids, which are longer."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at, by the ids of networks, "" for the host's namespace and MESH; None: all of them."""

    entries_of: frozenset[str] | None = None
    tables_of: frozenset[str] | None = None

    def entries(self, network_id: str) -> bool:
        """Whether links, addresses, routes and the like are looked at."""
        return self.entries_of is None or network_id in self.entries_of

    def tables(self, network_id: str) -> bool:
        """Whether nftables is looked at, which costs more the more there is in it."""
        return self.tables_of is None or network_id in self.tables_of


EVERYTHING: Final = Scope()


def differences(network_id: str, wanted: State, actual: State) -> Iterator[Drift]:
    """Yield each difference, in the words of `ip`; settings that nobody wants are nobody's business."""
    for key, entry in wanted.items():
        there = actual.get(key)
        if there is None:
            yield Drift(network_id, DriftKind.MISSING, str(entry))
        elif there != entry:
            yield Drift(network_id, DriftKind.DIFFERENT, f"{there}, not {entry}")
    for key, entry in actual.items():
        if key not in wanted and not isinstance(entry, Setting):
            yield Drift(network_id, DriftKind.UNEXPECTED, str(entry))
