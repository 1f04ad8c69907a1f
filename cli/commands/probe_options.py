"""How options say in which way a task is asked whether it is well or ready: by a command, HTTP, TCP or gRPC.

A check has one way; the last one that is given replaces the one that there was. How often it asks stays as it is.
"""

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import types_pb2 as types

_HIGHEST_PORT: Final = 65535


def by_shell(check: "types.Healthcheck", line: str) -> None:
    """Ask with a line of shell."""
    _forget_way(check)
    check.test[:] = ["CMD-SHELL", line]


def by_http(check: "types.Healthcheck", text: str) -> None:
    """Ask with GET: "8080" or "8080/healthz". UsageError for anything else."""
    port, slash, path = text.partition("/")
    _forget_way(check)
    check.http.port, check.http.path = _port(port, text, "8080/healthz"), slash + path


def by_tcp(check: "types.Healthcheck", text: str) -> None:
    """Ask by opening a connection: "8080". UsageError for anything else."""
    _forget_way(check)
    check.tcp.port = _port(text, text, "8080")


def by_grpc(check: "types.Healthcheck", text: str) -> None:
    """Ask grpc.health.v1.Health: "8080" or "8080/SERVICE". UsageError for anything else."""
    port, _, service = text.partition("/")
    _forget_way(check)
    check.grpc.port, check.grpc.service = _port(port, text, "8080/my.Service"), service


def _forget_way(check: "types.Healthcheck") -> None:
    for way in ("test", "http", "tcp", "grpc"):
        check.ClearField(way)


def _port(port: str, text: str, example: str) -> int:
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= _HIGHEST_PORT):
        raise click.UsageError(f"'{text}' does not begin with a port from 1 to {_HIGHEST_PORT}: write it as {example}")
    return int(port)
