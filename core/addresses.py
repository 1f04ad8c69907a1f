"""IPv4 addresses as integers in host byte order, the subnets of networks, and their slices.

Integers are what tasks store and the kernel takes; text is for people. A subnet is cut into slices of 32 addresses
(core/network.py), which nodes lease. Nothing here is broadcast or network address: containers have routed /32s.
"""

from dataclasses import dataclass
from typing import Final

from argosy.core.errors import InvalidError
from argosy.core.network import SLICE_PREFIX, SLICE_SIZE

SMALLEST_PREFIX: Final = SLICE_PREFIX - 1
"""The smallest subnet is a /26: slice 0 is reserved, and one more is for tasks."""
LARGEST_PREFIX: Final = 8


def parse_ipv4(text: str) -> int:
    """Return a dotted address as an integer; InvalidError for anything but four decimal bytes."""
    if why := _no_ipv4(text):
        raise InvalidError(f"{why}: write it like 10.64.0.33")
    return int.from_bytes(map(int, text.split(".")))


def _no_ipv4(text: str) -> str:
    parts = text.split(".")
    if len(parts) != 4 or not all(p.isascii() and p.isdigit() and len(p) <= 3 and str(int(p)) == p for p in parts):
        return f'"{text}" is not an IPv4 address'
    large = next((f" ({part} is more than 255)" for part in parts if int(part) > 255), "")
    return f'"{text}" is not an IPv4 address{large}' if large else ""


def format_ipv4(address: int) -> str:
    """Return an integer address as dotted text."""
    return f"{address >> 24 & 255}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


@dataclass(frozen=True, slots=True, order=True)
class Subnet:
    """All addresses that share the first `prefix` bits of `base`, whose other bits are 0."""

    base: int
    prefix: int

    @classmethod
    def parse(cls, text: str) -> "Subnet":
        """Read "10.64.0.0/16"; InvalidError says what is wrong, and which subnet was probably meant."""
        address, slash, length = text.partition("/")
        if ":" in address:
            raise InvalidError(f'"{text}" is an IPv6 subnet: networks have IPv4 subnets, such as 10.64.0.0/16')
        if not slash or not (length.isascii() and length.isdigit() and len(length) <= 2) or int(length) > 32:
            raise InvalidError(f'"{text}" is not a subnet: write it like 10.64.0.0/16')
        if why := _no_ipv4(address):
            raise InvalidError(f'"{text}" is not a subnet, as {why}: write it like 10.64.0.0/16')
        subnet = cls.around(parse_ipv4(address), int(length))
        if subnet.base != parse_ipv4(address):
            raise InvalidError(f'"{text}" has bits set after its prefix: did you mean {subnet}?')
        return subnet

    @classmethod
    def around(cls, address: int, prefix: int) -> "Subnet":
        """Return the subnet of that prefix length that holds `address`."""
        return cls(address >> (32 - prefix) << (32 - prefix), prefix)

    def __str__(self) -> str:
        return f"{format_ipv4(self.base)}/{self.prefix}"

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return 1 << (32 - self.prefix)

    @property
    def slices(self) -> int:
        """How many slices it has, slice 0 included."""
        return self.size // SLICE_SIZE

    @property
    def capacity(self) -> int:
        """How many addresses tasks can have in it: all but those of slice 0."""
        return max(self.slices - 1, 0) * SLICE_SIZE

    def contains(self, address: int) -> bool:
        """Whether `address` is one of it."""
        return self.base <= address < self.base + self.size

    def overlaps(self, other: "Subnet") -> bool:
        """Whether the two share an address (of two subnets one then holds the other)."""
        return self.contains(other.base) or other.contains(self.base)

    def slice_of(self, address: int) -> int:
        """Return the index of the slice that `address`, which must be of this subnet, lies in."""
        return (address - self.base) // SLICE_SIZE

    def slice_base(self, index: int) -> int:
        """Return the first address of a slice."""
        return self.base + index * SLICE_SIZE

    def slice(self, index: int) -> "Subnet":
        """Return a slice as a subnet: "10.64.0.32/27" is slice 1 of 10.64.0.0/16."""
        return Subnet(self.slice_base(index), SLICE_PREFIX)

    def subnets(self, prefix: int) -> range:
        """Return the bases of the parts of that prefix length."""
        return range(self.base, self.base + self.size, 1 << (32 - prefix))


def overlaps(one: str, other: str) -> bool:
    """Whether two subnets, as text, share an address."""
    return Subnet.parse(one).overlaps(Subnet.parse(other))


def range_problem(text: str, within: str) -> str | None:
    """Say why tasks' addresses cannot be chosen from `text` in the subnet `within` ("": none is given), or None."""
    if not within:
        return f"{text} is a part of which subnet? Give the subnet as well"
    try:
        part, subnet = Subnet.parse(text), Subnet.parse(within)
    except InvalidError as error:
        return str(error)
    if not (subnet.contains(part.base) and part.prefix >= subnet.prefix):
        return f"{part} is no part of the subnet {subnet}: choose one, such as {_upper_half(subnet)}"
    if part.prefix > SLICE_PREFIX:
        return f"{part} is too small: nodes take {SLICE_SIZE} addresses at a time; the smallest is a /{SLICE_PREFIX}"
    if part == subnet.slice(0):
        return f"{part} is for virtual addresses: choose another part, such as {_upper_half(subnet)}"
    return None


def _upper_half(subnet: Subnet) -> Subnet:
    return Subnet(subnet.base + subnet.size // 2, subnet.prefix + 1)


# What no network may use, and why (IANA's special-purpose registry, RFC 6890; 169.254.1.1 is each container's gateway).
UNUSABLE: Final[tuple[tuple[Subnet, str], ...]] = (
    (Subnet.parse("0.0.0.0/8"), 'addresses of "this host"'),
    (Subnet.parse("127.0.0.0/8"), "the loopback's"),
    (Subnet.parse("169.254.0.0/16"), "link-local, and the containers' gateway lies there"),
    (Subnet.parse("224.0.0.0/4"), "multicast"),
    (Subnet.parse("240.0.0.0/4"), "reserved"),
)


def subnet_problem(text: str, avoid: tuple[tuple[str, str], ...] = (), fits: str = "10.64.0.0/16") -> str | None:
    """Say why a network cannot have the subnet `text`, and what would fit, or None.

    `avoid` has more (subnet, whose it is) that must not overlap: the underlay's and the hosts' routes. `fits`: one that
    does not.
    """
    try:
        subnet = Subnet.parse(text)
    except InvalidError as error:
        return str(error)
    if subnet.prefix > SMALLEST_PREFIX:
        wider = Subnet.around(subnet.base, SMALLEST_PREFIX)
        return (
            f"{subnet} is too small: it has {subnet.size} of the {2 * SLICE_SIZE} addresses that a network needs at "
            f"least; the smallest subnet is a /{SMALLEST_PREFIX} ({SLICE_SIZE} tasks), such as {wider}"
        )
    if subnet.prefix < LARGEST_PREFIX:
        return f"{subnet} is too large: the largest subnet is a /{LARGEST_PREFIX}, such as 10.0.0.0/{LARGEST_PREFIX}"
    taken = UNUSABLE + tuple((Subnet.parse(cidr), whose) for cidr, whose in avoid)
    for other, whose in taken:
        if subnet.overlaps(other):
            return f"{subnet} overlaps {other} ({whose}): choose another, such as {fits}"
    return None
