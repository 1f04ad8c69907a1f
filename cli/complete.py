"""Names for shell completion, asked of the cluster; silent and quick when there is none."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from argosy.cli.session import Session

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_TIMEOUT_S: Final = 1.0


def services(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of a service."""
    return _names(ctx, incomplete, _services)


def nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of a node."""
    return _names(ctx, incomplete, _nodes)


def networks(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of a network."""
    return _names(ctx, incomplete, _networks)


def configs(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of a config."""
    return _names(ctx, incomplete, _configs)


def secrets(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of a secret."""
    return _names(ctx, incomplete, _secrets)


def images(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of an image."""
    return _names(ctx, incomplete, _images)


def stacks(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete the name of a stack."""
    return _names(ctx, incomplete, _stacks)


def _names(ctx: click.Context, incomplete: str, ask: Callable[[Session], set[str]]) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    given = ctx.find_root().params
    session = Session(*(given.get(key) or "" for key in ("host", "context", "project")))
    try:
        found = ask(session)
    except Exception:
        return []  # a shell that completes must not show errors, of whatever kind
    return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def _services(session: Session) -> set[str]:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.ListServicesRequest(project=session.project)
    return {service.spec.name for service in session.control.ListServices(request, timeout=_TIMEOUT_S).services}


def _stacks(session: Session) -> set[str]:
    from argosy.cli.rows import STACK_LABEL
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.ListServicesRequest(project=session.project)
    found = session.control.ListServices(request, timeout=_TIMEOUT_S).services
    return {service.spec.labels[STACK_LABEL] for service in found if STACK_LABEL in service.spec.labels}


def _nodes(session: Session) -> set[str]:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.ListNodesRequest(project=session.project)
    return {node.spec.name for node in session.control.ListNodes(request, timeout=_TIMEOUT_S).nodes}


def _networks(session: Session) -> set[str]:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.ListNetworksRequest(project=session.project)
    return {network.spec.name for network in session.control.ListNetworks(request, timeout=_TIMEOUT_S).networks}


def _configs(session: Session) -> set[str]:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.ListConfigsRequest(project=session.project)
    return {config.name for config in session.control.ListConfigs(request, timeout=_TIMEOUT_S).configs}


def _secrets(session: Session) -> set[str]:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.ListSecretsRequest(project=session.project)
    return {secret.name for secret in session.control.ListSecrets(request, timeout=_TIMEOUT_S).secrets}


def _images(session: Session) -> set[str]:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.ListImagesRequest(project=session.project)
    return {image.name for image in session.control.ListImages(request, timeout=_TIMEOUT_S).images}
