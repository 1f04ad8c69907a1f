"""The controller's gRPC server: which services it has, and where it may listen.

Without TLS a controller listens on unix sockets, on loopback, and on addresses inside networks that the operator named
as trusted (the bridge of a dev cluster); anything else is refused, since anyone there could command the cluster.
"""

import ipaddress
import os
import stat
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from argosy.controller.api.errors import ErrorInterceptor
from argosy.core.errors import InvalidError
from argosy.proto.argosy.v1 import (
    content_pb2,
    content_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    dispatcher_pb2,
    dispatcher_pb2_grpc,
)

MESSAGE_LIMIT_BYTES = 64 * 2**20
MOST_WAITING = 20_000
"""Calls that have come in and are not begun: more than the largest fleet, all of whose agents call at once."""
SERVICES = (
    control_pb2.DESCRIPTOR.services_by_name["Control"].full_name,
    dispatcher_pb2.DESCRIPTOR.services_by_name["Dispatcher"].full_name,
    content_pb2.DESCRIPTOR.services_by_name["Content"].full_name,
)


def check_address(address: str, trusted: tuple[str, ...]) -> None:
    """Refuse an address on which a server without TLS must not listen; InvalidError."""
    if address.startswith("unix:"):
        return
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        if not 0 < int(port) < 65_536:
            raise ValueError(f"{port} is no port")
        ip = ipaddress.ip_address(host)
        networks = [ipaddress.ip_network(t) for t in trusted]
    except ValueError as e:
        raise InvalidError(f"--listen {address}: {e}: give unix:///PATH or ADDRESS:PORT") from None
    if ip.is_loopback or any(ip in network for network in networks):
        return
    raise InvalidError(
        f"--listen {address}: without TLS a controller listens on a unix socket or loopback only; "
        f"where everybody who can reach {host} may command the cluster, say so with --trusted-network"
    )


async def serve(
    addresses: tuple[str, ...],
    trusted: tuple[str, ...],
    control: control_pb2_grpc.ControlServicer,
    dispatcher: dispatcher_pb2_grpc.DispatcherServicer,
    content: content_pb2_grpc.ContentServicer,
) -> "tuple[grpc.aio.Server, HealthServicer]":
    """Start a server with all services on all addresses; InvalidError for one that cannot be."""
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor()],
        options=[
            ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_time_ms", 20_000),
            # A fleet whose leader has changed calls at once: the library would cancel some of more than 1,000 calls.
            ("grpc.server.max_pending_requests", MOST_WAITING),
            ("grpc.server.max_pending_requests_hard_limit", 2 * MOST_WAITING),
        ],
    )
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(dispatcher, server)
    content_pb2_grpc.add_ContentServicer_to_server(content, server)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    for address in addresses:
        check_address(address, trusted)
        _prepare_socket(address)
        try:
            server.add_insecure_port(address)
        except RuntimeError:
            await server.stop(grace=None)
            raise InvalidError(
                f"--listen {address}: the address cannot be had: is another controller running?"
            ) from None
    await server.start()
    for address in addresses:
        if address.startswith("unix:"):
            os.chmod(address.removeprefix("unix://").removeprefix("unix:"), stat.S_IRUSR | stat.S_IWUSR)
    return server, health


def _prepare_socket(address: str) -> None:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix://").removeprefix("unix:"))
        path.parent.mkdir(parents=True, exist_ok=True)


async def set_health(health: HealthServicer, *, leads: bool) -> None:
    """Say how this controller is: the whole server serves, the Dispatcher only while this one leads."""
    serving: Any = health_pb2.HealthCheckResponse.SERVING
    waiting: Any = health_pb2.HealthCheckResponse.NOT_SERVING
    await health.set("", serving)
    for service in SERVICES:
        await health.set(service, waiting if service.endswith("Dispatcher") and not leads else serving)
