"""One agent's session on the leader's side: what it was sent, and what to send next.

`messages` yields what goes out: answers in the order in which they were queued, and whenever something about the node
may have changed, the difference between what it was last sent and what it should have. Differences that arise while
one is being sent are joined, so a slow node costs no memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from argosy.core.assignment import EndpointAssignment, LeaderEpoch, Piece
from argosy.core.wire import put_piece
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

PACE_S = 0.025
"""Least time between two differences to a node: what changes within it goes in one message."""

Compute = Callable[[], Mapping[str, Piece]]
Fill = Callable[[Piece], Piece]
"""Puts into a piece what is only put in when it is sent."""


class NodeSession:
    """Lives as long as its stream. `close` may be called from anywhere in the loop."""

    def __init__(
        self, node_id: str, session_id: str, compute: Compute, leader: Callable[[], LeaderEpoch], fill: Fill
    ) -> None:
        self.node_id = node_id
        self.session_id = session_id
        self.sent: Mapping[str, Piece] = {}
        self._acknowledged = 0
        self._compute = compute
        self._leader = leader
        self._fill = fill
        self._version = 0
        self._left: dict[str, int] = {}  # endpoints that got no new connections any more as of that version
        self._queue: list[pb.ControllerMessage] = []
        self._dirty = True
        self._not_before = 0.0
        self._closed = ""
        self._wake = asyncio.Event()
        self._wake.set()

    def send(self, message: pb.ControllerMessage) -> None:
        """Queue an answer."""
        self._queue.append(message)
        self._wake.set()

    def acknowledge(self, version: int) -> None:
        """Note that a version, and so all before it, is in force on the node."""
        self._acknowledged = max(self._acknowledged, version)
        self._left = {key: left for key, left in self._left.items() if left > self._acknowledged}

    def may_send_to(self, endpoint: str) -> bool:
        """Whether the node may still open connections to the endpoint of that key through a virtual address.

        Of a node that has confirmed nothing yet it is not known what it does since before this session.
        """
        return not self._acknowledged or is_active(self.sent.get(endpoint)) or endpoint in self._left

    def mark_dirty(self) -> None:
        """Note that the node's assignments may differ from what it was sent."""
        self._dirty = True
        self._wake.set()

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
            if self._dirty:
                if (early_s := self._not_before - asyncio.get_running_loop().time()) > 0:
                    asyncio.get_running_loop().call_later(early_s, self._wake.set)
                    continue
                self._dirty = False
                difference = self._difference()
                if difference is not None:
                    self._not_before = asyncio.get_running_loop().time() + PACE_S
                    yield self._stamped(difference)

    def _stamped(self, message: pb.ControllerMessage) -> pb.ControllerMessage:
        leader = self._leader()
        message.leader.epoch, message.leader.revision = leader.epoch, leader.revision
        return message

    def _difference(self) -> pb.ControllerMessage | None:
        wanted = self._compute()
        message = pb.ControllerMessage()
        body = message.assignments
        body.full = self._version == 0
        for key, piece in wanted.items():
            if self.sent.get(key) != piece:
                put_piece(self._fill(piece), body.put.add())
        body.remove.extend(key for key in self.sent if key not in wanted)
        before, self.sent = self.sent, wanted
        if not body.full and not body.put and not body.remove:
            return None
        body.base_version = self._version
        self._version += 1
        body.version = self._version
        self._left.update((key, self._version) for key in _left(body, before, wanted))
        return message


def is_active(piece: Piece | None) -> bool:
    """Whether a piece is an endpoint that gets new connections."""
    return isinstance(piece, EndpointAssignment) and not piece.withdrawn


def _left(body: pb.AssignmentSet, before: Mapping[str, Piece], now: Mapping[str, Piece]) -> Iterator[str]:
    """Yield the keys of the endpoints that a difference takes out of the balancers."""
    for key in (*body.remove, *(put.key for put in body.put)):
        if is_active(before.get(key)) and not is_active(now.get(key)):
            yield key
