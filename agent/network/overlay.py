"""All networks of a node, without any asyncio: what the plane's worker thread does.

The order within a pass: namespaces, then the host's table, then uplinks, then what is in each network. A network that
fails does not keep the others from being brought up to date: what went wrong is raised together at the end. What failed
is read anew, so that the next pass decides on facts.

A pass is told once what has changed. So all that is only worked out comes before anything that may fail, and what is
yet to be done in a network (`CarriedNetwork.unread` and the like) is crossed out when it is done, in whichever pass.
"""

import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from argosy.agent import facts
from argosy.agent.facts import HostLinks
from argosy.agent.logic import network_names as names
from argosy.agent.logic.host_routes import collision, told
from argosy.agent.logic.network_firewall import HostFirewall
from argosy.agent.logic.network_ingress import Place, led_datagrams
from argosy.agent.logic.network_plan import Site, link_mtu, placeholder_of
from argosy.agent.logic.network_services import Changed, Services
from argosy.agent.logic.network_state import Link, LinkKind, device_of
from argosy.agent.logic.network_uplink import UplinkPair, allocate, pair
from argosy.agent.network import datagrams, namespace, rtnetlink
from argosy.agent.network.admission import Admission
from argosy.agent.network.attachments import Attachments
from argosy.agent.network.audit import EVERYTHING, MESH, Scope, differences
from argosy.agent.network.carried import CarriedNetwork
from argosy.agent.network.desired import (
    AuditTiming,
    Drift,
    DriftKind,
    HostReport,
    Interface,
    LocalTask,
    NetworkSettings,
    NetworkState,
    NodeIdentity,
)
from argosy.agent.network.events import Listener, listen
from argosy.agent.network.foreign import ForeignFirewall
from argosy.agent.network.host import HostNamespace
from argosy.agent.network.kernel import KernelNamespace, LinkMaker
from argosy.agent.network.mesh import Mesh
from argosy.agent.network.mesh_keys import MeshKeys
from argosy.agent.network.namespace import Home
from argosy.agent.network.nft import Nft
from argosy.agent.network.peers import Peers
from argosy.agent.network.ports import Ports
from argosy.agent.network.prober import Vantage, open_packets
from argosy.agent.network.problems import Problems
from argosy.agent.network.tables import Tables
from argosy.agent.network.tunnels import Looked
from argosy.agent.network.underlay import Underlay
from argosy.core.assignment import NetworkAssignment
from argosy.core.errors import PreconditionError, TransientError
from argosy.core.network import LEAST_MTU, Attachment, carried_mtu
from argosy.core.node import PortProblem

_NO_CHANGE: Final = Changed()


