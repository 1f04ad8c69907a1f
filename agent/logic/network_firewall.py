"""The nftables tables of a node as text: one in the host's namespace, one in each network's that has an uplink. Pure.

The host's table keeps what comes out of an uplink away from the cluster's own ports. Without it a container could send
VXLAN packets to another host through its own host's address, and so put frames into networks it is not on.
Fragments need no care: the kernel puts them together again before these hooks, for connection tracking.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_foreign import CAME

NETWORK_TABLE: Final = "argosy"
AFRESH: Final = 1
"""Mark of packets for which a VTEP looks its way up, instead of taking the one that it remembers."""
_OTHER_PORTS: Final = "32768-60999"
"""Where Linux takes ports from for who asks for none in particular."""
_QUESTIONS_EACH: Final = 2000
"""Datagrams a second that one address may send to argosy-dns; what is more would take the room of others' questions."""
_QUESTIONS_AT_ONCE: Final = 1000
"""Fewer than the socket holds while nobody takes them out (agent/network/dns_sockets.py)."""
_LARGEST_QUESTION: Final = 1232
"""Bytes; what is larger would count as one. As much as passes everywhere in one packet (DNS flag day 2020)."""
_UDP_HEADER: Final = 8
_ASKERS: Final = 65535
METADATA_ADDRESS: Final = "169.254.169.254"
"""Where clouds give a host's credentials to whoever asks from the host's address."""


@dataclass(frozen=True, slots=True)
class PublishedRules:
    """What the host's table says of published ports (network_ports.py): maps and chains, and rules that masquerade.

    A client whose address lies in the network's own subnet could not be answered there, so it loses it; so does the
    host's 127.0.0.1.
    """

    chains: tuple[str, ...] = ()
    masquerade: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostFirewall:
    """What the host's table depends on.

    `restricted` are the host's devices that forward only because the node switched it on: through those nothing else
    may be forwarded than before.
    """

    table: str
    vxlan_port: int
    protected_udp: tuple[int, ...]
    protected_tcp: tuple[int, ...]
    uplink_range: str
    restricted: tuple[str, ...] = ()
    published: PublishedRules = PublishedRules()


def host_ruleset(firewall: HostFirewall) -> str:
    """Return the commands that put the host's table into force in one transaction, whatever was there before."""
    uplinks = f'"{names.HOST_UPLINK_PREFIX}*"'
    udp = _set(sorted({firewall.vxlan_port, *firewall.protected_udp}))
    tcp = _set(sorted(set(firewall.protected_tcp)))
    restricted = _set(f'"{device}"' for device in firewall.restricted)
    published = f"ct status dnat ip daddr {firewall.uplink_range}"
    counted = f"counter name {CAME} " if firewall.published.chains else ""
    lines = [
        *firewall.published.chains,
        "chain untrusted {",
        f"  ip saddr != {firewall.uplink_range} counter drop",
        f"  ip daddr {METADATA_ADDRESS} counter drop",
        f"  udp dport {udp} counter drop",
        *([f"  tcp dport {tcp} counter drop"] if firewall.protected_tcp else []),
        "}",
        # Chains of type nat see a connection's first packet. So they cost the tunnels, which are not tracked, nothing.
        "chain input {",
        "  type nat hook input priority 100; policy accept;",
        f"  iifname {uplinks} jump untrusted",
        "}",
        "chain forward {",
        "  type filter hook forward priority filter - 10; policy accept;",
        # Answers, whatever port the client asked from, but that of the tunnels: a peer would take them for a tunnel's.
        # Then containers that go to a published port of this host.
        f"  iifname {uplinks} oifname != {uplinks} ct direction reply udp dport {firewall.vxlan_port} counter drop",
        f"  iifname {uplinks} ct state established ct direction reply accept",
        f"  iifname {uplinks} oifname {uplinks} ip saddr {firewall.uplink_range} {published} accept",
        f"  iifname {uplinks} jump untrusted",
        f"  iifname {uplinks} oifname {uplinks} counter drop",
        f"  oifname {uplinks} ct state established,related accept",
        f"  oifname {uplinks} {published} {counted}accept",
        f"  oifname {uplinks} counter drop",
        *([f"  iifname {restricted} oifname != {uplinks} counter drop"] if firewall.restricted else []),
        "}",
        "chain postrouting {",
        "  type nat hook postrouting priority srcnat; policy accept;",
        # What a peer answers to a container that asks from the tunnels' port would here be taken for a tunnel's packet.
        f"  iifname {uplinks} udp sport {firewall.vxlan_port} masquerade to :{_OTHER_PORTS}",
        f"  ip saddr {firewall.uplink_range} oifname != {uplinks} masquerade",
        # A container that goes to a published port of its own network would else come in by an address of its own.
        f"  iifname {uplinks} oifname {uplinks} masquerade",
        *firewall.published.masquerade,
        "}",
        # The uplinks' devices let 127.0.0.1 pass (route_localnet): for the host's own connections, and nobody else's.
        "chain before_leads {",
        "  type nat hook prerouting priority dstnat - 1; policy accept;",
        f"  iifname {uplinks} ip daddr 127.0.0.0/8 counter drop",
        "}",
        # Tracking the tunnels themselves would cost time and table space for nothing; of what comes in by them the
        # table of the peers says so (network_admission.py).
        "chain untracked_out {",
        "  type filter hook output priority raw; policy accept;",
        f"  udp dport {firewall.vxlan_port} notrack",
        "}",
    ]
    return _replacing(firewall.table, lines)


