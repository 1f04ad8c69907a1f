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
What in a request an error is about goes with it (`places`), so that the CLI can show where a file says it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

PLACES_KEY: Final = "argosy-places-bin"
"""The trailing metadata that an error's places travel in, as control.proto's RefusedPlaces."""


@dataclass(frozen=True, slots=True)
class Place:
    """Something in a request: an object by its `kind` ("service", "network") and `name`, or a field of its spec.

    `field` is a path such as "task.networks[0].address"; "" for the object as a whole.
    """

    kind: str = ""
    name: str = ""
    field: str = ""


class ArgosyError(Exception):
    """Root of all errors that are not bugs. `str(error)` is fit for a user.

    `places`: what of the request it is about, as far as that is known; of an InvalidError with problems that of each.
    """

    places: tuple[Place, ...] = ()


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


@contextmanager
def about(kind: str, name: str, field: str = "") -> Iterator[None]:
    """Have errors that are raised within say what they are about, unless they do already."""
    try:
        yield
    except ArgosyError as error:
        if not error.places:
            problems = error.problems if isinstance(error, InvalidError) else ()
            error.places = tuple(Place(kind, name, where) for where, _ in problems) or (Place(kind, name, field),)
        raise


def first_of(error: BaseException) -> BaseException:
    """Return what a task group died of first, however deep the groups are nested; any other error as it is."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
