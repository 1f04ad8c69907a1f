"""The cgroup subtree of a dev cluster: the list of its processes that no crash can lose.

Every process of the cluster starts in the subtree's `system` group or below a host's; the kernel keeps children there.
On v1 the `pids` hierarchy serves as that list (systemd leaves other people's groups in it alone), on v2 the unified
one. Other hierarchies only hold the containers' limits: their directories are removed with the rest. cgroups(7).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from argosy.cli.dev import directories
from argosy.cli.errors import CliError

ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """Return the roots of all mounted hierarchies; the one that lists processes comes first."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [Path(m[1]) for m in mounts if m[2] == "cgroup" and m[1].startswith(str(ROOT))]
    found.sort(key=lambda p: (p.name != "pids", p))
    if not found or found[0].name != "pids":
        raise CliError(
            "this host has no cgroup hierarchy for pids", "mount one at /sys/fs/cgroup/pids, or use cgroup v2"
        )
    return found


def enter(subtree: str) -> None:
    """Put the calling process into the subtree's `system` group; its children follow."""
    group = hierarchies()[0] / f"{subtree.lstrip('/')}/system"
    directories.make(group)
    (group / "cgroup.procs").write_text(str(os.getpid()))


def processes(subtree: str) -> list[int]:
    """Return the ids of all processes of a subtree."""
    top = hierarchies()[0] / subtree.lstrip("/")
    found: list[int] = []
    for group in _groups(top):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    return found


def end(subtree: str, timeout_s: float = 20.0) -> None:
    """Kill every process of a subtree and remove its directories in all hierarchies; idempotent."""
    deadline = time.monotonic() + timeout_s
    while alive := processes(subtree):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise CliError(f"processes {alive[:5]} of {subtree} do not end", "see `ps -o pid,stat,wchan,args -p PID`")
        time.sleep(0.005)
    for root in hierarchies():
        top = root / subtree.lstrip("/")
        for group in reversed(list(_groups(top))):
            _remove(group, deadline)
        directories.remove_unused((top.parent,))


def _groups(top: Path) -> Iterator[Path]:
    """Yield a directory and all below it, parents first."""
    if not top.is_dir():
        return
    for path, names, _ in os.walk(top):
        names.sort()
        yield Path(path)


def _remove(group: Path, deadline: float) -> None:
    while True:
        try:
            return group.rmdir()
        except FileNotFoundError:
            return None
        except OSError as e:
            # A group is busy for a moment after its last process was reaped.
            if time.monotonic() > deadline:
                raise CliError(f"{group} cannot be removed: {e.strerror}", "see what is in its cgroup.procs") from None
            time.sleep(0.005)
