"""WireGuard in a process of its own (`wireguard-go`), for kernels that have none: started, set and read, ended.

The process runs in the host's namespace, where its UDP socket is; its device is made here and handed to it, and is
moved into the mesh's namespace afterwards. It goes on when the agent ends: the next one finds it by its socket. When it
ends itself its device is gone at once, and with that the only way out of the mesh.

It is set and read through text over a unix socket (https://www.wireguard.com/xplatform/), which it takes over from us
already listening. It also wants a file of the socket's usual name under /run, and is given a /run of its own to find
it: nothing of it is then left behind, and two nodes on one machine do not meet there.
"""

import fcntl
import os
import shutil
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from typing import Final

from argosy.agent.launcher.rundir import start_ticks
from argosy.agent.logic.network_mesh import DeviceChange, DeviceState, PeerState, TunnelPeer
from argosy.agent.network.readable import readable
from argosy.agent.spawn import spawn

PROGRAM: Final = "wireguard-go"
TUN: Final = "/dev/net/tun"

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 1
_ANSWER_S: Final = 2.0
_START_S: Final = 20.0
_END_S: Final = 2.0
_POLL_S: Final = 0.005
_FIRST_FREE_FD: Final = 10
_SCRIPT: Final = (
    'mount -t tmpfs none /run && mkdir /run/wireguard && : >"/run/wireguard/$1.sock" && exec wireguard-go -f "$1"'
)


def why_not() -> str:
    """Say why this host cannot run it; "" when it can."""
    if shutil.which(PROGRAM) is None:
        return f"this kernel has no WireGuard, and {PROGRAM} is not installed (Debian: apt-get install {PROGRAM})"
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"this kernel has no WireGuard, and {PROGRAM} needs {TUN}: {error.strerror}"
    return ""


class TunnelProcesses:
    """The processes of a node, by the names of their devices. `directory` must not outlive a boot."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def start(self, name: str) -> None:
        """Start a process with a new device, which is in this thread's namespace then. Raises OSError."""
        self.end(name)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        device = _make_device(name)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket(name).unlink(missing_ok=True)
            listening.bind(str(self._socket(name)))
            listening.listen(16)
            pid = self._spawn(name, device, listening.fileno())
        finally:
            os.close(device)
            listening.close()
        self._pid_file(name).write_text(f"{pid} {start_ticks(pid)}")
        self._await_start(name, pid)

    def read(self, name: str) -> DeviceState:
        """Return what a device is set to. Raises OSError."""
        return _state(self._ask(name, "get=1\n"))

    def set(self, name: str, change: DeviceChange, private_key: bytes, port: int) -> None:
        """Carry a change out. Raises OSError."""
        lines = ["set=1"]
        if change.rekey:
            lines += [f"private_key={private_key.hex()}", f"listen_port={port}"]
        for key in change.remove:
            lines += [f"public_key={key.hex()}", "remove=true"]
        for peer in change.put:
            lines += _peer(peer)
        self._ask(name, "\n".join(lines) + "\n")

    def end(self, name: str) -> None:
        """End a device's process, whoever started it; that there is none is fine."""
        pid = self._pid(name)
        if pid:
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    if self._pid(name) == pid:  # still the same: the descriptor is of no other
                        _end(pidfd)
                finally:
                    os.close(pidfd)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        for path in (self._socket(name), self._pid_file(name)):
            path.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the devices whose processes were started and not ended."""
        return sorted(p.stem for p in self._directory.glob("*.pid"))

    def _spawn(self, name: str, device: int, listening: int) -> int:
        log = os.open(self._directory / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        # Above the numbers that they get in the process, so that none is overwritten before it was copied.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD) for fd in (null, null, log, device, listening)]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(high)]
        environment = {**os.environ, "WG_TUN_FD": "3", "WG_UAPI_FD": "4", "LOG_LEVEL": "error"}
        arguments = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", name]
        try:
            return spawn(arguments, environment, actions)
        finally:
            for fd in (*high, log, null):
                os.close(fd)

    def _await_start(self, name: str, pid: int) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._pid_file(name).unlink(missing_ok=True)
                    said = (self._directory / f"{name}.log").read_text(errors="replace").strip().splitlines()
                    raise OSError(f"{PROGRAM} did not start: {said[-1] if said else 'it said nothing'}")
            with suppress(OSError):
                self._ask(name, "get=1\n", timeout=0.2)
                return
            time.sleep(_POLL_S)
        self.end(name)
        raise OSError(f"{PROGRAM} did not answer within {_START_S:.0f} s")

    def _ask(self, name: str, request: str, timeout: float = _ANSWER_S) -> list[tuple[str, str]]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(timeout)
            stream.connect(str(self._socket(name)))
            stream.sendall(f"{request}\n".encode())
            data = b""
            while not data.endswith(b"\n\n"):
                part = stream.recv(1 << 16)
                if not part:
                    raise OSError(f"{PROGRAM} ended")
                data += part
        answer = [(key, value) for key, _, value in (line.partition("=") for line in data.decode().split("\n")) if key]
        code = int(dict(answer).get("errno", "0"))
        if code:
            raise OSError(abs(code), f"{PROGRAM} refused: {os.strerror(abs(code))}")
        return answer

    def _pid(self, name: str) -> int:
        """Return the process of a device while it lives; 0 without one."""
        try:
            pid, started = map(int, self._pid_file(name).read_text().split())
            return pid if start_ticks(pid) == started else 0
        except (OSError, ValueError):
            return 0

    def _socket(self, name: str) -> Path:
        return self._directory / f"{name}.sock"

    def _pid_file(self, name: str) -> Path:
        return self._directory / f"{name}.pid"


def _make_device(name: str) -> int:
    """Return a descriptor of a new TUN device, which lives as long as somebody has it open."""
    device = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN))
    except OSError:
        os.close(device)
        raise
    return device


def _end(pidfd: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        signal.pidfd_send_signal(pidfd, number)
        if readable(pidfd, _END_S):
            return


def _peer(peer: TunnelPeer) -> list[str]:
    address = IPv4Address(peer.address)
    return [
        f"public_key={peer.public_key.hex()}",
        f"endpoint={address}:{peer.port}",
        f"persistent_keepalive_interval={peer.keepalive_s}",
        "replace_allowed_ips=true",
        f"allowed_ip={address}/32",
    ]


def _state(answer: list[tuple[str, str]]) -> DeviceState:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    first = next((i for i, (key, _) in enumerate(answer) if key == "public_key"), len(answer))
    device = dict(answer[:first])
    private = bytes.fromhex(device.get("private_key", ""))
    public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw() if private else b""
    peers = {peer.public_key: peer for peer in _peers(answer[first:])}
    return DeviceState(public, int(device.get("listen_port", "0")), peers)


def _peers(lines: list[tuple[str, str]]) -> Iterator[PeerState]:
    starts = [i for i, (key, _) in enumerate(lines) if key == "public_key"]
    for start, stop in pairwise([*starts, len(lines)]):
        part = lines[start:stop]
        one = dict(part)
        address, _, port = one.get("endpoint", "").rpartition(":")
        nets = (value.partition("/") for key, value in part if key == "allowed_ip" and ":" not in value)
        yield PeerState(
            public_key=bytes.fromhex(one["public_key"]),
            address=int(IPv4Address(address)) if address and "[" not in address else 0,
            port=int(port or 0),
            allowed=tuple(sorted((int(IPv4Address(net)), int(prefix)) for net, _, prefix in nets)),
            handshake_at=int(one.get("last_handshake_time_sec", "0"))
            + int(one.get("last_handshake_time_nsec", "0")) / 1e9,
        )
