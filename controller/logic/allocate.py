"""Which VNI and which subnet a new network gets, and whether its MTU can be had.

Called by the API inside the transaction that creates the network. VNIs go upwards and are used again only when the
range is used up, so that packets of a network that is gone reach nobody. Networks are isolated from each other and
may overlap; a subnet that we choose overlaps none as long as one is free.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Final

from argosy.core.addresses import Subnet, subnet_problem
from argosy.core.errors import ExhaustedError, InvalidError

FIRST_VNI: Final = 4096
"""The first VNI we give: the low ones are what people and other tools give by hand."""
LAST_VNI: Final = (1 << 24) - 1
"""VNIs have 24 bits (RFC 7348)."""
DEFAULT_POOL: Final = Subnet.parse("10.64.0.0/10")
OTHER_POOLS: Final = (Subnet.parse("172.16.0.0/12"), Subnet.parse("192.168.0.0/16"), Subnet.parse("10.0.0.0/10"))
"""Where the hosts' own networks take all of the default one (private addresses, RFC 1918)."""
DEFAULT_PREFIX: Final = 16


def choose_vni(used: Iterable[int], next_vni: int, last: int = LAST_VNI) -> int:
    """Return the first free VNI from `next_vni` on, beginning again at the start of the range after its end.

    The caller stores the returned number + 1 as the next `next_vni`. ExhaustedError when all up to `last` are in use.
    """
    taken = set(used)
    start = next_vni if FIRST_VNI <= next_vni <= last else FIRST_VNI
    for vni in chain(range(start, last + 1), range(FIRST_VNI, start)):
        if vni not in taken:
            return vni
    raise ExhaustedError("all VXLAN network identifiers are in use: remove networks that nobody needs")


def choose_subnet(
    wanted: str, taken: Iterable[str], underlay: Iterable[str], routes: Iterable[tuple[str, str]] = ()
) -> str:
    """Return the subnet of a new network: `wanted` where that is given, else a free /16 of 10.64.0.0/10.

    `taken` are the subnets of other networks, `underlay` and `routes` what networks must keep clear of: the hosts' own
    addresses, and what they reach by themselves, with whose it is. When each /16 belongs to a network already, the one
    that the fewest networks share is returned; a service that joins two overlapping networks is refused elsewhere.
    InvalidError says what is wrong with `wanted`, ExhaustedError when the underlay leaves nothing.
    """
    avoid = (*((cidr, "the hosts' own network") for cidr in underlay), *routes)
    candidates = _free(avoid)
    if wanted:
        problem = subnet_problem(wanted, avoid, str(candidates[0]) if candidates else "a smaller one beside these")
        if problem:
            raise InvalidError(f"subnet {problem}", (("subnet", problem),))
        return str(Subnet.parse(wanted))
    if not candidates:
        raise ExhaustedError(
            f"no subnet can be chosen: the hosts' own networks take all of {DEFAULT_POOL} and of "
            f"{', '.join(map(str, OTHER_POOLS))}; give the network a subnet"
        )
    shared: Counter[Subnet] = Counter()
    free = dict.fromkeys(candidates)
    for cidr in taken:
        shared.update(_touched(_parsed(cidr), free))
    return str(min(candidates, key=lambda c: (shared[c], c.base)))


def _free(avoid: Iterable[tuple[str, str]]) -> list[Subnet]:
    """Return the subnets that may be chosen: of the first pool that the hosts' own networks leave something of."""
    blocked = {_parsed(cidr) for cidr, _ in avoid}
    for pool in (DEFAULT_POOL, *OTHER_POOLS):
        candidates = dict.fromkeys(Subnet(base, DEFAULT_PREFIX) for base in pool.subnets(DEFAULT_PREFIX))
        taken = {c for other in blocked for c in _touched(other, candidates)}
        if free := [c for c in candidates if c not in taken]:
            return free
    return []


def _touched(other: Subnet, candidates: Mapping[Subnet, None]) -> list[Subnet]:
    """Return the candidates that share an address with another subnet. Of thousands of hosts each is in one."""
    if other.prefix < DEFAULT_PREFIX:
        return [c for c in candidates if c.overlaps(other)]
    around = Subnet.around(other.base, DEFAULT_PREFIX)
    return [around] if around in candidates else []


_parsed = lru_cache(maxsize=1 << 14)(Subnet.parse)
