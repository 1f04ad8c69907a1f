"""The self-test of the tunnels: asks each peer for an echo through its tunnel, looks at handshakes, says what is wrong.

The echo is ICMP, which the peer's kernel answers in its mesh: no agent has to be there. Used on the event loop; what
touches namespaces is done by the plane's worker thread.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final

import structlog

from argosy.agent.logic.network_mesh import MOST_MISSED, problem_of, sentence, told
from argosy.agent.logic.network_plan import occupied
from argosy.agent.network.desired import MeshReport, NetworkState
from argosy.agent.network.mesh import YIELD_S, Way
from argosy.core.errors import TransientError
from argosy.core.mesh import MeshKey, Tunnel

log = structlog.get_logger(__name__)

PERIOD_S: Final = 1.0
"""Between two echoes to a peer whose tunnel works."""
BROKEN_PERIOD_S: Final = 0.5
_EACH_PEER_S: Final = 0.01
"""At least so much time for each peer: a node with a thousand asks all of them in ten seconds."""
_ECHO: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence (RFC 792)
_REQUEST, _REPLY = 8, 0
_IP_HEADER: Final = 20


@dataclass(frozen=True, slots=True)
class Looked:
    """What the worker thread found. `problem`: why the tunnels are not as they should be; "" when they are.

    `namespace` is the inode of the mesh's, 0 for none.
    """

    ways: Sequence[Way]
    problem: str
    keys: tuple[MeshKey, ...]
    namespace: int = 0


class TunnelWatch:
    """One for a plane. `run` watches while the node has a mesh; `report` is called when something has changed."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Looked]],
        open_echo: Callable[[], Awaitable[socket.socket]],
        report: Callable[[MeshReport], None],
    ) -> None:
        self._look = look
        self._open_echo = open_echo
        self._report = report
        self._desired: NetworkState | None = None  # until the node knows what it is to have
        self._socket: socket.socket | None = None
        self._namespace = 0  # where that is
        self._identifier = 0
        self._sequence = 0
        self._known_since: dict[int, float] = {}
        self._sent_at: dict[int, float] = {}
        self._missed: dict[int, int] = {}
        """How many echoes in a row a peer has not answered; a peer that never answered is not in it."""
        self._round_trip: dict[int, float] = {}
        self._tunnels: dict[str, Tunnel] = {}
        self._reported = MeshReport()
        self._silent = True  # nothing was reported yet
        self._reason = asyncio.Event()

    def want(self, desired: NetworkState) -> None:
        """Take over which networks and peers there are."""
        before, self._desired = self._desired, desired
        if before is None or (desired.mesh, desired.mesh_peers) != (before.mesh, before.mesh_peers):
            self._reason.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                await self._test()
        finally:
            self._close()

    async def _test(self) -> None:
        desired = self._desired
        if desired is None:
            await self._wait(None)
        elif desired.mesh is None:
            await self._wait(await self._finish())
        else:
            await self._wait(await self._ask_and_judge(desired))

    async def _finish(self) -> float | None:
        """Have nothing to say any more but the keys, which go when it is certain that nobody needs them."""
        self._close()
        self._tunnels.clear()
        try:
            keys = (await self._look()).keys
        except TransientError:
            return PERIOD_S
        self._tell(MeshReport(keys))
        return PERIOD_S if keys else None

    async def _ask_and_judge(self, desired: NetworkState) -> float:
        """Test all tunnels once; return how long to wait with the next test, in seconds."""
        try:
            looked = await self._look()
            if looked.namespace != self._namespace:
                self._close()  # of a mesh that is no more
                self._namespace = looked.namespace
            await self._ask(looked.ways)
        except TransientError as error:
            looked = Looked((), str(error), self._reported.keys)
        self._judge(desired, looked)
        broken = any(t.problem for t in self._tunnels.values())
        return max(BROKEN_PERIOD_S if broken else PERIOD_S, _EACH_PEER_S * len(looked.ways))

    async def _wait(self, timeout: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._reason.wait()
        self._reason.clear()

    async def _ask(self, ways: Iterable[Way]) -> None:
        if self._socket is None:
            self._socket = await self._open_echo()
            self._identifier = id(self) & 0xFFFF
            asyncio.get_running_loop().add_reader(self._socket, self._read)
        self._read()  # what came while this process did something else
        self._sequence = (self._sequence + 1) & 0xFFFF
        message = echo_request(self._identifier, self._sequence)
        for way in ways:
            if way.epoch:
                address = int(IPv4Address(way.peer.underlay_address))
                known_since = self._known_since.setdefault(address, time.monotonic())
                shaken = way.handshake_at or address in self._missed
                if not (way.begins or shaken) and time.monotonic() - known_since < YIELD_S:
                    continue  # what we send would begin a handshake, and the other end is about to
                self._sent_at[address] = time.monotonic()
                if address in self._missed:
                    self._missed[address] += 1
                with suppress(OSError):  # no way: then it does not answer
                    self._socket.sendto(message, (way.peer.underlay_address, 0))

    def _read(self) -> None:
        assert self._socket is not None
        now = time.monotonic()
        with suppress(BlockingIOError):
            while True:
                data, (sender, _) = self._socket.recvfrom(2048)
                address = int(IPv4Address(sender))
                if not is_reply(data, self._identifier) or address not in self._sent_at:
                    continue
                if address not in self._missed or self._is_broken(sender):
                    self._reason.set()  # good news
                self._missed[address] = 0
                self._round_trip[address] = now - self._sent_at[address]

    def _is_broken(self, address: str) -> bool:
        peers = self._desired.mesh_peers if self._desired else ()
        node_id = next((p.node_id for p in peers if p.underlay_address == address), "")
        found = self._tunnels.get(node_id)
        return found is not None and bool(found.problem)

    def _judge(self, desired: NetworkState, looked: Looked) -> None:
        wall = time.time()
        found: dict[str, Tunnel] = {}
        for way in looked.ways:
            peer = way.peer
            address = int(IPv4Address(peer.underlay_address)) if peer.underlay_address else 0
            missed = self._missed.get(address, MOST_MISSED + 1) - 1  # the last one is just under way
            old = self._tunnels.get(peer.node_id)
            problem = looked.problem or told(problem_of(peer, way.epoch, way.handshake_at, missed, wall), old, wall)
            fresh = Tunnel(peer.node_id, way.epoch, problem, wall, way.handshake_at, self._round_trip.get(address, 0.0))
            same = old is not None and (old.epoch, old.problem) == (fresh.epoch, fresh.problem)
            found[peer.node_id] = old if old and same else fresh
            if old and not same and (old.problem or problem):
                log.info("tunnel", to=peer.node_name, problem=problem or "none any more")
        if looked.problem and not looked.ways:
            found = {i: replace(t, problem=looked.problem) for i, t in self._tunnels.items()}
        self._tunnels = found
        self._tell(MeshReport(looked.keys, tuple(self._tunnels.values()), self._problems(desired, looked.problem)))

    def _problems(self, desired: NetworkState, problem: str) -> Mapping[str, str]:
        """Return what is wrong with the tunnels of each encrypted network, by its id."""
        names = {p.node_id: p.node_name for p in desired.mesh_peers if not p.down}
        broken = {i: t.problem for i, t in self._tunnels.items() if t.problem and i in names}
        silent = {p.node_id for p in desired.mesh_peers if not p.keys}  # which a node is that has no task there
        found: dict[str, str] = {}
        for network in desired.networks.values():
            if not network.encrypted:
                continue
            on_it = {p.node_id for p in desired.peers if p.network_id == network.id} & broken.keys()
            if silent & on_it:
                addresses = (e.address for e in desired.endpoints if e.network_id == network.id)
                on_it -= silent - occupied(network, desired.peers, addresses)
            said = sentence(network.name, [(names[i], broken[i]) for i in sorted(on_it)])
            if problem:
                said = f"network {network.name} is encrypted, and there are no tunnels: {problem}"
            if said:
                found[network.id] = said
        return found

    def _tell(self, report: MeshReport) -> None:
        if self._silent or report != self._reported:
            self._silent, self._reported = False, report
            self._report(report)

    def _close(self) -> None:
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        self._known_since.clear()
        self._sent_at.clear()
        self._missed.clear()
        self._round_trip.clear()


def echo_request(identifier: int, sequence: int) -> bytes:
    """Return an ICMP echo request (RFC 792)."""
    total = (_REQUEST << 8) + identifier + sequence
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return _ECHO.pack(_REQUEST, 0, ~total & 0xFFFF, identifier, sequence)


def is_reply(packet: bytes, identifier: int) -> bool:
    """Tell whether an IPv4 packet is an answer to an echo request of ours."""
    if len(packet) < _IP_HEADER + _ECHO.size:
        return False
    kind, _, _, number, _ = _ECHO.unpack_from(packet, (packet[0] & 0xF) * 4)
    return bool(kind == _REPLY and number == identifier)
