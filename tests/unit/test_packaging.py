"""What people touch first is whole: the wheel, the install scripts, the make targets, the units and their files."""

import configparser
import re
import shlex
import subprocess
import zipfile
from pathlib import Path

import click
import pytest

from argosy.agent.main import main as agent_main
from argosy.controller.main import main as controller_main

REPO = Path(__file__).resolve().parents[2]
PARTS = ("agent", "cli", "controller", "core", "proto")
TARGETS = ("venv", "demo", "test", "test-long", "test-vm", "check", "bench", "clean", "help")
SCRIPTS = sorted([*REPO.glob("deploy/**/*.sh"), *REPO.glob("tests/vm/*.sh"), REPO / ".ci" / "run"])
COMMANDS = {"agent": agent_main, "controller": controller_main}


def run(*command: str | Path) -> str:
    """Run `command` in the checkout, which must succeed, and return its output."""
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that `pip install .` would make, built with what the environment has: no network."""
    folder = tmp_path_factory.mktemp("wheel")
    python = REPO / ".venv" / "bin" / "python"
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), ".")
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_every_module_of_the_checkout_under_argosy_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    modules = {f"argosy/{p.relative_to(REPO)}" for part in PARTS for p in (REPO / part).rglob("*.py")}
    packed = {name for name in wheel.namelist() if name.endswith(".py")}
    assert packed == modules


def test_wheel_holds_the_generated_modules_and_the_command(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "argosy/proto/argosy/v1/control_pb2_grpc.py" in names
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "argosy = argosy.cli.entry:main" in wheel.read(entry_points).decode()


def test_links_give_the_checkout_the_names_of_the_wheel() -> None:
    links = {p.name: p.resolve() for p in (REPO / "src" / "argosy").iterdir() if p.is_symlink()}
    assert links == {part: REPO / part for part in PARTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(REPO)))
def test_script_is_valid_and_executable(script: Path) -> None:
    run("bash", "-n", script)
    assert script.name == "lib.sh" or script.stat().st_mode & 0o111


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_the_target_and_what_it_runs_exists(target: str) -> None:
    planned = run("make", "--no-print-directory", "--dry-run", target)
    for program in re.findall(r"(?:^|\s)((?:deploy|tests)/\S+\.sh)", planned):
        assert (REPO / program).exists(), f"make {target} runs {program}"


def test_make_help_lists_every_target() -> None:
    listed = re.findall(r"^  make (\S+)", run("make", "--no-print-directory", "help"), re.MULTILINE)
    assert set(TARGETS) <= set(listed)


def test_etcd_is_there_and_current() -> None:
    binary = run("deploy/install/etcd.sh").strip()
    assert run(binary, "--version").startswith("etcd Version: 3.5.")


def test_system_packages_refuses_an_unknown_group() -> None:
    done = subprocess.run(
        ["deploy/install/system-packages.sh", "moon"], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no group 'moon'" in done.stderr


@pytest.mark.parametrize(("role", "command"), COMMANDS.items())
def test_example_configuration_starts_the_program(role: str, command: click.Command) -> None:
    (flags,) = re.findall(r'^ARGOSY_\w+_FLAGS="(.*)"$', (REPO / f"deploy/etc/{role}.env").read_text(), re.MULTILINE)
    # Parses as the program would, and raises what it would say about an unknown flag or a bad value.
    context = command.make_context(f"argosy {role}", shlex.split(flags))
    assert "127.0.0.1:7650" in str(context.params)
    unit = (REPO / f"deploy/systemd/argosy-{role}.service").read_text()
    assert f"EnvironmentFile=/etc/argosy/{role}.env" in unit.splitlines()
    assert f"argosy {role} $ARGOSY_{role.upper()}_FLAGS" in unit


@pytest.mark.parametrize("unit", sorted((REPO / "deploy" / "systemd").glob("*.service")), ids=lambda p: p.stem)
def test_unit_restarts_and_is_installable(unit: Path) -> None:
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(unit.read_text())
    assert parsed["Service"]["Restart"] == "always"
    assert parsed["Install"]["WantedBy"] == "multi-user.target"
    assert parsed["Service"]["ExecStart"].startswith("/opt/argosy/")


def test_agents_unit_leaves_containers_alone() -> None:
    unit = (REPO / "deploy" / "systemd" / "argosy-agent.service").read_text()
    for line in ("KillMode=process", "Delegate=yes", "RuntimeDirectoryPreserve=yes"):
        assert line in unit.splitlines()
