"""The mesh of this node: its namespace, the tunnels in it, and keeping both as they should be.

What should be there is worked out in agent/logic/network_mesh.py. A tunnel that cannot be made is a problem that is
told, and tried again; the VTEPs of encrypted networks lie in the mesh all the same, and have no way out of it.
"""

import errno
import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Protocol

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_diff import diff
from argosy.agent.logic.network_mesh import (
    DeviceChange,
    DeviceState,
    begins,
    change,
    choose,
    epochs_of,
    in_place,
    key_of,
    peers_of,
    plan_mesh,
)
from argosy.agent.logic.network_plan import Site
from argosy.agent.logic.network_ports import HostPort
from argosy.agent.logic.network_state import Entry, Key, Link, LinkKind, state_of
from argosy.agent.network import namespace, rtnetlink, wireguard, wireguard_go
from argosy.agent.network.audit import MESH, differences
from argosy.agent.network.desired import Drift, DriftKind
from argosy.agent.network.held_ports import owner_of
from argosy.agent.network.kernel import KernelNamespace
from argosy.agent.network.mesh_keys import MeshKeys
from argosy.agent.network.namespace import Home
from argosy.agent.network.netlink import Netlink
from argosy.agent.network.wireguard import KernelTunnels
from argosy.agent.network.wireguard_go import TunnelProcesses
from argosy.core.assignment import MeshAssignment, MeshPeerAssignment
from argosy.core.mesh import MeshKey

BY_KERNEL: Final = "kernel"
YIELD_S: Final = 0.8
"""How long the end that does not begin waits for the other, which may have tried before this end was there."""
_SCRATCH: Final = "argosytry"


@dataclass(frozen=True, slots=True)
class Way:
    """How a peer is reached now: the epoch of its tunnel (0: none), and when that last had a handshake.

    `begins`: it is this end that shakes hands unasked.
    """

    peer: MeshPeerAssignment
    epoch: int
    handshake_at: float
    begins: bool


class _Tunnels(Protocol):
    """What sets and reads devices: the kernel or processes."""

    def read(self, name: str) -> DeviceState: ...

    def set(self, name: str, change: DeviceChange, private_key: bytes, port: int) -> None: ...


