"""Hosts in Docker Swarm mode with an overlay network: the peer to measure with, where a Docker engine is installed.

Each host has an engine of its own, with the engine's defaults (nothing is encrypted). It runs in the host's network
namespace and in a mount namespace with a /run of its own; what it keeps is removed with it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/kernel/network"))

from network_world import Host, Namespace, world

NEEDED = ("dockerd", "docker", "containerd", "runc")
DEADLINE_S = 60.0
CGROUP = "argosy-bench-swarm"
IMAGE_SCRIPT = Path(__file__).resolve().parent.parent / "deploy/demo/image.sh"
IMAGE, NETWORK = "bench", "overlay"
DATA_PORT = 14789


def is_installed() -> bool:
    """Return whether there is a Docker engine."""
    return all(shutil.which(program) for program in NEEDED)


class Engine:
    """The Docker engine of a host."""

    def __init__(self, host: Host, number: int, directory: Path) -> None:
        self.host = host
        self._number = number
        self._directory = directory
        self._socket = f"unix://{directory}/docker.sock"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it, and end it."""
        arguments = (
            f"--host {self._socket} --data-root {self._directory}/lib --exec-root /run/docker "
            f"--pidfile /run/docker.pid --cgroup-parent /{CGROUP} --bip 172.2{self._number}.0.1/16"
        )
        enter = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.host.namespace.fd}"]
        own_run = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        with (self._directory / "log").open("wb") as log:
            start = f"mount -t tmpfs none /run && exec dockerd {arguments}"
            engine = subprocess.Popen([*enter, *own_run, start], stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + DEADLINE_S
            while subprocess.run(self._command("info"), capture_output=True, check=False).returncode:
                if engine.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"dockerd does not start:\n{(self._directory / 'log').read_text()[-2000:]}")
                time.sleep(0.1)
            yield
        finally:
            engine.terminate()
            engine.wait()

    def _command(self, *args: str) -> list[str]:
        return ["docker", "--host", self._socket, *args]

    def docker(self, *args: str, data: bytes = b"") -> str:
        """Run a command of Docker's, with `data` as its input; return its output."""
        done = subprocess.run(self._command(*args), input=data, capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(f"docker {' '.join(args)}: {(done.stderr + done.stdout).decode()}")
        return done.stdout.decode().strip()

    def spawn(self, *args: str) -> "subprocess.Popen[bytes]":
        """Start a command of Docker's without waiting for it."""
        return subprocess.Popen(self._command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @contextmanager
    def container(self, name: str, address: str) -> Iterator[Namespace]:
        """Have a container on the network; yield its network namespace."""
        self.docker("run", "-d", "--name", name, "--network", NETWORK, "--ip", address, IMAGE, "sleep", "100000")
        try:
            pid = self.docker("inspect", name, "--format", "{{.State.Pid}}")
            namespace = Namespace(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            yield namespace
            namespace.close()
        finally:
            self.docker("rm", "--force", name)


@contextmanager
def swarm(hosts: Sequence[Host]) -> Iterator[list[Engine]]:
    """Yield the engines of a swarm with the image and the network; the first one manages it."""
    image = subprocess.run([IMAGE_SCRIPT, "1"], stdout=subprocess.PIPE, check=True).stdout
    with ExitStack() as stack:
        stack.callback(_remove_cgroups)
        engines: list[Engine] = []
        for number, host in enumerate(hosts):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="argosy-bench-swarm")))
            engine = Engine(host, number, directory)
            stack.enter_context(engine.running())
            engine.docker("import", "-", IMAGE, data=image)
            here = ("--advertise-addr", host.address)
            if engines:
                token = engines[0].docker("swarm", "join-token", "-q", "worker")
                engine.docker("swarm", "join", *here, "--token", token, f"{hosts[0].address}:2377")
            else:
                engine.docker("swarm", "init", *here, "--data-path-port", str(DATA_PORT))
            stack.callback(engine.docker, "swarm", "leave", "--force")
            engines.append(engine)
        engines[0].docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.97.0.0/24", NETWORK)
        yield engines


@contextmanager
def swarm_of(count: int) -> Iterator[list[Engine]]:
    """Yield the engines of a swarm on so many hosts, which are made for it."""
    with ExitStack() as stack:
        wire = stack.enter_context(world(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        yield stack.enter_context(swarm([wire.add_host(dns=False) for _ in range(count)]))


def _remove_cgroups() -> None:
    """Remove what the engines leave of their groups: all were told to use one of their own."""
    for group in sorted(Path("/sys/fs/cgroup").glob(f"**/{CGROUP}"), reverse=True):
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
