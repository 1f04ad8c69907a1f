"""`argosy secret`: files for containers that nobody else sees."""

import click

from argosy.cli import complete
from argosy.cli.commands.config import COLUMNS
from argosy.cli.output import format_option, quiet_option, say, show
from argosy.cli.session import Session, pass_session


@click.group(name="secret", help="Create, list, look into and remove secrets: files that only containers see.")
def command() -> None:
    pass


@command.command(
    "create",
    help="Make a secret of FILE (- for stdin, which leaves no trace in the shell's history). A NAME that exists gets a "
    "new version, and the services that use it are updated to it; the same content changes nothing. At most 500 KiB. "
    "It is stored encrypted and cannot be read back.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Set a label.")
@click.argument("name")
@click.argument("file")
@pass_session
def create(session: Session, labels: tuple[str, ...], name: str, file: str) -> None:
    from argosy.cli.content import labels_of, read_content, say_written
    from argosy.proto.argosy.v1 import control_pb2 as pb

    new = pb.NewFile(name=name, labels=labels_of(labels), data=read_content(file, secret=True))
    reply = session.control.CreateSecret(pb.CreateSecretRequest(project=session.project, file=new))
    say_written("secret", reply.secret, reply.changed, reply.services)


@command.command("ls", help="List secrets.")
@quiet_option
@format_option
@pass_session
def list_secrets(session: Session, quiet: bool, form: str) -> None:
    from argosy.cli.content import row
    from argosy.proto.argosy.v1 import control_pb2 as pb

    reply = session.control.ListSecrets(pb.ListSecretsRequest(project=session.project))
    show([row(secret) for secret in reply.secrets], COLUMNS, form, quiet=quiet)


@command.command("inspect", help="Show secrets as JSON: versions and the services that use them; never the content.")
@click.option("--format", "form", type=click.Choice(["json"]), default="json", hidden=True)
@click.argument("secrets", nargs=-1, required=True, metavar="SECRET...", shell_complete=complete.secrets)
@pass_session
def inspect(session: Session, form: str, secrets: tuple[str, ...]) -> None:
    from argosy.cli.content import row
    from argosy.cli.output import show_json
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = [session.control.GetSecret(pb.GetSecretRequest(project=session.project, ref=ref)) for ref in secrets]
    show_json(
        [
            {
                **row(reply.secret),
                "versions": list(reply.versions),
                "services": list(reply.services),
                "key_id": reply.key_id,
            }
            for reply in found
        ]
    )


@command.command("rm", help="Remove secrets that no service uses.")
@click.argument("secrets", nargs=-1, required=True, metavar="SECRET...", shell_complete=complete.secrets)
@pass_session
def remove(session: Session, secrets: tuple[str, ...]) -> None:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    for ref in secrets:
        gone = session.control.RemoveSecret(pb.RemoveSecretRequest(project=session.project, ref=ref))
        say(f"secret {gone.name} removed")
