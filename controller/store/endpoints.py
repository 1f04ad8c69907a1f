"""The connections to etcd's members: one gRPC channel each, one of them in use.

Everything (calls, watches, lease renewals) goes to the endpoint in use; whoever sees it fail says so, and all move on
together to the next. Renewals have connections of their own (lease.py). A member that hangs is thus left by its watches
as soon as one call to it timed out, long before TCP would notice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import grpc.aio


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM contents: the authority that signed etcd's certificates, and this client's own certificate and key."""

    ca: bytes
    certificate: bytes | None = None
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """How to reach etcd. Endpoints are "host:port"; timeouts cover retries on other endpoints, too."""

    endpoints: tuple[str, ...]
    tls: Tls | None = None
    request_timeout_s: float = 5.0
    attempt_timeout_s: float = 2.0
    ping_period_s: float = 10.0
    ping_timeout_s: float = 3.0


Connect: TypeAlias = "Callable[[str, EtcdConfig], grpc.aio.Channel]"
"""Makes the channel to the member at an address; it connects on first use."""


class Endpoint:
    """One member: a channel that connects on first use, and its methods by path."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self._methods: dict[str, Any] = {}

    def unary(self, path: str, response: Any) -> Any:
        """Return the callable of a unary method; requests serialise themselves."""
        found = self._methods.get(path)
        if found is None:
            found = self._methods[path] = self.channel.unary_unary(path, _serialize, response.FromString)
        return found

    def stream(self, path: str, response: Any) -> Any:
        """Return the callable of a method with streams both ways."""
        return self.channel.stream_stream(path, _serialize, response.FromString)


class Endpoints:
    """All members and which one is in use."""

    def __init__(self, config: EtcdConfig, connect: Connect) -> None:
        if not config.endpoints:
            raise ValueError("no etcd endpoint is configured")
        self._all = [Endpoint(a, connect(a, config)) for a in config.endpoints]
        self._current = 0
        self._listeners: list[Callable[[Endpoint], None]] = []

    @property
    def current(self) -> Endpoint:
        """The endpoint in use."""
        return self._all[self._current]

    @property
    def all(self) -> tuple[Endpoint, ...]:
        """Every endpoint, for what concerns each member (status, defragmentation)."""
        return tuple(self._all)

    def after(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint that follows another one; the same where it is the only one."""
        return self._all[(self._all.index(endpoint) + 1) % len(self._all)]

    def failed(self, endpoint: Endpoint) -> None:
        """Move on to the next endpoint, unless somebody did already."""
        if endpoint is not self.current or len(self._all) == 1:
            return
        self._current = (self._current + 1) % len(self._all)
        for listener in self._listeners:
            listener(self.current)

    def on_move(self, listener: Callable[[Endpoint], None]) -> None:
        """Call `listener` with the new endpoint whenever another comes into use."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """Close all channels."""
        for endpoint in self._all:
            await endpoint.channel.close()


def _serialize(request: Any) -> bytes:
    data: bytes = request.SerializeToString()
    return data


def connect(address: str, config: EtcdConfig) -> grpc.aio.Channel:
    """Make a channel over TCP."""
    if config.tls is None:
        return grpc.aio.insecure_channel(address, _options(config))
    return grpc.aio.secure_channel(address, _credentials(config.tls), _options(config))


def connect_blocking(address: str, config: EtcdConfig) -> grpc.Channel:
    """Make a channel over TCP for a thread that waits for its answers."""
    if config.tls is None:
        return grpc.insecure_channel(address, _options(config))
    return grpc.secure_channel(address, _credentials(config.tls), _options(config))


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)


def _options(config: EtcdConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", -1),  # a page of a range may be larger than the default 4 MiB
        ("grpc.max_send_message_length", -1),  # etcd judges the size of requests
        ("grpc.enable_retries", 0),  # a txn must never be sent twice behind our back
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 1000),  # how long one attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", 500),
        # etcd closes connections that ping more often than every 5 s (--grpc-keepalive-min-time).
        ("grpc.keepalive_time_ms", int(config.ping_period_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(config.ping_timeout_s * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
    ]
