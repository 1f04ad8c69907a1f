"""A run directory without room: who asks for some is told so, and the launcher lives on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.agent.runtime.errors import RuntimeTransient

from .conftest import Host, sh

PAGE = 4096
PAGES = 64
"""Of the run directory: several times what a container takes."""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """Return the launcher's run directory, which is a small file system; to be asked for before the host."""
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    size = f"size={PAGES * PAGE},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "argosy-runtime-test", run], check=True)
    yield run
    subprocess.run(["umount", "--lazy", run], check=True)


def leave(run: Path, pages: int) -> None:
    """Leave so many pages to others."""
    (run / "fill").unlink(missing_ok=True)
    room = os.statvfs(run).f_bavail - pages
    (run / "fill").write_bytes(bytes(room * PAGE))


async def test_a_beat_that_cannot_be_kept_does_not_end_the_launcher(run: Path, host: Host) -> None:
    launcher = host.runtime.launcher_pid
    settings = {"node": "n1", "key": "00", "period_s": 60, "controllers": ["127.0.0.1:9"]}
    leave(run, pages=0)
    with pytest.raises(RuntimeTransient, match="No space left on device"):
        await host.runtime.beat(settings)
    assert host.runtime.launcher_pid == launcher
    (run / "fill").unlink()
    await host.runtime.beat(settings)


async def test_a_container_that_cannot_be_recorded_does_not_end_the_launcher(run: Path, host: Host) -> None:
    """Whatever is the first that finds no room."""
    launcher = host.runtime.launcher_pid
    refusals = []
    for pages in range(PAGES // 2):
        leave(run, pages)
        try:
            await host.create(sh("true"))
        except RuntimeTransient as error:
            refusals.append(str(error))
        if await host.runtime.list():
            break
    assert refusals
    assert all("No space left on device" in said for said in refusals)
    assert len(await host.runtime.list()) == 1
    assert host.runtime.launcher_pid == launcher
