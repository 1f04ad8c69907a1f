"""What is left of tasks when all of them are gone: looked for in the kernel of every host, its files, and in etcd."""

import contextlib
import ctypes
import fcntl
import json
import os
import stat
from pathlib import Path

from tests.e2e.host_view import HIERARCHY

PIDFD_GETFD = 438
SIOCGSKNS = 0x894C
_libc = ctypes.CDLL(None)
KINDS_OF_TASKS = ("task", "service", "revision", "slice", "network")


def in_etcd(cluster):
    """Return the keys that tell of tasks, services and networks."""
    prefix = f"/argosy/{cluster.name}/"
    keys = cluster.etcdctl("get", "--prefix", prefix, "--keys-only").split()
    return [key for key in keys if key.removeprefix(prefix).split("/")[0] in KINDS_OF_TASKS]


def on_host(cluster, host):
    """Return whatever a host has of networks and containers, in the kernel and in files."""
    root = Path(f"/proc/{cluster.holder(host)}/root/run/argosy")
    found = []
    with contextlib.suppress(FileNotFoundError):
        found += [f"namespace {pin.name}" for pin in (root / "netns").iterdir()]
    listed = cluster.on_host(host, "sh", "-c", "ip -br link; nft list tables").splitlines()
    found += [line for line in listed if line.startswith(("au", "ve", "vx", "table ip argosy"))]
    with contextlib.suppress(FileNotFoundError):
        groups = (HIERARCHY / f"argosy/dev-{cluster.name}/{host}").iterdir()
        found += [f"group {group.name}" for group in groups if group.is_dir()]
    with contextlib.suppress(FileNotFoundError):
        records = json.loads((root / "network/dns-records.json").read_text())
        found += [f"name {record}" for record in records]
    mounts = Path(f"/proc/{cluster.holder(host)}/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if "overlay" in line.split()]
    pid_file = root / "network/dns.pid"
    holders = {"launcher": cluster.launcher_pid(host), "argosy-dns": pid_file.exists() and int(pid_file.read_text())}
    found += [f"{name}: {held}" for name, pid in holders.items() if pid for held in sockets_elsewhere(pid)]
    return found


def sockets_elsewhere(pid):
    """Return the sockets of a process, if it lives, that are in another network namespace, which they keep alive."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open_process(pid) as process:
        own = os.stat(f"/proc/{pid}/ns/net").st_ino
        for fd in os.listdir(f"/proc/{pid}/fd"):
            copy = _libc.syscall(PIDFD_GETFD, process, int(fd), 0)
            if copy < 0:
                continue  # closed meanwhile
            try:
                if stat.S_ISSOCK(os.fstat(copy).st_mode) and namespace_of(copy) != own:
                    found.append(f"socket {os.fstat(copy).st_ino}")
            finally:
                os.close(copy)
    return found


@contextlib.contextmanager
def open_process(pid):
    """Yield a pidfd."""
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def namespace_of(sock):
    """Return the inode of the network namespace that a socket is in."""
    fd = fcntl.ioctl(sock, SIOCGSKNS)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)
