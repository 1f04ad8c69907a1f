"""`argosy service`: one service at a time."""

import click

from argosy.cli import complete
from argosy.cli.commands import network_option
from argosy.cli.commands.logs import command as logs
from argosy.cli.commands.port_options import update_port_options
from argosy.cli.commands.ps import show_tasks
from argosy.cli.commands.service_create import command as create
from argosy.cli.commands.service_explain import command as explain
from argosy.cli.commands.service_history import command as history
from argosy.cli.commands.service_options import spec_options
from argosy.cli.commands.service_verbs import check_all, pause, promote, restart, resume, start, stop
from argosy.cli.output import Column, Row, format_option, notice, quiet_option, say, show
from argosy.cli.planning import Planning, plan_options
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import revision_text, say_outcome, settle, until_gone, waiting_options

SERVICE_COLUMNS = (
    Column("ID", "id", rank=3),
    Column("NAME", "name"),
    Column("MODE", "mode", rank=4),
    Column("TASKS", lambda row: tasks_text(row)),
    Column("REVISION", "revision", rank=5),
    Column("UPDATE/RUN", lambda row: update_text(row), rank=2),
    Column("IMAGE", "image", rank=1),
    Column("PORTS", lambda row: ", ".join(row["ports"]), rank=2),
)


def tasks_text(row: Row) -> str:
    """Return how many tasks run of how many, and what is beside them.

    "4/4 +1 canary", "2/3 +1 cut off", "0/3 stopped"; of what has run to its end "0/1 (1/1 completed)".
    """
    text = f"{row['running']}/{row['replicas']}"
    if row["job"] or row["completed"]:
        text += f" ({row['completed']}/{row['completions']} completed)"
    if row["canaries"]:
        text += f" +{row['canaries']} {'canary' if row['canaries'] == 1 else 'canaries'}"
    if row["kept"]:
        text += f" +{row['kept']} cut off"
    return f"{text} stopped" if row["stopped"] else text


def update_text(row: Row) -> str:
    """Return where the update stands, and whether it waits for a person; of a job, how its last run went."""
    if row["removing"]:
        return "removing"
    if row["job"]:
        return run_text(row["job"])
    return f"{row['update']} (to be promoted)" if row["to_promote"] else str(row["update"])


def run_text(job: Row) -> str:
    """Return how a job's last run went and when it runs next: "COMPLETE, next 2026-02-01 04:30"."""
    state = f"{job['state']} (run {job['run']})" if job["run"] else ""
    following = f"next {next_text(job)}" if job["next"] else ""
    return ", ".join(part for part in (state, following) if part)


def next_text(job: Row) -> str:
    """Return when a job runs next, in the time zone of its schedule; "-" when it does not."""
    if not job["next"]:
        return "-"
    from datetime import datetime

    from argosy.core.cron import parse_zone

    return datetime.fromtimestamp(job["next"], parse_zone(job["time_zone"])).strftime("%Y-%m-%d %H:%M %Z")


def show_services(session: Session, stack: str, form: str, *, quiet: bool) -> None:
    """Print the services of the project, or of a stack."""
    from argosy.cli.rows import is_global, keeps, may_finish, service_rows
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = session.control.ListServices(pb.ListServicesRequest(project=session.project, stack=stack))
    ended = any(may_finish(service.spec) for service in found.services)
    tasks = session.control.ListTasks(pb.ListTasksRequest(project=session.project, stack=stack, all=ended))
    ask_nodes = any(
        s.spec.endpoint.ports or s.spec.task.host_ports or is_global(s.spec) or keeps(s) for s in found.services
    )
    nodes = session.control.ListNodes(pb.ListNodesRequest(project=session.project)).nodes if ask_nodes else ()
    rows = service_rows(found.services, tasks.tasks, nodes)
    show(rows, SERVICE_COLUMNS, form, quiet=quiet)
    for row in rows if form != "json" and not quiet else ():
        for problem in (*row["problems"], *filter(None, (row["update_message"],))):
            notice(f"{row['name']}: {problem}")


@click.group(name="service", help="Create, look into, change, update, stop and remove services.")
def command() -> None:
    pass


