"""What all nodes that carry a network are told alike: encoded once, and kept in the order in which it changed.

Every change of a piece is an *edition* (a number; they count through all networks). A session notes up to which edition
of each network its node was told, and asks for what came since: so a change costs the network once, and each of its
nodes the bytes. Nothing is kept of a node here.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from argosy.core.assignment import EndpointAssignment, Piece, key_of
from argosy.core.wire import encoded, removal

PART_BYTES: Final = 8 * 2**20
"""What goes in one message, at most; one piece alone may be larger. gRPC here takes messages of 64 MiB."""
KEPT: Final = 100
"""Removals that are kept beside as many as there are pieces; who has not been told of older ones gets a full set."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A piece (None: removed) as of an edition, and as it is sent.

    `left`: the edition since which it is no endpoint that gets new connections.
    """

    edition: int
    piece: Piece | None
    data: bytes
    left: int


class Feed:
    """One network's. `floor`: the removals up to that edition are forgotten."""

    def __init__(self, editions: Callable[[], int]) -> None:
        """`editions` gives the next edition's number."""
        self.floor = self.edition = editions()
        self._next = editions
        self._entries: dict[str, _Entry] = {}  # by key, the latest changed last
        self._removed = 0
        self._joined: dict[int | None, list[bytes]] = {}  # of this edition: all, and what came since others

    def put(self, key: str, piece: Piece | None) -> bool:
        """Take note of a piece as it now is, None: it is gone; tell whether that is new."""
        old = self._entries.get(key)
        before = old.piece if old is not None else None
        if before == piece:
            return False
        self.edition = self._next()
        self._joined.clear()
        left = old.left if old is not None and not is_active(before) else self.edition
        data = encoded(piece) if piece is not None else removal(key)
        self._entries.pop(key, None)
        self._entries[key] = _Entry(self.edition, piece, data, left)
        self._removed += (piece is None) - (old is not None and before is None)
        if self._removed > KEPT + len(self._entries) // 2:
            self._forget_removals()
        return True

    def renew(self, pieces: Iterable[Piece]) -> bool:
        """Take all pieces anew; tell whether anything differs."""
        now = {key_of(piece): piece for piece in pieces}
        gone = [key for key, entry in self._entries.items() if entry.piece is not None and key not in now]
        return any([*(self.put(key, None) for key in gone), *(self.put(key, piece) for key, piece in now.items())])

    def all(self) -> list[bytes]:
        """Return all pieces, joined as far as they go in one message."""
        return self._joined_once(None, lambda: (e.data for e in self._entries.values() if e.piece is not None))

    def since(self, edition: int) -> list[bytes]:
        """Return what changed after an edition, which is not below `floor`; joined likewise."""
        return self._joined_once(edition, lambda: (entry.data for entry in self._later_than(edition)))

    def _later_than(self, edition: int) -> Iterable[_Entry]:
        return itertools.takewhile(lambda entry: entry.edition > edition, reversed(self._entries.values()))

    def _joined_once(self, since: int | None, entries: Callable[[], Iterable[bytes]]) -> list[bytes]:
        """Join what many nodes are told, once for all of them: until the next change."""
        found = self._joined.get(since)
        if found is None:
            found = self._joined[since] = list(joined(entries()))
        return found

    def removals(self, edition: int) -> list[bytes]:
        """Return what takes away all that a node has which was told up to an edition (not below `floor`)."""
        there = (key for key, entry in self._entries.items() if entry.piece is not None or entry.edition > edition)
        return [removal(key) for key in there]

    def left(self, key: str) -> int | None:
        """Return the edition since which a node sends nothing new to the endpoint of a key; None: it may now."""
        entry = self._entries.get(key)
        if entry is None:
            return self.floor
        return None if is_active(entry.piece) else entry.left

    def came(self, key: str) -> int | None:
        """Return the edition since which an endpoint gets connections as it does now; None: it gets none."""
        entry = self._entries.get(key)
        return entry.edition if entry is not None and is_active(entry.piece) else None

    def _forget_removals(self) -> None:
        removed = [key for key, entry in self._entries.items() if entry.piece is None]
        for key in removed[: len(removed) // 2]:
            self.floor = self._entries.pop(key).edition
            self._removed -= 1


class Feeds:
    """The feeds of the networks that some session carries, and which nodes those are."""

    def __init__(self, pieces: Callable[[str], Iterable[Piece]]) -> None:
        """`pieces` returns what all carriers of a network are to be told now."""
        self._pieces = pieces
        self._feeds: dict[str, Feed] = {}
        self._stale: dict[str, None] = {}
        self._editions = itertools.count(1)
        self.carriers: defaultdict[str, dict[str, None]] = defaultdict(dict)
        """The nodes with sessions that carry a network."""

    def of(self, network_id: str) -> Feed:
        """Return a network's feed."""
        feed = self._feeds.get(network_id)
        if feed is None:
            feed = self._feeds[network_id] = Feed(lambda: next(self._editions))
            feed.renew(self._pieces(network_id))
        return feed

    def missing(self, networks: Iterable[str]) -> str | None:
        """Return one of the networks that has no feed yet: the first `of` makes it."""
        return next((i for i in networks if i not in self._feeds), None)

    def left(self, network_id: str, key: str) -> int | None:
        """Return the edition since which an endpoint gets nothing new; None: it does, or that is not known any more."""
        feed = self._feeds.get(network_id)
        return feed.left(key) if feed is not None else None

    def came(self, network_id: str, key: str) -> int | None:
        """Return the edition since which an endpoint gets connections as it does now; None: it gets none (yet)."""
        feed = self._feeds.get(network_id)
        return feed.came(key) if feed is not None else None

    def put(self, network_id: str, key: str, piece: Piece | None) -> bool:
        """Take note of one piece of a network; tell whether its carriers have to be told.

        An endpoint that comes waits for a network that is to be looked at as a whole: the way to it may be new, too.
        """
        feed = self._feeds.get(network_id)
        waits = network_id in self._stale and is_active(piece)
        return feed is not None and not waits and feed.put(key, piece)

    def mark_stale(self, network_id: str) -> None:
        """Note that a network is to be looked at as a whole."""
        if network_id in self._feeds:
            self._stale[network_id] = None

    def mark_all_stale(self) -> None:
        """Note that everything may have changed."""
        self._stale = dict.fromkeys(self._feeds)

    def renew_one(self) -> str | None:
        """Look at the network that is stale for longest; return it when its carriers have to be told, else ""."""
        network_id = next(iter(self._stale), None)
        if network_id is None:
            return None
        del self._stale[network_id]
        changed = self._feeds[network_id].renew(self._pieces(network_id))
        return network_id if changed else ""

    def carry(self, node_id: str, before: Iterable[str], now: Iterable[str]) -> None:
        """Note that a node carries other networks than before. A network that nobody carries is forgotten."""
        before, now = set(before), set(now)
        for network_id in now - before:
            self.carriers[network_id][node_id] = None
        for network_id in before - now:
            del self.carriers[network_id][node_id]
            if not self.carriers[network_id]:
                del self.carriers[network_id]
                self._feeds.pop(network_id, None)
                self._stale.pop(network_id, None)


def joined(entries: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the entries joined, PART_BYTES at most together; one alone may be larger."""
    part: list[bytes] = []
    size = 0
    for entry in entries:
        if part and size + len(entry) > PART_BYTES:
            yield b"".join(part)
            part, size = [], 0
        part.append(entry)
        size += len(entry)
    if part:
        yield b"".join(part)


def is_active(piece: Piece | None) -> bool:
    """Whether a piece is an endpoint that gets new connections."""
    return isinstance(piece, EndpointAssignment) and not piece.withdrawn
