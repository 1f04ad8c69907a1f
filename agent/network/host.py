"""The host's own namespace: the outer ends of the uplinks, forwarding between them and the outside, and the table.

What the host had before is changed as little as possible: forwarding is switched on for single devices, those that
routes lead over; through them nothing else is forwarded than before; and it is switched off again when the last
uplink goes. Which devices were switched is remembered in `run_dir`, as the kernel's state lasts no longer than that.

The kernel looks at the setting of the device that a packet comes in by alone. So a device that forwarded before is
never restricted, nor is what comes in by any other; and one that was switched is given free when someone else has made
a router of the host since (`ip_forward`, which sets all devices), and is then left on in the end too.
"""

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from argosy.agent.logic import network_leads
from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_diff import Operation, Put, diff
from argosy.agent.logic.network_firewall import HostFirewall, PublishedRules, host_ruleset, removal
from argosy.agent.logic.network_ingress import Place
from argosy.agent.logic.network_leads import Lead, leads
from argosy.agent.logic.network_plan import Site, plan_egress, plan_host_uplink
from argosy.agent.logic.network_ports import Opening, led_datagrams, published_rules
from argosy.agent.logic.network_state import Address, Entry, Key, Link, LinkKind, State, device_of, key_of, state_of
from argosy.agent.logic.network_uplink import UplinkPair, number_of
from argosy.agent.network import conntrack, datagrams, rtnetlink
from argosy.agent.network.carried import DELETION_GROUP
from argosy.agent.network.kept_tables import KeptTables
from argosy.agent.network.kernel import KernelNamespace, LinkMaker
from argosy.agent.network.namespace import Home, open_namespace, read_setting, write_setting
from argosy.agent.network.nft import Nft
from argosy.agent.network.tables import Tables
from argosy.core.assignment import NetworkAssignment

_SCOPE = ""
_FORWARDING = "ipv4/conf/{}/forwarding"


