"""One network that the node carries: its namespace, what should be in it, and bringing the two together.

`wanted` is kept up to date piece by piece (network, peer, container), so that a change costs its piece. What a former
life left stays until the view is synced: `removes_leftovers` says so.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from argosy.agent.logic import network_ingress
from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_balance import BALANCE_TABLE
from argosy.agent.logic.network_diff import Operation, Put, diff, is_in_the_way
from argosy.agent.logic.network_firewall import NETWORK_TABLE, network_ruleset
from argosy.agent.logic.network_ingress import INGRESS_TABLE, INGRESS_TABLES, Door, Ingress, node_marks, plan_ingress
from argosy.agent.logic.network_plan import Site, plan_container, plan_network, plan_peer
from argosy.agent.logic.network_services import Changed
from argosy.agent.logic.network_state import Entry, Key, Link, LinkKind, Route, State, device_of, key_of, state_of
from argosy.agent.logic.network_uplink import UplinkPair
from argosy.agent.network import conntrack, namespace, rtnetlink
from argosy.agent.network.balancer import Balancer
from argosy.agent.network.container import Plug
from argosy.agent.network.kept_tables import KeptTables
from argosy.agent.network.kernel import KernelNamespace, LinkMaker
from argosy.agent.network.namespace import Home
from argosy.agent.network.nft import Nft
from argosy.agent.network.tables import Tables
from argosy.core.assignment import NetworkAssignment, PeerAssignment

DELETION_GROUP: Final = 0x4152474F
"""Interface group that links are put into to be deleted together ("ARGO")."""


_UPLINK: Final = key_of(Link(names.UPLINK, LinkKind.UPLINK))


@dataclass(slots=True)
class Attached:
    """A container on this network: its process, the inode of its namespace, and its link.

    `plug` is None while it is only known from the kernel, from a former life of the agent.
    """

    address: int
    pid: int = 0
    inode: int = 0
    plug: Plug | None = None


@dataclass(slots=True)
class CarriedNetwork:
    """Used by the plane's worker thread alone. `assignment` None: adopted from a former life, not assigned yet."""

    network_id: str
    home: Home
    site: Site
    kernel: KernelNamespace
    pin: Path
    tables: Tables
    assignment: NetworkAssignment | None = None
    uplink: UplinkPair | None = None
    containers: dict[str, Attached] = field(default_factory=dict)
    cut_off: dict[str, str] = field(default_factory=dict)
    """Containers' links that the network goes on without, and why they cannot be made."""
    removes_leftovers: bool = True
    wanted: dict[Key, Entry] = field(default_factory=dict)
    unread: bool = True
    """What is there is yet to be read: at the beginning, and after a failure."""
    unfitted: bool = False
    """The network has changed, and links of containers may not fit it yet."""
    left: Changed = field(default_factory=Changed)
    """Whose connections are yet to be forgotten."""
    stale: bool = False
    """Connections may lead to endpoints that left while no agent ran."""
    nft: Nft = field(init=False)
    balancer: Balancer = field(init=False)
    ingress: KeptTables[Ingress] = field(init=False)
    _peers: dict[str, tuple[PeerAssignment, tuple[Entry, ...]]] = field(default_factory=dict)
    _static: dict[Key, Entry] = field(default_factory=dict)
    """Routes to static addresses of peers: one may be that of a container here, too, which has yet to end."""
    _ever_wanted: set[Key] = field(default_factory=set)
    _marks: Mapping[bytes, int] | None = None
    _doors: tuple[Door, ...] = ()
    _is_way_in: bool = False
    _gap: bool = False
    """Connections may have begun while what translates them was not there."""
    _told: Sequence[PeerAssignment] | None = None
    _settled: bool = False
    """What is believed and what is wanted were found equal, and neither was touched since."""

    def __post_init__(self) -> None:
        self.nft = self.home.nft_in(self.kernel.fd)
        self.balancer = Balancer(self.nft)
        self.ingress = KeptTables(self.nft, INGRESS_TABLES, network_ingress.change)

    @classmethod
    def create(cls, network_id: str, home: Home, site: Site, pin: Path, tables: Tables) -> "CarriedNetwork":
        """Make the network's namespace, empty, and pin it; a file at the pin's place that pins nothing is replaced."""
        with ExitStack() as undo:
            undo.callback(namespace.unpin, pin)
            fd = home.make_pinned(pin)
            undo.callback(os.close, fd)
            tables.forget(network_id)
            kernel = KernelNamespace(home, fd)
            undo.callback(kernel.netlink.close)
            made = cls(network_id, home, site, kernel, pin, tables)
            undo.pop_all()
        return made

    @classmethod
    def adopt(cls, network_id: str, home: Home, site: Site, pin: Path, tables: Tables) -> "CarriedNetwork":
        """Take over a namespace that a former life pinned, with the containers in it; nothing is changed."""
        fd = namespace.open_namespace(str(pin))
        kernel = KernelNamespace(home, fd)
        carried = cls(network_id, home, site, kernel, pin, tables, removes_leftovers=False, stale=True)
        state = kernel.read({})
        addresses = {e.device: e.destination for e in state.values() if isinstance(e, Route) and e.prefix == 32}
        for entry in state.values():
            if isinstance(entry, Link) and entry.kind is LinkKind.CONTAINER:
                carried.containers[entry.name] = Attached(addresses.get(entry.name, 0))
        return carried

    def assign(self, network: NetworkAssignment, uplink: UplinkPair | None, peers: Sequence[PeerAssignment]) -> None:
        """Take over what is assigned; only what differs is planned anew.

        Peers that are the same object as the last ones are not looked at.
        """
        unchanged, self._told = peers is self._told, peers
        if network != self.assignment or uplink != self.uplink:
            self.assignment, self.uplink = network, uplink
            self._plan_all(network, peers)
            return
        if unchanged:
            return
        by_node = {peer.node_id: peer for peer in peers}
        known = {i: peer for i, (peer, _) in self._peers.items()}
        changed = [p for i, p in by_node.items() if i not in known or (known[i] is not p and known[i] != p)]
        # All before any comes: what one had another may have now, by an entry that is the same.
        for node_id in known.keys() - (by_node.keys() - {p.node_id for p in changed}):
            self._drop_peer(node_id)
        for peer in changed:
            self._add_peer(network, peer)

    def follow(self, site: Site) -> None:
        """Plan anew for a host whose link has changed; `open_doors` is to be called again."""
        self.site = site
        if self.assignment:
            self._plan_all(self.assignment, [peer for peer, _ in self._peers.values()])

    def add_container(self, device: str, attached: Attached) -> None:
        """Want what a container needs; it is there already (`KernelNamespace.state` is told)."""
        self.containers[device] = attached
        self.cut_off.pop(device, None)
        added = state_of(list(attached.plug.entries if attached.plug else ()))
        self._settled = False
        self.wanted.update({**added, **{key: self._static[key] for key in added.keys() & self._static.keys()}})
        self.kernel.state.update(added)

    def drop_container(self, device: str) -> bool:
        """Want a container's link no more; tell whether there was one to delete."""
        attached = self.containers.pop(device, None)
        self.cut_off.pop(device, None)
        if attached:
            self.unwant_container(device)
        return attached is not None

    def unwant_container(self, device: str) -> None:
        """Want nothing for a container that has ended, and is yet to be detached."""
        self._settled = False
        for key in [k for k, e in self.wanted.items() if device_of(e) == device]:
            del self.wanted[key]

    def go_on_without(self, device: str, attached: Attached, why: str) -> None:
        """Want nothing for a container whose link is gone and cannot be made; it is still known."""
        self.containers[device] = attached
        self.cut_off[device] = why
        self.unwant_container(device)
        self.deleted(device)

    def deleted(self, device: str) -> None:
        """Believe that a link is gone, with all that hung on it."""
        self._settled = False
        self.kernel.state = {k: e for k, e in self.kernel.state.items() if device_of(e) != device}
        self.kernel.indexes.pop(device, None)

    def lacks_uplink(self) -> bool:
        """Tell whether the inner end of the uplink is to be there and, as far as is known, is not."""
        there = self.kernel.state.get(_UPLINK)
        return _UPLINK in self.wanted and not (isinstance(there, Link) and there.kind is LinkKind.UPLINK)

    def operations(self) -> list[Operation]:
        """Return what is to be done; leftovers are left alone as long as the view may not be whole."""
        if self._settled:
            return []
        operations = diff(self.kernel.state, self.wanted)
        self._settled = not operations
        return [op for op in operations if self._allowed(op)]

    def converge(self, make: LinkMaker) -> int:
        """Bring the kernel to what is wanted, and tell how many changes it took."""
        operations = self.operations()
        if operations:
            made = {device_of(op.entry) for op in operations if isinstance(op, Put) and op.creates}
            if names.VTEP in made:
                self.ingress.distrust()  # what watched the one before may have gone with it, and nothing tells of that
            if names.UPLINK in made:
                self._gap = True  # the one before may have had another name for a while, which no rule knows
            self.kernel.apply(operations, make)
        return len(operations) + self._ensure_table() + self.balancer.converge() + self.ingress.converge()

    def read(self, outside: KernelNamespace | None) -> State:
        """Read the kernel's state anew; `outside` is where the VTEP's socket should be, None: nowhere."""
        self._settled = False
        state = self.kernel.read(self.wanted)
        for key, entry in state.items():
            if isinstance(entry, Link) and entry.kind is LinkKind.VTEP:
                home = outside and rtnetlink.has_far_side_in(self.kernel.netlink, entry.name, outside.fd)
                state[key] = replace(entry, astray=not home)
        return state

    def broken_tables(self) -> dict[str, Callable[[], None]]:
        """Return for the name of each of its tables that is not as it should be what has the next pass write it."""
        broken: dict[str, Callable[[], None]] = {}
        if not self.tables.intact(self.network_id, NETWORK_TABLE, self.nft):
            broken[NETWORK_TABLE] = lambda: self.tables.distrust(self.network_id)
        if not self.balancer.intact():
            broken[BALANCE_TABLE] = self.balancer.distrust
        if not self.ingress.intact():
            broken[INGRESS_TABLE] = self.ingress.distrust
        return broken

    def open_doors(self, doors: tuple[Door, ...], *, is_way_in: bool = False) -> None:
        """Want ports of the uplink to lead to tasks; all of them. Others that do stay until `close_doors`.

        `is_way_in`: there may be connections that came in by doors, whatever is open now.
        """
        self._doors, self._is_way_in = doors, is_way_in
        numbers, before = {_number(door) for door in doors}, self.ingress.wanted
        stay = (door for door in before.doors if _number(door) not in numbers) if before else ()
        self._want_doors((*doors, *stay))

    def close_doors(self) -> bool:
        """Want no doors but those that are to be open, and tell whether there are others.

        Once no port of the host leads to them any more: one may have gone over to another network.
        """
        others = self.ingress.wanted is not None and self.ingress.wanted.doors != self._doors
        if others:
            self._want_doors(self._doors)
        return others

    def _want_doors(self, doors: tuple[Door, ...]) -> None:
        network = self.assignment
        if network is None or not (doors or self._is_way_in):
            unwanted, self.ingress.wanted = self.ingress.wanted is not None, None
            if unwanted and network is not None:
                self._settled = False
                for entry in plan_ingress(network):
                    self.wanted.pop(key_of(entry), None)
            return
        for entry in plan_ingress(network):
            self._want(entry)
        if self._marks is None:
            self._marks = node_marks(self.network_id, self._peers)
        self.ingress.wanted = Ingress(network.subnet, doors, self._marks)

    def open_connections(self, addresses: Collection[int]) -> list[int]:
        """Return who serves, among the addresses: each as often as it has an open TCP connection."""
        return [c.served_by for c in conntrack.served_by(self.nft.netfilter, addresses) if c.open]

    def forget_connections(self, gone: Collection[int], withdrawn: Collection[int]) -> None:
        """Have the connections of endpoints that are gone find another, and the datagrams of withdrawn ones, too.

        After the balancer has changed: a packet in between would else bring them back.
        """
        conntrack.forget_translated(self.nft.netfilter, gone, withdrawn)

    def forget_stale_connections(self, endpoints: Collection[int]) -> None:
        """Forget what leads from a service's address to none of the endpoints: what left while no agent ran."""
        addresses = {s.address for s in self.balancer.services.values()}
        if self.uplink:
            addresses.add(self.uplink.inner)  # published ports
        found = conntrack.all_translated(self.nft.netfilter)
        stale = [c for c in found if c.dialled in addresses and c.served_by not in endpoints]
        conntrack.forget(self.nft.netfilter, stale)

    def forget_unanswered(self) -> None:
        """Have what began while nothing translated it, and so reached nobody, find its way anew."""
        if not self._gap:
            return
        found = conntrack.unanswered(self.nft.netfilter)
        conntrack.forget(self.nft.netfilter, [c for c in found if not c.translated])
        self._gap = False

    def close(self) -> None:
        """Let go of the namespace; it lives on if it is pinned."""
        self.nft.close()
        self.kernel.close()

    def destroy(self) -> None:
        """Remove the network from the node. Its devices go at once, the namespace with the last that refers to it.

        The VTEP must not wait for that: while it exists nobody else can have its VNI. Raises OSError; then it may be
        repeated.
        """
        self.unread = True  # should it fail half-way, and the network be assigned again
        devices = [e.name for e in self.kernel.state.values() if isinstance(e, Link) and e.name != names.LOOPBACK]
        if devices:
            self.kernel.netlink.execute(rtnetlink.delete_links(devices, DELETION_GROUP))
        namespace.unpin(self.pin)
        self.tables.forget(self.network_id)
        self.close()

    def _plan_all(self, network: NetworkAssignment, peers: Iterable[PeerAssignment]) -> None:
        self._settled, self.unfitted = False, True
        self.wanted = state_of(plan_network(self.site, network, self.uplink))
        for device, attached in self.containers.items():
            if attached.address and device not in self.cut_off:
                self.wanted.update(state_of(plan_container(self.site, network, device, attached.address)))
        self._peers, self._static, self._marks = {}, {}, None
        for peer in peers:
            self._add_peer(network, peer)
        if not self.removes_leftovers:
            self._ever_wanted.update(self.wanted)

    def _add_peer(self, network: NetworkAssignment, peer: PeerAssignment) -> None:
        entries = tuple(plan_peer(network, peer))
        self._peers[peer.node_id] = (peer, entries)
        self._marks = None
        for entry in entries:
            key = key_of(entry)
            self._want(entry)
            if isinstance(entry, Route) and entry.prefix == 32:
                self._static[key] = entry
            if not self.removes_leftovers:
                self._ever_wanted.add(key)

    def _want(self, entry: Entry) -> None:
        key = key_of(entry)
        if self.wanted.get(key) != entry:
            self._settled = False
            self.wanted[key] = entry

    def _drop_peer(self, node_id: str) -> None:
        self._settled, self._marks = False, None
        for entry in self._peers.pop(node_id)[1]:
            key = key_of(entry)
            self.wanted.pop(key, None)
            if self._static.pop(key, None):
                self.wanted.update(self._local(key))

    def _local(self, key: Key) -> State:
        """Return the entry of a key that a container here needs, if one does that has not ended."""
        network = self.assignment
        planned = (
            entry
            for device, attached in self.containers.items()
            if network and attached.address and key_of(Link(device, LinkKind.CONTAINER)) in self.wanted
            for entry in plan_container(self.site, network, device, attached.address)
        )
        return state_of([entry for entry in planned if key_of(entry) == key])

    def _allowed(self, operation: Operation) -> bool:
        entry, key = operation.entry, key_of(operation.entry)
        if isinstance(operation, Put) or self.removes_leftovers or key in self._ever_wanted or key in self.wanted:
            return True
        return is_in_the_way(entry, self.wanted)  # else the network would not work until the view is whole

    def _ensure_table(self) -> int:
        encrypted = self.assignment is not None and self.assignment.encrypted
        ruleset = network_ruleset(uplink=self.uplink is not None, encrypted=encrypted)
        written = self.tables.ensure(self.network_id, NETWORK_TABLE, ruleset, self.nft)
        self._gap = self._gap or written
        return int(written)


def _number(door: Door) -> tuple[str, int]:
    return door.protocol, door.number
