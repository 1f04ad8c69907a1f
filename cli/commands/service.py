"""`argosy service`: one service at a time."""

import click

from argosy.cli import complete
from argosy.cli.commands.logs import command as logs
from argosy.cli.commands.ps import show_tasks
from argosy.cli.output import Column, format_option, notice, quiet_option, say, show
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import settle, until_gone, waiting_options

SERVICE_COLUMNS = (
    Column("ID", "id", rank=3),
    Column("NAME", "name"),
    Column("MODE", "mode", rank=4),
    Column("TASKS", lambda row: f"{row['running']}/{row['replicas']}"),
    Column("REVISION", "revision", rank=5),
    Column("UPDATE", lambda row: "removing" if row["removing"] else row["update"], rank=2),
    Column("IMAGE", "image", rank=1),
)


@click.group(name="service", help="List, look into, scale, update, roll back and remove services.")
def command() -> None:
    pass


@command.command("ls", help="List services.")
@click.option("--stack", default="", metavar="STACK", help="Only services of this stack.")
@quiet_option
@format_option
@pass_session
def list_services(session: Session, stack: str, quiet: bool, form: str) -> None:
    control = session.control
    from argosy.cli.rows import service_rows
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = control.ListServices(pb.ListServicesRequest(project=session.project, stack=stack))
    tasks = control.ListTasks(pb.ListTasksRequest(project=session.project, stack=stack))
    show(service_rows(found.services, tasks.tasks), SERVICE_COLUMNS, form, quiet=quiet)


@command.command("ps", help="List the tasks of a service, with why those that failed did; -a also older ones.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also tasks that have ended.")
@quiet_option
@format_option
@click.argument("service", shell_complete=complete.services)
@pass_session
def ps(session: Session, everything: bool, quiet: bool, form: str, service: str) -> None:
    show_tasks(session, service=service, everything=everything, latest=True, quiet=quiet, form=form)


@command.command("inspect", help="Show services in full, as JSON.")
@click.option("--format", "form", type=click.Choice(["json"]), default="json", hidden=True)
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...", shell_complete=complete.services)
@pass_session
def inspect(session: Session, form: str, services: tuple[str, ...]) -> None:
    control = session.control
    from argosy.cli.messages import plain
    from argosy.cli.output import show_json
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = [control.GetService(pb.GetServiceRequest(project=session.project, ref=ref)) for ref in services]
    show_json([plain(service) for service in found])


@command.command("scale", help="Set how many tasks services run, and wait until they do: web=5 api=2, or web 5.")
@click.argument("wanted", nargs=-1, required=True, metavar="SERVICE=N...")
@waiting_options
@pass_session
def scale(session: Session, wanted: tuple[str, ...], detach: bool, timeout: float) -> None:
    from argosy.cli.commands.scale import parse_pair
    from argosy.cli.commands.scale import scale as run

    if len(wanted) == 2 and wanted[1].isdecimal() and "=" not in wanted[0]:
        wanted = (f"{wanted[0]}={wanted[1]}",)
    run(session, [parse_pair(text) for text in wanted], detach=detach, timeout=timeout)


@command.command("update", help="Change a service and wait until its tasks are replaced, as its update settings say.")
@click.option("--image", default=None, metavar="IMAGE", help="Run this image.")
@click.option("--replicas", type=click.IntRange(0, 1_000_000), default=None, help="Run so many tasks.")
@click.option("--env-add", multiple=True, metavar="NAME=VALUE", help="Set a variable.")
@click.option("--env-rm", multiple=True, metavar="NAME", help="Remove a variable.")
@click.option("--label-add", multiple=True, metavar="NAME=VALUE", help="Set a label of the service.")
@click.option("--label-rm", multiple=True, metavar="NAME", help="Remove a label of the service.")
@click.option("--constraint-add", multiple=True, metavar="EXPRESSION", help="Add a constraint: node.labels.zone==eu.")
@click.option("--constraint-rm", multiple=True, metavar="EXPRESSION", help="Remove a constraint.")
@click.option("--limit-cpu", default=None, metavar="CPUS", help="Limit the CPUs of a task; 0 for none.")
@click.option("--limit-memory", default=None, metavar="SIZE", help="Limit the memory of a task (512m); 0 for none.")
@click.option("--limit-pids", type=click.IntRange(0), default=None, help="Limit the processes of a task; 0 for none.")
@click.option("--reserve-cpu", default=None, metavar="CPUS", help="Reserve CPUs for a task.")
@click.option("--reserve-memory", default=None, metavar="SIZE", help="Reserve memory for a task.")
@click.option("--update-parallelism", type=click.IntRange(0), default=None, help="Replace so many at once; 0 for all.")
@click.option("--update-delay", default=None, metavar="DURATION", help="Wait so long between them.")
@click.option("--update-monitor", default=None, metavar="DURATION", help="A task that ends sooner is a failure.")
@click.option("--update-order", type=click.Choice(["stop-first", "start-first"]), default=None)
@click.option("--update-failure-action", type=click.Choice(["pause", "continue", "rollback"]), default=None)
@click.option("--args", "arguments", default=None, metavar="COMMAND", help="Run this command (one text).")
@click.option("--force", is_flag=True, help="Replace the tasks even if nothing changes.")
@waiting_options
@click.argument("service", shell_complete=complete.services)
@pass_session
def update(session: Session, /, detach: bool, timeout: float, service: str, **changes: object) -> None:
    from argosy.cli.commands.service_update import Changes, update_service

    asked = Changes(**changes)  # type: ignore[arg-type]  # the options above are its fields
    changed, exact = update_service(session, service, asked)
    name = changed.spec.name
    if detach:
        notice(f"{name}: revision {changed.revision}")
        return
    settle(session, [changed], timeout=timeout, exact=exact, continues="the update goes on")
    say(f"{name} runs revision {changed.revision}")


@command.command("rollback", help="Return a service to its previous revision, or another, and wait until it runs that.")
@click.option("--to", "revision", type=click.IntRange(1), default=None, metavar="N", help="Return to revision N.")
@waiting_options
@click.argument("service", shell_complete=complete.services)
@pass_session
def rollback(session: Session, revision: int | None, detach: bool, timeout: float, service: str) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.RollbackServiceRequest(project=session.project, ref=service, to_revision=revision or 0)
    changed = control.RollbackService(request)
    name = changed.spec.name
    notice(f"{name}: rolling back, as revision {changed.revision}")
    if not detach:
        settle(session, [changed], timeout=timeout, continues="the rollback goes on")
        say(f"{name} is rolled back")


@command.command("rm", help="Remove services, and wait until they are gone.")
@waiting_options
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...", shell_complete=complete.services)
@pass_session
def remove(session: Session, detach: bool, timeout: float, services: tuple[str, ...]) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    gone = [control.RemoveService(pb.RemoveServiceRequest(project=session.project, ref=ref)) for ref in services]
    for service in gone:
        notice(f"{service.spec.name}: being removed")
    if not detach:
        until_gone(session, gone, (), timeout=timeout)
        for service in gone:
            say(f"service {service.spec.name} removed")


command.add_command(logs)
