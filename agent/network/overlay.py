"""All networks of a node, without any asyncio: what the plane's worker thread does.

The order within a pass: namespaces, then the host's table, then uplinks, then what is in each network. A network that
fails does not keep the others from being brought up to date: what went wrong is raised together at the end. What failed
is read anew, so that the next pass decides on facts.

A pass is told once what has changed. So all that is only worked out comes before anything that may fail, and what is
yet to be done in a network (`CarriedNetwork.unread` and the like) is crossed out when it is done, in whichever pass.
"""

import socket
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from argosy.agent import facts
from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_firewall import HostFirewall
from argosy.agent.logic.network_ingress import Place, led_datagrams
from argosy.agent.logic.network_plan import Site, link_mtu, placeholder_of
from argosy.agent.logic.network_services import Changed, Services
from argosy.agent.logic.network_state import Link, LinkKind
from argosy.agent.logic.network_uplink import UplinkPair, allocate, pair
from argosy.agent.network import datagrams, namespace, rtnetlink
from argosy.agent.network.admission import Admission
from argosy.agent.network.attachments import Attachments
from argosy.agent.network.audit import MESH
from argosy.agent.network.carried import CarriedNetwork
from argosy.agent.network.desired import (
    AuditTiming,
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
from argosy.agent.network.host_fit import HostFit
from argosy.agent.network.kernel import KernelNamespace, LinkMaker
from argosy.agent.network.mesh import Mesh
from argosy.agent.network.mesh_keys import MeshKeys
from argosy.agent.network.namespace import Home
from argosy.agent.network.networks import Networks
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
from argosy.core.network import Attachment
from argosy.core.node import PortProblem

_NO_CHANGE: Final = Changed()


class Overlay:
    """Used by one thread, the one that made it, whose network namespace is the host's.

    What it is made of is public for `repairs.py`, which compares each part with the kernel.
    """

    def __init__(self, identity: NodeIdentity, settings: NetworkSettings) -> None:
        self._node_name = identity.node_name
        away = (settings.audit or AuditTiming()).away
        self.underlay = Underlay(identity.underlay_address, settings.advertise, settings.towards, away)
        links = self.underlay.look()
        self._range = IPv4Network(settings.uplink_range)
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
        self.nft = Nft()
        self.admission = Admission(self.nft, names.peers_table(identity.node_name), settings.vxlan_port)
        self.host = HostNamespace(
            self._home,
            self.nft,
            self._site,
            firewall,
            names.ports_table(identity.node_name),
            self._tables,
            memory / "forwarding.json",
        )
        keys = MeshKeys(settings.state_dir / "mesh")
        self.mesh = Mesh(
            self._home, self.host.kernel.netlink, self._site, settings.run_dir, keys, settings.wireguard_port
        )
        self.networks = Networks(identity.node_name, self._home, self._site, settings.run_dir / "netns", self._tables)
        self.attachments = Attachments(self._home, self._site, self.networks.carried)
        self._services = Services(identity.node_id)
        self._peers = Peers(identity.node_id)
        self.ports = Ports(self._services, ForeignFirewall(self.nft, firewall.table), self.mesh.ports)
        self._fit = HostFit(identity.node_name, self.underlay, self._site, links)

    def adopt(self) -> None:
        """Take over what a former life left in the kernel; nothing is changed."""
        self._tables.load()
        self.host.adopt()
        self.admission.adopt()
        self.mesh.adopt()
        self.networks.adopt()

    def close(self) -> None:
        """Let go of everything; the kernel's state stays."""
        self.networks.close()
        self.mesh.close()
        self.ports.close()
        self.host.close()
        self.nft.close()
        self._home.close()

    def purge(self) -> None:
        """Remove everything of this node from the kernel."""
        self.networks.destroy()
        self.mesh.purge()
        self.ports.want((), (), {})
        self.host.purge()
        self.admission.purge()
        self._tables.forget("")

    def apply(self, desired: NetworkState, *, synced: bool) -> int:
        """Bring the kernel to what is desired, and tell how many changes it took. Raises TransientError.

        What a former life left and nothing wants goes only if `synced`: the caller vouches that the view is whole.
        """
        problems = Problems()
        self.networks.assign(desired.networks)
        with problems.of("cannot make the namespace of the tunnels"):
            self.mesh.want(desired.mesh, desired.mesh_peers)
        self.networks.make_missing(self.host.delete_uplink, problems)
        self._plan(desired)
        for network, carried in self.networks.present():
            with problems.of(f"network {network.name}", network.id):
                self._look_into(carried, network)
        self.host.want((n, c.uplink) for n, c in self.networks.present() if c.uplink)
        self.ports.want(desired.published, desired.tasks, desired.networks)
        self.open_ports()
        changes = 0
        if synced:
            with problems.of("what a former life left"):
                changes += self._remove_leftovers(desired.tasks)
        changes += self.converge(problems)
        changes += self._end_networks(problems)
        if not self._fit.has_judged(desired.networks):
            with problems.of("the host's links"):
                self.follow_host(problems)
        self.forget_datagrams(problems)
        self.ports.look()
        problems.tell()
        return changes

    def attach(self, container_id: str, pid: int, attachments: Sequence[Attachment]) -> tuple[Interface, ...]:
        """Connect a container to networks that are assigned. Raises PreconditionError, TransientError.

        One that is on a network already stays there, though that may not fit this host any more.
        """
        networks = [(self.networks.assignment(a.network_id), a.address) for a in attachments]
        device = names.container_device(container_id)
        self._fit.check([n for n, _ in networks if device not in self.networks.carried[n.id].containers])
        return self.attachments.attach(container_id, pid, networks)

    def detach(self, container_ids: Iterable[str]) -> None:
        """Disconnect containers from all networks, many for the price of one."""
        problems = Problems()
        with problems.of("cannot detach containers"):
            self.attachments.detach(container_ids)
        self._end_networks(Problems())  # what cannot be removed keeps no container from leaving: the next pass tells
        problems.tell()

    def connections(self, containers: Mapping[str, Sequence[Attachment]]) -> dict[str, int]:
        """Return how many TCP connections to each container, given its addresses, are open."""
        asked = [(a.network_id, a.address) for attachments in containers.values() for a in attachments]
        found: Counter[tuple[str, int]] = Counter()
        for network_id in {network_id for network_id, _ in asked} & self.networks.carried.keys():
            addresses = {address for network, address in asked if network == network_id}
            served = self.networks.carried[network_id].open_connections(addresses)
            found.update((network_id, address) for address in served)
        return {c: sum(found[(a.network_id, a.address)] for a in attached) for c, attached in containers.items()}

    @property
    def home(self) -> Home:
        """The way into the networks' namespaces, for the thread that this belongs to."""
        return self._home

    def namespace_descriptors(self) -> dict[str, int]:
        """Return the namespaces of the networks that are assigned and exist here."""
        return {i: c.kernel.fd for i, c in self.networks.carried.items() if i in self.networks.assigned}

    def listen(self, known: Collection[str]) -> dict[str, Listener]:
        """Open listeners in the namespaces that are not `known` yet; "" is the host's."""
        kernels = {"": self.host.kernel, **{i: c.kernel for i, c in self.networks.carried.items()}}
        if self.mesh.kernel:
            kernels[MESH] = self.mesh.kernel
        return {i: listen(self._home, k.fd, k.netlink.port) for i, k in kernels.items() if i not in known}

    @property
    def port_problems(self) -> tuple[PortProblem, ...]:
        """What stands in the way of published ports here."""
        return self.ports.problems

    @property
    def host_report(self) -> HostReport:
        """What the host was like when it was last looked at; may be read by others."""
        return self._fit.report

    def vantage(self, network_id: str, identifier: int) -> Vantage:
        """Return where to probe peers from. Raises PreconditionError where the node does not carry the network."""
        network = self.networks.assignment(network_id)
        own = self._peers.own.get(network_id)
        source = placeholder_of(network, own) if own else None
        if source is None and self.networks.carried[network_id].ingress.wanted is not None:
            source = self._site.underlay  # of no network: its answers come back as those to clients do
        if source is None:
            raise PreconditionError(f"node {self._node_name} has no addresses of network {network.name} yet")
        with self._home.away(self.networks.carried[network_id].kernel.fd):
            packets = open_packets(identifier)
        return Vantage(packets, names.vtep_mac(network_id, self._site.node_id), source, link_mtu(self._site, network))

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

    def open_ports(self) -> None:
        """Have each network's namespace and the host's know which ports lead where."""
        for network, carried in self.networks.present():
            doors, is_way_in = self.ports.doors_of(network.id), self.ports.leads_into(network.id)
            carried.open_doors(doors, is_way_in=is_way_in)
        self.host.publish(self.ports.openings)

    def converge(self, problems: Problems) -> int:
        """Bring the kernel to what is wanted, and tell how many changes it took."""
        changes = 0
        with problems.of("the tunnels"):
            changes += self.mesh.converge()
        try:
            changes += self.admission.converge()
        except (OSError, TransientError) as error:
            problems.add(f"the table of peers: {error}", "")
            return changes  # there is no VTEP for a moment that takes packets from anyone
        try:
            self._delete_halves()
            changes += self.host.converge(self._make_uplink)
        except (OSError, TransientError) as error:
            problems.add(f"the host's uplinks: {error}", "")
            with problems.of("the host's uplinks", ""):
                self.host.look_again()
                self.host.read()
        for network, carried in self.networks.present():
            changes += self._converge_in(network, carried, problems)
        with problems.of("the host's ports", ""):
            changes += self.host.lead()
            changes += self._close_doors(problems)
            if "" not in problems.scopes:
                self.host.forget_unanswered()
        for network, carried in self.networks.present():
            if not problems.scopes & {"", network.id}:
                with problems.of(f"network {network.name}", network.id):
                    self._forget_connections(carried)
        return changes

    def forget_datagrams(self, problems: Problems) -> None:
        """Have datagrams find where ports lead by now; after the tables: one in between would else bring them back.

        So not yet where the tables could not be changed.
        """
        changed = {o for o in self.ports.changed_for_datagrams() if not problems.scopes & {"", o.network_id}}
        if not changed:
            return
        with problems.of("datagrams to published ports"):
            self.host.forget_datagrams({opening.port.number for opening in changed})
            for network_id in {opening.network_id for opening in changed} & self.networks.carried.keys():
                self._forget_misled(self.networks.carried[network_id])
            self.ports.datagrams_know(changed)

    def follow_host(self, problems: Problems) -> None:
        """Look what the host's links are like: networks follow its address and MTU. Raises TransientError."""
        links = self.underlay.look()
        mtu = links.underlay_mtu or self._site.underlay_mtu  # while no link has the address nothing is known
        site = replace(self._site, underlay=int(IPv4Address(self.underlay.address)), underlay_mtu=mtu)
        changed = site != self._site
        if changed:
            self._site = self.attachments.site = self.mesh.site = self._fit.site = site
            self.host.follow(site)
            self.networks.follow(site)
            self.open_ports()
        self._fit.judge(links, self.networks.assigned)
        for network, carried in self.networks.present():
            with problems.of(f"network {network.name}", network.id):
                self.attachments.refresh(carried, network)
        if changed:
            self.converge(problems)

    def outside(self, carried: CarriedNetwork) -> KernelNamespace | None:
        """Return the namespace where the socket of an assigned network's VTEP belongs; None while there is no mesh."""
        encrypted = carried.assignment is not None and carried.assignment.encrypted
        return self.mesh.kernel if encrypted else self.host.kernel

    def _plan(self, desired: NetworkState) -> None:
        """Tell each network what it should be, before anything can fail: what has changed is told here but once."""
        pairs = self._pairs()
        self._peers.update(desired.peers, desired.networks)
        changes = self._services.update(desired.names, desired.endpoints)
        local = _addresses_by_network(desired.tasks)
        for network_id, carried in self.networks.carried.items():
            change, begins = changes.get(network_id, _NO_CHANGE), carried.assignment is None
            if network_id in desired.networks:
                others = self._peers.others(network_id)
                carried.assign(desired.networks[network_id], pairs.get(network_id), others)
            carried.left.add(change)
            self._balance(carried, change, local.get(network_id, ()), anew=begins)
        self.admission.want(self._peers.admitted if self.networks.carried else None)

    def _pairs(self) -> dict[str, UplinkPair]:
        """Return the address pairs of uplinks: those in force stay, also of networks that are about to go."""
        devices = {names.host_uplink_device(i): i for i in self.networks.carried}
        held = {devices.get(d, d): number for d, number in self.host.held_pairs(self._range).items()}
        vnis = {n.id: n.vni for n, _ in self.networks.present() if not n.internal}
        return {i: pair(self._range, number) for i, number in allocate(self._range, held, vnis).items()}

    def _balance(self, carried: CarriedNetwork, changed: Changed, local: Iterable[int], *, anew: bool) -> None:
        """Tell a network's balancer what it should be; `anew`: it knows nothing yet."""
        network_id = carried.network_id
        services = self._services.on(network_id) if anew else changed.services
        carried.balancer.want({s: self._services.balanced(network_id, s) for s in services}, local)

    def _look_into(self, carried: CarriedNetwork, network: NetworkAssignment) -> None:
        """Find out what there is, where that is not known, and have containers fit a network that has changed."""
        if carried.unread:
            carried.read(self.outside(carried))
            self.attachments.replug(carried, again=False)
            carried.unread = False
        if carried.unfitted:
            self.attachments.refresh(carried, network)
            carried.unfitted = False

    def _remove_leftovers(self, tasks: Iterable[LocalTask]) -> int:
        """Have nothing of a former life that no assignment wants; return how many containers' links went."""
        self.host.removes_leftovers = True
        self.admission.removes_leftovers = True
        self.mesh.removes_leftovers = True
        keep = {names.container_device(task.container_id) for task in tasks}
        unwanted: set[str] = set()
        self.networks.end_unassigned()
        for carried in self.networks.carried.values():
            carried.removes_leftovers = True
            unwanted |= {d for d, a in carried.containers.items() if not a.plug and d not in keep}
        if unwanted:
            self.attachments.delete(sorted(unwanted))
        return len(unwanted)

    def _converge_in(self, network: NetworkAssignment, carried: CarriedNetwork, problems: Problems) -> int:
        try:
            return carried.converge(self._maker(carried))
        except (OSError, TransientError) as error:
            problems.add(f"network {network.name}: {error}", network.id)
            carried.unread = True  # links may have gone with their containers
            with problems.of(f"network {network.name}", network.id):
                self._look_into(carried, network)
            return 0

    def _maker(self, carried: CarriedNetwork) -> LinkMaker:
        def make(link: Link) -> None:
            match link.kind:
                case LinkKind.VTEP:
                    outside = self.outside(carried)
                    if outside is None:
                        raise OSError("this node has no mesh yet")
                    outside.netlink.execute([rtnetlink.make_vtep(link, carried.kernel.fd)])
                case LinkKind.LOOPBACK | LinkKind.UPLINK:
                    pass  # there from the beginning; made together with its outer end
                case _:
                    raise OSError(f"{link} can only be made by attaching its container")

        return make

    def _delete_halves(self) -> None:
        """Delete uplinks without their inner end, which somebody has given another name: only both are made anew."""
        for network, carried in self.networks.present():
            if carried.lacks_uplink():
                self.host.delete_uplink(network.id)

    def _make_uplink(self, link: Link) -> None:
        """Make an uplink: the outer end here, the inner end in its network's namespace.

        There is an inner end already where the outer one has another name now, or both have: it goes, and the outer one
        with it.
        """
        network_id = next(i for i in self.networks.assigned if names.host_uplink_device(i) == link.name)
        carried = self.networks.carried[network_id]
        inner = Link(
            names.UPLINK,
            LinkKind.UPLINK,
            mtu=link_mtu(self._site, self.networks.assigned[network_id]),
            mac=names.uplink_mac(network_id, self._site.node_id),
        )
        there = (link for _, link, _ in rtnetlink.read_links(carried.kernel.netlink))
        left = [link.name for link in there if inner.name == link.name or inner.mac == link.mac]
        carried.kernel.netlink.execute([rtnetlink.delete_link(name) for name in left])
        self.host.kernel.netlink.execute([rtnetlink.make_pair(link, inner, carried.kernel.fd)])
        carried.deleted(names.UPLINK)  # a new inner end: nothing that hung on one before it is there any more

    def _close_doors(self, problems: Problems) -> int:
        """Close what no port of the host leads to any more."""
        closing = [(network, carried) for network, carried in self.networks.present() if carried.close_doors()]
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

    def _forget_misled(self, carried: CarriedNetwork) -> None:
        led = led_datagrams(self.ports.doors_of(carried.network_id))
        inner = carried.uplink.inner if carried.uplink else None

        def misled(dialled: Place, reached: Place) -> bool:
            return dialled[0] == inner and (dialled[1], reached) not in led

        datagrams.forget(carried.nft.netfilter, misled)

    def _end_networks(self, problems: Problems) -> int:
        """Remove networks that are no longer assigned, once the last container has left them; the mesh after them."""
        ended = self.networks.ended()
        count = 0
        for network_id in ended:
            with problems.of(f"cannot remove network {network_id}"):
                self.networks.remove(network_id)
                self.host.uplink_deleted(network_id)
                count += 1
        if ended and not self.networks.carried:
            self.admission.want(None)
            with problems.of("cannot give the ports of tunnels free"):
                self.admission.converge()
        if not any(c.assignment is None or c.assignment.encrypted for c in self.networks.carried.values()):
            with problems.of("cannot remove the mesh"):
                count += self.mesh.end()
        return count


def _addresses_by_network(tasks: Iterable[LocalTask]) -> dict[str, list[int]]:
    addresses: dict[str, list[int]] = {}
    for task in tasks:
        for attachment in task.attachments:
            addresses.setdefault(attachment.network_id, []).append(attachment.address)
    return addresses
