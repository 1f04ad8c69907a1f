"""Network namespaces: made, pinned to a file so that they outlive us, entered by one thread, opened for netlink.

Only the plane's own worker thread moves between namespaces; it is always brought home. Nothing here forks: the thread
alone unshares or sets its namespace (namespaces(7), setns(2)), other threads stay where they are.

A namespace lives as long as something refers to it: a pin (bind mount of /proc/thread-self/ns/net, as `ip netns` does
it), an open descriptor, a process, or a socket that was opened in it.
"""

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from argosy.agent.network.netlink import Netlink
from argosy.agent.network.nft import Nft

_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 0x1000
_MNT_DETACH: Final = 2
_THREAD_NAMESPACE: Final = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def open_namespace(path: str) -> int:
    """Return a descriptor of the namespace at a path: a pin or /proc/PID/ns/net."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class Home:
    """The namespace that the worker thread belongs to: the host's. Made in that thread, and used by it alone."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = open_namespace(_THREAD_NAMESPACE)

    @contextmanager
    def away(self, fd: int) -> Iterator[None]:
        """Run the block in the namespace of a descriptor."""
        _check(_libc.setns(fd, _CLONE_NEWNET), "cannot enter the network namespace")
        try:
            yield
        finally:
            self._return()

    def make(self) -> int:
        """Return a descriptor of a new, empty namespace."""
        _check(_libc.unshare(_CLONE_NEWNET), "cannot make a network namespace")
        try:
            return open_namespace(_THREAD_NAMESPACE)
        finally:
            self._return()

    def make_pinned(self, path: Path) -> int:
        """Return a descriptor of a new, empty namespace, pinned to a path, whatever was there. Raises OSError."""
        unpin(path)
        fd = self.make()
        try:
            pin(fd, path)
        except OSError:
            os.close(fd)
            raise
        return fd

    def netlink_in(self, fd: int, family: int = socket.NETLINK_ROUTE) -> Netlink:
        """Return a netlink socket in the namespace of a descriptor."""
        with self.away(fd):
            return Netlink(family)

    def nft_in(self, fd: int) -> Nft:
        """Return nftables of the namespace of a descriptor. Raises NftError."""
        with self.away(fd):
            return Nft()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def _return(self) -> None:
        # A thread that cannot come home must not go on: it would write the host's settings elsewhere.
        if _libc.setns(self.fd, _CLONE_NEWNET) != 0:
            os.abort()


def pin(fd: int, path: Path) -> None:
    """Pin the namespace of a descriptor to a file; a file that pins nothing is used as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=True)
    source = f"/proc/self/fd/{fd}".encode()
    _check(_libc.mount(source, os.fsencode(path), None, _MS_BIND, None), f"cannot pin a namespace at {path}")


def unpin(path: Path) -> None:
    """Take all pins at a path away, and the file. That there is none is fine."""
    while _libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        pass
    with suppress(FileNotFoundError):
        path.unlink()


def is_pin(path: Path, fd: int | None = None) -> bool:
    """Tell whether a path pins a network namespace; with `fd`, whether it is that one."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    reference = os.stat(_THREAD_NAMESPACE) if fd is None else os.fstat(fd)
    return there.st_dev == reference.st_dev and (fd is None or there.st_ino == reference.st_ino)


def read_setting(path: str) -> str | None:
    """Return a setting under /proc/sys/net of the namespace that this thread is in; None if there is no such."""
    try:
        with open(f"/proc/sys/net/{path}", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def write_setting(path: str, value: str) -> None:
    """Change a setting under /proc/sys/net of the namespace that this thread is in."""
    with open(f"/proc/sys/net/{path}", "w", encoding="ascii") as file:
        file.write(value)
