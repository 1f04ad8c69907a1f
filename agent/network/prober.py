"""Sends probes from this node's VTEP on one network to those of its peers, and counts what comes back.

The packet socket is opened in the network's namespace by the plane's thread, and stays there; the probing itself waits
for answers, so it has a thread of its own. It takes a bounded time, however many peers there are and few answer.
"""

import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_firewall import AFRESH
from argosy.agent.logic.network_probe import (
    LEAST_PACKET,
    Tally,
    Way,
    answers_filter,
    reply,
    request,
    sizes_between,
)
from argosy.agent.network.filtered import attach
from argosy.agent.network.readable import readable

PROBES: Final = 10
"""Packets to each peer that count for loss and latency."""
SPACING_S: Final = 0.02
PATIENCE_S: Final = 1.0
"""How long the answer to one of them may take."""
SIZE_PATIENCE_S: Final = 0.3
TRIES: Final = 2
"""Packets of each size: one may be lost by chance."""
_IPV4: Final = 0x0800


@dataclass(frozen=True, slots=True)
class Vantage:
    """Where to probe from: a packet socket on the VTEP (whoever gets it closes it), its MAC address and MTU, and the
    address that answers come back to."""

    packets: socket.socket
    mac: bytes
    source: int
    mtu: int


def open_packets(identifier: int) -> socket.socket:
    """Open a socket on the VTEP of the namespace that this thread is in; it sees only answers to `identifier`."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        attach(packets, answers_filter(identifier))
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, AFRESH)  # as that of containers is: no table sees these
        packets.setblocking(False)
        packets.bind((names.VTEP, _IPV4))
    except OSError:
        packets.close()
        raise
    return packets


class Prober:
    """One run of probes from a vantage point. Blocks: call `run` in a thread."""

    def __init__(self, vantage: Vantage, identifier: int, ways: Mapping[str, Way]) -> None:
        self._vantage = vantage
        self._identifier = identifier
        self._ways = ways
        self._node_of = {way.peer_mac: node_id for node_id, way in ways.items()}
        self._tallies = {node_id: Tally() for node_id in ways}
        self._numbers = count(1)
        self._under_way: dict[int, tuple[str, int, float, bool]] = {}

    def run(self) -> dict[str, Tally]:
        """Return what was found out about each way. OSError where the VTEP is gone."""
        for _ in range(PROBES):
            for node_id in self._ways:
                self._send(node_id, LEAST_PACKET, counts=True)
            self._take_until(time.monotonic() + SPACING_S, wait=True)
        self._take_until(time.monotonic() + PATIENCE_S)
        self._find_largest()
        return self._tallies

    def _find_largest(self) -> None:
        answering = [node_id for node_id, tally in self._tallies.items() if tally.trips]
        for node_id in answering:
            self._tallies[node_id].largest = LEAST_PACKET
        failed = dict.fromkeys(answering, self._vantage.mtu + 1)
        trying: dict[str, list[int]] = {node_id: [self._vantage.mtu] for node_id in answering}
        while trying:
            self._try_sizes(trying)
            for node_id, sizes in trying.items():
                passed = self._tallies[node_id].largest
                failed[node_id] = min((s for s in (*sizes, failed[node_id]) if s > passed), default=passed + 1)
            trying = {n: sizes for n in trying if (sizes := sizes_between(self._tallies[n].largest, failed[n]))}

    def _try_sizes(self, trying: Mapping[str, Iterable[int]]) -> None:
        for _ in range(TRIES):
            for node_id, sizes in trying.items():
                for size in sizes:
                    if size > self._tallies[node_id].largest:
                        self._send(node_id, size, counts=False)
            self._take_until(time.monotonic() + SIZE_PATIENCE_S)
            self._under_way.clear()

    def _send(self, node_id: str, size: int, *, counts: bool) -> None:
        number = next(self._numbers) & 0xFFFF
        frame = request(self._ways[node_id], self._identifier, number, size)
        if counts:
            self._tallies[node_id].sent += 1
        self._under_way[number] = (node_id, size, time.monotonic(), counts)
        try:
            self._vantage.packets.send(frame)
        except (BlockingIOError, InterruptedError):
            pass  # the device's queue is full: as lost as any other
        except OSError as error:
            if counts:
                raise OSError(error.errno, f"{names.VTEP}: {os.strerror(error.errno or 0)}") from error

    def _take_until(self, deadline: float, *, wait: bool = False) -> None:
        """Take answers until a moment, or until none is missing; with `wait` until the moment in any case."""
        while wait or self._under_way:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            if readable(self._vantage.packets, left):
                self._take()

    def _take(self) -> None:
        try:
            frame = self._vantage.packets.recv(65536)
        except BlockingIOError:
            return
        now = time.monotonic()
        answer = reply(frame, self._identifier)
        if answer is None:
            return
        mac, number, size = answer
        sent = self._under_way.get(number)
        if sent is None or self._node_of.get(mac) != sent[0] or size != sent[1]:
            return
        del self._under_way[number]
        tally = self._tallies[sent[0]]
        tally.largest = max(tally.largest, size)
        if sent[3]:
            tally.trips[number] = now - sent[2]
