"""What the controller does for encrypted networks: who is told which keys, what the first begins, what is refused."""

from dataclasses import replace

import pytest

from argosy.controller.api.tunnels import tunnels_between
from argosy.controller.changes import mesh, networks
from argosy.controller.changes.join import described, tunnelled
from argosy.controller.logic.assign import assignments_for, network_pieces
from argosy.controller.session.drains import Drains
from argosy.controller.session.endpoints import EndpointIndex
from argosy.controller.session.objects import SnapshotObjects
from argosy.controller.store import Put, Snapshot
from argosy.core.assignment import MeshAssignment, MeshPeerAssignment, NetworkAssignment
from argosy.core.errors import PreconditionError
from argosy.core.mesh import Mesh, MeshKey, Tunnel
from argosy.core.meta import Cluster, Meta
from argosy.core.network import Attachment, NetworkSpec, Slice, slice_id
from argosy.core.node import NodeState
from tests.unit.controller.objects import network, node, service, snapshot, task

NOW = 100.0
WHY = "this kernel has no WireGuard, and wireguard-go is not installed"
VAULT = NetworkSpec("vault", encrypted=True)


def host(name, number, *, able=True, keys=(), state=NodeState.READY):
    made = node(name, state=state)
    about = replace(
        made.description,
        underlay_address=f"192.0.2.{number}",
        underlay_mtu=1500,
        tunnels_by="kernel" if able else "",
        no_tunnels="" if able else WHY,
        mesh_keys=keys,
    )
    return replace(made, description=about)


def lease(net, index, node_id):
    return Slice(Meta(slice_id(net, index)), net, index, node_id)


def cluster(**mesh):
    return Cluster(Meta(networks.CLUSTER_ID, version=1), mesh=Mesh(**mesh))


KEY = MeshKey(1, b"k" * 32, 51821)
ENCRYPTED = replace(network("vault"), spec=VAULT)
HOSTS = (host("a", 1), host("b", 2, keys=(KEY,), state=NodeState.DOWN), host("c", 3))
SNAP = snapshot(
    cluster(epoch=2, since=1.0),
    ENCRYPTED,
    network("plain"),
    *HOSTS,
    service("web"),
    lease("vault", 1, "a"),
    lease("vault", 2, "b"),
    lease("plain", 1, "a"),
    lease("plain", 2, "c"),
    task("web", 1, "a", attachments=(Attachment("vault", 5), Attachment("plain", 6))),
    task("web", 2, "c", attachments=(Attachment("plain", 7),)),
)


def objects(snap):
    index = EndpointIndex()
    list(index.fill(snap))
    return SnapshotObjects(snap, index, Drains(None))


def test_nodes_of_an_encrypted_network_are_told_each_others_keys():
    assert assignments_for("a", objects(SNAP)).pieces["mesh"] == MeshAssignment(2, 1)
    assert "mesh" not in assignments_for("c", objects(SNAP)).pieces
    told = [piece for i in ("vault", "plain") for piece in network_pieces(i, objects(SNAP))]
    peers = [piece for piece in told if isinstance(piece, MeshPeerAssignment)]
    assert sorted(peers, key=lambda p: p.node_id) == [
        MeshPeerAssignment("a", "a", "192.0.2.1", network_id="vault"),
        MeshPeerAssignment("b", "b", "192.0.2.2", (KEY,), down=True, network_id="vault"),
    ]


def test_the_links_are_narrower_by_what_tunnels_take():
    found = {i: next(iter(network_pieces(i, objects(SNAP)))) for i in ("vault", "plain")}
    assert all(isinstance(piece, NetworkAssignment) for piece in found.values())
    assert {i: (piece.mtu, piece.encrypted) for i, piece in found.items()} == {
        "vault": (1370, True),
        "plain": (1450, False),
    }


