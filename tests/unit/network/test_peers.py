"""Peers are worked out when others are told, and not before: a network of thousands changes at every endpoint."""

from argosy.agent.network.peers import Peers
from argosy.core.assignment import NetworkAssignment, PeerAssignment

NETWORKS = {i: NetworkAssignment(i, i, encrypted=i == "vault") for i in ("web", "vault")}
A, B, ME = (
    PeerAssignment(n, node, address)
    for n, node, address in (("web", "a", "192.0.2.1"), ("vault", "b", "192.0.2.2"), ("web", "me", "192.0.2.3"))
)


def test_peers_by_network():
    peers = Peers("me")
    told = (A, B, ME)
    peers.update(told, NETWORKS)
    web = peers.others("web")
    assert (web, peers.others("vault"), peers.own) == ([A], [B], {"web": ME})
    assert peers.admitted == {0xC0000201, 0xC0000203}, "who is on encrypted networks alone sends through tunnels"
    peers.update(told, NETWORKS)
    assert peers.others("web") is web
    peers.update((B,), NETWORKS)
    assert (peers.others("web"), peers.own, peers.admitted) == ((), {}, frozenset())


def test_who_is_admitted_follows_what_is_encrypted():
    peers = Peers("me")
    told = (A, B)
    peers.update(told, NETWORKS)
    peers.update(told, {**NETWORKS, "vault": NetworkAssignment("vault", "vault")})
    assert peers.admitted == {0xC0000201, 0xC0000202}
