"""Real containers: a busybox root file system, a launcher and runtime of their own, and nothing left afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from argosy.agent.logs.records import parse
from argosy.agent.runtime.interface import Exit, LogTarget, Rootfs
from argosy.agent.runtime.native import NativeRuntime
from argosy.agent.runtime.oci_config import ContainerSpec, build

ID_BASE = 1_000_000
DEADLINE_S = 60.0
"""How long a test waits for a condition. Far more than any needs: an emulated machine is twenty times slower."""
BUSYBOX = "/usr/bin/busybox" if os.path.exists("/usr/bin/busybox") else "/bin/busybox"


async def eventually(condition: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds; fail with `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def layers_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers: busybox with accounts, and a second one that adds a file and deletes another."""
    root = tmp_path_factory.mktemp("layers")
    base = root / "base"
    make_busybox(base)
    (base / "srv/old").write_text("old\n")
    (base / "srv/noexec").write_text("not a program\n")
    top = root / "top"
    (top / "srv").mkdir(parents=True)
    (top / "srv/new").write_text("new\n")
    os.mknod(top / "srv/old", 0o020000, 0)
    return root


def make_busybox(base: Path) -> None:
    """Make a root file system with busybox and two accounts."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/ann", "srv"):
        (base / name).mkdir(parents=True)
    (base / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, base / "bin/busybox")
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in listed:
        if applet != "busybox":
            os.symlink("busybox", base / "bin" / applet)
    (base / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nann:x:1001:1002::/home/ann:/bin/sh\n")
    (base / "etc/group").write_text("root:x:0:\nann:x:1002:\nstaff:x:50:ann\n")


@pytest.fixture
def rootfs(layers_root: Path) -> Rootfs:
    return Rootfs(str(layers_root), ("base", "top"))


class Host:
    """A runtime with everything it needs, for one test; `run` is the short way to one container's whole life."""

    def __init__(self, directory: Path, cgroup_parent: str, rootfs: Rootfs) -> None:
        self.directory = directory
        self.cgroup_parent = cgroup_parent
        self.rootfs = rootfs
        self.runtime = self.new_runtime()
        self.exits: dict[str, Exit] = {}
        self._collector: asyncio.Task[None] | None = None
        self._count = 0

    def new_runtime(self) -> NativeRuntime:
        return NativeRuntime(
            str(self.directory / "run/launcher.sock"), str(self.directory / "state"), self.cgroup_parent
        )

    async def open(self) -> None:
        await self.runtime.open()
        self.collect()

    def collect(self) -> None:
        """Hear of exits."""
        self._collector = asyncio.create_task(self._collect())

    def stop_collecting(self) -> None:
        """Hear of no exits until told to again."""
        assert self._collector is not None
        self._collector.cancel()

    async def _collect(self) -> None:
        async for exit in self.runtime.exits():
            assert exit.id not in self.exits, f"the exit of {exit.id} came twice"
            self.exits[exit.id] = exit

    async def close(self) -> None:
        if self._collector is not None:
            self._collector.cancel()
        await self.runtime.close()

    async def restart_agent(self) -> None:
        """What an agent's own restart does: the old client is gone without a word, a new one comes."""
        await self.close()
        self.runtime = self.new_runtime()
        await self.open()

    async def kill_launcher(self) -> None:
        """kill -9 of the launcher; returns when its successor answers."""
        old = self.runtime.launcher_pid
        os.kill(old, signal.SIGKILL)
        await eventually(lambda: self.runtime.launcher_pid != old, "a new launcher")
        await self.runtime.list()

    async def pid(self, container_id: str) -> int:
        return next(state.pid for state in await self.runtime.list() if state.id == container_id)

    def log_path(self, container_id: str) -> Path:
        return self.directory / "logs" / f"{container_id}.log"

    def lines(self, container_id: str, stream: str = "stdout") -> list[str]:
        path = self.log_path(container_id)
        if not path.exists():
            return []
        outputs = parse(path.read_bytes())
        text = b"".join(output.data for output in outputs if output.stderr == (stream == "stderr")).decode()
        return text.removesuffix("\n").split("\n") if text else []

    def new_id(self) -> str:
        self._count += 1
        return f"c{self._count}"

    async def create(self, spec: ContainerSpec, container_id: str | None = None, **log: int) -> str:
        container_id = container_id or self.new_id()
        target = LogTarget(str(self.log_path(container_id)), **log)
        await self.runtime.create(container_id, build(spec), self.rootfs, target, {"test": "yes"})
        return container_id

    async def launch(self, spec: ContainerSpec, **log: int) -> str:
        container_id = await self.create(spec, **log)
        await self.runtime.start(container_id)
        return container_id

    async def wait(self, container_id: str, timeout_s: float = DEADLINE_S) -> Exit:
        await eventually(lambda: container_id in self.exits, f"exit of {container_id}", timeout_s)
        return self.exits[container_id]

    async def run(self, spec: ContainerSpec) -> tuple[Exit, list[str]]:
        """Run a container to its end; return its exit and its stdout, and delete it."""
        container_id = await self.launch(spec)
        exit = await self.wait(container_id)
        lines = self.lines(container_id) + self.lines(container_id, "stderr")
        await self.runtime.delete(container_id)
        return exit, lines


def sh(script: str, **changes: object) -> ContainerSpec:
    """A container that runs a shell script."""
    return ContainerSpec(argv=("/bin/sh", "-c", script), id_base=ID_BASE, **changes)  # type: ignore[arg-type]


@pytest.fixture
def cgroup_parent() -> Iterator[str]:
    name = f"/argosy-test-rt-{os.getpid()}"
    yield name
    # Others' cgroups come and go meanwhile, which os.walk takes as it finds it.
    left = [path for path, _, _ in os.walk("/sys/fs/cgroup") if path.endswith(name)]
    for path in left:
        # The next test has the same name: what this one left must not be held against it.
        subprocess.run(f"find {path} -depth -type d -exec rmdir {{}} +", shell=True, capture_output=True)
    if left:
        pytest.fail(f"left behind: {left}")


@pytest.fixture
async def host(tmp_path: Path, cgroup_parent: str, rootfs: Rootfs) -> AsyncIterator[Host]:
    made = Host(tmp_path, cgroup_parent, rootfs)
    try:
        await made.open()
        yield made
    finally:
        try:
            for state in await made.runtime.list():
                await made.runtime.delete(state.id)
            await made.runtime.stop_launcher()
        finally:
            await made.close()
