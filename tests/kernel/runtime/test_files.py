"""Configs and secrets in a real container: owner, mode, place, file system, and targets that cannot be."""

import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.pieces import Pieces
from argosy.agent.runtime.errors import RuntimeRejected
from argosy.agent.runtime.interface import Rootfs
from argosy.agent.tasks.files import TaskFiles, hold_secrets
from argosy.core.assignment import ConfigAssignment, SecretAssignment
from argosy.core.service import FileRef
from tests.kernel.runtime.conftest import ID_BASE, Host, sh

CONFIG, SECRET = ConfigAssignment("c.1", b"config\n"), SecretAssignment("s.1")
ASSIGNED = Assignments(Pieces((CONFIG, SECRET)), synced=True)


@pytest.fixture
def files(tmp_path: Path) -> "AsyncIterator[TaskFiles]":
    """A node's files, with one secret; made before the launcher, as an agent does."""
    hold_secrets(tmp_path)
    files = TaskFiles(tmp_path)
    files.keep({"s.1": b"secret\n"})
    try:
        yield files
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "secrets")], check=True)


def config(target: str = "", **more: int) -> FileRef:
    return FileRef(name="conf", id="c.1", target=target, **more)


def secret(target: str = "", **more: int) -> FileRef:
    return FileRef(secret=True, name="pass", id="s.1", target=target, **more)


async def test_owner_mode_and_place(files: TaskFiles, host: Host) -> None:
    refs = (
        config(),
        config("/etc/made/for/it.conf", uid=1001, gid=1002, mode=0o640),
        secret(),
        secret("sub/dir", uid=7, mode=0o400),
        secret("/srv/pass"),
    )
    binds = files.prepare("t1", refs, ASSIGNED, ID_BASE)
    script = (
        "for f in /conf /etc/made/for/it.conf /run/secrets/pass /run/secrets/sub/dir /srv/pass; do "
        "echo $(stat -c '%a %u %g' $f) $(cat $f) $(stat -f -c %T $f); done; "
        "(echo x > /conf) 2>&1; (echo x > /run/secrets/pass) 2>&1; rm /conf 2>&1"
    )
    for read_only in (False, True):
        host.rootfs = replace(host.rootfs, read_only=read_only)
        exit, lines = await host.run(sh(script, binds=binds, read_only=read_only))
        assert [line.rpartition(" ")[0] for line in lines[:5]] == [
            "444 0 0 config",
            "640 1001 1002 config",
            "444 0 0 secret",
            "400 7 0 secret",
            "444 0 0 secret",
        ]
        assert {line.rpartition(" ")[2] for line in lines[2:5]} == {"ramfs"}
        assert ["Read-only file system" in line for line in lines[5:7]] == [True, True]
        assert exit.code != 0  # a mount cannot be removed
    files.remove("t1")
    assert not (host.directory / "secrets/tasks/t1").exists()


@pytest.mark.parametrize(
    ("link", "to", "target"),
    [
        ("srv/dir/x", None, "/srv/dir"),
        ("srv/out", "/proc/self", "/srv/out/status/x"),
        ("srv/loop", "loop", "/srv/loop/x"),
        ("srv/file", "", "/srv/file/x"),
    ],
)
async def test_a_target_that_cannot_be_is_a_reason(
    files: TaskFiles, host: Host, tmp_path: Path, link: str, to: str | None, target: str
) -> None:
    top = tmp_path / "image" / "own" / link
    top.parent.mkdir(parents=True)
    if to:
        os.symlink(to, top)
    else:
        top.touch()
    base = Path(host.rootfs.layers_root)
    host.rootfs = _with_layer(host.rootfs, base, tmp_path / "image" / "own")
    with pytest.raises(RuntimeRejected, match="mount the config's file systems"):
        await host.create(sh("true", binds=files.prepare("t2", (config(target),), ASSIGNED, ID_BASE)))


async def test_a_link_of_the_image_leads_nowhere_outside(files: TaskFiles, host: Host, tmp_path: Path) -> None:
    (tmp_path / "image/own/srv").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(f"../../../../../../..{outside}", tmp_path / "image/own/srv/out")
    host.rootfs = _with_layer(host.rootfs, Path(host.rootfs.layers_root), tmp_path / "image/own")
    binds = files.prepare("t3", (secret("/srv/out/pass"),), ASSIGNED, ID_BASE)
    _, lines = await host.run(sh(f"cat /srv/out/pass {outside}/pass", binds=binds))
    assert lines == ["secret", "secret"]
    assert not list(outside.iterdir())


def _with_layer(rootfs: Rootfs, base: Path, layer: Path) -> Rootfs:
    """Return the root with one more layer, copied beside the others' (they are one mount)."""
    name = f"own-{layer.parent.parent.name}"
    subprocess.run(["cp", "-a", str(layer), str(base / name)], check=True)
    return replace(rootfs, layers=(*rootfs.layers, name))
