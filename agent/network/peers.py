"""The peers of a node's networks, as its parts need them: worked out when others are told, not at each change. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from argosy.agent.logic.network_plan import number_of
from argosy.core.assignment import NetworkAssignment, PeerAssignment

_NOBODY: Final[Sequence[PeerAssignment]] = ()


class Peers:
    """Of all networks. Peers that come as the same object as before are taken for unchanged."""

    def __init__(self, node_id: str) -> None:
        """`node_id` is this node: no way leads to itself through a tunnel."""
        self._node_id = node_id
        self._told: Sequence[PeerAssignment] = ()
        self._others: dict[str, list[PeerAssignment]] = {}
        self._in_clear: frozenset[str] = frozenset()
        self.own: Mapping[str, PeerAssignment] = {}
        """What others know of this node, by network."""
        self.admitted: frozenset[int] = frozenset()
        """The underlay addresses of the hosts that unencrypted networks are shared with."""

    def update(self, told: Sequence[PeerAssignment], networks: Mapping[str, NetworkAssignment]) -> None:
        """Take over what is assigned."""
        in_clear = frozenset(i for i, network in networks.items() if not network.encrypted)
        if told is not self._told:
            self._others = {}
            for peer in told:
                if peer.node_id != self._node_id:
                    self._others.setdefault(peer.network_id, []).append(peer)
            self.own = {p.network_id: p for p in told if p.node_id == self._node_id}
        if told is not self._told or in_clear != self._in_clear:
            addresses = {p.underlay_address for p in told if p.network_id in in_clear}
            self.admitted = frozenset(number_of(address) for address in addresses if address)
        self._told, self._in_clear = told, in_clear

    def others(self, network_id: str) -> Sequence[PeerAssignment]:
        """Return the other nodes on a network: the same object as long as they are the same."""
        return self._others.get(network_id, _NOBODY)
