"""What went wrong, for a person: one place that turns errors of all kinds into a message and an exit status.

Exit statuses: 0 what was asked for has happened; 1 it has not; 2 the command line or a file is wrong; 3 no cluster
answers; 70 a bug of ours; 130 interrupted. `main` is the only caller of `explain`.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import grpc

    from argosy.core.errors import Place

EXIT_FAILED: Final = 1
EXIT_INVALID: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130

_BREAKS: Final = ("Socket closed", "Connection reset", "GOAWAY", "recvmsg", "Broken pipe")

_DEADLINE_OF_GRPC: Final = "Deadline Exceeded"

HOW_TO_START: Final = (
    "start one on this machine with 'argosy dev up', or name another with --host, --context or ARGOSY_HOST"
)


class CliError(Exception):
    """The command ends here: `message` says what happened, `hint` what to do about it ("" when it is plain)."""

    def __init__(self, message: str, hint: str = "", *, status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


class InvalidInputError(CliError):
    """The command line or a file is wrong."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, status=EXIT_INVALID)


class UnreachableError(CliError):
    """No controller answers."""

    def __init__(self, hosts: tuple[str, ...], why: str = "") -> None:
        where = ", ".join(hosts)
        super().__init__(
            f"no cluster answers at {where}" + (f" ({why})" if why else ""), HOW_TO_START, status=EXIT_UNREACHABLE
        )


def explain(error: "grpc.RpcError") -> CliError:
    """Return what a failed RPC means to a person. The server's own text is fit to be shown."""
    import grpc

    code = error.code() if isinstance(error, grpc.Call) else None
    text = (error.details() if isinstance(error, grpc.Call) else "") or ""
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidInputError(text)
        case (
            grpc.StatusCode.NOT_FOUND
            | grpc.StatusCode.ALREADY_EXISTS
            | grpc.StatusCode.FAILED_PRECONDITION
            | grpc.StatusCode.RESOURCE_EXHAUSTED
        ):
            return CliError(text)
        case grpc.StatusCode.ABORTED:
            return CliError(text or "the object changed meanwhile", "look at it again and repeat the command")
        case grpc.StatusCode.UNAVAILABLE:
            return CliError(_in_words(text), "try again", status=EXIT_UNREACHABLE)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            own = "" if text == _DEADLINE_OF_GRPC else text
            return CliError(own or "the cluster took too long to answer", "try again", status=EXIT_UNREACHABLE)
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
            return CliError(text or "not allowed")
        case grpc.StatusCode.UNIMPLEMENTED:
            return CliError(
                "the cluster's controller does not know this request", "use an argosy of the controller's version"
            )
        case _:
            name = code.name if code is not None else "unknown"
            return CliError(f"the controller failed ({name}): {text}", "its log says more")


def places_of(error: "grpc.RpcError") -> "tuple[Place, ...]":
    """Return what of the request an error is about, as far as the controller says."""
    import grpc

    from argosy.core.codec import decode
    from argosy.core.errors import PLACES_KEY, Place
    from argosy.proto.argosy.v1 import control_pb2 as pb

    told: dict[str, bytes] = dict(error.trailing_metadata() or ()) if isinstance(error, grpc.Call) else {}
    found = pb.RefusedPlaces.FromString(told.get(PLACES_KEY, b""))
    return tuple(decode(place, Place) for place in found.places)


def broke_off(text: str) -> bool:
    """Whether grpc says that a connection was lost, with the request possibly under way."""
    return any(sign in text for sign in _BREAKS)


def outcome_unknown(error: "grpc.RpcError") -> bool:
    """Whether what the request asked for may have been done all the same."""
    import grpc

    if not isinstance(error, grpc.Call):
        return False
    cut_off = error.code() is grpc.StatusCode.UNAVAILABLE and broke_off(error.details() or "")
    return cut_off or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def _in_words(text: str) -> str:
    """Return a controller's own words; for those of grpc about its connection, what they mean."""
    if not text:
        return "the cluster does not answer"
    return "the connection to the cluster was lost" if broke_off(text) or "failed to connect" in text else text
