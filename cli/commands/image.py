"""`argosy image import|ls|rm`."""

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli.errors import InvalidInputError
from argosy.cli.output import Column, age_text, format_option, notice, quiet_option, say, show, size_text
from argosy.cli.session import Session, pass_session

if TYPE_CHECKING:
    from argosy.cli.images.changes import Change

_REPORT_PERIOD_S: Final = 0.1


@click.group(name="image", help="Import, list and remove images.")
def command() -> None:
    """Hold the commands below."""


@command.command(
    "import",
    help="""Import FILE as the image NAME (such as web:1).

FILE is a tar of a root filesystem, a `docker save` archive or an OCI layout (tar or directory), plain, gzip or zstd;
"-" reads stdin. What it is is found out from its content.
""",
)
@click.argument("name")
@click.argument("file")
@click.option(
    "-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help='Such as CMD ["nginx"]; repeatable.'
)
@click.option("--entrypoint", metavar="WORDS", help="What the container runs: a JSON list, or words as for a shell.")
@click.option("--command", "--cmd", "words", metavar="WORDS", help="Its arguments, or what it runs without entrypoint.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set an environment variable; repeatable.")
@click.option("-w", "--workdir", metavar="PATH", help="Working directory.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="User to run as.")
@click.option("-l", "--label", multiple=True, metavar="NAME=VALUE", help="Set a label; repeatable.")
@click.option("--platform", metavar="OS/ARCH", help="Which of several to take; default: this machine's.")
@format_option
@click.option("-q", "--quiet", is_flag=True, help="Print only the image's digest.")
@pass_session
def import_(
    session: Session, /, name: str, file: str, platform: str | None, form: str, quiet: bool, **options: Any
) -> None:
    """Read, verify and upload an image, then name it."""
    from argosy.cli.images.importer import import_image
    from argosy.cli.images.platforms import parse_platform
    from argosy.proto.argosy.v1.content_pb2_grpc import ContentStub

    if file == "-" and sys.stdin.isatty():
        raise InvalidInputError("stdin is a terminal", "pipe an archive into the command, or name a file")
    changes = _changes(**options)
    wanted = parse_platform(platform) if platform else None
    progress = _Progress(show=not quiet and sys.stderr.isatty())
    try:
        content = ContentStub(session.channel)
        image = import_image(name, file, content, session.project, changes, progress, wanted)
    finally:
        progress.end()
    if quiet:
        say(image.digest)
    elif form == "json":
        from argosy.cli.output import show_json

        show_json({"name": image.name, "id": image.meta.id, "digest": image.digest, "size": image.size})
    else:
        layers = "1 layer" if len(image.layers) == 1 else f"{len(image.layers)} layers"
        say(f"imported {image.name}: {layers}, {size_text(image.size)}, {image.digest}")


@command.command("ls", help="List images.")
@quiet_option
@format_option
@pass_session
def ls(session: Session, form: str, quiet: bool) -> None:
    """List images by name."""
    from argosy.proto.argosy.v1 import control_pb2 as pb

    reply = session.control.ListImages(pb.ListImagesRequest(project=session.project))
    now = time.time()
    rows = [_row(image) for image in sorted(reply.images, key=lambda i: i.name)]
    show(
        rows,
        (
            Column("NAME", "name"),
            Column("ID", lambda row: row["id"][:12]),
            Column("PLATFORM", "platform", rank=1),
            Column("LAYERS", lambda row: str(len(row["layers"])), rank=3),
            Column("SIZE", lambda row: size_text(row["size"])),
            Column("IMPORTED", lambda row: age_text(row["created_at"], now), rank=2),
        ),
        form,
        quiet=quiet,
    )


@command.command("rm", help="Take away the names of images; content goes when nothing runs it any more.")
@click.option("-f", "--force", is_flag=True, help="Also those that services use.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_session
def rm(session: Session, force: bool, names: tuple[str, ...]) -> None:
    """Remove images by name or id."""
    from argosy.proto.argosy.v1 import control_pb2 as pb

    for name in names:
        image = session.control.RemoveImage(pb.RemoveImageRequest(project=session.project, ref=name, force=force))
        say(image.name or name)
        services = session.control.ListServices(pb.ListServicesRequest(project=session.project)).services
        users = [s.spec.name for s in services if s.spec.task.container.image_digest == image.digest and not s.removing]
        if users:
            notice(f"note: still run by {', '.join(sorted(users))}, which keep its content")


def _row(image: Any) -> dict[str, Any]:
    return {
        "name": image.name,
        "id": image.meta.id,
        "digest": image.digest,
        "platform": f"{image.platform.os}/{image.platform.architecture}",
        "layers": [layer.digest for layer in image.layers],
        "size": image.size,
        "created_at": image.meta.created_at,
    }


def _changes(
    changes: tuple[str, ...],
    entrypoint: str | None,
    words: str | None,
    env: tuple[str, ...],
    workdir: str | None,
    user: str | None,
    label: tuple[str, ...],
) -> "list[Change]":
    """Return the changes that the options ask for; the instructions first, the entrypoint before its command."""
    from argosy.cli.images import changes as c

    found = [c.parse_change(text) for text in changes]
    if entrypoint is not None:
        found.append(c.set_entrypoint(c.parse_words(entrypoint)))
    if words is not None:
        found.append(c.set_command(c.parse_words(words)))
    found += [c.set_env(*c.parse_pair(text, "environment variable")) for text in env]
    found += [c.set_label(*c.parse_pair(text, "label")) for text in label]
    if workdir is not None:
        found.append(c.set_workdir(workdir))
    if user is not None:
        found.append(c.set_user(user))
    return found


class _Progress:
    """One line on a terminal that says what is being done, and nothing elsewhere."""

    def __init__(self, show: bool) -> None:
        self._show = show
        self._next = 0.0
        self._shown = False

    def __call__(self, what: str, done: int, size: int) -> None:
        now = time.monotonic()
        if not self._show or (now < self._next and done < size):
            return
        self._next = now + _REPORT_PERIOD_S
        part = f" {100 * done // size} %" if size else ""
        click.echo(f"\r\x1b[K{what}: {size_text(done)} of {size_text(size)}{part}", err=True, nl=False)
        self._shown = True

    def end(self) -> None:
        """Clear the line."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
