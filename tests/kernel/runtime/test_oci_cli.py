"""The runtime as an OCI runtime: the standard's operations on a bundle, as a process of its own."""

# ruff: noqa: ASYNC240 - tests look at local files while nothing else runs in their loop

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from argosy.agent.runtime.errors import RuntimeRejected
from argosy.agent.runtime.oci_cli import signal_number, with_user_namespace
from argosy.agent.runtime.oci_config import ContainerSpec, build

from .conftest import ID_BASE, make_busybox


class Cli:
    """Runs argosy-oci with a root of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "argosy.agent.runtime.oci_cli", "--root", str(self.root), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "src")}
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout, done.stderr

    async def status(self, container_id: str) -> str:
        code, out, err = await self("state", container_id)
        assert code == 0, err
        return str(json.loads(out)["status"])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "bundle"
    make_busybox(directory / "rootfs")
    config = build(ContainerSpec(argv=("/bin/sh", "-c", "echo hello > /made; echo out; sleep 1000"), id_base=ID_BASE))
    (directory / "config.json").write_text(json.dumps(config))
    return directory


async def test_the_life_of_a_container(bundle: Path, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "root")
    pid_file = tmp_path / "pid"
    code, _, err = await cli("create", "--bundle", str(bundle), "--pid-file", str(pid_file), "one")
    assert (code, err) == (0, "")
    assert await cli.status("one") == "created"
    code, out, _ = await cli("state", "one")
    state = json.loads(out)
    assert state["bundle"] == str(bundle)
    assert state["pid"] == int(pid_file.read_text())
    assert (await cli("create", "--bundle", str(bundle), "one"))[0] == 1
    assert (await cli("start", "one"))[0] == 0
    assert await cli.status("one") == "running"
    code, _, err = await cli("delete", "one")
    assert code == 1
    assert "kill it first" in err
    assert (await cli("kill", "one", "KILL"))[0] == 0
    for _ in range(100):
        if await cli.status("one") == "stopped":
            break
    assert await cli.status("one") == "stopped"
    assert (bundle / "rootfs/made").read_text() == "hello\n"
    assert (bundle / "rootfs/made").stat().st_uid == 0, "files keep the owner they have inside"
    assert (tmp_path / "root/logs/one.log").read_text().endswith(" stdout F out\n")
    assert (await cli("delete", "one"))[0] == 0
    code, _, err = await cli("state", "one")
    assert code == 1
    assert "no container" in err
    assert not (tmp_path / "root/launcher.sock").exists() or not _answers(tmp_path / "root/launcher.sock")


def _answers(path: Path) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


async def test_errors_are_one_line(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "root")
    for arguments in (("create", "-b", str(tmp_path), "x"), ("start", "x"), ("kill", "x"), ("delete", "x")):
        code, out, err = await cli(*arguments)
        assert code == 1
        assert out == ""
        assert err.startswith("argosy-oci: ")
        assert err.count("\n") == 1


def test_signals_by_name_and_number() -> None:
    assert [signal_number(text) for text in ("9", "KILL", "sigkill", "SIGTERM")] == [9, 9, 9, 15]
    with pytest.raises(RuntimeRejected):
        signal_number("NOPE")


def test_a_user_namespace_is_added_once() -> None:
    added = with_user_namespace({"linux": {"namespaces": [{"type": "pid"}]}}, "a")
    assert {"type": "user"} in added["linux"]["namespaces"]
    assert added["linux"]["uidMappings"][0]["hostID"] >= 1 << 28
    assert with_user_namespace(added, "a") == added
