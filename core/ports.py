"""Published ports: which two cannot stand side by side, and which numbers the cluster chooses from."""

from typing import Final

FIRST_CHOSEN: Final = 30000
LAST_CHOSEN: Final = 32767
"""The ports that the cluster chooses from: below those that Linux gives to outgoing connections (from 32768)."""

PROTOCOLS: Final = ("tcp", "udp")


def same_place(one: str, other: str) -> bool:
    """Whether two host addresses ("" and 0.0.0.0: all) have one in common."""
    return one == other or _everywhere(one) or _everywhere(other)


def said(protocol: str, number: int, host_ip: str = "") -> str:
    """Return a published port as people write it: "8080/tcp", "127.0.0.1:53/udp"."""
    return f"{'' if _everywhere(host_ip) else f'{host_ip}:'}{number}/{protocol}"


def _everywhere(host_ip: str) -> bool:
    return host_ip in ("", "0.0.0.0")
