"""The mesh: tunnels between the nodes that carry encrypted networks, and the keys that they are made with.

All nodes change their keys together, by epochs: for a while each has a tunnel of the old epoch and one of the new to
each other node, and goes over to the new one as soon as that one is known to work. So no packet is lost.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mesh:
    """Where the cluster is with its keys. `epoch` 0: there was no encrypted network yet.

    `since`: when the epoch began. `settled`: no node uses the keys of the epoch before any more.
    """

    epoch: int = 0
    since: float = 0.0
    settled: bool = False

    @property
    def previous(self) -> int:
        """The epoch before, while its keys are still in use; 0: none."""
        return 0 if self.settled else max(self.epoch - 1, 0)


@dataclass(frozen=True, slots=True)
class MeshKey:
    """A node's public key (X25519) of an epoch, and the UDP port that its tunnels are at."""

    epoch: int = 0
    public_key: bytes = b""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A node's tunnel to another one, as the node finds it; told when it comes up, goes down, or changes keys.

    `problem`: why nothing can be sent through it, "" when it works. `handshake_at` (seconds since 1970) and
    `round_trip` (seconds) are of when this was told.
    """

    node_id: str = ""
    epoch: int = 0
    problem: str = ""
    since: float = 0.0
    handshake_at: float = 0.0
    round_trip: float = 0.0
