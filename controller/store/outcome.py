"""What a failed etcd call means: did it have an effect, and is it worth another try?

etcd's messages are in its source (server/etcdserver/api/v3rpc/rpctypes/error.go); the codes are enough for us.
"""

from enum import Enum

import grpc
import grpc.aio

from argosy.controller.store.errors import (
    CompactedError,
    LeaseGoneError,
    StoreFullError,
    StoreRefusedError,
    TooLargeError,
)
from argosy.core.errors import ArgosyError, TransientError

NEEDS_LEADER = (("hasleader", "true"),)
"""Metadata that makes a member without a leader refuse at once, instead of letting a call or a watch hang."""


class Failure(Enum):
    """How far a failed call got."""

    NOT_SENT = "not sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"


_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
}


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Classify. What is not surely harmless is UNKNOWN: the call may have had its effect."""
    if error.code() in _REFUSALS:
        return Failure.REFUSED
    # gRPC's own words for "no connection could be made"; the request stayed here.
    if error.code() is grpc.StatusCode.UNAVAILABLE and "failed to connect to all addresses" in (error.details() or ""):
        return Failure.NOT_SENT
    return Failure.UNKNOWN


def refusal(error: grpc.aio.AioRpcError) -> ArgosyError:
    """Return our error for a call that etcd refused."""
    details = words_of(error)
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return LeaseGoneError(f"etcd: {details}")
    if error.code() is grpc.StatusCode.OUT_OF_RANGE:
        return CompactedError(f"etcd: {details}")
    if "too large" in details or "too many operations" in details:
        return TooLargeError(f"etcd refuses the request: {details}")
    if "too many requests" in details:
        return TransientError(f"etcd is overloaded: {details}")
    if "space exceeded" in details:
        return StoreFullError(
            "etcd's database is full and takes no writes: the controller tries to make room; if that does not help, "
            f"raise etcd's --quota-backend-bytes ({details})"
        )
    return StoreRefusedError(f"etcd refuses: {details}")


def words_of(error: grpc.aio.AioRpcError) -> str:
    """Return what gRPC or etcd say of a failure."""
    return error.details() or error.code().name
