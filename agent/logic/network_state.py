"""The kernel's network state as plain values: what a namespace holds, keyed the way the kernel keys it.

Both what is intended (network_plan) and what is there (agent/network/rtnetlink) are expressed in these, so that the
difference between them is a dictionary comparison. Addresses are IPv4 in host byte order, MAC addresses six bytes.
Entries name their device, never its index: indexes differ between lives of a device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final, TypeAlias

MAIN_TABLE: Final = 254


class LinkKind(IntEnum):
    """How a link comes into being, and so what can be compared of it."""

    LOOPBACK = 0
    VTEP = 1
    UPLINK = 2  # the inner end of a pair whose outer end is made in the host's namespace
    HOST_UPLINK = 3
    CONTAINER = 4  # its peer is in a container
    OTHER = 5
    TUNNEL = 6  # WireGuard, of the kernel or of a process


class RouteKind(IntEnum):
    """The kernel's route types (linux/rtnetlink.h)."""

    UNICAST = 1
    UNREACHABLE = 7
    THROW = 9  # not by this table: the lookup goes on with the next rule


@dataclass(frozen=True, slots=True)
class Link:
    """A device that is up. `vni`, `local` and `port` are a VTEP's; `learning` and `astray` are never wanted.

    Wanted links are `up`; one that is down is different and brought up. `astray`: a VTEP's socket is in another
    namespace than it should be (that of tunnels for an encrypted network, the host's for others).
    """

    name: str
    kind: LinkKind
    mtu: int = 0
    mac: bytes = b""
    vni: int = 0
    local: int = 0
    port: int = 0
    learning: bool = False
    up: bool = True
    astray: bool = False

    def replaces(self, other: "Link") -> bool:
        """Tell whether `other` must be deleted to get this one: what differs cannot be changed in place."""
        return (self.kind, self.vni, self.local, self.port, self.learning, self.astray) != (
            other.kind,
            other.vni,
            other.local,
            other.port,
            other.learning,
            other.astray,
        )

    def __str__(self) -> str:
        vxlan = f" vni {self.vni} local {IPv4Address(self.local)} port {self.port}" if self.vni else ""
        mac = f" mac {self.mac.hex(':')}" if self.mac else ""
        state = ("up" if self.up else "down") + (", its socket in another namespace" if self.astray else "")
        return f"link {self.name} {self.kind.name.lower()} mtu {self.mtu}{mac}{vxlan} {state}"


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A setting under /proc/sys/net; `device` is the link it belongs to, or "" for the namespace."""

    path: str
    value: str
    device: str = ""

    def __str__(self) -> str:
        return f"sysctl net.{self.path.replace('/', '.')} = {self.value}"


@dataclass(frozen=True, slots=True)
class Gro:
    """Whether the kernel puts packets together as they come in by a device (generic receive offload): "on" or "off"."""

    device: str
    value: str

    def __str__(self) -> str:
        return f"gro {self.value} on {self.device}"


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a device."""

    device: str
    address: int
    prefix: int = 32

    def __str__(self) -> str:
        return f"address {IPv4Address(self.address)}/{self.prefix} on {self.device}"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour entry."""

    device: str
    address: int
    mac: bytes

    def __str__(self) -> str:
        return f"neighbour {IPv4Address(self.address)} mac {self.mac.hex(':')} on {self.device}"


@dataclass(frozen=True, slots=True)
class Fdb:
    """Where a VTEP sends frames for a MAC address: the underlay address of a peer."""

    device: str
    mac: bytes
    destination: int

    def __str__(self) -> str:
        return f"fdb {self.mac.hex(':')} to {IPv4Address(self.destination)} on {self.device}"


@dataclass(frozen=True, slots=True)
class Route:
    """A route. With a gateway it is on-link: the kernel does not ask how to reach the gateway."""

    destination: int
    prefix: int
    kind: RouteKind = RouteKind.UNICAST
    device: str = ""
    gateway: int = 0
    table: int = MAIN_TABLE

    def __str__(self) -> str:
        to = f"{IPv4Address(self.destination)}/{self.prefix}"
        table = f" table {self.table}" if self.table != MAIN_TABLE else ""
        if self.kind is not RouteKind.UNICAST:
            return f"route {self.kind.name.lower()} {to}{table}"
        via = f" via {IPv4Address(self.gateway)}" if self.gateway else ""
        return f"route {to}{via} dev {self.device}{table}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule: packets go by a table, whose number is the rule's priority too.

    Those whose mark has these bits; or, with a `source`, those from that address.
    """

    mark: int
    mask: int
    table: int
    device: str = ""
    source: int = 0

    def __str__(self) -> str:
        if self.source:
            return f"rule from {IPv4Address(self.source)} table {self.table}"
        return f"rule fwmark {self.mark:#x}/{self.mask:#x} table {self.table}"


Setting: TypeAlias = Sysctl | Gro
"""What always has some value: it is written, and never removed but with its device."""

Entry: TypeAlias = Link | Setting | Address | Neighbour | Fdb | Route | Rule
Key: TypeAlias = tuple[int, str | int | bytes, str | int | bytes]
State: TypeAlias = Mapping[Key, Entry]


def key_of(entry: Entry) -> Key:
    """Return what the kernel tells entries apart by; the first number is the order in which kinds are written.

    Settings of the namespace come before devices (which inherit them), a device's own after it. Neighbour, forwarding
    entry and then the route that uses them: the other way round a packet in between would be lost or flooded.
    """
    match entry:
        case Sysctl():
            return (2 if entry.device else 0, entry.path, "")
        case Gro():
            return (2, entry.device, "gro")
        case Link():
            return (1, entry.name, "")
        case Address():
            return (3, entry.device, entry.address)
        case Neighbour():
            return (4, entry.device, entry.address)
        case Fdb():
            return (5, entry.device, entry.mac)
        case Route():
            return (6, entry.table << 32 | entry.destination, entry.prefix)
        case Rule():
            return (7, entry.mark << 32 | entry.source, entry.mask)


def device_of(entry: Entry) -> str:
    """Return the device that an entry vanishes with; "" if none."""
    match entry:
        case Link():
            return entry.name
        case _:
            return entry.device


def state_of(entries: "list[Entry]") -> dict[Key, Entry]:
    """Return entries by their keys; a later one replaces an earlier one."""
    return {key_of(e): e for e in entries}
