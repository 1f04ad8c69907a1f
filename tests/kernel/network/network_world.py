"""Several hosts on one machine: network and mount namespaces joined by a bridge, each with a real plane in a thread.

Everything is inside namespaces made here; the machine's own is never changed. A host is a thread that has left for
namespaces of its own and runs an event loop there, so that all threads of its plane are born there too. Sockets opened
in a namespace stay in it, so the tests talk from containers with ordinary Python sockets.
"""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

from argosy.agent.network.desired import LocalTask, NetworkSettings, NetworkState, NodeIdentity
from argosy.agent.network.netlink import NETLINK_NETFILTER, Netlink
from argosy.agent.network.plane import NetworkPlane
from argosy.core.assignment import NetworkAssignment, PeerAssignment
from argosy.core.network import Attachment
from argosy.core.service import HostPort

T = TypeVar("T")

_NEWNS, _NEWNET = 0x00020000, 0x40000000
_MS_REC_PRIVATE = 0x4000 | 0x40000

DEADLINE_S = 60.0
"""How long a test waits for a condition. Far more than any needs: an emulated machine is twenty times slower."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def in_thread(action: Callable[[], T], *namespaces: tuple[int, int]) -> T:
    """Run an action in a thread that has entered namespaces (descriptor, type) and ends afterwards."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            for fd, kind in namespaces:
                if kind == _NEWNS:
                    _check(_libc.unshare(0x200))  # CLONE_FS: only then may a thread change its mount namespace
                _check(_libc.setns(fd, kind))
            outcome.set_result(action())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome.result()


def wait_until(condition: Callable[[], T], seconds: float = DEADLINE_S) -> T:
    """Wait for a condition to hold and return what it said."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(0.005)
    return value


class Namespace:
    """A network namespace held by a descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def new(cls) -> "Namespace":
        def make() -> int:
            _check(_libc.unshare(_NEWNET))
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        return cls(in_thread(make))

    def run(self, action: Callable[[], T]) -> T:
        """Run an action in a thread in here."""
        return in_thread(action, (self.fd, _NEWNET))

    def sh(self, command: str, check: bool = True) -> str:
        """Run a shell command in here and return its output."""
        done = self.run(lambda: subprocess.run(command, shell=True, capture_output=True, text=True))
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def open_socket(
        self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET, protocol: int = 0
    ) -> socket.socket:
        """Open a socket in here; it stays here."""
        opened = self.run(lambda: socket.socket(family, kind, protocol))
        opened.settimeout(DEADLINE_S)
        return opened

    def listen(self, address: str, port: int) -> socket.socket:
        listening = self.open_socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(16)
        return listening

    def close(self) -> None:
        os.close(self.fd)


