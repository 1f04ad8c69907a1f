"""One agent's session on the leader's side: what it was sent, and what to send next.

`messages` yields what goes out: answers in the order in which they were queued, and when the session has a turn
(turns.py), the difference between what the node was last told and what it should have. Its own pieces are compared one
by one; of its networks the session knows up to which edition the node was told (feeds.py). What changes while a
difference is being sent waits for the next, so a slow node costs no memory.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from enum import IntEnum
from math import inf
from typing import Final, Protocol

from argosy.controller.logic.assign import NodeSet
from argosy.controller.session.feeds import Feeds, joined
from argosy.controller.session.turns import Turns
from argosy.core.assignment import LeaderEpoch, Piece
from argosy.core.wire import encoded, removal
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

PACE_S: Final = 0.003
"""Least time between two differences to a node: what one decision changes goes in one message."""
LEISURE_S: Final = 0.022
"""How much longer a difference takes that nobody waits for now: an endpoint that came."""
IDLE_S: Final = 0.25
"""How long a difference waits for another that changes nothing for anybody: a record that is gone."""


class Haste(IntEnum):
    """How soon a node is to be told of something; whatever goes out sooner takes it along."""

    NOW = 0
    SOON = 1
    SOMETIME = 2


class Source(Protocol):
    """Where a session learns what to tell its node."""

    def wanted(self, node_id: str) -> NodeSet:
        """Return what is to be told to a node alone, and which networks it carries."""

    def filled(self, piece: Piece) -> Piece:
        """Return a piece with what is only put in when it is sent."""

    def leader_epoch(self) -> LeaderEpoch:
        """Return the fencing token of a message sent now."""


class NodeSession:
    """Lives as long as its stream. `close` may be called from anywhere in the loop."""

    def __init__(
        self, node_id: str, session_id: str, source: Source, feeds: Feeds, turns: "Turns[NodeSession]"
    ) -> None:
        self.node_id = node_id
        self.session_id = session_id
        self.sent = NodeSet()
        self.carried: tuple[str, ...] = ()
        """The networks that the node has, or is about to be told of."""
        self._source = source
        self._feeds = feeds
        self._turns = turns
        self._editions: Mapping[str, int] = {}  # of the networks: what the node was told
        self._in_force: Mapping[str, int] = {}  # and what it confirmed last
        self._unconfirmed: dict[int, Mapping[str, int]] = {}  # by version
        self._acknowledged = 0
        self._version = 0
        self._queue: list[pb.ControllerMessage] = []
        self._own = self._shared = False  # whether that may have changed
        self._due_at = inf  # when the node is to be told of that
        self._sending: pb.ControllerMessage | None = None  # the last part of a difference that is not out yet
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = ""
        self._wake = asyncio.Event()

    def send(self, message: pb.ControllerMessage) -> None:
        """Queue an answer."""
        self._queue.append(message)
        self._wake.set()

    def acknowledge(self, version: int) -> None:
        """Note that a version, and so all before it, is in force on the node."""
        self._acknowledged = max(self._acknowledged, version)
        for confirmed in [v for v in self._unconfirmed if v <= version]:
            self._in_force = self._unconfirmed.pop(confirmed)

    def may_send_to(self, network_id: str, endpoint: str) -> bool:
        """Whether the node may still open connections to the endpoint of that key through a virtual address.

        Of a node that has confirmed nothing yet it is not known what it does since before this session.
        """
        if not self._acknowledged:
            return True
        left = self._feeds.left(network_id, endpoint)
        editions = (e[network_id] for e in (self._in_force, *self._unconfirmed.values()) if network_id in e)
        return any(left is None or edition < left for edition in editions)

    def has_in_force(self, network_id: str, edition: int) -> bool:
        """Whether the node has confirmed an edition of a network that it carries."""
        return self._in_force.get(network_id, -1) >= edition

    def mark_dirty(self, *, own: bool = True, haste: Haste = Haste.NOW) -> None:
        """Note that the node's own pieces, or else those of its networks, may differ from what it was sent."""
        due_at = self._due(haste)
        if (self._own if own else self._shared) and self._due_at <= due_at:
            return  # it is known
        if own:
            self._own = True
        else:
            self._shared = True
        self._due_at = min(self._due_at, due_at)
        self._ask_for_turn()

    def close(self, why: str) -> None:
        """End the stream; `why` is for the agent's log."""
        self._closed = self._closed or why
        self._wake.set()

    @property
    def closed(self) -> str:
        """Why the stream ends; "" while it does not."""
        return self._closed

    async def messages(self) -> AsyncIterator[pb.ControllerMessage]:
        """Yield what goes out until the session is closed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._closed:
                return
            queue, self._queue = self._queue, []
            for message in queue:
                yield self._stamped(message)
                if message is self._sending:
                    self._sending = None
                    self._turns.came_out(self)
                    self._ask_for_turn()

    def take_turn(self) -> None:
        """Queue the difference, if there is one."""
        if self._closed or self._sending or not (self._own or self._shared):
            return
        wanted = self._source.wanted(self.node_id) if self._own or not self._version else self.sent
        if (network_id := self._feeds.missing(wanted.networks)) is not None:
            # One a turn: it takes 10 ms. The node counts as one that carries it from now on, or it would be forgotten.
            self._carry((*self.carried, network_id))
            self._feeds.of(network_id)
            self._turns.came_out(self)
            self._ask_for_turn()
            return
        difference = self._difference(wanted)
        if difference:
            self._not_before = asyncio.get_running_loop().time() + PACE_S
            self._sending = difference[-1]
            self._queue += difference
            self._wake.set()

    def _ask_for_turn(self) -> None:
        if not (self._own or self._shared) or self._sending or self._closed:
            return
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_at = max(self._due_at, self._not_before)
        if loop.time() >= due_at:
            self._turns.ask(self, own=self._own, first=not self._version)
        else:
            self._timer = loop.call_at(due_at, self._after_pause)

    def _due(self, haste: Haste) -> float:
        """Return when the node is to be told of what comes to be known now, on the loop's clock: not before that."""
        match haste:
            case Haste.NOW:
                return 0.0
            case Haste.SOON:
                return self._not_before + LEISURE_S
            case Haste.SOMETIME:
                return max(self._not_before + LEISURE_S, asyncio.get_running_loop().time() + IDLE_S)

    def _after_pause(self) -> None:
        self._timer = None
        self._ask_for_turn()

    def _stamped(self, message: pb.ControllerMessage) -> pb.ControllerMessage:
        leader = self._source.leader_epoch()
        message.leader.epoch, message.leader.revision = leader.epoch, leader.revision
        return message

    def _carry(self, networks: tuple[str, ...]) -> None:
        self._feeds.carry(self.node_id, self.carried, networks)
        self.carried = networks

    def _difference(self, wanted: NodeSet) -> list[pb.ControllerMessage]:
        before = self.sent
        self._own = self._shared = False
        self._due_at = inf
        behind = (self._feeds.of(n).floor > edition for n, edition in self._editions.items())
        full = not self._version or any(behind)
        entries = list(self._entries(NodeSet() if full else before, wanted, {} if full else self._editions))
        self._carry(wanted.networks)
        self.sent = wanted
        self._editions = {n: self._feeds.of(n).edition for n in wanted.networks}
        if not full and not entries:
            return []
        version, self._version = self._version, self._version + 1
        self._unconfirmed[self._version] = self._editions
        return [
            pb.ControllerMessage(
                assignments=pb.AssignmentSet(
                    full=full, version=self._version, base_version=version, entries=part, more=more
                )
            )
            for part, more in _parts(entries)
        ]

    def _entries(self, before: NodeSet, wanted: NodeSet, editions: Mapping[str, int]) -> Iterator[bytes]:
        """Yield what makes `wanted` of what a node has: `before`, and its networks as of `editions`."""
        if wanted is not before:
            for key, piece in wanted.pieces.items():
                if before.pieces.get(key) != piece:
                    yield encoded(self._source.filled(piece))
            yield from (removal(key) for key in before.pieces if key not in wanted.pieces)
        for network_id in sorted(editions.keys() - set(wanted.networks)):
            yield from self._feeds.of(network_id).removals(editions[network_id])
        for network_id in wanted.networks:
            feed = self._feeds.of(network_id)
            edition = editions.get(network_id)
            if edition != feed.edition:
                yield from feed.all() if edition is None else feed.since(edition)


def _parts(entries: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield the entries joined, as many as go in one message; with each, whether more follow."""
    parts = list(joined(entries)) or [b""]
    yield from ((part, number < len(parts)) for number, part in enumerate(parts, 1))
