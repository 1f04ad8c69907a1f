"""What a host reaches by itself, read from /proc/net/route (proc(5)): networks must keep clear of it. Pure.

Traffic of a container to an address of its network stays in the network. Had the host a way to a machine of the same
address, containers could never reach that one, and nobody would be told.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from argosy.agent.logic.network_names import HOST_UPLINK_PREFIX
from argosy.core.addresses import Subnet

MOST_TOLD: Final = 64
"""Of which the controller is told; the widest, since those are what a subnet collides with."""
_LINK_LOCAL: Final = Subnet.parse("169.254.0.0/16")
_UP, _REJECT = 0x1, 0x200


@dataclass(frozen=True, slots=True, order=True)
class HostRoute:
    """A part of the address space that the host reaches over a device."""

    to: Subnet
    device: str

    def __str__(self) -> str:
        return f"{self.to}, which this host reaches over {self.device}"


def host_routes(text: str) -> list[HostRoute]:
    """Return the routes of the kernel's main table, but for the default one, link-local ones and our own uplinks'."""
    found = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or not int(fields[3], 16) & _UP or int(fields[3], 16) & _REJECT:
            continue
        destination, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        to = Subnet(destination, mask.bit_count())
        if to.prefix and not to.overlaps(_LINK_LOCAL) and not fields[0].startswith(HOST_UPLINK_PREFIX):
            found.add(HostRoute(to, fields[0]))
    return sorted(found)


def told(routes: Iterable[HostRoute]) -> tuple[str, ...]:
    """Return what the controller is told: the widest subnets, none within another."""
    widest: list[Subnet] = []
    for subnet in sorted({route.to for route in routes}, key=lambda s: (s.prefix, s.base)):
        if len(widest) < MOST_TOLD and not any(other.contains(subnet.base) for other in widest):
            widest.append(subnet)
    return tuple(map(str, sorted(widest)))


def collision(routes: Iterable[HostRoute], subnet: str) -> HostRoute | None:
    """Return the route that a network's subnet overlaps, if there is one."""
    wanted = Subnet.parse(subnet)
    return next((route for route in routes if route.to.overlaps(wanted)), None)
