"""What a node was told, piece by piece: by key, and those of a kind together. Pure.

There may be ten thousands, of which one changes: a set that follows another shares with it the kinds in which nothing
did, who asks for one kind goes through no others, and a kind knows how it differs from what it follows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload
from weakref import ref

from argosy.core.assignment import Piece, key_of

P = TypeVar("P", bound=Piece)


class Kind(Sequence[P], Generic[P]):
    """All pieces of one kind in a set. Never changed in place."""

    __slots__ = ("__weakref__", "_followed", "_fresh", "_gone", "_listed", "_pieces")

    def __init__(self, pieces: Mapping[str, P], follows: "Kind[P] | None" = None, touched: Iterable[str] = ()) -> None:
        """`pieces` are its own, by key; they differ from those of the kind that it follows at most in some keys."""
        self._pieces = pieces
        self._listed: list[P] | None = None
        self._followed = ref(follows) if follows is not None else None
        before = follows._pieces if follows is not None else {}
        keys = [key for key in touched if before.get(key) != pieces.get(key)]
        self._gone = [before[key] for key in keys if key in before]
        self._fresh = [pieces[key] for key in keys if key in pieces]

    def since(self, other: Sequence[P]) -> tuple[list[P], list[P]] | None:
        """Return which pieces only another sequence has, and which only this, if this one follows it; else None."""
        if other is self:
            return [], []
        follows = self._followed is not None and self._followed() is other
        return (list(self._gone), list(self._fresh)) if follows else None

    def changed(self, put: Mapping[str, P], remove: Iterable[str]) -> "Kind[P]":
        """Return these pieces without those of some keys, and with others in addition, or in place of theirs."""
        pieces = {**self._pieces, **put}
        removed = [key for key in remove if key not in put]
        for key in removed:
            pieces.pop(key, None)
        return Kind(pieces, self, (*removed, *put))

    def keyed(self) -> Mapping[str, P]:
        """Return the pieces by key."""
        return self._pieces

    def __iter__(self) -> Iterator[P]:
        return iter(self._pieces.values())

    def __len__(self) -> int:
        return len(self._pieces)

    @overload
    def __getitem__(self, index: int) -> P: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[P]: ...
    def __getitem__(self, index: int | slice) -> P | Sequence[P]:
        if self._listed is None:
            self._listed = list(self._pieces.values())
        return self._listed[index]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


class Pieces(Mapping[str, Piece]):
    """Never changed in place. A key has one piece, of whatever kind."""

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        kinds: dict[type, dict[str, Piece]] = {}
        found = {key_of(piece): piece for piece in pieces}
        for key, piece in found.items():
            kinds.setdefault(type(piece), {})[key] = piece
        self._kinds: dict[type, Kind[Any]] = {kind: Kind(pieces) for kind, pieces in kinds.items()}

    def of(self, kind: type[P]) -> Sequence[P]:
        """Return all pieces of one kind: the same object as before where none of them has changed."""
        return self._kinds.get(kind, ())

    def changed(self, put: Mapping[str, Piece], remove: Iterable[str] = ()) -> "Pieces":
        """Return these pieces without those to remove, and with others in addition, or in place of theirs."""
        puts: dict[type, dict[str, Piece]] = {}
        removes: dict[type, list[str]] = {}
        for key, piece in put.items():
            puts.setdefault(type(piece), {})[key] = piece
        for key in dict.fromkeys((*remove, *put)):
            if (before := self._kind(key)) is not None:
                removes.setdefault(before, []).append(key)
        after = Pieces()
        after._kinds = dict(self._kinds)
        for kind in dict.fromkeys((*puts, *removes)):
            pieces = self._kinds.get(kind) or Kind[Any]({})
            after._kinds[kind] = pieces.changed(puts.get(kind, {}), removes.get(kind, ()))
        return after

    def __getitem__(self, key: str) -> Piece:
        kind = self._kind(key)
        if kind is None:
            raise KeyError(key)
        piece: Piece = self._kinds[kind].keyed()[key]
        return piece

    def __iter__(self) -> Iterator[str]:
        for pieces in self._kinds.values():
            yield from pieces.keyed()

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def __repr__(self) -> str:
        return f"Pieces({list(self.values())})"

    def _kind(self, key: str) -> type | None:
        return next((kind for kind, pieces in self._kinds.items() if key in pieces.keyed()), None)
