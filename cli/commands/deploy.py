"""`argosy deploy`: a Compose file becomes a stack."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from argosy.cli import complete
from argosy.cli.errors import CliError, InvalidInputError, explain, outcome_unknown, places_of
from argosy.cli.output import notice, say
from argosy.cli.planning import Planning, plan_options
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import settle, until_gone, waiting_options

if TYPE_CHECKING:
    from argosy.cli.compose.stack import Stack
    from argosy.proto.argosy.v1 import control_pb2 as pb


@click.command(
    name="deploy",
    help="Deploy a Compose file as STACK, and wait until all of it runs. Without -c: compose.yaml or the other usual "
    "names in this directory. Exits 0 only when everything runs as the file says.",
)
@click.option(
    "-c",
    "--compose-file",
    "files",
    multiple=True,
    metavar="FILE",
    help="Compose file, or - for stdin; several are merged.",
)
@click.option(
    "--env-file", "env_files", multiple=True, metavar="FILE", help="Variables for the files (instead of .env)."
)
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Also deploy services of this profile.")
@click.option("--prune", is_flag=True, help="Remove services of the stack that the file no longer has.")
@click.option(
    "--ship-files",
    is_flag=True,
    help="Make configs of the files that services bind from this machine (read-only; at most 1000 KiB each).",
)
@plan_options
@waiting_options
@click.argument("stack", required=False, default="", shell_complete=complete.stacks)
@pass_session
def command(
    session: Session,
    files: tuple[str, ...],
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    prune: bool,
    ship_files: bool,
    detach: bool,
    timeout: float,
    stack: str,
    planning: Planning,
) -> None:
    wanted = _load(files, env_files, profiles, stack, ship_files)
    told = [str(found) for found in wanted.notices]
    for text in told:
        notice(f"note: {text}")
    _check_external(session, wanted)
    _check_external_files(session, wanted)
    request = _request(session, wanted, prune)
    with _refused_at_its_line(wanted):
        planning.before(session, "apply_stack", request, told)
        reply = session.control.ApplyStack(request)
    for text in reply.notices:
        notice(f"note: {text}")
    _say_changes(reply)
    if not detach:
        deployed = settle(session, reply.services, timeout=timeout, continues="the deployment goes on")
        for service in deployed:
            if service.update.ready:
                notice(f"{service.spec.name}: {service.update.message}")
        if reply.removed:
            until_gone(session, reply.removed, (), timeout=timeout)
        say(f"stack {wanted.name} runs: " + _counted(reply))


def _load(
    files: tuple[str, ...], env_files: tuple[str, ...], profiles: tuple[str, ...], stack: str, ship_files: bool
) -> "Stack":
    from argosy.cli.compose.files import LONGEST
    from argosy.cli.compose.problems import ComposeError
    from argosy.cli.compose.stack import Input, default_files, load_stack

    names = list(files) or default_files(Path(), os.environ)
    if not names:
        raise InvalidInputError("there is no compose.yaml in this directory", "name the file with -c FILE")
    stdin = sys.stdin.read(LONGEST + 1) if "-" in names else ""
    try:
        return load_stack(Input(names, stack, env_files, profiles, stdin, ship_files), os.environ)
    except ComposeError as error:
        number = len(error.problems)
        head = f"{number} problem{'s' if number > 1 else ''} in the Compose files, nothing was sent to the cluster:"
        raise InvalidInputError(f"{head}\n{error}") from None


def _check_external(session: Session, stack: "Stack") -> None:
    """Refuse external networks that are not there, naming the line: the server would name the network only."""
    if not stack.external_networks:
        return
    from argosy.proto.argosy.v1 import control_pb2 as pb

    reply = session.control.ListNetworks(pb.ListNetworksRequest(project=session.project))
    known = {network.spec.name for network in reply.networks if not network.removing}
    missing = [n for n in stack.external_networks if n.name not in known]
    if missing:
        raise InvalidInputError(
            "\n".join(f"{n.position}: there is no network '{n.name}' in the cluster" for n in missing),
            f"make it: argosy network create {missing[0].name}",
        )


def _check_external_files(session: Session, stack: "Stack") -> None:
    """As _check_external, for configs and secrets."""
    if not stack.external_files:
        return
    from argosy.proto.argosy.v1 import control_pb2 as pb

    configs = session.control.ListConfigs(pb.ListConfigsRequest(project=session.project)).configs
    secrets = session.control.ListSecrets(pb.ListSecretsRequest(project=session.project)).secrets
    known = {(False, config.name) for config in configs} | {(True, secret.name) for secret in secrets}
    missing = [("secret" if f.secret else "config", f) for f in stack.external_files if (f.secret, f.name) not in known]
    if missing:
        what, first = missing[0]
        raise InvalidInputError(
            "\n".join(f"{f.position}: there is no {kind} '{f.name}' in the cluster" for kind, f in missing),
            f"make it: argosy {what} create {first.name} FILE",
        )


@contextmanager
def _refused_at_its_line(stack: "Stack") -> Iterator[None]:
    """Put the places in the files to what the controller refuses."""
    import grpc

    from argosy.cli.compose.refusals import placed

    try:
        yield
    except grpc.RpcError as error:
        refused = explain(error)
        text = placed(stack, refused.message, places_of(error))
        if outcome_unknown(error) or text == refused.message:
            raise
        raise CliError(text, refused.hint, status=refused.status) from None


def _request(session: Session, stack: "Stack", prune: bool) -> "pb.ApplyStackRequest":
    from argosy.core.codec import encode
    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import types_pb2 as types

    return pb.ApplyStackRequest(
        project=session.project,
        stack=stack.name,
        networks=[encode(network, types.NetworkSpec) for network in stack.networks],
        services=[encode(service, types.ServiceSpec) for service in stack.services],
        prune=prune,
        configs=[pb.NewFile(name=c.name, labels=c.labels, data=c.data) for c in stack.configs],
        secrets=[pb.NewFile(name=s.name, labels=s.labels, data=s.data) for s in stack.secrets],
    )


def _say_changes(reply: "pb.ApplyStackResponse") -> None:
    changed = set(reply.changed_service_ids)
    for service in reply.services:
        if service.meta.id not in changed:
            what = "is as wanted"
        elif service.meta.created_at == service.meta.updated_at:
            what = "created"
        else:
            what = f"updated (revision {service.revision})"
        notice(f"{service.spec.name}: {what}")
    for service in reply.removed:
        notice(f"{service.spec.name}: being removed")


def _counted(reply: "pb.ApplyStackResponse") -> str:
    names = [service.spec.name for service in reply.services]
    return ", ".join(names) if len(names) <= 6 else f"{len(names)} services"