def network_ruleset(*, uplink: bool, encrypted: bool = False) -> str:
    """Return the commands for a network's table.

    The router has the same address on every node, so an error that it sends to another node's container would be
    dropped there as coming from oneself: it goes out under the address that it is about instead, which is routed to
    this node (th,192,32: the destination in the packet that the ICMP message quotes).

    What leaves by the uplink carries the uplink's address. Nothing comes in by it but answers and what goes to a
    published port; nothing of other nodes leaves by it but the answers to the latter.

    Of questions one address has a share, whatever others ask: the socket that they wait in is one for all. None may be
    large, nor many that are handed over together (UDP_SEGMENT), which stay one in that socket (dns_sockets.py).

    All of it hangs where packets between containers do not come, but for a connection's first: each chain on their way
    costs some 1 % of the throughput. A packet of no connection (ct state invalid) meets no chain of type nat: what
    leaves has not got the uplink's address then, and the host takes nothing else from an uplink (rp_filter,
    `untrusted`); what comes in was not let through by the host's table (`forward`).

    Into tunnels each packet finds its way afresh, which costs little beside encryption. A VTEP remembers its way to
    each peer, and should forget it when routes change. But the kernel (6.18) numbers these changes by namespace, and
    judges a way whose device is gone by the number of the first namespace instead of the mesh's: where the two happen
    to be the same the VTEP goes on sending into nothing, for good. Tunnels go with each change of keys. What is marked
    is not sent by what is remembered (ip_tunnel_dst_cache_usable).
    """
    limit = f"limit rate over {_QUESTIONS_EACH}/second burst {_QUESTIONS_AT_ONCE} packets"
    errors = "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
    lines = [
        "chain errors {",
        "  type filter hook output priority mangle; policy accept;",
        f'  ip saddr 169.254.0.0/16 oifname "{names.VTEP}" {errors} ip saddr set @th,192,32',
        "}",
        f"set askers {{ type ipv4_addr; size {_ASKERS}; flags dynamic,timeout; timeout 10s; }}",
        "chain names {",
        "  type filter hook input priority filter; policy accept;",
        f"  udp dport 53 udp length > {_LARGEST_QUESTION + _UDP_HEADER} counter drop",
        f"  udp dport 53 update @askers {{ ip saddr {limit} }} counter drop",
        "}",
    ]
    if encrypted:
        lines += [
            "chain afresh {",
            "  type filter hook postrouting priority filter; policy accept;",
            f'  oifname "{names.VTEP}" meta mark 0 meta mark set {AFRESH}',
            "}",
        ]
    if uplink:
        lines += [
            "chain postrouting {",
            "  type nat hook postrouting priority srcnat; policy accept;",
            f'  iifname "{names.UPLINK}" ct status & dnat == 0 counter drop',
            f'  iifname "{names.VTEP}" oifname "{names.UPLINK}" counter drop',
            f'  oifname "{names.UPLINK}" masquerade',
            "}",
        ]
    return _replacing(NETWORK_TABLE, lines)


def removal(table: str) -> str:
    """Return the commands that remove a table whether it is there or not."""
    return f"add table ip {table}\ndelete table ip {table}\n"


def _replacing(table: str, lines: Iterable[str]) -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return f"{removal(table)}table ip {table} {{\n{body}}}\n"


def _set(members: Iterable[object]) -> str:
    return "{ " + ", ".join(str(m) for m in members) + " }"
