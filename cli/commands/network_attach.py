"""`argosy network attach`: a shell, or a command, in a container on a network, to look at the network from within.

It is a run (cli/commands/run.py) on that network, whose standard input is ours: from a terminal, with a terminal.
"""

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli import complete
from argosy.cli.commands import network_option
from argosy.cli.commands.run import EXIT_CANNOT_RUN, refused_with, run_to_its_end
from argosy.cli.errors import InvalidInputError
from argosy.cli.session import Session, pass_session

if TYPE_CHECKING:
    from argosy.core.image import Image

IMAGES: Final = ("netshoot", "busybox", "alpine", "debian", "ubuntu")
"""Images with tools, by the last part of their names: the first that the cluster has is taken."""


@click.command(
    "attach",
    help="A shell in a container on a network, to look at it from within; or a command: argosy network attach NETWORK "
    "-- ping -c 3 web. It has this terminal, or this standard input where that is none. Its exit status is the "
    "command's, or 125 when that could not even be tried; when the connection to it breaks it is ended.",
    context_settings={"allow_interspersed_args": True},
)
@click.option("--node", default="", metavar="NODE", help="Run on this node.", shell_complete=complete.nodes)
@click.option(
    "--image",
    default="",
    metavar="IMAGE",
    envvar="ARGOSY_ATTACH_IMAGE",
    help="Run this image; else the first that there is of " + ", ".join(IMAGES) + ".",
    shell_complete=complete.images,
)
@click.argument("network", shell_complete=complete.networks)
@click.argument("arguments", nargs=-1, metavar="[-- COMMAND...]")
@pass_session
def command(session: Session, /, node: str, image: str, network: str, arguments: tuple[str, ...]) -> int:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    terminal = sys.stdin.isatty()
    options: dict[str, Any] = {
        "name": "",
        "networks": (network,),
        "env": (),
        "constraints": (),
        "publish": (),
        "arguments": _command(arguments, terminal=terminal),
        "interactive": True,
        "tty": terminal,
        "image": image or _image(session, network),
    }
    if node:
        with refused_with(EXIT_CANNOT_RUN):
            found = session.control.GetNode(pb.GetNodeRequest(project=session.project, ref=node))
        options["constraints"] = (f"node.id=={found.meta.id}",)
    return run_to_its_end(session, options)


def _command(arguments: tuple[str, ...], *, terminal: bool) -> tuple[str, ...]:
    """Return what is to be run: a command in a terminal below a shell, since pid 1 has to ask for Ctrl-C to end it."""
    if not arguments:
        return ("sh",)
    return ("sh", "-c", '"$@"; exit $?', "sh", *arguments) if terminal else arguments


def _image(session: Session, network: str) -> str:
    """Return the image to run on a network; that it is not there is told first, rather than a lack of images."""
    from argosy.core.codec import decode
    from argosy.core.image import Image
    from argosy.proto.argosy.v1 import control_pb2 as pb

    ref = network_option.attachment(network).target
    with refused_with(EXIT_CANNOT_RUN):
        session.control.GetNetwork(pb.GetNetworkRequest(project=session.project, ref=ref))
    images = session.control.ListImages(pb.ListImagesRequest(project=session.project)).images
    found = default_image([decode(image, Image) for image in images])
    if not found:
        raise InvalidInputError(
            f"the cluster has none of the images {', '.join(IMAGES)}", "name one with --image ('argosy image ls')"
        )
    return found


def default_image(images: "list[Image]") -> str:
    """Return the name of the image with the best tools among some; "" when none has any."""
    for wanted in IMAGES:
        for image in images:
            if image.name.rpartition("/")[2].partition("@")[0].partition(":")[0] == wanted:
                return image.name
    return ""