class Mesh:
    """Used by the plane's worker thread alone, which is at home in the host's namespace."""

    def __init__(self, home: Home, host: Netlink, site: Site, run_dir: Path, keys: MeshKeys, port: int) -> None:
        self._home = home
        self._host = host
        self.site = site
        self._pin = run_dir / "mesh" / "namespace"
        self._keys = keys
        self.ports = (port, port + 1)
        """The UDP ports of the host that tunnels are at: of even epochs, and of odd ones."""
        self._processes = TunnelProcesses(run_dir / "mesh")
        self._in_kernel: KernelTunnels | None = None
        self._assigned: MeshAssignment | None = None
        self._peers: dict[str, MeshPeerAssignment] = {}
        self._ways: dict[str, int] = {}
        self._waiting: dict[bytes, float] = {}  # since when peers could have begun a handshake, by public key
        self._told: set[int] = set()  # the epochs whose keys peers know
        self._wanted: dict[Key, Entry] = {}
        self.kernel: KernelNamespace | None = None
        """The mesh's namespace, while there is one."""
        self.tunnels_by, self.no_tunnels = self._find_out()
        self.problem = ""
        """Why the tunnels are not as they should be; "" when they are."""
        self.disturbed = False
        """A tunnel's peers, key or port were not as wanted at the last look; no notification tells of them."""
        self.removes_leftovers = False

    def adopt(self) -> None:
        """Take over what a former life left; nothing is changed."""
        if namespace.is_pin(self._pin):
            self._enter(namespace.open_namespace(str(self._pin)))

    def close(self) -> None:
        """Let go of sockets and descriptors; namespace and tunnels stay."""
        if self._in_kernel:
            self._in_kernel.close()
            self._in_kernel = None
        if self.kernel:
            self.kernel.close()
            self.kernel = None

    def purge(self) -> None:
        """Remove the mesh, and the keys' copies in memory; the keys on disk are the node's as long as it is one."""
        for name in self._processes.names():
            self._processes.end(name)
        if self.kernel:
            for name in [n for n in self.kernel.indexes if n != names.LOOPBACK]:
                self.kernel.netlink.execute([rtnetlink.delete_link(name)])
        namespace.unpin(self._pin)
        self.close()
        self._assigned, self._wanted, self._ways, self._peers = None, {}, {}, {}

    def end(self) -> int:
        """Remove the mesh unless it is wanted, and tell how many changes that took. No VTEP may be left in it."""
        if self.kernel is None or self._assigned or not self.removes_leftovers:
            return 0
        self.purge()
        self._keys.retain(())
        return 1

    def want(self, assigned: MeshAssignment | None, peers: Iterable[MeshPeerAssignment]) -> None:
        """Take over what is assigned. The namespace is there when this returns: networks need it. Raises OSError."""
        self._assigned = assigned
        self._peers = {p.node_id: p for p in in_place(peers)}
        if assigned and self.kernel is None:
            try:
                self._enter(self._home.make_pinned(self._pin))
            except OSError:
                namespace.unpin(self._pin)
                raise

    @property
    def keys(self) -> tuple[MeshKey, ...]:
        """What peers are to know of this node's keys. Raises OSError.

        A key is told when its tunnel listens for the first time: else a peer would shake hands with nobody, and try
        again only after five seconds.
        """
        epochs = epochs_of(self._assigned) if self._assigned else self._keys.epochs()
        if self._told.issuperset(epochs) or self._assigned is None:
            self._told = set(epochs)
        else:
            listening = _bound_ports()
            self._told = {e for e in epochs if e in self._told or self._port_of(e) in listening}
        return tuple(MeshKey(e, self._keys.public(e), self._port_of(e)) for e in epochs if e in self._told)

    @property
    def inode(self) -> int:
        """Which namespace the mesh's is; 0 while there is none."""
        return os.fstat(self.kernel.fd).st_ino if self.kernel else 0

    def is_pinned(self) -> bool:
        """Tell whether the namespace would outlive this process; without one there is nothing to lose."""
        return self.kernel is None or namespace.is_pin(self._pin, self.kernel.fd)

    def converge(self) -> int:
        """Bring tunnels and routes to what is wanted, and tell how many changes that took; see `problem`."""
        if self.kernel is None or self._assigned is None:
            return 0
        try:
            count = self._converge()
            self.problem = ""
        except OSError as error:
            self.problem = str(error) if error.filename else error.strerror or str(error)
            self.kernel.read(self._wanted)
            return 0
        return count

    def verify(self) -> list[Drift]:
        """Compare what is wanted with what there is, and believe that from now on."""
        if self.kernel is None or self._assigned is None:
            return []
        self.disturbed = False
        drift = list(differences(MESH, self._wanted, self.kernel.read(self._wanted)))
        if not self.is_pinned():
            drift.append(Drift(MESH, DriftKind.MISSING, f"pin {self._pin}"))
        for epoch, name in self._devices().items():
            drift += [
                Drift(MESH, DriftKind.DIFFERENT, f"tunnel {name}: {what}") for what in self._why_other(epoch, name)
            ]
        return drift

    def repair(self) -> None:
        """Put right what `verify` finds. Raises OSError."""
        if self.kernel is None:
            return
        if not self.is_pinned():
            namespace.unpin(self._pin)
            namespace.pin(self.kernel.fd, self._pin)
        self.converge()
        if self.problem:
            raise OSError(self.problem)

    def look(self) -> list[Way]:
        """Have each peer's route go by its newest tunnel that works, and return how each is reached. Raises OSError."""
        if self.kernel is None or self._assigned is None:
            return []
        devices = self._read_devices()
        if self._choose(devices) != self._ways:
            self.converge()
        self._begin_late(devices)
        there = [epoch for epoch, name in self._devices().items() if name in self.kernel.indexes]
        self.disturbed = not self.problem and any(self._change(epoch, devices[epoch]) for epoch in there)
        return [self._way(peer, self._ways.get(i, 0), devices) for i, peer in self._peers.items()]

    def _begin_late(self, devices: Mapping[int, DeviceState]) -> None:
        """Begin from this end, too, where it is the other's turn and nothing has come: it may have been too early.

        It would try again by itself, but only after five seconds.
        """
        now = time.monotonic()
        waiting: dict[bytes, float] = {}
        for epoch, name in self._devices().items():
            there, late = devices[epoch].peers or {}, []
            for peer in peers_of(epoch, self.site.underlay, self._peers.values()).values():
                if peer.begins or peer.public_key not in there or there[peer.public_key].handshake_at:
                    continue
                since = waiting[peer.public_key] = self._waiting.get(peer.public_key, now)
                if now - since > YIELD_S:
                    late.append(replace(peer, begins=True))
                    waiting[peer.public_key] = math.inf
            if late:
                with suppress(OSError):  # gone meanwhile, and about to be replaced
                    self._tunnels().set(name, DeviceChange(put=tuple(late)), b"", 0)
        self._waiting = waiting

    def _way(self, peer: MeshPeerAssignment, epoch: int, devices: Mapping[int, DeviceState]) -> Way:
        key = key_of(peer, epoch)
        handshake_at = devices[epoch].handshake_at(key.public_key) if key and epoch in devices else 0.0
        address = int(IPv4Address(peer.underlay_address or "0.0.0.0"))
        return Way(peer, epoch, handshake_at, begins(self.site.underlay, address))

    def _converge(self) -> int:
        assert self.kernel is not None
        self._keys.retain(epochs_of(self._assigned))
        for epoch in epochs_of(self._assigned):
            self._keys.public(epoch)
        if not self.tunnels_by:
            raise OSError(self.no_tunnels)
        self._ways = self._choose(self._read_devices())
        devices = self._devices()
        ways = {int(IPv4Address(self._peers[i].underlay_address)): e for i, e in self._ways.items() if e}
        site = self.site
        self._wanted = state_of(plan_mesh(site.underlay, site.underlay_mtu, site.ipv6, devices, ways))
        self.kernel.learn_settings(self._wanted)
        operations = diff(self.kernel.state, self._wanted)
        if operations:
            self.kernel.apply(operations, self._make)
        for name in set(self._processes.names()) - set(devices.values()):
            self._processes.end(name)
        return len(operations) + sum(self._set(epoch, name) for epoch, name in devices.items())

    def _set(self, epoch: int, name: str) -> int:
        tunnels = self._tunnels()
        needed = self._change(epoch, tunnels.read(name))
        if needed:
            port = self._port_of(epoch)
            try:
                tunnels.set(name, needed, self._keys.private(epoch), port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                where = HostPort("", "udp", port)
                raise OSError(f"port {where} of the host, which they need, is taken by {owner_of(where)}") from None
        return int(bool(needed))

    def _change(self, epoch: int, there: DeviceState) -> DeviceChange:
        wanted = peers_of(epoch, self.site.underlay, self._peers.values())
        return change(there, self._keys.public(epoch), self._port_of(epoch), wanted, time.time())

    def _why_other(self, epoch: int, name: str) -> list[str]:
        assert self.kernel is not None
        if name not in self.kernel.indexes:
            return []  # that it is missing is said already
        try:
            found = self._change(epoch, self._tunnels().read(name))
        except OSError as error:
            self._processes.end(name)
            return [str(error)]
        keys = [*(p.public_key for p in found.put), *found.remove]
        return [*(["key or port"] if found.rekey else []), *(f"peer {key.hex()[:8]}" for key in keys)]

    def _make(self, link: Link) -> None:
        """Make a device that is not there: born in the mesh by the kernel, or moved there."""
        assert self.kernel is not None
        if link.kind is LinkKind.LOOPBACK:
            return
        if self.tunnels_by == BY_KERNEL:
            self._host.execute([wireguard.make(link.name, self.kernel.fd)])
            return
        self._processes.start(link.name)
        try:
            self._host.execute([rtnetlink.move_link(link.name, self.kernel.fd)])
        except OSError:
            self._processes.end(link.name)
            raise

    def _enter(self, fd: int) -> None:
        """Have the namespace of a descriptor, or nothing of it. Raises OSError."""
        with ExitStack() as undo:
            undo.callback(os.close, fd)
            kernel = KernelNamespace(self._home, fd)
            undo.callback(kernel.netlink.close)
            kernel.read({})
            if self.tunnels_by == BY_KERNEL:
                self._in_kernel = KernelTunnels(self._home.netlink_in(fd, wireguard.NETLINK_GENERIC))
            undo.pop_all()
        self.kernel = kernel

    def _tunnels(self) -> _Tunnels:
        return self._in_kernel or self._processes

    def _devices(self) -> dict[int, str]:
        return {e: names.tunnel_device(self.site.node_id, e) for e in epochs_of(self._assigned)}

    def _read_devices(self) -> dict[int, DeviceState]:
        assert self.kernel is not None
        found: dict[int, DeviceState] = {}
        for epoch, name in self._devices().items():
            found[epoch] = DeviceState()
            if name in self.kernel.indexes:
                try:
                    found[epoch] = self._tunnels().read(name)
                except TimeoutError:
                    self._processes.end(name)  # one that hangs would hold up all that this thread does, again and again
                except OSError:
                    pass  # gone, and about to be replaced
        return found

    def _choose(self, devices: Mapping[int, DeviceState]) -> dict[str, int]:
        now = time.time()
        return {
            i: choose(peer, devices, self._ways.get(i, 0), now) if peer.underlay_address else 0
            for i, peer in self._peers.items()
        }

    def _port_of(self, epoch: int) -> int:
        return self.ports[epoch % 2]

    def _find_out(self) -> tuple[str, str]:
        """Return what makes tunnels on this host, or why nothing does."""
        scratch = self._home.make()
        try:
            # In a namespace of its own: it goes with it.
            with self._home.away(scratch):
                netlink = Netlink()
            try:
                netlink.execute([wireguard.make(_SCRATCH, scratch)])
                return BY_KERNEL, ""
            except OSError:
                pass
            finally:
                netlink.close()
        finally:
            os.close(scratch)
        problem = wireguard_go.why_not()
        return ("", problem) if problem else (wireguard_go.PROGRAM, "")


def _bound_ports() -> set[int]:
    """Return the UDP ports that are listened at in this thread's namespace (proc_net(5): hexadecimal)."""
    lines = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}
