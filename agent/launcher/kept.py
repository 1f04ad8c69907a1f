"""Descriptors that are kept for the agent under a name, so that they outlive it: here nobody reads or writes them.

What they are is the agent's business. A child that waits for its start would hold what was dropped meanwhile: children
close their copies at once, and an exec closes what is left.
"""

from __future__ import annotations

import os
from collections.abc import Sequence


class Kept:
    """Owns the descriptors that it was given."""

    def __init__(self) -> None:
        self._by_name: dict[str, tuple[int, ...]] = {}

    def keep(self, name: str, fds: Sequence[int]) -> None:
        """Keep descriptors under a name, instead of those that it had."""
        self.drop(name)
        self._by_name[name] = tuple(fds)

    def drop(self, name: str) -> None:
        """Let go of what has a name; of one that has nothing there is nothing to do."""
        for fd in self._by_name.pop(name, ()):
            os.close(fd)

    def names(self) -> list[str]:
        """Return the names that have something."""
        return sorted(self._by_name)

    def of(self, name: str) -> tuple[int, ...]:
        """Return what is kept under a name; nothing for an unknown one."""
        return self._by_name.get(name, ())

    def close(self) -> None:
        """Let go of all."""
        for name in self.names():
            self.drop(name)