class Overlay:
    """Used by one thread, the one that made it, whose network namespace is the host's."""

    def __init__(self, identity: NodeIdentity, settings: NetworkSettings) -> None:
        self._node_name = identity.node_name
        away = (settings.audit or AuditTiming()).away
        self._underlay = Underlay(identity.underlay_address, settings.advertise, settings.towards, away)
        links = self._underlay.look()
        self._range = IPv4Network(settings.uplink_range)
        self._pins = settings.run_dir / "netns"
        memory = settings.run_dir / "network"
        self._site = Site(
            node_id=identity.node_id,
            underlay=int(IPv4Address(identity.underlay_address)),
            underlay_mtu=links.underlay_mtu or facts.USUAL_MTU,
            vxlan_port=settings.vxlan_port,
            ipv6=namespace.read_setting("ipv6/conf/all/disable_ipv6") is not None,
        )
        firewall = HostFirewall(
            table=names.host_table(identity.node_name),
            vxlan_port=settings.vxlan_port,
            protected_udp=settings.protected_udp,
            protected_tcp=settings.protected_tcp,
            uplink_range=settings.uplink_range,
        )
        self._home = Home()
        self._tables = Tables(memory / "tables.json")
        self._nft = Nft()
        self._admission = Admission(self._nft, names.peers_table(identity.node_name), settings.vxlan_port)
        self._host = HostNamespace(
            self._home,
            self._nft,
            self._site,
            firewall,
            names.ports_table(identity.node_name),
            self._tables,
            memory / "forwarding.json",
        )
        keys = MeshKeys(settings.state_dir / "mesh")
        self.mesh = Mesh(
            self._home, self._host.kernel.netlink, self._site, settings.run_dir, keys, settings.wireguard_port
        )
        self._carried: dict[str, CarriedNetwork] = {}
        self._attachments = Attachments(self._home, self._site, self._carried)
        self._assigned: Mapping[str, NetworkAssignment] = {}
        self._missing: dict[str, str] = {}  # networks whose namespace could not be made, and why
        self._ending: set[str] = set()
        self._services = Services(identity.node_id)
        self._peers = Peers(identity.node_id)
        self._ports = Ports(self._services, ForeignFirewall(self._nft, firewall.table), self.mesh.ports)
        self._judged: frozenset[str] = frozenset()  # the networks that the report is about
        self.host_report = self._report(links)
        """What the host was like when it was last looked at; may be read by others."""
        self._unfinished = False
        """The last repair failed, or is under way."""
        self._found: dict[Drift, None] = {}  # by repairs that failed: what they did put right is not found again

    def adopt(self) -> None:
        """Take over what a former life left in the kernel; nothing is changed."""
        self._tables.load()
        self._host.adopt()
        self._admission.adopt()
        self.mesh.adopt()
        self._pins.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._pins.iterdir()):
            network_id = names.network_of_pin(self._node_name, path.name)
            if network_id and namespace.is_pin(path):
                adopted = CarriedNetwork.adopt(network_id, self._home, self._site, path, self._tables)
                self._carried[network_id] = adopted

    def close(self) -> None:
        """Let go of everything; the kernel's state stays."""
        for carried in self._carried.values():
            carried.close()
        self._carried.clear()
        self.mesh.close()
        self._ports.close()
        self._host.close()
        self._nft.close()
        self._home.close()

    def purge(self) -> None:
        """Remove everything of this node from the kernel."""
        for carried in self._carried.values():
            carried.destroy()
        self._carried.clear()
        self.mesh.purge()
        self._assigned, self._missing = {}, {}
        self._ports.want((), (), {})
        self._host.purge()
        self._admission.purge()
        self._tables.forget("")

    def apply(self, desired: NetworkState, *, synced: bool) -> int:
        """Bring the kernel to what is desired, and tell how many changes it took. Raises TransientError.

        What a former life left and nothing wants goes only if `synced`: the caller vouches that the view is whole.
        """
        problems = Problems()
        gone = self._assigned.keys() - desired.networks.keys()
        self._assigned = dict(desired.networks)
        self._ending = (self._ending | gone) - desired.networks.keys()
        with problems.of("cannot make the namespace of the tunnels"):
            self.mesh.want(desired.mesh, desired.mesh_peers)
        self._make_missing(problems)
        self._plan(desired)
        for network, carried in self._present():
            with problems.of(f"network {network.name}", network.id):
                self._look_into(carried, network)
        self._host.want((n, c.uplink) for n, c in self._present() if c.uplink)
        self._ports.want(desired.published, desired.tasks, desired.networks)
        self._open_ports()
        changes = 0
        if synced:
            with problems.of("what a former life left"):
                changes += self._remove_leftovers(desired.tasks)
        changes += self._converge(problems)
        changes += self._end_networks(problems)
        if self._judged != desired.networks.keys():
            with problems.of("the host's links"):
                self._follow_host(problems)
        self._forget_datagrams(problems)
        self._ports.look()
        problems.tell()
        return changes

    def attach(self, container_id: str, pid: int, attachments: Sequence[Attachment]) -> tuple[Interface, ...]:
        """Connect a container to networks that are assigned. Raises PreconditionError, TransientError.

        One that is on a network already stays there, though that may not fit this host any more.
        """
        networks = [(self._assignment(a.network_id), a.address) for a in attachments]
        device = names.container_device(container_id)
        self._check_fit([n for n, _ in networks if device not in self._carried[n.id].containers])
        return self._attachments.attach(container_id, pid, networks)

    def detach(self, container_ids: Iterable[str]) -> None:
        """Disconnect containers from all networks, many for the price of one."""
        problems = Problems()
        with problems.of("cannot detach containers"):
            self._attachments.detach(container_ids)
        self._end_networks(Problems())  # what cannot be removed keeps no container from leaving: the next pass tells
        problems.tell()

    def connections(self, containers: Mapping[str, Sequence[Attachment]]) -> dict[str, int]:
        """Return how many TCP connections to each container, given its addresses, are open."""
        asked = [(a.network_id, a.address) for attachments in containers.values() for a in attachments]
        found: Counter[tuple[str, int]] = Counter()
        for network_id in {network_id for network_id, _ in asked} & self._carried.keys():
            addresses = {address for network, address in asked if network == network_id}
            served = self._carried[network_id].open_connections(addresses)
            found.update((network_id, address) for address in served)
        return {c: sum(found[(a.network_id, a.address)] for a in attached) for c, attached in containers.items()}

    def verify(self, scope: Scope = EVERYTHING) -> list[Drift]:
        """Compare what is intended with what the kernel has, and believe the kernel from now on.

        What may be of a former life is no difference until it may be removed.
        """
        drift = self._look(scope)[0]
        drift += (Drift(i, DriftKind.MISSING, "network namespace") for i in sorted(self._missing) if scope.entries(i))
        return drift + [d for d in self.cut_off() if scope.entries(d.network_id)]

    def cut_off(self) -> list[Drift]:
        """Return the links of containers that networks go on without, as they cannot be made."""
        return [
            Drift(network.id, DriftKind.MISSING, f"link {device}, which cannot be made: {why}")
            for network, carried in self._present()
            for device, why in carried.cut_off.items()
        ]

    def beyond_repair(self) -> list[Drift]:
        """Return what only people can put right: what keeps links from being made, what of the host fits no network."""
        misfits = self.host_report.problems.items()
        return [*self.cut_off(), *(Drift(i, DriftKind.UNEXPECTED, problem) for i, problem in misfits)]

    def _look(self, scope: Scope) -> tuple[list[Drift], list[Callable[[], None]]]:
        """Return the differences, and what has the next pass write the tables among them."""
        drift: list[Drift] = []
        rewrite: list[Callable[[], None]] = []
        tables = {"": self._nft, **{i: c.nft for i, c in self._carried.items()}}
        for network_id in (scope.tables_of or frozenset()) & tables.keys():
            tables[network_id].doubt()
        if scope.entries(""):
            self._host.look_again()
            found = differences("", self._host.wanted, self._host.read())
            drift += found if self._host.removes_leftovers else _but_unexpected(found)
        if scope.tables(""):
            broken = self._host.broken_tables()
            rewrite += broken.values()
            drift += (Drift("", DriftKind.DIFFERENT, f"nft table {table}") for table in broken)
        if scope.tables("") and not self._admission.intact():
            rewrite.append(self._admission.distrust)
            drift.append(Drift("", DriftKind.DIFFERENT, f"nft table {names.peers_table(self._node_name)}"))
        if scope.entries(MESH):
            drift += self.mesh.verify()
        for network_id, carried in sorted(self._carried.items()):
            if scope.tables(network_id) and network_id in self._assigned:
                broken = carried.broken_tables()
                rewrite += broken.values()
                drift += (Drift(network_id, DriftKind.DIFFERENT, f"nft table {table}") for table in broken)
            if not scope.entries(network_id):
                continue
            if network_id not in self._assigned:
                if carried.removes_leftovers:
                    drift.append(Drift(network_id, DriftKind.UNEXPECTED, "network namespace"))
                continue
            if not namespace.is_pin(carried.pin, carried.kernel.fd):
                drift.append(Drift(network_id, DriftKind.MISSING, f"pin {carried.pin}"))
            actual = carried.read(self._outside(carried))
            if any(differences(network_id, carried.wanted, actual)):
                ended = self._attachments.forget_ended(carried)
                actual = {key: entry for key, entry in actual.items() if device_of(entry) not in ended}
            found = differences(network_id, carried.wanted, actual)
            drift += found if carried.removes_leftovers else _but_unexpected(found)
            if scope is EVERYTHING:  # which takes a millisecond a container
                drift += self._attachments.differences_inside(carried)
        return drift, rewrite

    def repair(self, scope: Scope = EVERYTHING) -> list[Drift]:
        """Put right what `verify` finds, and return it. Raises TransientError for what could not be put right.

        The next repair that succeeds returns what those before it found, too.
        """
        problems = Problems()
        unfinished, self._unfinished = self._unfinished, True
        if scope.entries(""):
            self._follow_host(problems)
        drift, rewrite = self._look(scope)
        broken = {d.network_id for d in drift}
        if scope is EVERYTHING:
            broken |= {d.network_id for d in self.cut_off()}  # each try may be notified of: not because of these
        self._found.update(dict.fromkeys(drift))
        for network_id, why in self._missing.items():  # which the next pass makes
            if scope.entries(network_id):
                problems.add(why, network_id)
        if scope is EVERYTHING:
            if self._ports.try_again():
                self._open_ports()
                self._converge(problems)
                self._forget_datagrams(problems)
            self._ports.look(again=True)
        if broken or unfinished:
            for distrust in rewrite:
                distrust()
            if rewrite or "" in broken:
                self._ports.doubt_datagrams()
            for network, carried in self._present():
                if network.id in broken:
                    with problems.of(f"network {network.name}", network.id):
                        self._mend(carried, inside=scope is EVERYTHING)
            self._converge(problems)
            self._forget_datagrams(problems)
            if MESH in broken:
                with problems.of("the tunnels"):
                    self.mesh.repair()
        problems.tell()
        self._unfinished = False
        found, self._found = self._found, {}
        return list(found)

    def _mend(self, carried: CarriedNetwork, *, inside: bool) -> None:
        """Put right what converging does not: the pin, containers' links, and what is `inside` of containers."""
        if not namespace.is_pin(carried.pin, carried.kernel.fd):
            namespace.unpin(carried.pin)
            namespace.pin(carried.kernel.fd, carried.pin)
        self._attachments.replug(carried, again=inside)
        if inside:
            self._attachments.mend_inside(carried)

    def silent_changes(self) -> list[str]:
        """Return the scopes in which something changed of which no notification tells: settings, pins, tunnels' peers.

        The host's, too, while it is without its address. Raises TransientError.
        """
        try:
            found = {i for i, c in self._carried.items() if not namespace.is_pin(c.pin, c.kernel.fd)}
            found |= {i for i, c in self._carried.items() if i not in found and c.kernel.settings_changed()}
            found |= {""} if self._underlay.is_away or self._host.kernel.settings_changed() else set()
            kernel = self.mesh.kernel
            disturbed = self.mesh.disturbed or not self.mesh.is_pinned()
            disturbed = disturbed or (kernel is not None and kernel.settings_changed())
        except OSError as error:
            raise TransientError(f"settings cannot be read: {error}") from error
        return sorted({*found, MESH} if disturbed else found)

    def listen(self, known: Collection[str]) -> dict[str, Listener]:
        """Open listeners in the namespaces that are not `known` yet; "" is the host's."""
        kernels = {"": self._host.kernel, **{i: c.kernel for i, c in self._carried.items()}}
        if self.mesh.kernel:
            kernels[MESH] = self.mesh.kernel
        return {i: listen(self._home, k.fd, k.netlink.port) for i, k in kernels.items() if i not in known}

    def vantage(self, network_id: str, identifier: int) -> Vantage:
        """Return where to probe peers from. Raises PreconditionError where the node does not carry the network."""
        network = self._assignment(network_id)
        own = self._peers.own.get(network_id)
        source = placeholder_of(network, own) if own else None
        if source is None and self._carried[network_id].ingress.wanted is not None:
            source = self._site.underlay  # of no network: its answers come back as those to clients do
        if source is None:
            raise PreconditionError(f"node {self._node_name} has no addresses of network {network.name} yet")
        with self._home.away(self._carried[network_id].kernel.fd):
            packets = open_packets(identifier)
        return Vantage(packets, names.vtep_mac(network_id, self._site.node_id), source, link_mtu(self._site, network))

    @property
    def home(self) -> Home:
        """The way into the networks' namespaces, for the thread that this belongs to."""
        return self._home

    def namespace_descriptors(self) -> dict[str, int]:
        """Return the namespaces of the networks that are assigned and exist here."""
        return {i: c.kernel.fd for i, c in self._carried.items() if i in self._assigned}

    @property
    def port_problems(self) -> tuple[PortProblem, ...]:
        """What stands in the way of published ports here."""
        return self._ports.problems

    def _present(self) -> list[tuple[NetworkAssignment, CarriedNetwork]]:
        """Return the networks that are assigned, without those whose namespace could not be made."""
        return [(n, self._carried[i]) for i, n in self._assigned.items() if i in self._carried]

    def _make_missing(self, problems: Problems) -> None:
        """Make the namespaces of networks that have none; those that cannot be made are left out of what is done."""
        self._missing = {}
        for network_id in [i for i in self._assigned if i not in self._carried]:
            try:
                self._carried[network_id] = self._create(network_id)
            except (OSError, TransientError) as error:
                self._missing[network_id] = f"cannot make the namespace of network {network_id}: {error}"
                problems.add(self._missing[network_id], network_id)

    def _plan(self, desired: NetworkState) -> None:
        """Tell each network what it should be, before anything can fail: what has changed is told here but once."""
        pairs = self._pairs()
        self._peers.update(desired.peers, desired.networks)
        changes = self._services.update(desired.names, desired.endpoints)
        local = _addresses_by_network(desired.tasks)
        for network_id, carried in self._carried.items():
            change, begins = changes.get(network_id, _NO_CHANGE), carried.assignment is None
            if network_id in desired.networks:
                others = self._peers.others(network_id)
                carried.assign(desired.networks[network_id], pairs.get(network_id), others)
            carried.left.add(change)
            self._balance(carried, change, local.get(network_id, ()), anew=begins)
        self._admission.want(self._peers.admitted if self._carried else None)

    def _look_into(self, carried: CarriedNetwork, network: NetworkAssignment) -> None:
        """Find out what there is, where that is not known, and have containers fit a network that has changed."""
        if carried.unread:
            carried.read(self._outside(carried))
            self._attachments.replug(carried, again=False)
            carried.unread = False
        if carried.unfitted:
            self._attachments.refresh(carried, network)
            carried.unfitted = False

    def _remove_leftovers(self, tasks: Iterable[LocalTask]) -> int:
        """Have nothing of a former life that no assignment wants; return how many containers' links went."""
        self._host.removes_leftovers = True
        self._admission.removes_leftovers = True
        self.mesh.removes_leftovers = True
        keep = {names.container_device(task.container_id) for task in tasks}
        unwanted: set[str] = set()
        for network_id, carried in self._carried.items():
            carried.removes_leftovers = True
            if network_id not in self._assigned:
                self._ending.add(network_id)
            unwanted |= {d for d, a in carried.containers.items() if not a.plug and d not in keep}
        if unwanted:
            self._attachments.delete(sorted(unwanted))
        return len(unwanted)

    def _open_ports(self) -> None:
        """Have each network's namespace and the host's know which ports lead where."""
        for network, carried in self._present():
            doors, is_way_in = self._ports.doors_of(network.id), self._ports.leads_into(network.id)
            carried.open_doors(doors, is_way_in=is_way_in)
        self._host.publish(self._ports.openings)

    def _forget_datagrams(self, problems: Problems) -> None:
        """Have datagrams find where ports lead by now; after the tables: one in between would else bring them back.

        So not yet where the tables could not be changed.
        """
        changed = {o for o in self._ports.changed_for_datagrams() if not problems.scopes & {"", o.network_id}}
        if not changed:
            return
        with problems.of("datagrams to published ports"):
            self._host.forget_datagrams({opening.port.number for opening in changed})
            for network_id in {opening.network_id for opening in changed} & self._carried.keys():
                self._forget_misled(self._carried[network_id])
            self._ports.datagrams_know(changed)

    def _forget_misled(self, carried: CarriedNetwork) -> None:
        led = led_datagrams(self._ports.doors_of(carried.network_id))
        inner = carried.uplink.inner if carried.uplink else None

        def misled(dialled: Place, reached: Place) -> bool:
            return dialled[0] == inner and (dialled[1], reached) not in led

        datagrams.forget(carried.nft.netfilter, misled)

    def _balance(self, carried: CarriedNetwork, changed: Changed, local: Iterable[int], *, anew: bool) -> None:
        """Tell a network's balancer what it should be; `anew`: it knows nothing yet."""
        network_id = carried.network_id
        services = self._services.on(network_id) if anew else changed.services
        carried.balancer.want({s: self._services.balanced(network_id, s) for s in services}, local)

    def open_echo(self) -> socket.socket:
        """Return a socket for ICMP in the mesh. Raises OSError."""
        if self.mesh.kernel is None:
            raise OSError("there is no mesh")
        with self._home.away(self.mesh.kernel.fd):
            return socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)

    def look_at_tunnels(self) -> Looked:
        """Return how each peer is reached, after having seen to it that it is by the best way. Raises OSError."""
        if self.mesh.problem:
            self.mesh.converge()
        ways = self.mesh.look()
        return Looked(ways, self.mesh.problem, self.mesh.keys, self.mesh.inode)

    def _assignment(self, network_id: str) -> NetworkAssignment:
        network = self._assigned.get(network_id)
        if network is None or network_id not in self._carried:
            raise PreconditionError(f"network {network_id} is not assigned to node {self._node_name}")
        return network

    def _check_fit(self, networks: Sequence[NetworkAssignment]) -> None:
        """Refuse networks that this host cannot carry; PreconditionError.

        Those of which containers could not tell the addresses from the host's own (the controller has refused what it
        knew of: routes come and go), and those for which its link is too narrow.
        """
        links = facts.read_links(self._underlay.address)
        for network in networks:
            if misfit := self._misfit(network, links):
                raise PreconditionError(misfit)

    def _misfit(self, network: NetworkAssignment, links: HostLinks) -> str:
        """Return why a network does not fit this host, with what to do; "" when it does."""
        if (mtu := carried_mtu(self._site.underlay_mtu, encrypted=network.encrypted)) < LEAST_MTU:
            return (
                f"the link of node {self._node_name} to other hosts takes {self._site.underlay_mtu} bytes, which "
                f"leaves {mtu} for network {network.name}, and {LEAST_MTU} are needed: give the link a larger MTU"
            )
        if taken := collision(links.routes, network.subnet):
            return (
                f"network {network.name} ({network.subnet}) overlaps {taken}: remove that route from node "
                f"{self._node_name}, or give the network another subnet"
            )
        return ""

    def _report(self, links: HostLinks) -> HostReport:
        found = {i: self._underlay.problem or self._misfit(n, links) for i, n in self._assigned.items()}
        return HostReport(
            underlay_address=self._underlay.address,
            underlay_mtu=self._site.underlay_mtu,
            underlay_problem=self._underlay.problem,
            addresses=links.addresses,
            routes=told(links.routes),
            problems={i: problem for i, problem in found.items() if problem},
        )

    def _follow_host(self, problems: Problems) -> None:
        """Look what the host's links are like: networks follow its address and MTU. Raises TransientError."""
        links = self._underlay.look()
        mtu = links.underlay_mtu or self._site.underlay_mtu  # while no link has the address nothing is known
        site = replace(self._site, underlay=int(IPv4Address(self._underlay.address)), underlay_mtu=mtu)
        changed = site != self._site
        if changed:
            self._site = self._attachments.site = self.mesh.site = site
            self._host.follow(self._site)
            for carried in self._carried.values():
                carried.follow(self._site)
            self._open_ports()
        self._judged = frozenset(self._assigned)
        self.host_report = self._report(links)
        for network, carried in self._present():
            with problems.of(f"network {network.name}", network.id):
                self._attachments.refresh(carried, network)
        if changed:
            self._converge(problems)

    def _create(self, network_id: str) -> CarriedNetwork:
        self._host.delete_uplink(network_id)
        pin = self._pins / names.pin_name(self._node_name, network_id)
        return CarriedNetwork.create(network_id, self._home, self._site, pin, self._tables)

    def _pairs(self) -> dict[str, UplinkPair]:
        """Return the address pairs of uplinks: those in force stay, also of networks that are about to go."""
        devices = {names.host_uplink_device(i): i for i in self._carried}
        held = {devices.get(d, d): number for d, number in self._host.held_pairs(self._range).items()}
        vnis = {n.id: n.vni for n, _ in self._present() if not n.internal}
        return {i: pair(self._range, number) for i, number in allocate(self._range, held, vnis).items()}

    def _converge(self, problems: Problems) -> int:
        """Bring the kernel to what is wanted, and tell how many changes it took."""
        changes = 0
        with problems.of("the tunnels"):
            changes += self.mesh.converge()
        try:
            changes += self._admission.converge()
        except (OSError, TransientError) as error:
            problems.add(f"the table of peers: {error}", "")
            return changes  # there is no VTEP for a moment that takes packets from anyone
        try:
            self._delete_halves()
            changes += self._host.converge(self._make_uplink)
        except (OSError, TransientError) as error:
            problems.add(f"the host's uplinks: {error}", "")
            with problems.of("the host's uplinks", ""):
                self._host.look_again()
                self._host.read()
        for network, carried in self._present():
            changes += self._converge_in(network, carried, problems)
        with problems.of("the host's ports", ""):
            changes += self._host.lead()
            changes += self._close_doors(problems)
            if "" not in problems.scopes:
                self._host.forget_unanswered()
        for network, carried in self._present():
            if not problems.scopes & {"", network.id}:
                with problems.of(f"network {network.name}", network.id):
                    self._forget_connections(carried)
        return changes

    def _converge_in(self, network: NetworkAssignment, carried: CarriedNetwork, problems: Problems) -> int:
        try:
            return carried.converge(self._maker(carried))
        except (OSError, TransientError) as error:
            problems.add(f"network {network.name}: {error}", network.id)
            carried.unread = True  # links may have gone with their containers
            with problems.of(f"network {network.name}", network.id):
                self._look_into(carried, network)
            return 0

    def _close_doors(self, problems: Problems) -> int:
        """Close what no port of the host leads to any more."""
        closing = [(network, carried) for network, carried in self._present() if carried.close_doors()]
        return sum(self._converge_in(network, carried, problems) for network, carried in closing)

    def _forget_connections(self, carried: CarriedNetwork) -> None:
        """Have connections to endpoints that left find another; after the tables, which would else lead them back."""
        network_id, left = carried.network_id, carried.left
        lost = {a for a in left.gone if not self._services.serves(network_id, a)}
        quiet = {a for a in left.withdrawn if not self._services.serves(network_id, a, active=True)}
        if lost or quiet:
            carried.forget_connections(lost, quiet)
        carried.left = Changed()
        if carried.stale:
            carried.forget_stale_connections(self._services.addresses(network_id))
            carried.stale = False
        carried.forget_unanswered()

    def _delete_halves(self) -> None:
        """Delete uplinks without their inner end, which somebody has given another name: only both are made anew."""
        for network, carried in self._present():
            if carried.lacks_uplink():
                self._host.delete_uplink(network.id)

    def _make_uplink(self, link: Link) -> None:
        """Make an uplink: the outer end here, the inner end in its network's namespace.

        There is an inner end already where the outer one has another name now, or both have: it goes, and the outer one
        with it.
        """
        network_id = next(i for i in self._assigned if names.host_uplink_device(i) == link.name)
        carried = self._carried[network_id]
        inner = Link(
            names.UPLINK,
            LinkKind.UPLINK,
            mtu=link_mtu(self._site, self._assigned[network_id]),
            mac=names.uplink_mac(network_id, self._site.node_id),
        )
        there = (link for _, link, _ in rtnetlink.read_links(carried.kernel.netlink))
        left = [link.name for link in there if inner.name == link.name or inner.mac == link.mac]
        carried.kernel.netlink.execute([rtnetlink.delete_link(name) for name in left])
        self._host.kernel.netlink.execute([rtnetlink.make_pair(link, inner, carried.kernel.fd)])
        carried.deleted(names.UPLINK)  # a new inner end: nothing that hung on one before it is there any more

    def _outside(self, carried: CarriedNetwork) -> KernelNamespace | None:
        """Return the namespace where the socket of an assigned network's VTEP belongs; None while there is no mesh."""
        encrypted = carried.assignment is not None and carried.assignment.encrypted
        return self.mesh.kernel if encrypted else self._host.kernel

    def _maker(self, carried: CarriedNetwork) -> LinkMaker:
        def make(link: Link) -> None:
            match link.kind:
                case LinkKind.VTEP:
                    outside = self._outside(carried)
                    if outside is None:
                        raise OSError("this node has no mesh yet")
                    outside.netlink.execute([rtnetlink.make_vtep(link, carried.kernel.fd)])
                case LinkKind.LOOPBACK | LinkKind.UPLINK:
                    pass  # there from the beginning; made together with its outer end
                case _:
                    raise OSError(f"{link} can only be made by attaching its container")

        return make

    def _end_networks(self, problems: Problems) -> int:
        """Remove networks that are no longer assigned, once the last container has left them; the mesh after them."""
        ended = [i for i in self._ending if i in self._carried and not self._carried[i].containers]
        count = 0
        for network_id in ended:
            with problems.of(f"cannot remove network {network_id}"):
                self._carried[network_id].destroy()
                del self._carried[network_id]
                self._host.uplink_deleted(network_id)
                self._ending.discard(network_id)
                count += 1
        if ended and not self._carried:
            self._admission.want(None)
            with problems.of("cannot give the ports of tunnels free"):
                self._admission.converge()
        if not any(c.assignment is None or c.assignment.encrypted for c in self._carried.values()):
            with problems.of("cannot remove the mesh"):
                count += self.mesh.end()
        return count


def _but_unexpected(drift: Iterable[Drift]) -> Iterator[Drift]:
    return (one for one in drift if one.kind is not DriftKind.UNEXPECTED)


def _addresses_by_network(tasks: Iterable[LocalTask]) -> dict[str, list[int]]:
    addresses: dict[str, list[int]] = {}
    for task in tasks:
        for attachment in task.attachments:
            addresses.setdefault(attachment.network_id, []).append(attachment.address)
    return addresses
