"""How long a default container takes from the request to the exec of its program, beside the floor and other runtimes.

The clock of ours runs from the create request until `start` has returned, which it does when the program has been
executed. In between the container gets a veth pair, an address and a default route, by the agent's own network code;
isolation is the default: namespaces, id-mapped overlay, masked paths, capabilities, seccomp, cgroup, log pipes.
The others are timed from their command to the first byte that the container writes, and get *no* network, which
flatters them. The floor is `unshare` of the same namespaces and an exec. Rounds are interleaved; ratios count.

    sudo .venv/bin/python bench/container_start.py [--rounds 5] [--runs 20] [--seconds 30]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from argosy.agent.logic.network_container import FIRST_INDEX, ContainerLink, ContainerRoute
from argosy.agent.logic.network_state import Link, LinkKind, Route
from argosy.agent.network.container import Plug, open_container, plug_in
from argosy.agent.network.kernel import KernelNamespace
from argosy.agent.network.namespace import Home
from argosy.agent.runtime.interface import Created, LogTarget, Rootfs
from argosy.agent.runtime.native import NativeRuntime
from argosy.agent.runtime.oci_config import ContainerSpec, build

ID_BASE = 100_000_000
IN_FLIGHT = 4
SUBNET = 10 << 24 | 99 << 16


def make_rootfs(directory: Path) -> None:
    """A busybox root file system."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
        (directory / name).mkdir(parents=True)
    busybox = shutil.which("busybox") or "/bin/busybox"
    shutil.copy(busybox, directory / "bin/busybox")
    for applet in ("sh", "echo", "true", "sleep"):
        os.symlink("busybox", directory / "bin" / applet)


class Network:
    """One network namespace like an overlay network's, and the thread that wires containers to it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._count = 0
        self._home: Home
        self._namespace: KernelNamespace
        self._thread.submit(self._open).result()

    def _open(self) -> None:
        self._home = Home()
        self._namespace = KernelNamespace(self._home, self._home.make())

    async def attach(self, pid: int) -> None:
        """Give a container a link, its address and its default route."""
        self._count += 1
        await asyncio.get_running_loop().run_in_executor(self._thread, self._attach, pid, self._count)

    def _attach(self, pid: int, number: int) -> None:
        name, address = f"t{number}", SUBNET + number
        mac, router_mac = b"\x02\x01" + number.to_bytes(4, "big"), b"\x02\x02" + number.to_bytes(4, "big")
        entries = (Link(name, LinkKind.CONTAINER, mtu=1450, mac=router_mac), Route(address, 32, device=name))
        link = ContainerLink(
            "bench", "eth0", FIRST_INDEX, 1450, address, mac, router_mac, True, (ContainerRoute(0, 0),)
        )
        fd = open_container(pid)
        try:
            plug_in(self._home, fd, [(self._namespace, Plug(entries, link))])
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of the namespace: it ends, and with it every link."""
        self._thread.submit(self._namespace.close).result()
        self._thread.shutdown()


class Ours:
    """Argosy's runtime, with a launcher of its own."""

    def __init__(self, directory: Path, rootfs: Rootfs) -> None:
        parent = f"/argosy-bench-{os.getpid()}"
        self._directory = directory
        self._rootfs = rootfs
        # Records and pipes belong on a tmpfs, as on a host where they are below /run.
        self._run = tempfile.TemporaryDirectory(prefix="argosy-bench-", dir="/dev/shm")
        socket_path = f"{self._run.name}/launcher.sock"
        self._runtime = NativeRuntime(socket_path, str(directory / "state"), parent)
        self._network = Network()
        self._count = 0
        self.phases: dict[str, list[float]] = {"clone": [], "network": [], "create": [], "start": []}

    async def open(self) -> None:
        await self._runtime.open()

    async def close(self) -> None:
        for state in await self._runtime.list():
            await self._runtime.delete(state.id)
        await self._runtime.stop_launcher()
        await self._runtime.close()
        self._network.close()
        self._run.cleanup()

    async def start(self, argv: tuple[str, ...] = ("/bin/true",)) -> tuple[str, float]:
        """Start one container; return its id and the seconds until its program was executed."""
        self._count += 1
        container_id = f"b{self._count}"
        spec = ContainerSpec(argv=argv, id_base=ID_BASE + 65_536 * (self._count % 10_000))
        config = build(spec)
        log = LogTarget(str(self._directory / f"logs/{container_id}.log"))
        begun = time.perf_counter()
        wiring = [begun, begun]

        async def wire(created: Created) -> None:
            wiring[0] = time.perf_counter()
            await self._network.attach(created.pid)
            wiring[1] = time.perf_counter()

        await self._runtime.create(container_id, config, self._rootfs, log, {}, wire=wire)
        made = time.perf_counter()
        await self._runtime.start(container_id)
        ended = time.perf_counter()
        parts = {
            "clone": wiring[0] - begun,
            "network": wiring[1] - wiring[0],
            "create": made - begun,
            "start": ended - made,
        }
        for phase, seconds in parts.items():
            self.phases[phase].append(seconds)
        return container_id, ended - begun

    async def one(self) -> float:
        container_id, seconds = await self.start()
        await self._runtime.delete(container_id)
        return seconds

    async def sustained(self, seconds: float) -> float:
        """Start and delete containers, a few in flight, for some seconds; return starts a second."""
        deadline = time.perf_counter() + seconds
        count = 0

        async def worker() -> None:
            nonlocal count
            while time.perf_counter() < deadline:
                await self.one()
                count += 1

        begun = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
        return count / (time.perf_counter() - begun)


