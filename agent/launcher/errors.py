"""What can go wrong in the launcher, in the outcomes that the agent knows.

    LaunchError            has a kind; travels over the socket as an `error` object (see `as_message`)
      kind "rejected"      this host can never run it as asked: the text is for a person
      kind "transient"     the same request may succeed later
      kind "missing"       no such container
      kind "ended"         the container ended before it was started: one made anew may be

Anything else that escapes is a bug: the launcher ends and is started again, containers run on.
"""

from __future__ import annotations

import errno
from typing import Any, Final

#: A set-up step that fails with one of these may succeed when it is tried again: the host is short of something.
TRANSIENT_ERRNOS: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ETIMEDOUT,
        errno.EDQUOT,
    }
)


class LaunchError(Exception):
    """A request that failed, with the step it failed in and, where there is one, the program's exit code."""

    def __init__(self, kind: str, reason: str, *, step: str = "", code: int | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.step = step
        self.code = code

    def as_message(self) -> dict[str, Any]:
        """Return the form that crosses the socket."""
        return {"kind": self.kind, "reason": self.reason, "step": self.step, "code": self.code}


def rejected(reason: str, *, step: str = "", code: int | None = None) -> LaunchError:
    """Return an error for what this host can never do."""
    return LaunchError("rejected", reason, step=step, code=code)


def from_os_error(error: OSError, step: str) -> LaunchError:
    """Return the launch error for a failed system call, classified by its errno and named by its step."""
    kind = "transient" if error.errno in TRANSIENT_ERRNOS else "rejected"
    name = errno.errorcode.get(error.errno or 0, "?")
    where = f" ({os_file(error)})" if error.filename is not None else ""
    return LaunchError(kind, f"{step}: {error.strerror or error}{where} [{name}]", step=step)


def os_file(error: OSError) -> str:
    """Return the file or call that a system error names, as text."""
    name = error.filename
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
