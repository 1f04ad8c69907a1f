"""`argosy config`: files for containers."""

import sys

import click

from argosy.cli import complete
from argosy.cli.output import Column, format_option, quiet_option, say, show
from argosy.cli.session import Session, pass_session

COLUMNS = (
    Column("ID", "id", rank=2),
    Column("NAME", "name"),
    Column("VERSION", "version"),
    Column("SIZE", "size", rank=1),
    Column("STACK", "stack", rank=3),
)


@click.group(name="config", help="Create, list, look into and remove configs: files for containers.")
def command() -> None:
    pass


@command.command(
    "create",
    help="Make a config of FILE (- for stdin). A NAME that exists gets a new version, and the services that use it are "
    "updated to it; the same content changes nothing. At most 1000 KiB.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Set a label.")
@click.argument("name")
@click.argument("file")
@pass_session
def create(session: Session, labels: tuple[str, ...], name: str, file: str) -> None:
    from argosy.cli.content import labels_of, read_content, say_written
    from argosy.proto.argosy.v1 import control_pb2 as pb

    new = pb.NewFile(name=name, labels=labels_of(labels), data=read_content(file, secret=False))
    reply = session.control.CreateConfig(pb.CreateConfigRequest(project=session.project, file=new))
    say_written("config", reply.config, reply.changed, reply.services)


@command.command("ls", help="List configs.")
@quiet_option
@format_option
@pass_session
def list_configs(session: Session, quiet: bool, form: str) -> None:
    from argosy.cli.content import row
    from argosy.proto.argosy.v1 import control_pb2 as pb

    reply = session.control.ListConfigs(pb.ListConfigsRequest(project=session.project))
    show([row(config) for config in reply.configs], COLUMNS, form, quiet=quiet)


@command.command("inspect", help="Show configs in full, as JSON: versions, the services that use them, the content.")
@click.option("--format", "form", type=click.Choice(["json"]), default="json", hidden=True)
@click.option("--version", "number", type=click.IntRange(1), help="Show the content of this version.")
@click.option("--raw", is_flag=True, help="Print the content alone, byte by byte.")
@click.argument("configs", nargs=-1, required=True, metavar="CONFIG...", shell_complete=complete.configs)
@pass_session
def inspect(session: Session, form: str, number: int | None, raw: bool, configs: tuple[str, ...]) -> None:
    from argosy.cli.content import row
    from argosy.cli.output import show_json
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = [
        session.control.GetConfig(pb.GetConfigRequest(project=session.project, ref=ref, number=number or 0))
        for ref in configs
    ]
    if raw:
        for reply in found:
            sys.stdout.buffer.write(reply.data)
        return
    show_json(
        [
            {
                **row(reply.config),
                "versions": list(reply.versions),
                "services": list(reply.services),
                "shown_version": reply.number,
                **_content(reply.data),
            }
            for reply in found
        ]
    )


def _content(data: bytes) -> dict[str, str]:
    """Return content as text; what is no text, in base64."""
    import base64

    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


@command.command("rm", help="Remove configs that no service uses.")
@click.argument("configs", nargs=-1, required=True, metavar="CONFIG...", shell_complete=complete.configs)
@pass_session
def remove(session: Session, configs: tuple[str, ...]) -> None:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    for ref in configs:
        gone = session.control.RemoveConfig(pb.RemoveConfigRequest(project=session.project, ref=ref))
        say(f"config {gone.name} removed")