def first_byte(command: list[str]) -> float:
    """Run a command to its end; return the seconds until its first byte of output."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    data = process.stdout.read(1)
    seconds = time.perf_counter() - begun
    process.stdout.read()
    process.stdout.close()
    if process.wait() != 0 or not data:
        raise RuntimeError(f"{command[0]} failed")
    return seconds


def oci_bundle(directory: Path, rootfs: Path, runtime: str) -> Path:
    """A bundle as `runc spec` writes it, with a program that says one word and no terminal."""
    bundle = directory / f"bundle-{runtime}"
    bundle.mkdir()
    subprocess.run([runtime, "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/echo", "x"]
    config["root"]["path"] = str(rootfs)
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def peers(directory: Path, rootfs: Path) -> dict[str, Callable[[int], list[str]]]:
    """The commands that start one container each, for what is installed here."""
    kinds = ("user", "mount", "pid", "net", "uts", "ipc", "cgroup")
    unshare = ["unshare", "--map-root-user", "--fork", *(f"--{kind}" for kind in kinds)]
    found: dict[str, Callable[[int], list[str]]] = {
        "floor: unshare + exec": lambda _: [*unshare, "/bin/echo", "x"],
    }
    if shutil.which("runc"):
        bundle = oci_bundle(directory, rootfs, "runc")
        found["runc run"] = lambda n: ["runc", "run", "--bundle", str(bundle), f"bench-{os.getpid()}-{n}"]
    if shutil.which("crun"):
        crun = oci_bundle(directory, rootfs, "crun")
        found["crun run"] = lambda n: ["crun", "run", "--bundle", str(crun), f"bench-{os.getpid()}-{n}"]
    if shutil.which("lxc-execute"):
        lxc = directory / "lxc.conf"
        (directory / "lxc").mkdir()
        lxc.write_text(f"lxc.rootfs.path = dir:{rootfs}\nlxc.net.0.type = empty\nlxc.uts.name = bench\n")
        command = ["lxc-execute", "-P", str(directory / "lxc"), "-f", str(lxc)]
        found["lxc-execute"] = lambda n: [*command, "-n", f"bench-{os.getpid()}-{n}", "--", "/bin/echo", "x"]
    return found


def hide_unified_hierarchy() -> None:
    """crun 1.8 refuses hybrid cgroups: re-execute in a private mount namespace where the unified part is hidden."""
    if "ARGOSY_BENCH_INSIDE" in os.environ or not os.path.isdir("/sys/fs/cgroup/unified"):
        return
    os.environ["ARGOSY_BENCH_INSIDE"] = "1"
    hide = 'mount -t tmpfs -o size=1m none /sys/fs/cgroup/unified && exec "$@"'
    os.execvp("unshare", ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, *sys.argv])


async def measure(options: argparse.Namespace, directory: Path) -> int:
    """Run all rounds and print the table; return 0 when the targets are reached."""
    layers = directory / "layers"
    make_rootfs(layers / "base")
    ours = Ours(directory, Rootfs(str(layers), ("base",)))
    await ours.open()
    times: dict[str, list[float]] = {"argosy, with network": []}
    others = peers(directory, layers / "base") if not options.only_ours else {}
    number = 0
    try:
        await ours.one()
        ours.phases = {phase: [] for phase in ours.phases}
        for _ in range(options.rounds):
            for _ in range(options.runs):
                times["argosy, with network"].append(await ours.one())
            for name, command in others.items():
                for _ in range(max(1, options.runs // 4)):
                    number += 1
                    try:
                        times.setdefault(name, []).append(first_byte(command(number)))
                    except (OSError, RuntimeError) as error:
                        print(f"{name}: left out: {error}", file=sys.stderr)
                        break
        phases = {phase: statistics.median(values) for phase, values in ours.phases.items()}
        rate = await ours.sustained(options.seconds)
    finally:
        await ours.close()
    median = statistics.median(times["argosy, with network"])
    print(f"machine load {' '.join(f'{load:.2f}' for load in os.getloadavg())}, {os.cpu_count()} cores")
    for name, values in times.items():
        if not values:
            continue
        middle = statistics.median(values)
        print(f"{name:24} {middle * 1e3:8.2f} ms   {middle / median:6.2f} x   ({len(values)} runs)")
    print(
        "of which "
        + ", ".join(f"{phase} {seconds * 1e3:.2f} ms" for phase, seconds in phases.items())
        + " (network runs beside create)"
    )
    print(f"sustained for {options.seconds:g} s, {IN_FLIGHT} in flight: {rate:.0f} starts/s (with their deletion)")
    reached = median <= 0.012 and rate >= 100
    print("targets (12 ms, 100/s): " + ("reached" if reached else "MISSED"))
    return 0 if reached else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20, help="containers of ours a round (a quarter of that of others)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the sustained part")
    parser.add_argument("--only-ours", action="store_true", help="leave the other runtimes out")
    options = parser.parse_args()
    hide_unified_hierarchy()
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as directory:
        os.chmod(directory, 0o755)
        return asyncio.run(measure(options, Path(directory)))


if __name__ == "__main__":
    sys.exit(main())
