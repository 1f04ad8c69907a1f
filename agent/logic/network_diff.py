"""From what is there and what is wanted to the operations that lead from one to the other, in a safe order. Pure.

Everything wanted is written before anything is removed: traffic that both states allow is never interrupted. Only
devices that keep wanted ones from being made go first, and then all that hung on them is written again: those that
cannot be changed in place, and VTEPs of other names that have the VNI of a wanted one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from argosy.agent.logic.network_state import Entry, Key, Link, LinkKind, Setting, State, device_of, key_of


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
    first = sorted([*_replaced(actual, wanted), *_in_the_way(actual, wanted)], key=lambda link: link.name)
    lost = {link.name for link in first}
    fresh = lost | {e.name for key, e in wanted.items() if isinstance(e, Link) and key not in actual}
    bare = fresh | {link.name for link in _readdressed(actual, wanted)}
    puts = [
        (key, Put(entry, creates=isinstance(entry, Link) and entry.name in fresh))
        for key, entry in wanted.items()
        if device_of(entry) in bare or actual.get(key) != entry
    ]
    puts.sort(key=_order)
    return [
        *(Remove(link) for link in first),
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


def is_in_the_way(entry: Entry, wanted: State) -> bool:
    """Tell whether an entry that is there keeps a wanted VTEP from being made: the kernel has a VNI once only.

    Such is our own VTEP after somebody gave it another name.
    """
    return (
        isinstance(entry, Link)
        and entry.kind is LinkKind.VTEP
        and key_of(entry) not in wanted
        and any(isinstance(e, Link) and e.kind is LinkKind.VTEP and e.vni == entry.vni for e in wanted.values())
    )


def _in_the_way(actual: State, wanted: State) -> Iterator[Link]:
    for entry in actual.values():
        if isinstance(entry, Link) and is_in_the_way(entry, wanted):
            yield entry


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
