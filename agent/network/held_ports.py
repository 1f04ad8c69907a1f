"""Ports of the host that are held for services: a socket bound to each, so that no program of the host's can have it.

Binding is the test as well: where a program has the port already, the kernel says so, and /proc says who it is. A bound
TCP socket does not listen; packets to the port never come to it, as they are translated before. Sockets go with the
agent, and the next one binds them again.
"""

import errno
import os
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from argosy.agent.logic.network_ports import HostPort
from argosy.agent.logic.socket_filter import NOTHING
from argosy.agent.network.filtered import attach

_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LISTEN: Final = "0A"


class HeldPorts:
    """Used by the plane's worker thread alone, whose namespace is the host's. `tunnels`: UDP ports to leave alone."""

    def __init__(self, tunnels: Collection[int] = ()) -> None:
        self._tunnels = tunnels
        self._sockets: dict[HostPort, socket.socket] = {}

    def want(self, ports: Iterable[HostPort]) -> dict[HostPort, str]:
        """Hold just these ports, and return those that cannot be held with the reasons. Harmless to repeat."""
        wanted = set(ports)
        for port in self._sockets.keys() - wanted:
            self._sockets.pop(port).close()
        refused: dict[HostPort, str] = {}
        for port in sorted(wanted - self._sockets.keys()):
            if port.protocol == "udp" and port.number in self._tunnels:
                refused[port] = f"port {port} of the host is kept for the tunnels of encrypted networks"
                continue
            try:
                self._sockets[port] = _bound(port)
            except OSError as error:
                refused[port] = _reason(port, error)
        return refused

    def close(self) -> None:
        """Let all of them go."""
        self.want(())


def owner_of(port: HostPort) -> str:
    """Return who has a port of the host, as well as /proc tells."""
    return _owner(_inodes(port)) or "a program of the host"


def _bound(port: HostPort) -> socket.socket:
    held = socket.socket(socket.AF_INET, _KINDS[port.protocol])
    try:
        try:
            held.bind((port.host_ip, port.number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port.protocol != "tcp" or _inodes(port):
                raise
            # Nobody listens: connections of an earlier program are left, which go on. With SO_REUSEADDR others could
            # bind the port as well, unless we listen; to nobody.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((port.host_ip, port.number))
            attach(held, NOTHING)
            held.listen(1)
    except OSError:
        held.close()
        raise
    return held


def _reason(port: HostPort, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} of the host is taken by {owner_of(port)}: end that, or publish another number"
        case errno.EADDRNOTAVAIL:
            return f"the host has no address {port.host_ip}"
        case _:
            return f"port {port} of the host cannot be had: {error.strerror}"


def _inodes(port: HostPort) -> set[str]:
    """Return the inodes of the sockets that have the port (proc_net_tcp.txt): for TCP those that listen."""
    address = socket.inet_aton(port.host_ip)[::-1].hex().upper() if port.host_ip else ""
    found = set()
    for version in ("", "6"):
        for fields in _table(f"{port.protocol}{version}"):
            local, number = fields[1].split(":")
            mine = not address or not local.strip("0") or local.endswith(address)
            if int(number, 16) == port.number and mine and (port.protocol == "udp" or fields[3] == _LISTEN):
                found.add(fields[9])
    return found


def _table(name: str) -> Iterator[list[str]]:
    with suppress(OSError), open(f"/proc/thread-self/net/{name}", encoding="ascii") as file:
        next(file)
        yield from (line.split() for line in file)


def _owner(inodes: set[str]) -> str:
    """Return the name and process id of who has one of the sockets; "" if it is not to be seen."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(entry.path) in wanted for entry in os.scandir(process / "fd")):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""
