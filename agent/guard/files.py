"""What agent and guard tell each other, by files in one directory on a tmpfs.

    grant.json   by the agent: until when fenced tasks may run, and which there are
    seen.json    by the guard: which of them it has read, so that the agent knows that it is guarded
    fenced/ID    by the guard, before it ends a task: since how long (seconds) nobody had confirmed the node
    lock         held by the guard that acts

Files and no socket: what the last agent said holds also for a guard that is started after it was killed. Times are
seconds of CLOCK_BOOTTIME, good for one boot. Written whole and renamed, so that nobody reads a half.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Guarded:
    """A fenced task: the container's pid 1, known by its start time, and how it is to be ended."""

    pid: int
    start_ticks: int
    signal: int
    grace_s: float


@dataclass(frozen=True, slots=True)
class Grant:
    """Fenced tasks may run until `until`; `confirmed_at` is when the heartbeat was sent that was answered last."""

    boot_id: str = ""
    version: int = 0
    until: float = 0.0
    confirmed_at: float = 0.0
    tasks: Mapping[str, Guarded] = field(default_factory=dict)


def write_grant(directory: Path, grant: Grant) -> None:
    """Tell the guard."""
    _write(directory / "grant.json", asdict(grant))


def read_grant(directory: Path) -> Grant:
    """Return what the agent said last in this boot; an empty grant where it said nothing."""
    found = _read(directory / "grant.json")
    if found.get("boot_id") != boot_id():
        return Grant()
    return Grant(**{**found, "tasks": {task_id: Guarded(**task) for task_id, task in found["tasks"].items()}})


def write_seen(directory: Path, version: int) -> None:
    """Tell the agent which grant is in force."""
    _write(directory / "seen.json", {"pid": os.getpid(), "version": version})


def read_seen(directory: Path) -> int:
    """Return the version that a guard has read last; 0 when none has."""
    return int(_read(directory / "seen.json").get("version", 0))


def mark_fenced(directory: Path, task_id: str, unconfirmed_s: float) -> None:
    """Note that a task is being ended; it is noted before anything is done to it."""
    (directory / "fenced").mkdir(exist_ok=True)
    _write(directory / "fenced" / task_id, {"unconfirmed_s": unconfirmed_s})


def unconfirmed_s(directory: Path, task_id: str) -> float | None:
    """Return for how long nobody had confirmed the node when the guard ended a task; None: it did not."""
    found = _read(directory / "fenced" / task_id).get("unconfirmed_s")
    return None if found is None else float(found)


def unmark(directory: Path, task_id: str) -> None:
    """Forget that a task was ended by the guard."""
    (directory / "fenced" / task_id).unlink(missing_ok=True)


def boot_id() -> str:
    """Return the id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _write(path: Path, data: Mapping[str, Any]) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(data))
    fresh.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found
