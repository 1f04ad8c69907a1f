"""`argosy stack`: what was deployed from a file, as a whole."""

import click

from argosy.cli import complete
from argosy.cli.commands.ps import show_tasks, stack_must_exist
from argosy.cli.commands.service import show_services
from argosy.cli.output import Column, format_option, notice, quiet_option, say, show
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import until_gone, waiting_options


@click.group(name="stack", help="List, look into and remove stacks.")
def command() -> None:
    pass


@command.command("ls", help="List stacks.")
@quiet_option
@format_option
@pass_session
def list_stacks(session: Session, quiet: bool, form: str) -> None:
    from argosy.cli.rows import STACK_LABEL, service_rows
    from argosy.proto.argosy.v1 import control_pb2 as pb

    tasks = session.control.ListTasks(pb.ListTasksRequest(project=session.project))
    services = session.control.ListServices(pb.ListServicesRequest(project=session.project))
    networks = session.control.ListNetworks(pb.ListNetworksRequest(project=session.project))
    stacks: dict[str, dict[str, object]] = {}

    def stack_of(name: str) -> dict[str, object]:
        return stacks.setdefault(name, {"name": name, "services": 0, "networks": 0, "running": 0, "replicas": 0})

    for row in service_rows(services.services, tasks.tasks):
        if row["stack"]:
            stack = stack_of(row["stack"])
            stack["services"] = int(str(stack["services"])) + 1
            stack["running"] = int(str(stack["running"])) + row["running"]
            stack["replicas"] = int(str(stack["replicas"])) + row["replicas"]
    for network in networks.networks:
        name = network.spec.labels.get(STACK_LABEL, "")
        if name:
            stack = stack_of(name)
            stack["networks"] = int(str(stack["networks"])) + 1
    columns = (
        Column("NAME", "name"),
        Column("SERVICES", "services"),
        Column("TASKS", lambda row: f"{row['running']}/{row['replicas']}"),
        Column("NETWORKS", "networks"),
    )
    show([stacks[name] for name in sorted(stacks)], columns, form, quiet=quiet, quiet_key="name")


@command.command("ps", help="List the tasks of a stack.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also tasks that have ended.")
@quiet_option
@format_option
@click.argument("stack", shell_complete=complete.stacks)
@pass_session
def ps(session: Session, everything: bool, quiet: bool, form: str, stack: str) -> None:
    show_tasks(session, stack=stack, everything=everything, quiet=quiet, form=form)


@command.command("services", help="List the services of a stack.")
@quiet_option
@format_option
@click.argument("stack", shell_complete=complete.stacks)
@pass_session
def services(session: Session, quiet: bool, form: str, stack: str) -> None:
    stack_must_exist(session, stack)
    show_services(session, stack, form, quiet=quiet)


@command.command("rm", help="Remove stacks with all that was deployed with them, and wait until they are gone.")
@waiting_options
@click.argument("stacks", nargs=-1, required=True, metavar="STACK...", shell_complete=complete.stacks)
@pass_session
def remove(session: Session, detach: bool, timeout: float, stacks: tuple[str, ...]) -> None:
    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import types_pb2 as types

    gone_services: list[types.Service] = []
    gone_networks: list[types.Network] = []
    for stack in stacks:
        reply = session.control.RemoveStack(pb.RemoveStackRequest(project=session.project, stack=stack))
        gone_services += reply.services
        gone_networks += reply.networks
        names = [*(s.spec.name for s in reply.services), *(n.spec.name for n in reply.networks)]
        names += [*(config.name for config in reply.configs), *(secret.name for secret in reply.secrets)]
        for name in names:
            notice(f"{name}: being removed")
    if not detach:
        until_gone(session, gone_services, gone_networks, timeout=timeout)
        for stack in stacks:
            say(f"stack {stack} removed")
