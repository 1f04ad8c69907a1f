"""From what is there and what is wanted to the operations that lead from one to the other, in a safe order. Pure.

Everything wanted is written before anything is removed: traffic that both states allow is never interrupted. Only a
device that cannot be changed in place goes first, and then all that hung on it is written again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from argosy.agent.logic.network_state import Entry, Key, Link, Setting, State, device_of, key_of


@dataclass(frozen=True, slots=True)
class Put:
    """Write an entry, replacing one of the same key. `creates` (links): there is no such device; make it."""

    entry: Entry
    creates: bool = False


@dataclass(frozen=True, slots=True)
class Remove:
    """Take an entry away; that it is gone already is fine."""

    entry: Entry


Operation: TypeAlias = Put | Remove


def diff(actual: State, wanted: State) -> list[Operation]:
    """Return the operations that turn `actual` into `wanted`; none if they are equal.

    Applying them (see `after`) to `actual` gives `wanted`, but for settings that nobody wants any more: there is no
    value to give them.
    """
    if actual == wanted:
        return []
    replaced = sorted(_replaced(actual, wanted), key=lambda link: link.name)
    lost = {link.name for link in replaced}
    fresh = lost | {e.name for key, e in wanted.items() if isinstance(e, Link) and key not in actual}
    bare = fresh | {link.name for link in _readdressed(actual, wanted)}
    puts = [
        (key, Put(entry, creates=isinstance(entry, Link) and entry.name in fresh))
        for key, entry in wanted.items()
        if device_of(entry) in bare or actual.get(key) != entry
    ]
    puts.sort(key=_order)
    return [
        *(Remove(link) for link in replaced),
        *(put for _, put in puts),
        *_removals(actual, wanted, lost),
    ]


def after(actual: State, operations: list[Operation]) -> dict[Key, Entry]:
    """Return the state that operations lead to, as the kernel does it: what hangs on a removed device goes with it."""
    state = dict(actual)
    for operation in operations:
        entry = operation.entry
        if isinstance(operation, Put):
            state[key_of(entry)] = entry
        elif isinstance(entry, Link):
            state = {key: e for key, e in state.items() if device_of(e) != entry.name}
        else:
            state.pop(key_of(entry), None)
    return state


def _replaced(actual: State, wanted: State) -> Iterator[Link]:
    for key, entry in wanted.items():
        there = actual.get(key)
        if isinstance(entry, Link) and isinstance(there, Link) and entry.replaces(there):
            yield there


def _readdressed(actual: State, wanted: State) -> Iterator[Link]:
    """Yield links that get another MAC address: the kernel then forgets the neighbours on them."""
    for key, entry in wanted.items():
        there = actual.get(key)
        if isinstance(entry, Link) and isinstance(there, Link) and entry.mac != there.mac:
            yield entry


def _removals(actual: State, wanted: State, lost: set[str]) -> list[Operation]:
    """Routes first, devices last; what goes with its device is not removed singly."""
    gone = [(key, e) for key, e in actual.items() if key not in wanted and device_of(e) not in lost]
    devices = {e.name for _, e in gone if isinstance(e, Link)}
    gone = [
        (key, e)
        for key, e in gone
        if isinstance(e, Link) or (not isinstance(e, Setting) and device_of(e) not in devices)
    ]
    return [Remove(e) for _, e in sorted(gone, key=lambda item: item[0][0], reverse=True)]


def _order(item: tuple[Key, Put]) -> int:
    return item[0][0]
