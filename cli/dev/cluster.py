"""Brings a dev cluster up and down, and says how it is."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from argosy.cli import interrupt
from argosy.cli.dev import cgroups, directories, supervisor
from argosy.cli.dev.layout import RUN_ROOT, STATE_ROOT, Layout
from argosy.cli.dev.plan import SWITCH, Plan, plan
from argosy.cli.errors import CliError

NEEDED = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "mount": "mount",
    "hostname": "hostname",
}
ETCD_PLACES = ("/opt/argosy/etcd/bin/etcd",)
INIT_PROGRAM = Path("/usr/bin/tini-static")


def find_etcd() -> str:
    """Return the path of an etcd; CliError where there is none."""
    for candidate in (os.environ.get("ARGOSY_ETCD", ""), *ETCD_PLACES, shutil.which("etcd") or ""):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise CliError("etcd is not on this machine", "run `make etcd` in the project, or set ARGOSY_ETCD to its path")


def check_machine() -> None:
    """Refuse to begin where something is missing."""
    if os.geteuid() != 0:
        raise CliError("a dev cluster makes namespaces and cgroups", "run it as root")
    missing = {package for program, package in NEEDED.items() if not shutil.which(program)}
    if not INIT_PROGRAM.exists():
        missing.add("tini")
    if missing:
        packages = " ".join(sorted(missing))
        raise CliError(
            f"this machine lacks {packages}", f"apt-get install --no-install-recommends {packages}, or `make system`"
        )


def is_up(layout: Layout) -> bool:
    """Whether any process of the cluster lives."""
    return bool(cgroups.processes(layout.cgroup))


def up(layout: Layout, nodes: int, controllers: int) -> None:
    """Start the cluster's processes; returns as soon as the supervisor runs."""
    check_machine()
    if is_up(layout):
        raise CliError(
            f"the dev cluster {layout.name} is up already",
            f"`argosy dev status --name {layout.name}` shows it, `argosy dev down --name {layout.name}` ends it",
        )
    wanted = plan(layout, nodes, controllers, find_etcd())
    down(layout)  # what a crash may have left
    try:
        _start(layout, wanted)
    except BaseException:
        down(layout)
        raise


def _start(layout: Layout, wanted: Plan) -> None:
    for directory in (layout.run_dir / "logs", layout.run_dir / "stopped", *map(layout.host_dir, wanted.nodes)):
        directories.make(directory)
    os.chmod(layout.state_dir, 0o700)
    directories.write_private(layout.secrets_key, base64.b64encode(os.urandom(32)) + b"\n")
    layout.spec_path.write_text(json.dumps(wanted.to_json(), indent=1))
    with layout.log("supervisor").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(layout.spec_path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: cgroups.enter(layout.cgroup),
        )


def down(layout: Layout) -> bool:
    """End everything of the cluster and remove what it kept; True when there was something."""
    if os.geteuid() != 0:
        raise CliError("ending a dev cluster takes root", "run it as root")
    existed = is_up(layout) or layout.run_dir.exists() or layout.state_dir.exists()
    cgroups.end(layout.cgroup)
    for directory, parents in (
        (layout.run_dir, (RUN_ROOT, RUN_ROOT.parent)),
        (layout.state_dir, (STATE_ROOT, STATE_ROOT.parent)),
    ):
        shutil.rmtree(directory, ignore_errors=True)
        directories.remove_unused(parents)
    return existed


def names() -> list[str]:
    """Return the names of the dev clusters that this machine knows of."""
    return sorted(p.name for p in RUN_ROOT.iterdir() if p.is_dir()) if RUN_ROOT.is_dir() else []


def processes(layout: Layout) -> dict[str, Any]:
    """Return what the supervisor wrote of its processes; empty before it did."""
    try:
        found: dict[str, Any] = json.loads(layout.status_path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def set_link(layout: Layout, node: str, state: str) -> None:
    """Take a host's link `up` or `down`: at the switch's end, so that the host itself sees a dead cable."""
    holders = _holders(layout, node)
    link = ["ip", "link", "set", f"to-{node}", state]
    subprocess.run(["nsenter", f"--target={holders[SWITCH]}", "--net", "--", *link], check=True)


def on_host(layout: Layout, node: str, command: Sequence[str]) -> list[str]:
    """Return a command that runs another one on a host: in its network, and with its name and mounts."""
    return ["nsenter", f"--target={_holders(layout, node)[node]}", "--net", "--uts", "--mount", "--", *command]


def _holders(layout: Layout, node: str) -> dict[str, int]:
    """Return the processes that hold the hosts' namespaces, the switch's too; CliError where the host is none."""
    holders: dict[str, int] = processes(layout).get("holders", {}) if is_up(layout) else {}
    hosts = sorted(set(holders) - {SWITCH})
    if node not in hosts:
        have = f"it has {', '.join(hosts)}" if hosts else "it is not up"
        raise CliError(f"the dev cluster {layout.name} has no host {node}", have)
    if os.geteuid() != 0:
        raise CliError("a host of a dev cluster is only for root", "run it as root")
    return holders


def spec(layout: Layout) -> dict[str, Any]:
    """Return the plan that the cluster was made from; empty where there is none."""
    try:
        found: dict[str, Any] = json.loads(layout.spec_path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def wait_ready(layout: Layout, ready_nodes: Callable[[], int], nodes: int, timeout_s: float) -> None:
    """Wait until `nodes` nodes are READY; CliError with the logs of what died, when that does not come to pass."""
    deadline = time.monotonic() + timeout_s
    while ready_nodes() < nodes:
        interrupt.check()
        if time.monotonic() > deadline or not is_up(layout):
            raise CliError(f"the dev cluster {layout.name} does not come up", _why(layout))
        time.sleep(0.02)


def _why(layout: Layout) -> str:
    lines = [f"logs are in {layout.run_dir / 'logs'}"]
    for path in sorted((layout.run_dir / "logs").glob("*.log")):
        tail = path.read_text(errors="replace").splitlines()[-3:]
        lines += [f"{path.stem}: {line}" for line in tail]
    return "\n".join(lines)
