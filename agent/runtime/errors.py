"""What a runtime operation can fail with; see `argosy.core.errors` for what the outcomes mean.

ContainerError
├── RuntimeRejected     (RejectedError)   this host can never run it as asked: the text is a reason for a person
├── RuntimeTransient    (TransientError)  the same call may succeed later: the launcher restarts, memory is short
├── ContainerMissing    (NotFoundError)   no such container (any more)
├── ContainerUnstarted  (TransientError)  it ended before its program was started: one made anew may be
└── LauncherBug                           the launcher did what it must not: neither of the above
"""

from __future__ import annotations

from argosy.core.errors import ArgosyError, NotFoundError, RejectedError, TransientError


class ContainerError(ArgosyError):
    """Base of all; `step` is the set-up step that failed, "" when the failure was elsewhere."""

    def __init__(self, reason: str, *, step: str = "", exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.step = step
        #: The code that `exec` would have ended with: 127 for not found, 126 for not executable; None for all else.
        self.exit_code = exit_code


class RuntimeRejected(ContainerError, RejectedError):
    """Trying again cannot help."""


class RuntimeTransient(ContainerError, TransientError):
    """Trying again, after a pause, may help."""


class ContainerMissing(ContainerError, NotFoundError):
    """The id is not known to the runtime."""


class ContainerUnstarted(ContainerError, TransientError):
    """The container ended before its program was started, of which nothing has run: one made anew may be."""


class LauncherBug(ContainerError):
    """Something that neither the caller nor the host is to blame for."""
