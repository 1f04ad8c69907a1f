"""Which service waits for which: the graph of `depends_on`, without a way back to where one began."""

from collections.abc import Iterable, Mapping
from typing import Final

from argosy.core.service import DependencyCondition

CONDITION_NAMES: Final[Mapping[DependencyCondition, str]] = {
    DependencyCondition.STARTED: "started",
    DependencyCondition.HEALTHY: "healthy",
    DependencyCondition.COMPLETED: "completed",
}
"""What has been reached, as people read it."""


def find_cycle(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return a cycle as the names on it, the first one again at the end; () where there is none.

    `edges`: what each waits for; names without an entry wait for nothing. O(names + edges), no recursion.
    """
    done: set[str] = set()
    for start in sorted(edges):
        path: list[str] = []
        on_path: set[str] = set()
        ahead = [(start, iter((start,)))]
        while ahead:
            name = next(ahead[-1][1], None)
            if name is None:
                ahead.pop()
                if path:
                    on_path.discard(path[-1])
                    done.add(path.pop())
            elif name in on_path:
                return (*path[path.index(name) :], name)
            elif name not in done:
                path.append(name)
                on_path.add(name)
                ahead.append((name, iter(edges.get(name, ()))))
    return ()


def spell(cycle: Iterable[str]) -> str:
    """Return a cycle for a person: "a -> b -> a"."""
    return " -> ".join(cycle)