@command.command("ls", help="List services.")
@click.option("--stack", default="", metavar="STACK", help="Only services of this stack.")
@quiet_option
@format_option
@pass_session
def list_services(session: Session, stack: str, quiet: bool, form: str) -> None:
    show_services(session, stack, form, quiet=quiet)


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
@plan_options
@waiting_options
@pass_session
def scale(session: Session, wanted: tuple[str, ...], detach: bool, timeout: float, planning: Planning) -> None:
    from argosy.cli.commands.scale import parse_pair
    from argosy.cli.commands.scale import scale as run

    if len(wanted) == 2 and wanted[1].isdecimal() and "=" not in wanted[0]:
        wanted = (f"{wanted[0]}={wanted[1]}",)
    run(session, [parse_pair(text) for text in wanted], detach=detach, timeout=timeout, planning=planning)


@command.command("update", help="Change a service and wait until its tasks are replaced, as its update settings say.")
@click.option("--image", default=None, metavar="IMAGE", help="Run this image.")
@click.option("--args", "arguments", default=None, metavar="COMMAND", help="Run this command (one text).")
@click.option("--env-add", multiple=True, metavar="NAME=VALUE", help="Set a variable.")
@click.option("--env-rm", multiple=True, metavar="NAME", help="Remove a variable.")
@click.option("--label-add", multiple=True, metavar="NAME=VALUE", help="Set a label of the service.")
@click.option("--label-rm", multiple=True, metavar="NAME", help="Remove a label of the service.")
@click.option("--constraint-add", multiple=True, metavar="EXPRESSION", help="Add a constraint: node.labels.zone==eu.")
@click.option("--constraint-rm", multiple=True, metavar="EXPRESSION", help="Remove a constraint.")
@click.option("--network-add", multiple=True, metavar="NETWORK", help=network_option.HELP)
@click.option("--network-rm", multiple=True, metavar="NETWORK", help="Leave this network.")
@click.option("--config-add", multiple=True, metavar="NAME", help="Give it a config (source=NAME,target=PATH,…).")
@click.option("--config-rm", multiple=True, metavar="NAME", help="Take a config from it.")
@click.option("--secret-add", multiple=True, metavar="NAME", help="Give it a secret, in /run/secrets.")
@click.option("--secret-rm", multiple=True, metavar="NAME", help="Take a secret from it.")
@update_port_options
@spec_options
@click.option("--force", is_flag=True, help="Replace the tasks even if nothing changes.")
@plan_options
@waiting_options
@click.argument("service", shell_complete=complete.services)
@pass_session
def update(
    session: Session, /, detach: bool, timeout: float, service: str, planning: Planning, **options: object
) -> None:
    from argosy.cli.commands.service_update import update_service

    changed, exact = update_service(session, service, options, planning)
    name = changed.spec.name
    if detach:
        notice(f"{name}: revision {changed.revision}")
        return
    found = settle(session, [changed], timeout=timeout, exact=exact, continues="the update goes on")
    say_outcome(found, revision_text)


@command.command("rollback", help="Return a service to its previous revision, or another, and wait until it runs that.")
@click.option("--to", "revision", type=click.IntRange(1), default=None, metavar="N", help="Return to revision N.")
@plan_options
@waiting_options
@click.argument("service", shell_complete=complete.services)
@pass_session
def rollback(
    session: Session, revision: int | None, detach: bool, timeout: float, service: str, planning: Planning
) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.RollbackServiceRequest(project=session.project, ref=service, to_revision=revision or 0)
    planning.before(session, "rollback_service", request)
    changed = control.RollbackService(request)
    name = changed.spec.name
    notice(f"{name}: rolling back, as revision {changed.revision}")
    if not detach:
        found = settle(session, [changed], timeout=timeout, continues="the rollback goes on")
        say(f"{name} is rolled back" + (" (and stopped)" if found[0].spec.stopped else ""))


@command.command("rm", help="Remove services, and wait until they are gone.")
@waiting_options
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...", shell_complete=complete.services)
@pass_session
def remove(session: Session, detach: bool, timeout: float, services: tuple[str, ...]) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    check_all(session, services)
    gone = [control.RemoveService(pb.RemoveServiceRequest(project=session.project, ref=ref)) for ref in services]
    for service in gone:
        notice(f"{service.spec.name}: being removed")
    if not detach:
        until_gone(session, gone, (), timeout=timeout)
        for service in gone:
            say(f"service {service.spec.name} removed")


for verb in (create, explain, history, logs, pause, promote, restart, resume, start, stop):
    command.add_command(verb)
