"""When each node was last heard: its agent (session) and its host (the launcher's own beat), in the leader's memory.

And whether its agent has told what runs there: a host that is back may have restarted, and its tasks' records be old.

Beats are UDP datagrams `NODE_ID SEQUENCE [WORDS] MAC`: keyed BLAKE2s (RFC 7693), with a key that the agent gave in a
hello to this leader or an earlier one: a new leader knows hosts whose agents are away. The sequence is the host's
CLOCK_BOOTTIME in nanoseconds: it only grows, so a recorded beat cannot be played again to the leader that heard it, nor
for longer than agent_lost_after to those after it. After a reboot it starts over; the new agent's hello then resets it.
The words are why the agent ended, if it could say so.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Final

from argosy.controller.logic.node_state import Heard, heartbeat_period
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.node import Node, NodeState
from argosy.core.task import TaskStatus
from argosy.core.task_state import is_up

LONGEST_WORDS: Final = 300
"""Characters of what a host tells of its agent's end that are taken."""


class HeardNodes:
    """Times are of the monotonic clock. One for a term: a new leader has heard nobody."""

    def __init__(self, key_of: Callable[[str], bytes], ambient: Ambient = SYSTEM) -> None:
        """`key_of` returns the key of a node's host; b"": none is known, and its beats are ignored."""
        self._key_of = key_of
        self._clock = ambient.monotonic
        self.heard: dict[str, Heard] = {}
        self._sequences: dict[str, int] = {}
        self._reported: set[str] = set()
        self._running: dict[str, set[str]] = {}
        self.on_hello: Callable[[], None] = lambda: None
        self.on_report: Callable[[], None] = lambda: None
        """Told when a node, or a task, is believed that was not before."""

    def period_s(self, nodes: int) -> float:
        """Return the heartbeat period of a cluster of this size."""
        return heartbeat_period(nodes)

    def hello(self, node_id: str) -> None:
        """Note that an agent has begun a session."""
        self._sequences.pop(node_id, None)
        self._reported.discard(node_id)
        self._running[node_id] = set()
        self.agent(node_id)
        self.on_hello()

    def agent(self, node_id: str) -> None:
        """Note that an agent was heard just now."""
        old = self.heard.get(node_id)
        self.heard[node_id] = Heard(agent_at=self._clock(), host_at=old.host_at if old else None)

    def report(self, node_id: str, statuses: Mapping[str, TaskStatus], *, more: bool = False) -> None:
        """Note that a report of an agent's session is stored. `more`: not all that runs there is told yet."""
        running = self._running.setdefault(node_id, set())
        up = {task_id for task_id, status in statuses.items() if is_up(status.state)}
        news = not (more or node_id in self._reported) or (node_id in self._reported and not up <= running)
        running -= statuses.keys() - up
        running |= up
        if not more:
            self._reported.add(node_id)
        if news:
            self.on_report()

    def vouches(self, node: Node) -> bool:
        """Whether its agent has told what runs there, in this session or its last one.

        Where the agent is lost it is enough that its host was heard in this term: AGENT_LOST may be stored from before
        a loss of power.
        """
        if node.status.state is NodeState.AGENT_LOST:
            heard = self.heard.get(node.meta.id)
            return heard is not None and heard.host_at is not None
        return node.meta.id in self._reported

    def runs(self, node: Node, task_id: str) -> bool:
        """Whether a task that is recorded to run on a node may be believed to.

        An agent that has lost its own record of a task says nothing of it, and runs it anew if it is assigned.
        """
        told = task_id in self._running.get(node.meta.id, ()) if node.meta.id in self._reported else True
        return self.vouches(node) and told

    def beat(self, datagram: bytes) -> None:
        """Take a host's beat; one that is malformed, unsigned or played again is ignored."""
        try:
            text, _, digest = datagram.rpartition(b" ")
            node, sequence, *words = text.split(b" ", 2)
            node_id, number = node.decode("ascii"), int(sequence)
        except ValueError:
            return
        key = self._key_of(node_id)
        if not key or number <= self._sequences.get(node_id, 0):
            return
        expected = hashlib.blake2s(text, key=key).hexdigest().encode()
        if not hmac.compare_digest(expected, digest):
            return
        self._sequences[node_id] = number
        old = self.heard.get(node_id)
        self.heard[node_id] = Heard(old.agent_at if old else None, self._clock(), _shown(b"".join(words)))
        if old is None or old.host_at is None:
            self.on_report()


def _shown(words: bytes) -> str:
    """Return words of a host in a line that can be shown."""
    text = words.decode(errors="replace")[:LONGEST_WORDS]
    return "".join(c if c.isprintable() else "?" for c in text)


class BeatProtocol(asyncio.DatagramProtocol):
    """Receives beats on the controller's UDP port; `heard` is the present term's, or None."""

    def __init__(self) -> None:
        self.heard: HeardNodes | None = None

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """Hand a datagram on."""
        if self.heard is not None:
            self.heard.beat(data)