class HostNamespace:
    """Used by the plane's worker thread alone, which is at home here: settings need no change of namespace."""

    def __init__(
        self,
        home: Home,
        nft: Nft,
        site: Site,
        firewall: HostFirewall,
        ports_table: str,
        tables: Tables,
        memory: Path,
    ) -> None:
        self._home = home
        self._nft = nft
        self._site = site
        self._firewall = firewall
        self._ports_table = ports_table
        self._tables = tables
        self._memory = memory
        self._switched: dict[str, bool] = {}
        """The devices that did not forward before, and whether the host as a whole did."""
        self._uplinks: list[tuple[NetworkAssignment, UplinkPair]] = []
        self._planned = True
        """What is wanted is what these uplinks need."""
        self._openings: list[Opening] = []
        self._published = PublishedRules()
        self._leads: KeptTables[frozenset[Lead]] = KeptTables(
            nft, ((ports_table, "ip"),), partial(network_leads.change, ports_table)
        )
        self._ever_wanted: set[Key] = set()
        self.kernel = KernelNamespace(home, open_namespace("/proc/thread-self/ns/net"), is_hosts=True)
        self.wanted: dict[Key, Entry] = {}
        self.removes_leftovers = False
        self._gap = False
        """Connections may have begun while the table was not there, or did not know an uplink."""

    def close(self) -> None:
        """Let go of sockets and descriptors; nothing changes in the kernel."""
        self.kernel.close()

    def adopt(self) -> None:
        """Read what a former life left."""
        self._switched = _remembered(self._memory)
        self.kernel.read({})

    def held_pairs(self, uplink_range: IPv4Network) -> dict[str, int]:
        """Return the number of the address pair that each existing uplink (by device name) holds."""
        held: dict[str, int] = {}
        for entry in self.kernel.state.values():
            number = number_of(uplink_range, entry.address) if isinstance(entry, Address) else None
            if number is not None:
                held[device_of(entry)] = number
        return held

    def want(self, uplinks: Iterable[tuple[NetworkAssignment, UplinkPair]]) -> None:
        """Take over which networks have uplinks.

        Which of the host's devices answers come in by is looked up anew when these change, and by `look_again`.
        """
        self._uplinks, before = list(uplinks), self._uplinks
        if self._uplinks != before:
            self._planned = False

    def follow(self, site: Site) -> None:
        """Take over that the host's link has changed."""
        self._site, self._planned = site, False

    def publish(self, openings: Iterable[Opening]) -> None:
        """Take over which of the host's ports lead to services."""
        self._openings = list(openings)
        self._published = published_rules(self._openings, self._uplinks)
        self._leads.wanted = leads(self._openings, self._pairs())

    def forget_datagrams(self, ports: Collection[int]) -> None:
        """Have datagrams to ports that were changed just now find that: the kernel remembers where they went before."""
        found = conntrack.untranslated_datagrams(self._nft.netfilter, ports)
        own = rtnetlink.read_local(self.kernel.netlink) if found else []  # no other can be meant for a published port
        meant = [c for c in found if any(IPv4Address(c.dialled) in network for network in own)]
        conntrack.forget(self._nft.netfilter, meant)
        led, uplinks = led_datagrams(self._openings, self._pairs()), IPv4Network(self._firewall.uplink_range)

        def misled(dialled: Place, reached: Place) -> bool:
            address, number = str(IPv4Address(dialled[0])), dialled[1]
            return IPv4Address(reached[0]) in uplinks and led.get((address, number), led.get(("", number))) != reached

        datagrams.forget(self._nft.netfilter, misled)

    def forget_unanswered(self) -> None:
        """Have what began by an uplink while nothing translated it, and so reached nobody, find its way anew."""
        if not self._gap:
            return
        uplinks = IPv4Network(self._firewall.uplink_range)
        found = conntrack.unanswered(self._nft.netfilter)
        passing = [c for c in found if IPv4Address(c.client) in uplinks or IPv4Address(c.served_by) in uplinks]
        conntrack.forget(self._nft.netfilter, passing)
        self._gap = False

    def _pairs(self) -> dict[str, UplinkPair]:
        return {network.id: pair for network, pair in self._uplinks}

    def look_again(self) -> None:
        """Plan anew: the host may have other routes since. Raises OSError."""
        entries: list[Entry] = []
        for network, pair in self._uplinks:
            entries += plan_host_uplink(self._site, network, pair)
        if entries:
            entries += plan_egress(sorted(self._egress()))
        self.wanted = state_of(entries)
        self._ever_wanted |= self.wanted.keys()
        self.kernel.learn_settings(self.wanted)
        self._planned = True

    def operations(self) -> list[Operation]:
        """Return what is to be done; leftovers are left alone as long as the view may not be whole."""
        return [
            op
            for op in diff(self.kernel.state, self.wanted)
            if isinstance(op, Put) or self.removes_leftovers or key_of(op.entry) in self._ever_wanted
        ]

    def converge(self, make: LinkMaker) -> int:
        """Bring the kernel to what is wanted, and tell how many changes it took.

        The table comes first and goes last: no uplink is there for a moment without it.
        """
        if not self._planned:
            self.look_again()
        self._remember_switched()
        changes = self._ensure_table()
        operations = self.operations()
        if operations:
            if any(op.creates for op in operations if isinstance(op, Put) and isinstance(op.entry, Link)):
                self._gap = True  # the one before may have had another name for a while, which no rule knows
            self.kernel.apply(operations, make)
        if not self.wanted and self.removes_leftovers:
            changes += self._drop_table() + self._restore()
        return len(operations) + changes

    def lead(self) -> int:
        """Have ports lead where they are to, once it is open there; return 1 if that took a change."""
        return self._leads.converge()

    def read(self) -> State:
        """Read the kernel's state anew."""
        return self.kernel.read(self.wanted)

    def broken_tables(self) -> dict[str, Callable[[], None]]:
        """Return for the name of each of its tables that is not as it should be what has the next pass write it.

        The host's own forwarding may call for another one, too.
        """
        if not self.wanted and not self._tables.known(_SCOPE):
            return {}
        broken: dict[str, Callable[[], None]] = {}
        if not self._leads.intact():
            broken[self._ports_table] = self._leads.distrust
        outdated = bool(self.wanted) and not self._tables.written_from(_SCOPE, host_ruleset(self._current()))
        if outdated or not self._tables.intact(_SCOPE, self._firewall.table, self._nft):
            broken[self._firewall.table] = lambda: self._tables.distrust(_SCOPE)
        return broken

    def delete_uplink(self, network_id: str) -> None:
        """Delete what may be left of an uplink whose inner end is in a namespace that is no more."""
        device = names.host_uplink_device(network_id)
        if key_of(Link(device, LinkKind.HOST_UPLINK)) in self.kernel.state:
            self.kernel.netlink.execute([rtnetlink.delete_link(device)])
            self.uplink_deleted(network_id)

    def uplink_deleted(self, network_id: str) -> None:
        """Believe that a network's uplink is gone, with all that hung on it."""
        device = names.host_uplink_device(network_id)
        self.kernel.state = {k: e for k, e in self.kernel.state.items() if device_of(e) != device}
        self.kernel.indexes.pop(device, None)

    def purge(self) -> None:
        """Remove all of the node's from the host's namespace."""
        self._uplinks = []
        self.wanted = {}
        self.kernel.read({})
        devices = list(self.kernel.indexes)
        if devices:
            self.kernel.netlink.execute(rtnetlink.delete_links(devices, DELETION_GROUP))
        self._restore()
        self._nft.run(removal(self._firewall.table))
        self._leads.wanted = None
        self._leads.distrust()
        self._leads.converge()

    def _egress(self) -> set[str]:
        """Return the host's devices that routes lead over, without the loopback and what the table has for uplinks."""
        indexes = rtnetlink.read_route_devices(self.kernel.netlink)
        found = {link.name for i, link, _ in rtnetlink.read_links(self.kernel.netlink) if i in indexes}
        return {name for name in found if not _passes_for_uplink(name) and name != names.LOOPBACK}

    def _remember_switched(self) -> None:
        """Note which devices are about to be switched, before they are: a crash in between forgets nothing."""
        devices = {device_of(e) for e in self.wanted.values()} - {""}
        new = {
            d
            for d in devices
            if not _passes_for_uplink(d) and d not in self._switched and read_setting(_FORWARDING.format(d)) == "0"
        }
        if new:
            self._switched |= dict.fromkeys(new, _routes())
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            self._memory.write_text(json.dumps(self._switched, sort_keys=True))

    def _ensure_table(self) -> int:
        if not self.wanted:
            return 0
        written = self._tables.ensure(_SCOPE, self._firewall.table, host_ruleset(self._current()), self._nft)
        self._gap = self._gap or written
        return int(written)

    def _drop_table(self) -> int:
        if self._nft.listing(self._firewall.table, terse=True) is None:
            return 0
        self._nft.run(removal(self._firewall.table))
        self._tables.forget(_SCOPE)
        return 1

    def _current(self) -> HostFirewall:
        return replace(self._firewall, restricted=tuple(sorted(self._ours())), published=self._published)

    def _ours(self) -> set[str]:
        """Return the devices that forward because of us alone."""
        routes = _routes()
        return {device for device, routed in self._switched.items() if routed or not routes}

    def _restore(self) -> int:
        restored = 0
        for device in self._ours():
            if read_setting(_FORWARDING.format(device)) == "1":
                write_setting(_FORWARDING.format(device), "0")
                restored += 1
        self.kernel.forget_settings()
        self._switched = {}
        self._memory.unlink(missing_ok=True)
        return restored


def _routes() -> bool:
    return read_setting("ipv4/ip_forward") == "1"


def _passes_for_uplink(name: str) -> bool:
    """Tell whether the host's table has a device for an uplink: somebody else's, too, by which nothing leads out."""
    return name.startswith(names.HOST_UPLINK_PREFIX)


def _remembered(path: Path) -> dict[str, bool]:
    try:
        return {str(name): bool(routed) for name, routed in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}
