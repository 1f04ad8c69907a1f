"""A gRPC channel over the several controllers of one cluster.

A call goes to the endpoint that answered last. When that cannot be connected to, or says that it does not lead (code
UNAVAILABLE: in both cases nothing was done), the next one is tried; while somebody answers but nobody leads, the call
is repeated for a while, since a failover takes a second or two. An error after the request may have been read is
never retried here. Endpoints of which none can be connected to are an UnreachableError at once.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

# Read by grpc's core when it is first imported: no threads prepared for a fork that never comes, no log lines.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from argosy.cli.errors import UnreachableError, broke_off

DEFAULT_TIMEOUT_S: Final = 30.0
NO_LEADER_PATIENCE_S: Final = 15.0
"""How long a call is repeated while controllers answer but none leads."""
_RETRY_PAUSE_S: Final = (0.05, 0.3)
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),
)

T = TypeVar("T")
Opener = Callable[[grpc.Channel], Callable[..., Any]]


class FailoverChannel(grpc.Channel):
    """Looks like one channel to generated stubs. Streams are not repeated: their callers know from where to resume.

    `changes_sent` is set once a call that may change the cluster has begun.
    """

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self._hosts = hosts
        self._channels: dict[int, grpc.Channel] = {}
        self._current = 0
        self.changes_sent = False

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        """Return a call that fails over."""
        reads = is_read(method)

        def call(request: Any, timeout: float | None = None, **kwargs: Any) -> Any:
            self.changes_sent = self.changes_sent or not reads

            def attempt(channel: grpc.Channel) -> Any:
                multi = channel.unary_unary(method, request_serializer, response_deserializer)
                return multi(request, timeout=timeout or DEFAULT_TIMEOUT_S, **kwargs)

            return self._with_failover(attempt)

        return call

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        """Return a call that fails over until the first response has come."""

        def call(request: Any, **kwargs: Any) -> Any:
            def attempt(channel: grpc.Channel) -> Any:
                multi = channel.unary_stream(method, request_serializer, response_deserializer)
                return _Opened(multi(request, **kwargs))

            return self._with_failover(attempt)

        return call

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        """Return a call on the endpoint that answered last: a stream of requests cannot be repeated."""
        return self._channel().stream_unary(method, request_serializer, response_deserializer)

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        """Return a call on the endpoint that answered last."""
        return self._channel().stream_stream(method, request_serializer, response_deserializer)

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        """Watch the current endpoint's connectivity."""
        self._channel().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        """Stop watching the current endpoint's connectivity."""
        self._channel().unsubscribe(callback)

    def close(self) -> None:
        """Close all connections."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def __enter__(self) -> "FailoverChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _channel(self) -> grpc.Channel:
        found = self._channels.get(self._current)
        if found is None:
            target = self._hosts[self._current]
            options = [*_OPTIONS, ("grpc.default_authority", "argosy")] if target.startswith("unix:") else [*_OPTIONS]
            found = self._channels[self._current] = grpc.insecure_channel(target, options=options)
        return found

    def _next(self) -> None:
        self._current = (self._current + 1) % len(self._hosts)

    def _with_failover(self, attempt: Callable[[grpc.Channel], T]) -> T:
        give_up_at = time.monotonic() + NO_LEADER_PATIENCE_S
        unreachable: set[int] = set()
        while True:
            try:
                return attempt(self._channel())
            except grpc.RpcError as error:
                if not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                details = error.details() or ""
                if _never_connected(details):
                    unreachable.add(self._current)
                    if len(unreachable) == len(self._hosts):
                        raise UnreachableError(self._hosts, _short_reason(details)) from None
                elif broke_off(details) or time.monotonic() >= give_up_at:
                    raise
                else:
                    unreachable.discard(self._current)
                    low, high = _RETRY_PAUSE_S
                    time.sleep(random.uniform(low, high))
                self._next()


def is_read(method: str) -> bool:
    """Whether a unary call by this name (/package.Service/Method) changes nothing."""
    return method.rpartition("/")[2].startswith(("Get", "List", "Find"))


class _Opened:
    """A response stream whose first response was read already, so that failure to open it shows at the call."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._first = next(stream, None)

    def __iter__(self) -> Iterator[Any]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._stream

    def __next__(self) -> Any:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return next(self._stream)

    def cancel(self) -> None:
        """End the stream."""
        self._stream.cancel()


def _never_connected(details: str) -> bool:
    """Whether grpc says that the request left this process at no time."""
    return "failed to connect" in details or "No such file" in details or _unresolved(details)


def _unresolved(details: str) -> bool:
    return "DNS resolution failed" in details or "errors resolving" in details


def _short_reason(details: str) -> str:
    if "No such file" in details:
        return "there is no such socket"
    if "Permission denied" in details:
        return "this user may not open it: use sudo"
    if "Connection refused" in details:
        return "connection refused"
    if _unresolved(details):
        return "the name cannot be resolved"
    return ""