class Container(Namespace):
    """A process in a network namespace of its own, which it may not change, as by default; or may (`admin`)."""

    def __init__(self, host: "Host", container_id: str, *, admin: bool = False) -> None:
        self.id = container_id
        self.host = host
        bounded = [] if admin else ["setpriv", "--bounding-set=-net_admin"]
        begin = ["unshare", "--net", *bounded, "sleep", "1000"]
        self.process = subprocess.Popen(begin, stdout=subprocess.DEVNULL)
        self.pid = self.process.pid
        own = os.stat("/proc/self/ns/net").st_ino
        wait_until(lambda: os.stat(f"/proc/{self.pid}/ns/net").st_ino != own)
        wait_until(lambda: Path(f"/proc/{self.pid}/comm").read_text() == "sleep\n")
        super().__init__(os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        self.attachments: tuple[Attachment, ...] = ()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.fd >= 0:
            self.close()
            self.fd = -1


@dataclass
class Host:
    """A host: namespaces, an event loop in them, and the life of a plane."""

    world: "World"
    name: str
    address: str
    run_dir: Path
    mtu: int = 1500
    settings: dict[str, Any] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    networks: dict[str, NetworkAssignment] = field(default_factory=dict)
    state: NetworkState = NetworkState()
    host_ports: tuple[HostPort, ...] = ()
    """Of all its tasks, which are of the service "web" then."""

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        ready: Future[tuple[int, int]] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=self.name)
        self._thread.start()
        net, self._mount = ready.result(DEADLINE_S)
        self.namespace = Namespace(net)
        self.plane = self._new_plane()

    def _run(self, ready: "Future[tuple[int, int]]") -> None:
        try:
            _check(_libc.unshare(_NEWNET | _NEWNS))
            _check(_libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None))
            fds = tuple(os.open(f"/proc/thread-self/ns/{n}", os.O_RDONLY | os.O_CLOEXEC) for n in ("net", "mnt"))
            ready.set_result(fds)  # type: ignore[arg-type]
        except BaseException as error:
            ready.set_exception(error)
            return
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _new_plane(self) -> NetworkPlane:
        settings = NetworkSettings(
            state_dir=self.run_dir,
            run_dir=self.run_dir,
            # Tests break things by hand and look at them: nobody else repairs, unless the test is about that.
            **{"resolv_conf": self.run_dir / "resolv.conf", "audit": None} | self.settings,
        )
        return NetworkPlane(NodeIdentity(f"node-{self.name}", self.name, self.address), settings)

    def do(self, action: Coroutine[Any, Any, T]) -> T:
        """Carry out something asynchronous in the host's loop."""
        return asyncio.run_coroutine_threadsafe(action, self._loop).result(60)

    def sh(self, command: str, check: bool = True) -> str:
        return self.namespace.sh(command, check)

    def network(self, network_id: str) -> Namespace:
        """Open the namespace of a network on this host; the caller closes it."""
        pin = self.run_dir / "netns" / f"{self.name}.{network_id}"
        fd = in_thread(lambda: os.open(pin, os.O_RDONLY | os.O_CLOEXEC), (self._mount, _NEWNS))
        return Namespace(fd)

    def in_network(self, network_id: str, command: str, check: bool = True) -> str:
        namespace = self.network(network_id)
        try:
            return namespace.sh(command, check)
        finally:
            namespace.close()

    def in_mounts(self, action: Callable[[], T]) -> T:
        return in_thread(action, (self._mount, _NEWNS))

    def apply(self, *, synced: bool = False) -> int:
        """Apply the world's networks, with all hosts as peers: a node is told of itself as of the others."""
        self.state = self.world.state_for(self)
        return self.do(self.plane.apply(self.state, synced=synced))

    def start_container(self, container_id: str, *attachments: tuple[str, str], admin: bool = False) -> Container:
        """Make a container and attach it to (network, address) pairs."""
        container = Container(self, container_id, admin=admin)
        container.attachments = tuple(Attachment(n, int(IPv4Address(a))) for n, a in attachments)
        self.containers[container_id] = container
        self.apply()
        self.do(self.plane.attach(container_id, container.pid, container.attachments))
        return container

    def stop_container(self, container_id: str) -> None:
        container = self.containers.pop(container_id)
        container.end()
        self.do(self.plane.detach(container_id))

    def new_life(self) -> NetworkPlane:
        """End the agent's life and begin another, which has seen nothing yet."""
        self.do(self.plane.close())
        self.plane = self._new_plane()
        self.do(self.plane.start())
        return self.plane

    def end(self) -> None:
        for container in self.containers.values():
            container.end()
        try:
            self.do(self.plane.purge())
            self.do(self.plane.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self.namespace.close()
            os.close(self._mount)


@dataclass
class World:
    """The wire: a bridge in a namespace of its own, which is the outside too (192.0.2.254)."""

    directory: Path
    outside: Namespace
    hosts: list[Host] = field(default_factory=list)
    networks: dict[str, tuple[NetworkAssignment, dict[str, tuple[int, ...]]]] = field(default_factory=dict)
    statics: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)  # by network and host
    extra: dict[str, Any] = field(default_factory=dict)
    cleanup: ExitStack = field(default_factory=ExitStack)

    def add_host(self, mtu: int = 1500, **settings: Any) -> Host:
        number = len(self.hosts) + 1
        directory = self.directory / f"h{number}"
        directory.mkdir()
        (directory / "resolv.conf").write_text("nameserver 192.0.2.254\n")
        host = Host(self, f"t{os.getpid()}-h{number}", f"192.0.2.{number}", directory, mtu, settings)
        self.cleanup.callback(host.end)
        port = f"p{number}"
        self.outside.sh(
            f"ip link add {port} type veth peer name eth0 netns /proc/{os.getpid()}/fd/{host.namespace.fd};"
            f"ip link set {port} mtu {mtu} master br0 up"
        )
        host.sh(
            f"ip link set lo up; ip addr add {host.address}/24 dev eth0; ip link set eth0 mtu {mtu} up;"
            f"ip route add default via 192.0.2.254"
        )
        wait_until(lambda: "state UP" in host.sh("ip link show eth0"))
        self.hosts.append(host)
        host.do(host.plane.start())
        return host

    def add_network(
        self, network_id: str, subnet: str, slices: dict[str, tuple[int, ...]], *, vni: int = 0, internal: bool = False
    ) -> NetworkAssignment:
        """Declare a network and which host (by its place) holds which slices."""
        network = NetworkAssignment(
            network_id, network_id.rstrip("0123456789"), vni or 100 + len(self.networks), subnet, internal
        )
        self.networks[network_id] = (network, slices)
        return network

    def state_for(self, host: Host) -> NetworkState:
        by_number = {f"h{i}": h for i, h in enumerate(self.hosts, 1)}
        me = next(n for n, h in by_number.items() if h is host)
        networks = {i: n for i, (n, slices) in self.networks.items() if me in slices}
        peers = [
            PeerAssignment(
                i, f"node-{by_number[other].name}", by_number[other].address, held, self.statics.get((i, other), ())
            )
            for i, (_, slices) in self.networks.items()
            if me in slices
            for other, held in slices.items()
            if other in by_number
        ]
        tasks = [LocalTask(c.id, c.attachments, (), "web", host.host_ports) for c in host.containers.values()]
        return NetworkState(networks, peers, tasks=tasks, **self.extra)

    def end(self) -> None:
        try:
            self.cleanup.close()
        finally:
            self.outside.close()


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """Make a wire without hosts; everything on it is removed at the end, and what cannot be is an error."""
    outside = Namespace.new()
    outside.sh("ip link set lo up; ip link add br0 type bridge; ip addr add 192.0.2.254/24 dev br0; ip link set br0 up")
    made = World(directory, outside)
    try:
        yield made
    finally:
        made.end()


def children() -> set[int]:
    """Return the processes that this one has started and that live."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for path in found for pid in path.read_text().split()}


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextmanager
def tracked_by(host: Host, network_id: str) -> Iterator[Netlink]:
    """Yield a socket that tells of the connections that a network tracks on a host."""
    namespace = host.network(network_id)
    netlink = namespace.run(lambda: Netlink(NETLINK_NETFILTER))
    try:
        yield netlink
    finally:
        netlink.close()
        namespace.close()
