"""Sockets and captures in other network namespaces, opened from the test's own process.

A socket belongs to the namespace that its thread was in when it was made: so a short-lived thread goes there for it.
"""

import ctypes
import os
import socket
import struct
import threading
import time

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
_libc = ctypes.CDLL(None, use_errno=True)


def socket_in(namespace, *args):
    """Return `socket.socket(*args)` in the network namespace at a path (/proc/PID/ns/net, or a pin). Raises OSError."""
    made = []
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)

    def make():
        try:
            if _libc.setns(fd, CLONE_NEWNET) != 0:
                made.append(OSError(ctypes.get_errno(), f"setns {namespace}"))
            else:
                made.append(socket.socket(*args))
        except OSError as error:
            made.append(error)
        finally:
            os.close(fd)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def connect(namespace, address, timeout=1.0):
    """Try to connect by TCP; return the connected socket, or the error."""
    sock = socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(address)
    except OSError as error:
        sock.close()
        return error
    return sock


def listen(namespace, address):
    """Return a listening TCP socket."""
    sock = socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    sock.listen()
    sock.settimeout(5)
    return sock


def datagrams(namespace, address):
    """Return a UDP socket bound to an address."""
    sock = socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.settimeout(5)
    return sock


class Capture:
    """Every frame that a device sees while the body runs."""

    def __init__(self, namespace, device):
        self._socket = socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((device, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def until(self, marker, timeout=10):
        """Return all frames up to the first one that holds the bytes `marker`; AssertionError if none comes."""
        frames, deadline = [], time.monotonic() + timeout
        while not frames or marker not in frames[-1]:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                frames.append(self._socket.recv(65535))
            except TimeoutError:
                raise AssertionError(f"waited {timeout} s in vain for a frame with {marker!r}") from None
        return frames


def ip_udp(source, target, payload, *, port=9999):
    """Return an IPv4 packet that carries a UDP datagram (RFC 791, RFC 768; UDP without a checksum)."""
    udp = struct.pack("!HHHH", 5353, port, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    words = struct.unpack("!10H", header)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:] + udp


def vxlan(vni, target_mac, source_mac, packet):
    """Return what a VXLAN tunnel carries in UDP for an IPv4 packet in a frame (RFC 7348)."""
    return struct.pack("!II", 0x08000000, vni << 8) + target_mac + source_mac + b"\x08\x00" + packet
