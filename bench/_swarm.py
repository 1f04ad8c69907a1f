"""Two hosts in Docker Swarm mode, with a container each on an overlay network: the peer of `overlay.py`, if it is here.

Each host has an engine of its own, with the engine's defaults (nothing is encrypted). It runs in the host's network
namespace and in a mount namespace with a /run of its own; what it keeps is removed with it.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from network_world import Host, Namespace

NEEDED = ("dockerd", "docker", "containerd", "runc")
DEADLINE_S = 60.0
CGROUP = "argosy-bench-swarm"
IMAGE_SCRIPT = Path(__file__).resolve().parent.parent / "deploy/demo/image.sh"
ADDRESSES = ("10.97.0.11", "10.97.0.12")
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

    def start_container(self, name: str, address: str) -> Namespace:
        """Start a container on the network "overlay"; return its network namespace."""
        self.docker("run", "-d", "--name", name, "--network", "overlay", "--ip", address, "bench", "sleep", "100000")
        pid = self.docker("inspect", name, "--format", "{{.State.Pid}}")
        return Namespace(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))


@contextmanager
def swarm(hosts: tuple[Host, Host]) -> Iterator[tuple[Namespace, Namespace, str]]:
    """Yield a container's namespace on each of two hosts, joined by Swarm's overlay, and the second's address."""
    image = subprocess.run([IMAGE_SCRIPT, "1"], stdout=subprocess.PIPE, check=True).stdout
    with ExitStack() as stack:
        stack.callback(_remove_cgroups)
        engines = []
        for number, host in enumerate(hosts):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="argosy-bench-swarm")))
            engines.append(Engine(host, number, directory))
            stack.enter_context(engines[-1].running())
            engines[-1].docker("import", "-", "bench", data=image)
        manager, worker = engines
        data_path = ("--data-path-port", str(DATA_PORT))
        manager.docker("swarm", "init", "--advertise-addr", hosts[0].address, *data_path)
        stack.callback(manager.docker, "swarm", "leave", "--force")
        token = manager.docker("swarm", "join-token", "-q", "worker")
        worker.docker(
            "swarm", "join", "--advertise-addr", hosts[1].address, "--token", token, f"{hosts[0].address}:2377"
        )
        stack.callback(worker.docker, "swarm", "leave", "--force")
        manager.docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.97.0.0/24", "overlay")
        ends = []
        for number, (engine, address) in enumerate(zip(engines, ADDRESSES, strict=True)):
            name = f"end{number}"
            ends.append(engine.start_container(name, address))
            stack.callback(engine.docker, "rm", "--force", name)
            stack.callback(ends[-1].close)
        yield ends[0], ends[1], ADDRESSES[1]


def _remove_cgroups() -> None:
    """Remove what the engines leave of their groups: both were told to use one of their own."""
    for group in sorted(Path("/sys/fs/cgroup").glob(f"**/{CGROUP}"), reverse=True):
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
