"""`argosy network attach`: a command in a container on a network, to look at the network from within.

It is a run (cli/commands/run.py) on that network. Containers have no terminal yet: without a command the lines on
standard input are run by the container's shell.
"""

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli import complete
from argosy.cli.commands.run import run_to_its_end
from argosy.cli.errors import InvalidInputError
from argosy.cli.session import Session, pass_session

if TYPE_CHECKING:
    from argosy.core.image import Image

IMAGES: Final = ("netshoot", "busybox", "alpine", "debian", "ubuntu")
"""Images with tools, by the last part of their names: the first that the cluster has is taken."""


@click.command(
    "attach",
    help="Run a command in a container on a network, to look at it from within: argosy network attach NETWORK -- ping "
    "-c 3 web. Without a command the lines on standard input are run by a shell. Its output comes here, and its exit "
    "status is the command's.",
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

    options: dict[str, Any] = {
        "name": "",
        "networks": (network,),
        "env": (),
        "constraints": (),
        "publish": (),
        "arguments": arguments or ("sh", "-c", _script()),
        "image": image or _image(session),
    }
    if node:
        found = session.control.GetNode(pb.GetNodeRequest(project=session.project, ref=node))
        options["constraints"] = (f"node.id=={found.meta.id}",)
    return run_to_its_end(session, options)


def _script() -> str:
    """Return what is to be run by the shell."""
    if sys.stdin.isatty():
        raise InvalidInputError(
            "containers have no terminal yet",
            "give a command behind --, as in 'argosy network attach NETWORK -- ping -c 3 web', or a script on standard "
            "input",
        )
    return sys.stdin.read()


def _image(session: Session) -> str:
    from argosy.core.codec import decode
    from argosy.core.image import Image
    from argosy.proto.argosy.v1 import control_pb2 as pb

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
