"""Cycles in depends_on are found and spelled out."""

import pytest

from argosy.core.dependencies import find_cycle, spell


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ({}, ""),
        ({"web": ["db"], "db": []}, ""),
        ({"web": ["db", "cache"], "db": ["disk"], "cache": ["disk"]}, ""),
        ({"web": ["gone"]}, ""),
        ({"a": ["a"]}, "a -> a"),
        ({"a": ["b"], "b": ["a"]}, "a -> b -> a"),
        ({"web": ["api"], "api": ["db"], "db": ["queue"], "queue": ["api"]}, "api -> db -> queue -> api"),
    ],
)
def test_find_cycle(edges: dict[str, list[str]], cycle: str) -> None:
    assert spell(find_cycle(edges)) == cycle


def test_a_long_chain_is_no_matter() -> None:
    edges = {f"s{i}": [f"s{i + 1}"] for i in range(20_000)}
    assert find_cycle(edges) == ()
    assert len(find_cycle({**edges, "s20000": ["s0"]})) == 20_002
