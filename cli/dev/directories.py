"""Directories below parents that all dev clusters share: made and removed while other clusters do the same.

The last cluster to go removes the parents, which may be the very moment in which another one makes its own below them.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_TRIES: Final = 100


def make(path: Path) -> None:
    """Make a directory with its parents; idempotent."""
    for _ in range(_TRIES):
        try:
            path.mkdir(parents=True, exist_ok=True)
            return
        except (FileNotFoundError, FileExistsError):
            continue  # a parent went away under our hands
    path.mkdir(parents=True, exist_ok=True)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, from its first moment on."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)


def remove_unused(parents: Iterable[Path]) -> None:
    """Remove directories, the innermost first, as far as nobody has anything in them."""
    for parent in parents:
        with contextlib.suppress(OSError):
            parent.rmdir()
