"""The options about published ports that several commands have; names and forms are Docker's."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import types_pb2 as types

F = TypeVar("F", bound=Callable[..., Any])

_METAVAR = "[HOST:]PORT"


def publish_option(command: F) -> F:
    """Add `--publish`."""
    return click.option(
        "-p",
        "--publish",
        multiple=True,
        metavar=_METAVAR,
        help="Answer on this port of every node: 8080:80, 80 (a number is chosen), or published=…,target=…,mode=host.",
    )(command)


def update_port_options(command: F) -> F:
    """Add `--publish-add` and `--publish-rm`."""
    command = click.option(
        "--publish-rm",
        multiple=True,
        metavar="[PUBLISHED:]PORT",
        help="Answer no more on what leads to this port of the tasks; 8080:80 is one of several that do.",
    )(command)
    return click.option("--publish-add", multiple=True, metavar=_METAVAR, help="Answer on this port of every node.")(
        command
    )


def publish_ports(spec: "types.ServiceSpec", texts: Iterable[str], option: str = "--publish") -> None:
    """Add ports to a spec. UsageError for one that cannot be read."""
    from argosy.cli.ports import publish

    with _blaming(option):
        publish(spec, texts)


def unpublish_ports(service: "types.Service", texts: Iterable[str]) -> None:
    """Take ports out of a service's spec. UsageError for one that is not there."""
    from argosy.cli.ports import unpublish

    with _blaming("--publish-rm"):
        unpublish(service, texts)


@contextmanager
def _blaming(option: str) -> Iterator[None]:
    from argosy.core.errors import InvalidError

    try:
        yield
    except InvalidError as error:
        raise click.UsageError(f"{option}: {error}") from None
