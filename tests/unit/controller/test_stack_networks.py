"""Networks of a stack that is deployed again: what of them changes, what they stay, and what is refused."""

from dataclasses import replace

import pytest

from argosy.controller.changes.networks import named_again, removed
from argosy.controller.changes.stacks import StackRequest, applied
from argosy.controller.loops.forecast import after
from argosy.core.errors import InvalidError, PreconditionError
from argosy.core.meta import Meta
from argosy.core.network import Network, NetworkSpec
from argosy.core.service import ContainerSpec, NetworkAttachmentSpec, TaskSpec, UpdateState, UpdateStatus
from tests.unit.controller.objects import node, service, snapshot

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


def linked(name, mtu):
    """Return a node whose link to other hosts takes packets of so many bytes."""
    made = node(name)
    return replace(made, description=replace(made.description, underlay_mtu=mtu, tunnels_by="kernel"))


@pytest.mark.parametrize(
    ("asked", "encrypted", "links", "why"),
    [
        (9000, False, (9000, 1500), "node n1 to other hosts takes 1500 bytes, which leaves 1450"),
        (1451, False, (1500, 1500), "node n0 to other hosts takes 1500 bytes, which leaves 1450"),
        (1371, True, (1500,), "node n0 to other hosts takes 1500 bytes, which leaves 1370"),
    ],
)
def test_an_mtu_that_a_hosts_link_does_not_carry_is_refused(asked, encrypted, links, why):
    hosts = [linked(f"n{i}", mtu) for i, mtu in enumerate(links)]
    with pytest.raises(InvalidError, match="network shop_web cannot be accepted") as refused:
        deployed(snapshot(*hosts), replace(WEB, mtu=asked, encrypted=encrypted))
    ((where, what),) = refused.value.problems
    assert where == "mtu"
    assert f"an MTU of {asked} is too large: the link of {why}: ask for that at most" in what


@pytest.mark.parametrize(
    ("asked", "encrypted", "links"),
    [
        (1450, False, (9000, 1500)),
        (1370, True, (1500,)),
        (9000, False, ()),
        (9000, False, (0, 9050)),  # one has not told
        (1400, False, (1500, 1300)),  # one that is too narrow for any network: it gets no tasks of it anyway
        (0, False, (9000, 1500)),
    ],
)
def test_an_mtu_that_fits_is_taken(asked, encrypted, links):
    hosts = [linked(f"n{i}", mtu) for i, mtu in enumerate(links)]
    snap, _ = deployed(snapshot(*hosts), replace(WEB, mtu=asked, encrypted=encrypted))
    (network,) = snap.all(Network)
    assert network.spec.mtu == asked


@pytest.mark.parametrize(("state", "stays"), [(UpdateState.UPDATING, True), (UpdateState.COMPLETED, False)])
def test_a_network_that_an_update_may_be_rolled_back_to_stays_until_it_is_over(state, stays):
    def joining(network):
        return TaskSpec(ContainerSpec("app:1", f"sha256:{'1' * 64}"), networks=(NetworkAttachmentSpec(network),))

    networks = [Network(Meta(name, "default", version=1), NetworkSpec(name)) for name in ("old", "new")]
    web, first = service("web", task=joining("old"))
    spec = replace(web.spec, task=joining("new"))
    web = replace(web, spec=spec, revision=2, previous_revision=1, update=UpdateStatus(state))
    second = replace(first, meta=Meta("web.2", "default"), number=2, spec=spec, previous=1)
    snap = snapshot(*networks, web, first, second)
    if stays:
        with pytest.raises(PreconditionError, match="network old is what web may be rolled back to: wait until"):
            removed(snap, networks[0], NOW)
    else:
        assert removed(snap, networks[0], NOW)[1].removing
    with pytest.raises(PreconditionError, match="network new is used by web"):
        removed(snap, networks[1], NOW)
