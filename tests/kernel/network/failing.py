"""Steps of a plane that fail when a test wants them to."""

import errno
from typing import Any

import pytest


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: type, step: str) -> None:
    """Have a step fail the next time, whichever object takes it."""
    carry_out, failures = getattr(owner, step), [OSError(errno.ENOBUFS, "not now")]

    def fail_or_carry_out(*which: Any) -> Any:
        if failures:
            raise failures.pop()
        return carry_out(*which)

    monkeypatch.setattr(owner, step, fail_or_carry_out)
