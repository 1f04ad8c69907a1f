"""What the overlay's throughput is compared with, and how bytes and datagrams are sent over any of the ways.

Both wires are made with `iproute2` between two hosts that carry nothing of Argosy, on the same bridge as those that do:

    bare    a VXLAN device in each host's own namespace, addressed and spoken over
    floor   what the design cannot do without: VXLAN, and one routed veth to a container; no nftables, no tracking
"""

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from network_world import Host, Namespace

STREAM_BYTES = 192 << 20
"""Of one transfer: a tenth of a second or so, that the ways may have turns as often as the machine changes its mind."""
_CHUNK = 1 << 20
_PORT = 7000
_ROUTER = "169.254.1.1"
_MTU = 1450


def make_bare(hosts: tuple[Host, Host]) -> str:
    """Join two hosts by a VXLAN device each; return the second's address on it. It goes with the hosts."""
    for number, (host, other) in enumerate((hosts, hosts[::-1]), 1):
        host.sh(
            f"ip link add bare type vxlan id 901 local {host.address} remote {other.address} dstport 14998;"
            f"ip link set bare mtu {_MTU} up; ip addr add 10.98.0.{number}/24 dev bare"
        )
    return "10.98.0.2"


@contextmanager
def floor(hosts: tuple[Host, Host]) -> Iterator[tuple[Namespace, Namespace, str]]:
    """Yield a container's namespace on each of two hosts, joined by the floor, and the second's address."""
    with ExitStack() as stack:
        containers = tuple(_floor_end(stack, number, hosts) for number in (1, 2))
        yield containers[0], containers[1], _floor_address(2)


def _floor_end(stack: ExitStack, number: int, hosts: tuple[Host, Host]) -> Namespace:
    """Make one end: the namespace of the network, and one of a container, which is returned."""
    host, other, away = hosts[number - 1], hosts[2 - number], 3 - number
    network, container = Namespace.new(), Namespace.new()
    stack.callback(network.close)
    stack.callback(container.close)
    inside = f"/proc/{os.getpid()}/fd/{network.fd}"
    host.sh(
        f"ip link add fvtep netns {inside} type vxlan id 900 local {host.address} dstport 14999 nolearning",
    )
    network.sh(
        f"sysctl -qw net.ipv4.ip_forward=1; ip link set lo up;"
        f"ip link set fvtep address {_mac(0, number)} mtu {_MTU} up;"
        f"ip link add fveth mtu {_MTU} address {_mac(1, number)} type veth peer name eth0 mtu {_MTU}"
        f" address {_mac(2, number)} netns /proc/{os.getpid()}/fd/{container.fd}; ip link set fveth up;"
        f"ip route add {_floor_address(number)} dev fveth;"
        f"ip neigh add {_floor_address(number)} lladdr {_mac(2, number)} dev fveth;"
        f"ip neigh add 10.99.{away}.1 lladdr {_mac(0, away)} dev fvtep;"
        f"bridge fdb append {_mac(0, away)} dst {other.address} dev fvtep;"
        f"ip route add 10.99.{away}.0/24 via 10.99.{away}.1 dev fvtep onlink"
    )
    container.sh(
        f"ip link set lo up; ip link set eth0 up; ip addr add {_floor_address(number)}/32 dev eth0;"
        f"ip route add {_ROUTER} dev eth0; ip route add default via {_ROUTER};"
        f"ip neigh add {_ROUTER} lladdr {_mac(1, number)} dev eth0"
    )
    return container


def _floor_address(number: int) -> str:
    return f"10.99.{number}.2"


def _mac(kind: int, number: int) -> str:
    return f"02:00:00:00:{kind:02x}:{number:02x}"


class Stream:
    """One TCP connection that is kept; each transfer ends when the other end has read all and has said so.

    Sender and reader have a processor each, if there are several: else the scheduler's moves are most of what is seen.
    """

    def __init__(self, client: Namespace, server: Namespace, address: str) -> None:
        with server.listen("0.0.0.0", _PORT) as listening:
            self._socket = client.open_socket()
            self._socket.connect((address, _PORT))
            self._reading, _ = listening.accept()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._data = memoryview(bytes(_CHUNK))

    def transfer(self) -> tuple[float, float]:
        """Return how many seconds a transfer takes, and how many of the sender's processor time.

        The sender's, since the kernel carries packets up to the reader's socket in its time.
        """
        with on_processor(0):
            began, used = time.perf_counter(), time.thread_time()
            for _ in range(STREAM_BYTES // _CHUNK):
                self._socket.sendall(self._data)
            self._socket.recv(1)
            return time.perf_counter() - began, time.thread_time() - used

    def close(self) -> None:
        self._socket.close()
        self._thread.join()

    def _read(self) -> None:
        os.sched_setaffinity(0, processor(1))
        buffer = bytearray(_CHUNK)
        found = 0
        with self._reading:
            self._reading.settimeout(None)
            while count := self._reading.recv_into(buffer):
                found += count
                if found == STREAM_BYTES:
                    found = 0
                    self._reading.send(b".")


def send_each(client: Namespace, addresses: list[str], ports: int) -> float:
    """Return the seconds of processor time to send a datagram to each of some ports of each address, in any order.

    The kernel does all of it within the call, up to the other host. The connections are the same each time.
    """

    def send_all() -> float:
        targets = [(address, 10000 + port) for address in addresses for port in range(ports)]
        random.Random(1).shuffle(targets)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            sending.bind(("0.0.0.0", _PORT))
            began = time.thread_time()
            for target in targets:
                sending.sendto(b"x", target)
            return time.thread_time() - began

    return client.run(send_all)


@contextmanager
def on_processor(number: int) -> Iterator[None]:
    """Stay on one processor: else the scheduler's moves are most of what is seen."""
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processor(number))
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def processor(number: int) -> list[int]:
    """Return one of the processors; all, where there are not so many."""
    every = sorted(os.sched_getaffinity(0))
    return every[number : number + 1] or every
