"""One interceptor maps the exception tree (core/errors.py) to gRPC codes; every handler just raises.

What is no ArgosyError is a bug: it is logged with its traceback, and the caller gets INTERNAL and a number to quote.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import structlog

from argosy.controller.store import AmbiguousError
from argosy.core import errors
from argosy.core.codec import encode
from argosy.core.ids import new_id
from argosy.proto.argosy.v1 import control_pb2 as pb

log = structlog.get_logger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""Generic for type checkers only."""
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_CODES: tuple[tuple[type[errors.ArgosyError], grpc.StatusCode], ...] = (
    (errors.InvalidError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.ExistsError, grpc.StatusCode.ALREADY_EXISTS),
    (errors.ConflictError, grpc.StatusCode.ABORTED),
    (errors.PreconditionError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.RejectedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ExhaustedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (AmbiguousError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.TransientError, grpc.StatusCode.UNAVAILABLE),
)
"""First match counts: subclasses come before their bases.

UNAVAILABLE promises that nothing was done, so that clients repeat the request; DEADLINE_EXCEEDED promises nothing.
"""


_MOST_OF_PLACES: Final = 2048
"""Bytes. Clients take 8 KiB of metadata for certain, the text included (grpc.max_metadata_size)."""


def code_of(error: errors.ArgosyError) -> grpc.StatusCode:
    """Return the gRPC code that fits an error."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def text_of(error: errors.ArgosyError) -> str:
    """Return the message for the user: of an InvalidError with all its problems, one a line."""
    if isinstance(error, errors.InvalidError) and error.problems:
        return "\n".join([str(error), *(f"{where}: {what}" for where, what in error.problems)])
    return str(error)


def _places(error: errors.ArgosyError) -> tuple[tuple[str, bytes], ...]:
    """Return the metadata that says what an error is about: none where it would crowd out the text."""
    found = pb.RefusedPlaces(places=[encode(place, pb.RefusedPlace) for place in error.places]).SerializeToString()
    return ((errors.PLACES_KEY, found),) if 0 < len(found) <= _MOST_OF_PLACES else ()


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Return the handler of the RPC with its errors mapped."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None  # unknown method: grpc answers UNIMPLEMENTED itself
        method = handler_call_details.method
        make = {
            (False, False): (grpc.unary_unary_rpc_method_handler, _single(handler.unary_unary, method)),
            (False, True): (grpc.unary_stream_rpc_method_handler, _stream(handler.unary_stream, method)),
            (True, False): (grpc.stream_unary_rpc_method_handler, _single(handler.stream_unary, method)),
            (True, True): (grpc.stream_stream_rpc_method_handler, _stream(handler.stream_stream, method)),
        }[(bool(handler.request_streaming), bool(handler.response_streaming))]
        build, behaviour = make
        wrapped: _Handler = build(
            behaviour,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped


def _single(behaviour: Any, method: str) -> Callable[[Any, Context], Awaitable[Any]]:
    async def run(request: Any, context: Context) -> Any:
        try:
            return await behaviour(request, context)
        except Exception as e:
            await _abort(e, method, context)

    return run


def _stream(behaviour: Any, method: str) -> Callable[[Any, Context], Any]:
    if inspect.iscoroutinefunction(behaviour):
        return _single(behaviour, method)  # it writes its responses to the context, as the health service does

    # Not a generator itself: gRPC leaves one where it stands when the caller goes while a response is being sent, and
    # what the handler holds (a session, a subscription, an open file) would stay until the garbage is collected.
    async def run(request: Any, context: Context) -> None:
        async with contextlib.aclosing(behaviour(request, context)) as responses:
            while True:
                try:
                    response = await anext(responses, None)
                except Exception as e:
                    await _abort(e, method, context)
                if response is None:
                    return
                await context.write(response)

    return run


async def _abort(error: Exception, method: str, context: Context) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    if isinstance(error, errors.ArgosyError):
        trailing = tuple(getattr(error, "trailing_metadata", ()))
        await context.abort(code_of(error), text_of(error), (*trailing, *_places(error)))
    if isinstance(error, grpc.aio.AioRpcError):  # another controller's answer to a request that was passed on
        await context.abort(error.code(), error.details() or "")
    number = new_id()
    log.error("bug in a handler", method=method, number=number, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"internal error {number}; the controller's log has the details")
    raise AssertionError("abort always raises")
