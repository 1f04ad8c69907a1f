"""A network on a node over random lives: what it wants of the kernel is what a plan from scratch says, and it gets it.

Without a kernel: what is applied is believed.
"""

from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from argosy.agent.logic.network_container import ContainerLink
from argosy.agent.logic.network_diff import after
from argosy.agent.logic.network_ingress import Door, plan_ingress
from argosy.agent.logic.network_plan import Site, plan_container, plan_network, plan_peer
from argosy.agent.logic.network_state import Link, LinkKind, Setting, state_of
from argosy.agent.logic.network_uplink import UplinkPair
from argosy.agent.network.carried import Attached, CarriedNetwork
from argosy.agent.network.container import Plug
from argosy.core.assignment import NetworkAssignment, PeerAssignment

BASE = 0x0A600000
NETWORK = NetworkAssignment("net", "net", 4096, "10.96.0.0/24", mtu=1400)
SITE = Site("me", 0xC6120101, 1500, 14789)
UPLINK = UplinkPair(0xA9FE4000, 0xA9FE4001)
STATICS = (BASE + 200, BASE + 201)

peers = st.builds(
    lambda holders, statics, addresses: [
        PeerAssignment(
            "net",
            node_id,
            address,
            tuple(index for index, holder in holders.items() if holder == node_id),
            tuple(a for a, holder in zip(STATICS, statics, strict=True) if holder == node_id),
        )
        for node_id, address in addresses.items()
    ],
    st.fixed_dictionaries(dict.fromkeys((2, 3, 4), st.sampled_from(("", "a", "b", "c")))),
    st.tuples(*[st.sampled_from(("", "a", "b", "c"))] * 2),
    st.dictionaries(st.sampled_from(("a", "b", "c")), st.sampled_from(("198.18.1.2", "198.18.1.3", ""))),
)


class Kernel:
    """What a namespace holds, if all that is asked of it is done."""

    fd = -1

    def __init__(self):
        self.state = {}
        self.indexes = {}


class Home:
    def nft_in(self, fd):
        return None


class Life(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.kernel = Kernel()
        self.site = SITE
        self.network, self.uplink, self.peers = NETWORK, UPLINK, []
        self.doors = ()
        self.carried = self._carry(whole=True)
        self._assign()

    def _carry(self, whole):
        return CarriedNetwork("net", Home(), self.site, self.kernel, Path(), None, removes_leftovers=whole)

    def _assign(self):
        self.carried.assign(self.network, self.uplink, self.peers)
        self.carried.open_doors(self.doors)
        self.carried.close_doors()
        self._converge()

    def _converge(self):
        self.kernel.state = after(self.kernel.state, self.carried.operations())

    @rule(told=peers)
    def peers_change(self, told):
        self.peers = told
        self._assign()

    @rule(mtu=st.sampled_from((0, 1300, 1400)), uplink=st.sampled_from((None, UPLINK)), told=peers)
    def network_changes(self, mtu, uplink, told):
        self.network, self.uplink, self.peers = replace(NETWORK, mtu=mtu, internal=not uplink), uplink, told
        self._assign()

    @rule(mtu=st.sampled_from((1500, 1380)))
    def host_changes(self, mtu):
        self.site = replace(SITE, underlay_mtu=mtu)
        self.carried.follow(self.site)
        self.carried.open_doors(self.doors)
        self.carried.close_doors()
        for device, attached in list(self.carried.containers.items()):
            self._attach(device, attached.address)
        self._converge()

    @rule(doors=st.sampled_from(((), (Door("tcp", 80, 80),))))
    def doors_change(self, doors):
        self.doors = doors
        self._assign()

    @rule(device=st.sampled_from(("vea", "veb")), address=st.sampled_from((BASE + 40, STATICS[1])))
    def container_comes(self, device, address):
        if device not in self.carried.containers and address not in self._local():
            self._attach(device, address)
            self._converge()

    def _attach(self, device, address):
        entries = tuple(plan_container(self.site, self.network, device, address))
        link = ContainerLink("net", "eth0", 2, 1400, address, b"", b"", True, ())
        self.carried.add_container(device, Attached(address, 1, 1, Plug(entries, link)))

    @rule(device=st.sampled_from(("vea", "veb")))
    def container_goes(self, device):
        if self.carried.drop_container(device):
            self.carried.deleted(device)
            self._converge()

    @rule(told=peers)
    def new_life(self, told):
        """An agent that begins finds what there is, and knows nothing of the links but that they are there."""
        links = {e.name for e in self.kernel.state.values() if isinstance(e, Link) and e.kind is LinkKind.CONTAINER}
        local = {d: a.address for d, a in self.carried.containers.items() if d in links}
        self.carried = self._carry(whole=False)
        self.carried.containers = {device: Attached(address) for device, address in local.items()}
        self.peers = told
        self._assign()

    @rule()
    def view_is_whole(self):
        self.carried.removes_leftovers = True
        self._converge()

    def _local(self):
        return {attached.address for attached in self.carried.containers.values()}

    @invariant()
    def it_wants_what_is_planned(self):
        entries = plan_network(self.site, self.network, self.uplink)
        for device, attached in self.carried.containers.items():
            entries += plan_container(self.site, self.network, device, attached.address)
        for peer in self.peers:  # last: a container that has a peer's static address has yet to end
            entries += plan_peer(self.network, peer)
        entries += plan_ingress(self.network) if self.doors else ()
        assert self.carried.wanted == state_of(entries)

    @invariant()
    def the_kernel_has_it(self):
        there = {k: e for k, e in self.kernel.state.items() if not isinstance(e, Setting) or k in self.carried.wanted}
        assert there.items() >= self.carried.wanted.items()
        if self.carried.removes_leftovers:
            assert there == self.carried.wanted


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)


def test_a_slice_that_goes_from_peer_to_peer_keeps_its_route():
    """Its route is the same one, by a placeholder that is called after the slice."""
    life = Life()
    first, other = (PeerAssignment("net", i, a) for i, a in (("b", "198.18.1.2"), ("a", "198.18.1.3")))
    life.peers = [first, replace(other, slices=(2, 3))]
    life._assign()
    life.peers = [replace(first, slices=(2,)), replace(other, slices=(3,))]
    life._assign()
    life.it_wants_what_is_planned()
    life.the_kernel_has_it()
