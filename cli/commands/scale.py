"""`argosy scale SVC=N …`: the number of tasks of services, all or none of them."""

from typing import Any

import click

from argosy.cli import complete
from argosy.cli.output import notice, say
from argosy.cli.planning import NO_PLANNING, Planning, plan_options
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import settle, waiting_options


@click.command(name="scale", help="Set how many tasks services run, and wait until they do: argosy scale web=5 api=2.")
@click.argument("wanted", nargs=-1, required=True, metavar="SERVICE=N...", shell_complete=complete.services)
@plan_options
@waiting_options
@pass_session
def command(session: Session, wanted: tuple[str, ...], detach: bool, timeout: float, planning: Planning) -> None:
    scale(session, [parse_pair(text) for text in wanted], detach=detach, timeout=timeout, planning=planning)


def parse_pair(text: str) -> tuple[str, int]:
    """Return (service, number) of "web=5"; UsageError for anything else."""
    name, equals, number = text.rpartition("=")
    if not equals or not name or not number.isdecimal():
        raise click.UsageError(f"'{text}' is not SERVICE=N, with N a whole number from 0 up")
    return name, int(number)


def scale(
    session: Session,
    wanted: list[tuple[str, int]],
    *,
    detach: bool,
    timeout: float,
    planning: Planning = NO_PLANNING,
) -> None:
    """Set the numbers and wait until they are reached."""
    from argosy.proto.argosy.v1 import control_pb2 as pb

    names = [name for name, _ in wanted]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise click.UsageError(f"'{min(twice)}' is there twice")
    too_many = [name for name, number in wanted if number >= 1 << 32]
    if too_many:
        raise click.UsageError(f"'{too_many[0]}' cannot have so many tasks")
    request = pb.ScaleServicesRequest(project=session.project, replicas=dict(wanted))
    planning.before(session, "scale_services", request)
    reply = session.control.ScaleServices(request)
    if not detach:
        settle(session, reply.services, timeout=timeout, exact=False, continues="the cluster goes on scaling")
    for service in sorted(reply.services, key=lambda s: s.spec.name):
        (notice if detach else say)(_outcome(service.spec, detach))


def _outcome(spec: Any, detach: bool) -> str:
    if spec.stopped:
        return f"{spec.name}: scaled to {spec.replicas}, and is stopped: 'argosy service start {spec.name}' runs it"
    return f"{spec.name}: scaled to {spec.replicas}" if detach else f"{spec.name}: {spec.replicas} running"
