"""Rotations of the tunnels' keys, case by case; which nodes can carry an encrypted network."""

from dataclasses import replace

import pytest

from argosy.controller.logic.cluster_view import ClusterView
from argosy.controller.logic.mesh_keys import OVERLAP_S, ROTATION_PERIOD_S, advanced, carriers_behind, look_again_at
from argosy.controller.logic.schedule import Request, place
from argosy.core.mesh import Mesh, MeshKey, Tunnel
from argosy.core.meta import Meta
from argosy.core.node import Node, NodeDescription, NodeSpec, NodeState, NodeStatus
from argosy.core.service import NetworkAttachmentSpec, TaskSpec

BEGAN = 1000.0


def node(name, *epochs, tunnels=(), state=NodeState.READY):
    keys = tuple(MeshKey(e, name.encode() * 32, 51820) for e in epochs)
    about = NodeDescription(tunnels_by="kernel", mesh_keys=keys)
    return Node(Meta(name), NodeSpec(name), about, NodeStatus(state), tuple(tunnels))


def to(name, epoch, problem=""):
    return Tunnel(name, epoch, problem)


OLD = (node("a", 1, tunnels=[to("b", 1)]), node("b", 1, tunnels=[to("a", 1)]))
BOTH = (node("a", 1, 2, tunnels=[to("b", 1)]), node("b", 1, 2, tunnels=[to("a", 2)]))
NEW = (node("a", 1, 2, tunnels=[to("b", 2)]), node("b", 1, 2, tunnels=[to("a", 2)]))
BROKEN = (node("a", 1, 2, tunnels=[to("b", 1, "no handshake")]), node("b", 1, 2, tunnels=[to("a", 1, "no handshake")]))
DOWN = node("b", 1, tunnels=[to("a", 1)], state=NodeState.DOWN)
B_DOWN = (node("a", 1, 2, tunnels=[to("b", 1, "it does not answer")]), DOWN)
B_CUT_OFF = (node("a", 1, 2, tunnels=[to("b", 1)]), DOWN)


@pytest.mark.parametrize(
    ("mesh", "nodes", "after", "expected"),
    [
        (Mesh(), OLD, 0.0, Mesh()),
        (Mesh(1, BEGAN, True), (), ROTATION_PERIOD_S, Mesh(1, BEGAN, True)),
        (Mesh(1, BEGAN, True), OLD, ROTATION_PERIOD_S - 1, Mesh(1, BEGAN, True)),
        (Mesh(1, BEGAN, True), OLD, ROTATION_PERIOD_S, Mesh(2, BEGAN + ROTATION_PERIOD_S)),
        (Mesh(2, BEGAN), OLD, OVERLAP_S, Mesh(2, BEGAN)),
        (Mesh(2, BEGAN), BOTH, OVERLAP_S, Mesh(2, BEGAN)),
        (Mesh(2, BEGAN), NEW, OVERLAP_S - 1, Mesh(2, BEGAN)),
        (Mesh(2, BEGAN), NEW, OVERLAP_S, Mesh(2, BEGAN, True)),
        (Mesh(2, BEGAN), BROKEN, OVERLAP_S, Mesh(2, BEGAN, True)),
        (Mesh(2, BEGAN), B_DOWN, OVERLAP_S, Mesh(2, BEGAN, True)),
        (Mesh(2, BEGAN), B_CUT_OFF, OVERLAP_S, Mesh(2, BEGAN)),
        (Mesh(2, BEGAN), (), OVERLAP_S - 1, Mesh(2, BEGAN)),
        (Mesh(2, BEGAN), (), OVERLAP_S, Mesh(2, BEGAN, True)),
        (Mesh(2, BEGAN), BOTH, 10 * ROTATION_PERIOD_S, Mesh(2, BEGAN)),
    ],
    ids=[
        *("no network", "no carrier", "not due", "due", "no keys yet", "old tunnel", "too early", "settled"),
        *(
            "a broken tunnel holds nobody up",
            "nor does a node that is down",
            "one that is cut off",
            "no carrier any more, just now",
            "no carrier any more",
            "never two at once",
        ),
    ],
)
def test_keys_change_when_it_is_time_and_are_given_up_when_nobody_needs_them(mesh, nodes, after, expected):
    assert advanced(mesh, nodes, BEGAN + after) == expected


def test_it_is_said_who_is_behind():
    assert carriers_behind(Mesh(2, BEGAN), OLD) == ["a", "b"]
    assert carriers_behind(Mesh(2, BEGAN), BOTH) == ["a"]
    assert carriers_behind(Mesh(2, BEGAN), NEW) == []


def test_the_epoch_before_is_in_use_until_it_is_settled():
    assert Mesh(2, BEGAN).previous == 1
    assert Mesh(2, BEGAN, True).previous == 0
    assert Mesh(1, BEGAN, True).previous == 0
    assert look_again_at(Mesh(2, BEGAN)) == BEGAN + OVERLAP_S


def test_tasks_of_an_encrypted_network_go_where_tunnels_can_be_made():
    able = node("able")
    why = "this kernel has no WireGuard, and wireguard-go is not installed"
    unable = replace(node("unable"), description=NodeDescription(no_tunnels=why))
    spec = TaskSpec(networks=(NetworkAttachmentSpec("secret"), NetworkAttachmentSpec("plain")))
    requests = [Request(f"web{i}", "web", 1, spec) for i in range(4)]
    for encrypted, nodes in ((("secret",), {"able"}), (("other",), {"able", "unable"})):
        view = ClusterView.build([able, unable], (), {("web", 1): spec})
        view.encrypted.update(encrypted)
        assert set(place(requests, view).assigned.values()) == nodes
    view = ClusterView.build([unable, replace(unable, meta=Meta("more"))], (), {("web", 1): spec})
    view.encrypted.add("secret")
    assert place(requests, view).refused["web0"] == f"no node can carry the encrypted network: {why}"
    view.put_node(replace(unable, description=able.description))
    assert set(place(requests, view).assigned.values()) == {"unable"}
