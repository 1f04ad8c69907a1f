"""What a node was told, piece by piece: by key, and those of a kind together. Pure.

There may be ten thousands, of which one changes: a set that follows another shares with it the kinds in which nothing
did, and who asks for one kind goes through no others.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from argosy.core.assignment import Piece, key_of

P = TypeVar("P", bound=Piece)


class Pieces(Mapping[str, Piece]):
    """Never changed in place. A key has one piece, of whatever kind."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._kinds: dict[type, dict[str, Piece]] = {}
        self._listed: dict[type, list[Any]] = {}
        found = {key_of(piece): piece for piece in pieces}
        for key, piece in found.items():
            self._kinds.setdefault(type(piece), {})[key] = piece

    def of(self, kind: type[P]) -> Sequence[P]:
        """Return all pieces of one kind: the same list as before where none of them has changed."""
        listed = self._listed.get(kind)
        if listed is None:
            listed = self._listed[kind] = list(self._kinds.get(kind, {}).values())
        return listed

    def changed(self, put: Mapping[str, Piece], remove: Iterable[str] = ()) -> "Pieces":
        """Return these pieces without those to remove, and with others in addition, or in place of theirs."""
        after = Pieces()
        after._kinds = dict(self._kinds)
        changed: set[type] = set()

        def change(kind: type) -> dict[str, Piece]:
            if kind not in changed:
                changed.add(kind)
                after._kinds[kind] = dict(after._kinds.get(kind, {}))
            return after._kinds[kind]

        for key in remove:
            if (kind := self._kind(key)) is not None:
                change(kind).pop(key, None)
        for key, piece in put.items():
            pieces = change(type(piece))
            if key not in pieces and (before := after._kind(key)) is not None:
                del change(before)[key]
            pieces[key] = piece
        after._listed = {kind: listed for kind, listed in self._listed.items() if kind not in changed}
        return after

    def __getitem__(self, key: str) -> Piece:
        kind = self._kind(key)
        if kind is None:
            raise KeyError(key)
        return self._kinds[kind][key]

    def __iter__(self) -> Iterator[str]:
        for pieces in self._kinds.values():
            yield from pieces

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def __repr__(self) -> str:
        return f"Pieces({list(self.values())})"

    def _kind(self, key: str) -> type | None:
        return next((kind for kind, pieces in self._kinds.items() if key in pieces), None)
