"""Nothing is left: mounts, groups, directories, pipes and processes, before and after, also after failures."""

# ruff: noqa: ASYNC240 - tests look at local files while nothing else runs in their loop

import os
from pathlib import Path

import pytest

from argosy.agent.runtime.errors import ContainerError, RuntimeRejected
from argosy.agent.runtime.interface import LogTarget, Rootfs
from argosy.agent.runtime.native import NativeRuntime
from argosy.agent.runtime.oci_config import build

from .conftest import Host, eventually, sh


def trace(host: Host) -> dict[str, object]:
    """All that a container could leave behind."""
    launcher = host.runtime.launcher_pid
    return {
        "host mounts": Path("/proc/self/mounts").read_text(),
        "launcher mounts": Path(f"/proc/{launcher}/mounts").read_text(),
        "launcher fds": len(os.listdir(f"/proc/{launcher}/fd")),
        "agent fds": len(os.listdir("/proc/self/fd")),
        "children": Path(f"/proc/{launcher}/task/{launcher}/children").read_text(),
        "records": os.listdir(host.directory / "run/containers"),
        "layers": os.listdir(host.directory / "state"),
        "groups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"*{host.cgroup_parent}/*/")),
    }


async def test_delete_leaves_nothing(host: Host) -> None:
    await host.run(sh("true"))
    before = trace(host)
    script = "mkdir -p /a/b/c; i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i > /a/b/$i; done; sleep 1000 & exit 0"
    await host.run(sh(script))
    running = await host.launch(sh("sleep 1000"))
    assert trace(host) != before
    await host.runtime.delete(running)
    await host.runtime.delete(running)
    assert trace(host) == before


async def test_the_launchers_mounts_are_not_the_hosts(host: Host) -> None:
    assert os.readlink(f"/proc/{host.runtime.launcher_pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    await host.launch(sh("sleep 1000"))
    assert "overlay" not in {
        line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines() if str(host.directory) in line
    }


async def test_a_failed_create_leaves_nothing(host: Host) -> None:
    await host.run(sh("true"))
    before = trace(host)
    for spec in (sh("true", user="bob"), sh("true", sysctls={"net.no.such": "1"})):
        with pytest.raises(RuntimeRejected):
            await host.launch(spec)
        assert trace(host) == before
    host.rootfs = Rootfs(host.rootfs.layers_root, ("base", "no-such-layer"))
    with pytest.raises(ContainerError, match="mount the image's layers"):
        await host.launch(sh("true"))
    assert trace(host) == before


async def test_deleting_the_upper_directory_follows_no_link(host: Host, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")
    await host.run(sh(f"ln -s {precious} /link; ln -s {precious}/file /file; mkdir -m 0 /closed"))
    assert (precious / "file").read_text() == "keep"


async def test_a_second_launcher_refuses(host: Host, tmp_path: Path) -> None:
    """Two launchers of one run directory would both act on its containers."""
    other = NativeRuntime(
        str(tmp_path / "other.sock"), str(tmp_path / "state"), host.cgroup_parent, run_dir=str(tmp_path / "run")
    )
    with pytest.raises(RuntimeRejected, match="another launcher serves"):
        await other.open()
    await other.close()
    assert (await host.run(sh("true")))[0].code == 0


async def test_stray_groups_are_removed_at_the_start(host: Host) -> None:
    roots = [path.parent for path in Path("/sys/fs/cgroup").glob(f"*{host.cgroup_parent}")]
    roots = [root / host.cgroup_parent.strip("/") for root in roots]
    for root in roots:
        (root / "stray").mkdir()
    await host.kill_launcher()
    await eventually(lambda: not any((root / "stray").exists() for root in roots), "stray groups are gone")


async def test_layers_with_long_names_and_many(host: Host, layers_root: Path) -> None:
    names = []
    for number in range(60):
        name = f"{'f' * 90}-{number}"
        (layers_root / name / "srv").mkdir(parents=True, exist_ok=True)
        (layers_root / name / f"srv/from-{number}").write_text("x")
        names.append(name)
    rootfs = Rootfs(str(layers_root), ("base", *names))
    target = LogTarget(str(host.log_path("many")))
    await host.runtime.create("many", build(sh("ls /srv | grep -c from-")), rootfs, target, {})
    await host.runtime.start("many")
    await host.wait("many")
    assert host.lines("many") == ["60"]
