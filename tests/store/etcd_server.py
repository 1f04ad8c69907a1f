"""A private etcd for tests: one member on loopback, in a directory of its own, on free ports."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

INSTALLED = "/opt/argosy/etcd/bin/etcd"
"""Where deploy/install/etcd.sh puts it."""
START_TIMEOUT_S = 30.0


def etcd_binary() -> str:
    """Return the path of etcd; RuntimeError with what to do when there is none."""
    for path in (os.environ.get("ARGOSY_ETCD"), INSTALLED, shutil.which("etcd")):
        if path and os.access(path, os.X_OK):
            return path
    raise RuntimeError("the store's tests need etcd 3.5: run `make etcd`, or set ARGOSY_ETCD to its path")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on, and that the kernel gives to no outgoing connection."""
    while True:
        port = random.randrange(15_000, 30_000)  # below ip_local_port_range
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


class EtcdServer:
    """One member. Keeps its port and data across `kill` and `start`."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "one",
        peers: dict[str, int] | None = None,
        options: dict[str, str] | None = None,
        scheme: str = "http",
    ) -> None:
        self.name = name
        self.folder = folder
        self.port = free_port()
        self._peers = peers or {name: free_port()}
        self._options = options or {}
        self._scheme = scheme
        self._health_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        """Start the process; `wait` waits for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        peer = f"http://127.0.0.1:{self._peers[self.name]}"
        options = {
            "name": self.name,
            "data-dir": str(self.folder / "data"),
            "listen-client-urls": f"{self._scheme}://{self.endpoint}",
            "advertise-client-urls": f"{self._scheme}://{self.endpoint}",
            "listen-metrics-urls": f"http://127.0.0.1:{self._health_port}",
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": ",".join(f"{n}=http://127.0.0.1:{p}" for n, p in self._peers.items()),
            "initial-cluster-token": "argosy-test-" + "-".join(map(str, self._peers.values())),
            "log-level": "warn",
            **self._options,
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [etcd_binary(), *(f"--{k}={v}" for k, v in options.items())], stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Wait until it is well; RuntimeError with its log when that does not happen.

        An open port is not enough: an etcd killed during its very first seconds never gets well again.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        health = f"http://127.0.0.1:{self._health_port}/health"
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=1) as r:
                if json.load(r)["health"] == "true":
                    return
            time.sleep(0.01)
        raise RuntimeError("etcd did not start:\n" + (self.folder / "log").read_text()[-4000:])

    def start(self) -> None:
        self.spawn()
        self.wait()

    def kill(self) -> None:
        """Kill it as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
