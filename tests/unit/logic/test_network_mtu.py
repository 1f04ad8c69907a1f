"""The MTU of a network's links, and what is said where it is not what the network asks for."""

import pytest

from argosy.controller.logic.network_mtu import links_mtu, lowered, too_large
from argosy.core.meta import Meta
from argosy.core.network import NetworkSpec
from argosy.core.node import Node, NodeDescription, NodeSpec


def nodes(*mtus):
    return [Node(Meta(f"n{i}"), NodeSpec(f"n{i}"), NodeDescription(underlay_mtu=mtu)) for i, mtu in enumerate(mtus)]


@pytest.mark.parametrize(
    ("asked", "encrypted", "underlays", "mtu"),
    [
        (0, False, (), 0),
        (1400, False, (), 1400),
        (0, False, (0, 1500, 9000), 1450),
        (0, True, (1500,), 1370),
        (1400, False, (1500,), 1400),
        (1450, False, (1500, 1400), 1350),
    ],
)
def test_links_have_what_the_narrowest_leaves_and_no_more_than_is_asked_for(asked, encrypted, underlays, mtu):
    assert links_mtu(NetworkSpec("a", mtu=asked, encrypted=encrypted), nodes(*underlays)) == mtu


@pytest.mark.parametrize(
    ("asked", "encrypted", "underlays", "refused", "told"),
    [
        (0, False, (1400,), "", ""),
        (1450, False, (1500, 0), "", ""),
        (
            1451,
            False,
            (9000, 1500),
            "node n1 to other hosts takes 1500 bytes, which leaves 1450",
            "give that link 1501,",
        ),
        (1450, True, (1500,), "leaves 1370: ask for that at most", "have an MTU of 1370, not the 1450"),
        (1450, False, (1500, 1300), "", "have an MTU of 1280, not the 1450 that it asks for: the link of node n1"),
        (0, False, (1500, 1300), "", "an MTU of 1280, and the link of node n1 to other hosts takes 1300 bytes, which"),
        (1280, True, (1400, 1500), "", "which leaves 1270: give that link 1410, or keep"),
        (0, False, (1330,), "", ""),
    ],
)
def test_what_is_too_large_is_told_with_what_would_fit(asked, encrypted, underlays, refused, told):
    spec = NetworkSpec("a", mtu=asked, encrypted=encrypted)
    for said, wanted in ((too_large(spec, nodes(*underlays)), refused), (lowered(spec, nodes(*underlays)), told)):
        assert wanted in said if wanted else not said
