"""Published ports: which two cannot stand side by side, and which numbers the cluster chooses from."""

from typing import Final

FIRST_CHOSEN: Final = 30000
LAST_CHOSEN: Final = 32767
"""The ports that the cluster chooses from: below those that Linux gives to outgoing connections (from 32768)."""

PROTOCOLS: Final = ("tcp", "udp")


def same_place(one: str, other: str) -> bool:
    """Whether two host addresses ("" and 0.0.0.0: all) have one in common."""
    return plain_host_ip(one) == plain_host_ip(other) or not (plain_host_ip(one) and plain_host_ip(other))


def said(protocol: str, number: int, host_ip: str = "") -> str:
    """Return a published port as people write it: "8080/tcp", "127.0.0.1:53/udp"."""
    place = plain_host_ip(host_ip)
    return f"{place}:{number}/{protocol}" if place else f"{number}/{protocol}"


def plain_host_ip(host_ip: str) -> str:
    """Return the one way of writing a host address: "" for all of them."""
    return "" if host_ip == "0.0.0.0" else host_ip
