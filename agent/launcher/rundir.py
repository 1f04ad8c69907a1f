"""What is kept on disk about each container, so that a launcher that was killed is replaced without loss.

`RUN_DIR` is meant to lie on a tmpfs; per container there is `RUN_DIR/containers/ID/` with
    request.json  the create request as it came: OCI config, compiled system call filter, labels, log
    state.jsonl   the record, from when it is created: a line per change, each merged over the ones before. Appending
                  is atomic enough: what a killed writer left of a last line is ignored
    out, err      the named pipes
    log.intent    see `logs`
and `STATE_DIR/ID/` (on a disk that takes id-mapped mounts' uppers) with the overlay's `upper` and `work`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

#: What overlayfs leaves of a container that wrote nothing, deepest first: the usual case, removed without a look.
OVERLAY_LEFTOVERS = ("work/incompat/volatile", "work/incompat", "work/work", "work", "upper")
RECORD_FILES = ("request.json", "state.jsonl", "log.intent", "out", "err")
_FILE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC


def boot_id() -> str:
    """Return the id of this boot: a pid recorded under another one means nothing."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (proc(5), stat field 22); 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The command's name may contain anything, also ")": count from its end.
    return int(text.rpartition(b")")[2].split()[19])


class Record:
    """The state file of one container."""

    __slots__ = ("_path", "directory")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._path = directory + "/state.jsonl"

    def append(self, change: dict[str, Any]) -> None:
        """Add one change; on return it survives the death of this process."""
        fd = os.open(self._path, _FILE | os.O_APPEND, 0o600)
        try:
            os.write(fd, json.dumps(change, separators=(",", ":")).encode() + b"\n")
        finally:
            os.close(fd)

    def read(self) -> dict[str, Any]:
        """Return the merged record, empty when there is none."""
        merged: dict[str, Any] = {}
        try:
            with open(self._path, "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return merged
        for line in lines[:-1]:
            try:
                merged.update(json.loads(line))
            except ValueError:
                continue
        return merged


def write_request(directory: str, request: dict[str, Any]) -> None:
    """Keep the request that made a container, for recovery and for processes that join it later."""
    content = json.dumps(request, separators=(",", ":")).encode()
    fd = os.open(f"{directory}/request.json", _FILE | os.O_TRUNC, 0o600)
    try:
        while content:
            content = content[os.write(fd, content) :]
    finally:
        os.close(fd)


def read_request(directory: str) -> dict[str, Any]:
    """Return the request that made a container; raise OSError or ValueError when it was never written whole."""
    with open(f"{directory}/request.json", "rb") as file:
        request: dict[str, Any] = json.load(file)
    return request


def remove_tree(path: str, budget: int = 1 << 62) -> bool:
    """Remove a directory tree without following any link; return False when `budget` entries did not suffice.

    Uses directory descriptors throughout: the tree was written by an untrusted container.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        left = _empty(fd, budget)
    finally:
        os.close(fd)
    if left < 0:
        return False
    os.rmdir(path)
    return True


def remove_known(path: str, names: Sequence[str]) -> bool:
    """Remove a directory of which the content is known, deepest first; return False if there was anything else.

    Only for paths whose directories nobody but the kernel and the launcher can write: names are resolved as usual.
    """
    try:
        for name in (*(f"{path}/{name}" for name in names), path):
            try:
                os.rmdir(name)
            except NotADirectoryError:
                os.unlink(name)
            except FileNotFoundError:
                continue
    except OSError:
        return False
    return True


def _empty(fd: int, budget: int) -> int:
    """Remove what a directory contains; return the budget that is left, negative when it ran out."""
    with os.scandir(fd) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_dir in listed:
        budget -= 1
        if budget < 0:
            return budget
        if not is_dir:
            os.unlink(name, dir_fd=fd)
            continue
        child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            budget = _empty(child, budget)
        finally:
            os.close(child)
        if budget < 0:
            return budget
        os.rmdir(name, dir_fd=fd)
    return budget
