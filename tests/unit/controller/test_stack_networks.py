"""Networks of a stack that is deployed again: what of them changes, what they stay, and what is refused."""

from dataclasses import replace

import pytest

from argosy.controller.changes.networks import named_again
from argosy.controller.changes.stacks import StackRequest, applied
from argosy.controller.loops.forecast import after
from argosy.core.errors import PreconditionError
from argosy.core.network import Network, NetworkSpec
from tests.unit.controller.objects import snapshot

NOW = 9.0
WEB = NetworkSpec("shop_web", subnet="10.9.0.0/24")


def deployed(snap, *specs):
    """Deploy a stack of networks alone; return the snapshot then, and the notices."""
    request = StackRequest("default", "shop", specs, (), False, [f"id{snap.revision}{i}" for i in range(len(specs))])
    ops, result = applied(snap, request, NOW)
    return after(snap, ops)[0], result.notices


def test_what_hosts_have_not_built_changes():
    snap, _ = deployed(snapshot(), WEB)
    snap, notices = deployed(snap, replace(WEB, labels={"team": "a"}, attachable=True))
    (network,) = snap.all(Network)
    assert notices == ()
    assert (network.spec.attachable, network.spec.labels) == (True, {"team": "a", "argosy.stack": "shop"})
    same = replace(network.spec, subnet="")
    assert named_again(network, same, NOW) == ([], network, "")


def test_what_lasts_is_told_with_what_the_file_says():
    snap, _ = deployed(snapshot(), replace(WEB, internal=True, ip_range="10.9.0.128/25"))
    snap, notices = deployed(snap, replace(WEB, subnet="10.8.0.0/24", mtu=1300))
    assert notices == (
        "network shop_web keeps for life what it was made with: subnet 10.9.0.0/24 (the file: 10.8.0.0/24), ip_range "
        "10.9.0.128/25 (the file: none), MTU none (the file: 1300), internal yes (the file: no); remove the stack and "
        "deploy it again to change that",
    )
    (network,) = snap.all(Network)
    assert (network.subnet, network.spec.internal) == ("10.9.0.0/24", True)


@pytest.mark.parametrize(
    ("promise", "why"),
    [({"internal": True}, "has a way out of the cluster"), ({"encrypted": True}, "is not encrypted")],
)
def test_a_promise_that_a_network_does_not_keep_is_refused(promise, why):
    snap, _ = deployed(snapshot(), WEB)
    with pytest.raises(PreconditionError, match=f"network shop_web exists and {why}, which it keeps for life"):
        deployed(snap, replace(WEB, **promise))
