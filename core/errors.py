"""The exception tree: every error that crosses a boundary is one of these, or a bug.

    ArgosyError
    ├── RejectedError            the caller must change something; never retried as it is
    │   ├── InvalidError         the request itself is wrong: says what, where and what to do instead
    │   ├── NotFoundError        no such object
    │   ├── ExistsError          the name or id is taken
    │   ├── ConflictError        the object changed since it was read: read again
    │   └── PreconditionError    right request, wrong moment or state
    └── TransientError           may work later: retry with jittered, capped backoff
        ├── ExhaustedError       something is full: a disk, an address range
        ├── NoLeaderError        no controller leads at the moment
        └── LostLeadershipError  this controller led, and no longer does: its write was not applied

Anything else that is raised is a bug: it ends the task group it happened in, and the process restarts. One
interceptor maps the tree to gRPC codes (controller/api/errors.py), the CLI maps codes to messages and exit statuses.
"""


class ArgosyError(Exception):
    """Root of all errors that are not bugs. `str(error)` is fit for a user."""


class RejectedError(ArgosyError):
    """The caller must change something; never retried as it is."""


class InvalidError(RejectedError):
    """The request is wrong in itself.

    `problems` lists every (where, what) found, so that a user mends a file once and not line by line.
    """

    def __init__(self, message: str, problems: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class NotFoundError(RejectedError):
    """No such object."""


class ExistsError(RejectedError):
    """The name or id is taken."""


class ConflictError(RejectedError):
    """The object changed since it was read."""


class PreconditionError(RejectedError):
    """The request is right but the state does not allow it now."""


class TransientError(ArgosyError):
    """May work later."""


class ExhaustedError(TransientError):
    """Something is full (a disk, a range of addresses); the message says what would make room."""


class NoLeaderError(TransientError):
    """No controller leads at the moment."""


class LostLeadershipError(TransientError):
    """This controller is not the leader any more; the write was not applied."""


def first_of(error: BaseException) -> BaseException:
    """Return what a task group died of first, however deep the groups are nested; any other error as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
