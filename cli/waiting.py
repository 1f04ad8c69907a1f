"""Options and calls that the commands which wait have in common."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from argosy.cli.output import notice, say
from argosy.cli.session import Session

if TYPE_CHECKING:
    from argosy.core.service import Service

F = TypeVar("F", bound=Callable[..., Any])


def seconds(ctx: click.Context, param: click.Parameter, text: str) -> float:
    """Read an option's value: a duration (1m30s), or plain seconds."""
    from argosy.core.errors import InvalidError
    from argosy.core.units import parse_duration

    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else parse_duration(text)
    except InvalidError as error:
        raise click.BadParameter(str(error)) from None


def waiting_options(command: F) -> F:
    """Add `--detach` and `--timeout`, passed as `detach` and `timeout` (seconds)."""
    timed = click.option(
        "--timeout",
        default="10m",
        metavar="DURATION",
        callback=seconds,
        help="How long to wait (10m); the cluster goes on in any case.",
    )(command)
    return click.option("-d", "--detach", is_flag=True, help="Do not wait until it has happened.")(timed)


def settle(
    session: Session,
    services: Iterable[Any],
    *,
    timeout: float,
    exact: bool = True,
    continues: str,
) -> "list[Service]":
    """Wait until services (messages as the cluster acknowledged them) are as wanted; return them as they are then.

    Tasks run, or have completed in a job; a job with a schedule need only be taken over by the cluster. Published ports
    that do not answer somewhere are noted: nobody waits for them, since what stands in their way may stay.
    """
    from argosy.cli.progress.goals import ServicesSettled, WantedService
    from argosy.cli.progress.jobs import AllOf, JobRun
    from argosy.cli.progress.wait import wait_for
    from argosy.core.codec import decode
    from argosy.core.service import JOB_MODES, Service

    wanted = [decode(message, Service) for message in services]
    if not wanted:
        return []
    running = ServicesSettled(tuple(WantedService(s, exact) for s in wanted if s.spec.mode not in JOB_MODES))
    runs = (JobRun(s, scheduled=True) for s in wanted if s.spec.mode in JOB_MODES)
    picture = wait_for(session, AllOf((running, *runs)), timeout=timeout, continues=continues)
    settled = [picture.services.get(one.meta.id, one) for one in wanted]
    _note_port_problems(session, settled)
    return settled


def _note_port_problems(session: Session, services: "Iterable[Service]") -> None:
    import grpc

    from argosy.cli.errors import explain
    from argosy.cli.port_rows import nodes_port_problems
    from argosy.cli.rows import node_name
    from argosy.proto.argosy.v1 import control_pb2 as pb

    publishing = [one for one in services if one.spec.endpoint.ports or one.spec.task.host_ports]
    if not publishing:
        return
    try:
        nodes = session.control.ListNodes(pb.ListNodesRequest(project=session.project)).nodes
    except grpc.RpcError as error:  # what was waited for has happened all the same
        notice(f"note: what stands in the way of published ports is not known: {explain(error).message}")
        return
    stuck = nodes_port_problems((node_name(node), node) for node in nodes)
    for service in publishing:
        for problem in (*service.port_problems, *stuck.get(service.meta.id, ())):
            notice(f"note: {service.spec.name}: {problem}")


def say_outcome(services: "Iterable[Service]", done: "Callable[[Service], str]") -> None:
    """Print what `done` says of each settled service, or that its update waits for a person."""
    for service in services:
        waits = service.update.ready
        say(f"{service.spec.name}: {service.update.message}" if waits else done(service))


def revision_text(service: "Service") -> str:
    """Say which revision a settled service runs, or will; of a job, that its run is complete."""
    from argosy.core.service import JOB_MODES, UpdateState

    name, revision, job = service.spec.name, service.revision, service.spec.job
    if service.spec.stopped:
        return f"{name} has revision {revision}, and is stopped: 'argosy service start {name}' runs it"
    if service.spec.mode in JOB_MODES:
        scheduled = job is not None and job.cron is not None
        return f"{name}: its schedule is set" if scheduled else f"{name}: run {service.job.iteration} is complete"
    under_way = {
        UpdateState.UPDATING: "update goes on",
        UpdateState.PAUSED: "update is paused",
        UpdateState.ROLLBACK_STARTED: "rollback goes on",
        UpdateState.ROLLBACK_PAUSED: "rollback is paused",
    }.get(service.update.state)
    if under_way:
        return f"{name} is changed; its {under_way}: 'argosy service ps {name}' tells what runs"
    return f"{name} runs revision {revision}"


def until_gone(session: Session, services: Iterable[Any], networks: Iterable[Any], *, timeout: float) -> None:
    """Wait until removed services and networks (messages) are gone."""
    from argosy.cli.progress.goals import ServicesGone
    from argosy.cli.progress.wait import wait_for
    from argosy.core.codec import decode
    from argosy.core.service import Service

    goal = ServicesGone(tuple(decode(s, Service) for s in services), tuple(n.meta.id for n in networks))
    wait_for(session, goal, timeout=timeout, continues="the removal goes on")