@pytest.mark.parametrize(
    ("underlays", "asked", "links"),
    [
        ((1500, 1400, 9000), 0, 1350),  # c does not carry it
        ((9000, 1500, 1280), 0, 1450),
        ((9000, 0, 1280), 0, 8950),  # b has not told
        ((0, 0, 1500), 0, 0),
        ((1500, 1400, 1500), 9000, 1350),
        ((1500, 1400, 1500), 1300, 1300),
    ],
)
def test_the_narrowest_of_the_hosts_that_carry_a_network_counts(underlays, asked, links):
    """So that what one host's containers send fits through all the others."""
    hosts = [
        replace(h, description=replace(h.description, underlay_mtu=m)) for h, m in zip(HOSTS, underlays, strict=True)
    ]
    chosen = replace(network("shop"), spec=NetworkSpec("shop", mtu=asked))
    snap = snapshot(chosen, *hosts, lease("shop", 1, "a"), lease("shop", 2, "b"))
    assert next(iter(network_pieces("shop", objects(snap)))).mtu == links


@pytest.mark.parametrize("hosts", [(), (host("a", 1), host("b", 2, able=False))], ids=["nobody yet", "some can"])
def test_the_first_encrypted_network_begins_the_first_epoch(hosts):
    ops, (made,) = networks.created(snapshot(*hosts), "default", [("v", VAULT)], NOW)
    assert made.spec.encrypted
    written = next(op.obj for op in ops if isinstance(op, Put) and isinstance(op.obj, Cluster))
    assert written.mesh == Mesh(1, NOW, settled=True)
    ops, _ = networks.created(snapshot(cluster(epoch=5)), "default", [("v", VAULT)], NOW)
    written = next(op.obj for op in ops if isinstance(op, Put) and isinstance(op.obj, Cluster))
    assert written.mesh == Mesh(5)


def test_where_no_node_can_make_tunnels_none_is_created():
    snap = snapshot(host("a", 1, able=False), host("b", 2, able=False))
    with pytest.raises(PreconditionError, match=f"network vault cannot be encrypted: no node can make tunnels: {WHY}"):
        networks.created(snap, "default", [("v", VAULT)], NOW)
    networks.created(snap, "default", [("v", NetworkSpec("plain"))], NOW)


def test_a_rotation_is_refused_while_another_goes_on():
    for none in (Snapshot(), snapshot(cluster(epoch=2, settled=True), host("a", 1))):
        with pytest.raises(PreconditionError, match="no node carries an encrypted network"):
            mesh.rotation(none, NOW)
    with pytest.raises(PreconditionError, match="goes on already: it waits for a"):
        mesh.rotation(snapshot(cluster(epoch=2), host("a", 1, keys=(KEY,))), NOW)
    _, begun = mesh.rotation(snapshot(cluster(epoch=2, settled=True), host("a", 1, keys=(KEY,))), NOW)
    assert begun.mesh == Mesh(3, NOW)


def test_of_a_node_that_only_holds_addresses_no_tunnel_is_missed():
    def between(*tasks):
        hosts = [replace(h, tunnels=(Tunnel("b", 0, "it has told no key yet", 5.0),)) for h in HOSTS[:1]]
        snap = snapshot(
            ENCRYPTED, *hosts, HOSTS[1], service("web"), lease("vault", 1, "a"), lease("vault", 2, "b"), *tasks
        )
        return [(row.node, [t.to for t in row.tunnels]) for row in tunnels_between(snap, ENCRYPTED)]

    of_a, of_b = (task("web", i, node, attachments=(Attachment("vault", i),)) for i, node in ((1, "a"), (2, "b")))
    assert between(of_a) == [("a", [])]
    assert between(of_a, of_b) == [("a", ["b"]), ("b", [])]


def test_what_a_node_says_is_stored_once():
    known = SNAP.get(type(HOSTS[0]), "a")
    tunnels = (Tunnel("b", 1, "why", 5.0),)
    assert described(SNAP, "a", known.description, NOW)[0] == []
    assert len(described(SNAP, "a", replace(known.description, mesh_keys=(KEY,)), NOW)[0]) == 1
    assert tunnelled(SNAP, "a", ())[0] == []
    assert tunnelled(SNAP, "a", tunnels)[1].tunnels == tunnels
    assert tunnelled(SNAP, "gone", tunnels) == ([], None)
