"""What the agent finds out about its host: for the scheduler, the overlay and people."""

import fcntl
import os
import platform
import socket
import struct
from array import array
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from argosy.agent.logic.host_routes import HostRoute, host_routes, told
from argosy.core.errors import InvalidError
from argosy.core.node import NodeDescription, Platform, Resources

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
_SIOCGIFCONF = 0x8912
_SIOCGIFMTU = 0x8921
_SIOCGIFADDR = 0x8915
_IFREQ_BYTES = 40
USUAL_MTU = 1500


@dataclass(frozen=True, slots=True)
class HostLinks:
    """What may change of a host while it runs. `underlay_mtu`: of the link with the underlay's address; 0: none has it.

    `addresses`: without 127.0.0.1 and link-local ones.
    """

    underlay_mtu: int
    addresses: tuple[str, ...]
    routes: tuple[HostRoute, ...]


def read_links(underlay_address: str) -> HostLinks:
    """Return what the links of this thread's network namespace are like now. Raises OSError."""
    own = _own_addresses()
    return HostLinks(
        _mtu_of(own[underlay_address]) if underlay_address in own else 0,
        tuple(sorted(a for a in own if not a.startswith(("127.", "169.254.")))),
        tuple(host_routes(Path("/proc/thread-self/net/route").read_text())),
    )


def describe(underlay_address: str) -> NodeDescription:
    """Return the node's description; `underlay_address` is one of its own (see `find_underlay`)."""
    links = read_links(underlay_address)
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    return NodeDescription(
        hostname=socket.gethostname(),
        platform=Platform("linux", _ARCHITECTURES.get(platform.machine(), platform.machine())),
        resources=Resources(cpus=float(len(os.sched_getaffinity(0))), memory_bytes=memory),
        agent_version=version("argosy"),
        kernel=platform.release(),
        underlay_address=underlay_address,
        underlay_mtu=links.underlay_mtu or USUAL_MTU,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        routes=told(links.routes),
        addresses=links.addresses,
    )


def locate(controllers: tuple[str, ...]) -> str:
    """Return the IPv4 address and port of the first controller that is not a local socket, "" where all are.

    Blocks while its name is looked up. Raises InvalidError for a name that nobody knows.
    """
    target = next((c for c in controllers if not c.startswith("unix:")), "")
    host, _, port = target.rpartition(":")
    try:
        return f"{socket.gethostbyname(host)}:{port}" if target else ""
    except OSError as e:
        raise InvalidError(f"no way to the controller {target}: {e.strerror}: give --advertise") from None


def find_underlay(advertise: str, towards: str) -> str:
    """Return the IPv4 address that other hosts send VXLAN packets to; InvalidError when it cannot be told.

    `advertise` is an address of this host or the name of an interface; "": the address by which the way to `towards`
    leaves, an IPv4 address and port (see `locate`).
    """
    if advertise:
        address = _address_of(advertise) if advertise in dict(socket.if_nameindex()).values() else advertise
        if address not in _own_addresses():
            own = ", ".join(sorted(_own_addresses()))
            raise InvalidError(f"--advertise {advertise}: neither an interface nor an address of this host ({own})")
        return address
    if not towards:
        raise InvalidError("--advertise is needed: the way to the controller says nothing about this host's address")
    host, _, port = towards.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))  # sends nothing: it only asks the kernel for the route
        except OSError as e:
            raise InvalidError(f"no way to the controller {towards}: {e.strerror}: give --advertise") from None
        return str(probe.getsockname()[0])


def _ioctl(request: int, name: str) -> bytes | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            return fcntl.ioctl(sock, request, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return None


def _address_of(name: str) -> str:
    answer = _ioctl(_SIOCGIFADDR, name)
    if answer is None:
        raise InvalidError(f"--advertise {name}: this interface has no IPv4 address")
    return socket.inet_ntoa(answer[20:24])


def _own_addresses() -> dict[str, str]:
    """Return all IPv4 addresses of this host and whose they are, also where an interface has several (netdevice(7))."""
    room = 64 * _IFREQ_BYTES
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while True:
            found = array("B", bytes(room))
            answer = fcntl.ioctl(sock, _SIOCGIFCONF, struct.pack("iP", room, found.buffer_info()[0]))
            used = struct.unpack("iP", answer)[0]
            if used < room:
                break
            room *= 2  # it is full: there may be more
    return {
        socket.inet_ntoa(found[at + 20 : at + 24]): bytes(found[at : at + 16]).partition(b"\0")[0].decode()
        for at in range(0, used, _IFREQ_BYTES)
    }


def _mtu_of(interface: str) -> int:
    answer = _ioctl(_SIOCGIFMTU, interface)
    return int(struct.unpack("16si", answer[:20])[1]) if answer else 0
