"""`argosy service pause|resume|promote` say something to an update; `stop|start|restart` to the tasks."""

from collections.abc import Iterable
from typing import Any

import click

from argosy.cli import complete
from argosy.cli.errors import CliError
from argosy.cli.output import notice, say
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import revision_text, say_outcome, settle, waiting_options


@click.command("pause", help="Have a service's update go no further, until it is resumed or rolled back.")
@click.argument("service", shell_complete=complete.services)
@pass_session
def pause(session: Session, service: str) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    changed = control.PauseUpdate(pb.PauseUpdateRequest(project=session.project, ref=service))
    say(f"{changed.spec.name}: its update is paused")


@click.command("resume", help="Have a paused update go on where it was, and wait until it is complete.")
@waiting_options
@click.argument("service", shell_complete=complete.services)
@pass_session
def resume(session: Session, detach: bool, timeout: float, service: str) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    changed = control.ResumeUpdate(pb.ResumeUpdateRequest(project=session.project, ref=service))
    notice(f"{changed.spec.name}: its update goes on")
    _follow(session, changed, detach, timeout)


@click.command("promote", help="Have an update go on from its canaries to the other tasks, and wait for that.")
@click.option("--force", is_flag=True, help="Also if the canaries have not done well.")
@waiting_options
@click.argument("service", shell_complete=complete.services)
@pass_session
def promote(session: Session, force: bool, detach: bool, timeout: float, service: str) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    changed = control.PromoteUpdate(pb.PromoteUpdateRequest(project=session.project, ref=service, force=force))
    notice(f"{changed.spec.name}: its canaries are promoted, the update goes on")
    _follow(session, changed, detach, timeout)


def _follow(session: Session, changed: Any, detach: bool, timeout: float) -> None:
    if not detach:
        found = settle(session, [changed], timeout=timeout, continues="the update goes on")
        say_outcome(found, revision_text)


@click.command("stop", help="Stop all tasks of services, which keep their number of replicas for 'service start'.")
@waiting_options
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...", shell_complete=complete.services)
@pass_session
def stop(session: Session, detach: bool, timeout: float, services: tuple[str, ...]) -> None:
    check_all(session, services)
    changed = [_set_stopped(session, ref, True) for ref in services]
    if not detach:
        settle(session, changed, timeout=timeout, exact=False, continues="the tasks go on stopping")
    _say_each(changed, "stopped" if not detach else "is stopping")


@click.command("start", help="Start services that were stopped, and wait until they run.")
@waiting_options
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...", shell_complete=complete.services)
@pass_session
def start(session: Session, detach: bool, timeout: float, services: tuple[str, ...]) -> None:
    check_all(session, services)
    changed = [_set_stopped(session, ref, False) for ref in services]
    if not detach:
        settle(session, changed, timeout=timeout, exact=False, continues="the services go on coming up")
    _say_each(changed, "runs" if not detach else "is starting")


@click.command("restart", help="Replace all tasks of services by equal ones, as their update settings say, and wait.")
@waiting_options
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...", shell_complete=complete.services)
@pass_session
def restart(session: Session, detach: bool, timeout: float, services: tuple[str, ...]) -> None:
    for service in check_all(session, services):
        _refuse_stopped(service.spec)
    changed = [_force(session, ref) for ref in services]
    if detach:
        _say_each(changed, "is restarting")
        return
    found = settle(session, changed, timeout=timeout, continues="the restart goes on")
    say_outcome(found, lambda service: f"{service.spec.name} is restarted, as revision {service.revision}")


def check_all(session: Session, services: tuple[str, ...]) -> list[Any]:
    """Return the services that are named, so that nothing is done to the first where there is no second."""
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    return [control.GetService(pb.GetServiceRequest(project=session.project, ref=ref)) for ref in services]


def _set_stopped(session: Session, ref: str, stopped: bool) -> Any:
    from argosy.cli.commands.service_update import change_service

    return change_service(session, ref, lambda service: setattr(service.spec, "stopped", stopped))[0]


def _force(session: Session, ref: str) -> Any:
    from argosy.cli.commands.service_update import change_service

    def change(service: Any) -> None:
        _refuse_stopped(service.spec)
        service.spec.task.force_update += 1

    return change_service(session, ref, change)[0]


def _refuse_stopped(spec: Any) -> None:
    if spec.stopped:
        raise CliError(f"service {spec.name} is stopped: 'argosy service start {spec.name}' starts it")


def _say_each(services: Iterable[Any], what: str) -> None:
    for service in services:
        say(f"{service.spec.name}: {what}")
