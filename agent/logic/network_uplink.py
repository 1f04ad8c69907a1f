"""Pairs of addresses for uplinks: a /31 a network, unique on the host, the same again as long as it is in use. Pure.

The pair's number is the network's VNI modulo the number of pairs, so it is usually the same on all nodes and after a
reboot. Where two networks want the same number, who has it keeps it; the other takes the next free one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from argosy.core.errors import PreconditionError


@dataclass(frozen=True, slots=True)
class UplinkPair:
    """The two ends' addresses: `host` is the even one."""

    host: int
    inner: int


def pair(uplink_range: IPv4Network, number: int) -> UplinkPair:
    """Return the pair with a number."""
    host = int(uplink_range.network_address) + 2 * number
    return UplinkPair(host, host + 1)


def number_of(uplink_range: IPv4Network, host: int) -> int | None:
    """Return the number of the pair whose host's end is `host`, None if it is of no pair."""
    offset = host - int(uplink_range.network_address)
    return offset // 2 if 0 <= offset < uplink_range.num_addresses and offset % 2 == 0 else None


def allocate(uplink_range: IPv4Network, held: Mapping[str, int], vnis: Mapping[str, int]) -> dict[str, int]:
    """Return a number for each network in `vnis`: what it holds already, else by its VNI, else the next free one.

    Numbers held by networks that are not in `vnis` stay taken: they may still exist. Raises PreconditionError when
    the range has no free pair.
    """
    count = uplink_range.num_addresses // 2
    numbers = {network: held[network] for network in vnis if network in held}
    taken = set(held.values())
    for network in sorted(vnis.keys() - numbers.keys()):
        if len(taken) >= count:
            raise PreconditionError(
                f"no free uplink address for network {network}: all {count} pairs of {uplink_range} are in use; "
                "set a larger uplink range"
            )
        number = vnis[network] % count
        while number in taken:
            number = (number + 1) % count
        numbers[network] = number
        taken.add(number)
    return numbers
