"""What a runtime operation can fail with.

ContainerError
├── RuntimeRejected     this host can never run it as asked: the text is a reason for a person
├── RuntimeTransient    the same call may succeed later: the launcher is restarting, the host is short of something
└── ContainerMissing    no such container (any more)
"""

from __future__ import annotations


class ContainerError(Exception):
    """Base of all; `step` is the set-up step that failed, "" when the failure was elsewhere."""

    def __init__(self, reason: str, *, step: str = "", exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.step = step
        #: The code that `exec` would have ended with: 127 for not found, 126 for not executable; None for all else.
        self.exit_code = exit_code


class RuntimeRejected(ContainerError):
    """Trying again cannot help."""


class RuntimeTransient(ContainerError):
    """Trying again, after a pause, may help."""


class ContainerMissing(ContainerError):
    """The id is not known to the runtime."""
