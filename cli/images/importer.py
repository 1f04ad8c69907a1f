"""`argosy image import` without its command line: what was given becomes an image of the cluster."""

from collections.abc import Sequence
from pathlib import Path

from argosy.cli.errors import InvalidInputError
from argosy.cli.images.archive import STDIN, BrokenArchiveError, DirectoryFiles, Given, Workspace
from argosy.cli.images.changes import Change, change_image
from argosy.cli.images.docker import is_docker_archive, read_docker_archive
from argosy.cli.images.layer import LayerMaker
from argosy.cli.images.layout import is_layout, read_layout
from argosy.cli.images.local import LocalImage, Progress
from argosy.cli.images.platforms import Platform, host_platform
from argosy.cli.images.rootfs import read_rootfs
from argosy.cli.images.upload import upload
from argosy.core.errors import InvalidError
from argosy.core.image import Image
from argosy.core.oci.digests import is_digest
from argosy.core.oci.names import normalise
from argosy.proto.argosy.v1.content_pb2_grpc import ContentStub


def quiet(what: str, done: int, size: int) -> None:
    """Show no progress."""


def import_image(
    name: str,
    source: str,
    content: ContentStub,
    project: str,
    changes: Sequence[Change] = (),
    progress: Progress = quiet,
    platform: Platform | None = None,
) -> Image:
    """Import `source` (a file, a directory, or "-" for stdin) as `name`; return the image as the cluster stored it.

    Blocks. InvalidInputError for what cannot be imported, before anything is sent; grpc.RpcError from the cluster.
    """
    named = image_name(name)
    with Workspace() as workspace:
        image = change_image(read_image(named, source, workspace, progress, platform), changes)
        return upload(content, project, named, image, progress)


def image_name(name: str) -> str:
    """Return the name that an image is given; InvalidInputError."""
    try:
        named = normalise(name)
    except InvalidError as error:
        raise InvalidInputError(str(error)) from None
    if is_digest(named):
        raise InvalidInputError(f"'{name}' is a digest, not a name", "give the image a name such as web:1")
    return named


def read_image(
    name: str, source: str, workspace: Workspace, progress: Progress = quiet, platform: Platform | None = None
) -> LocalImage:
    """Return the image in `source`, read whole and verified. `workspace` must last as long as the image is used."""
    maker = LayerMaker(source, workspace.directory, progress)
    wanted = platform or host_platform()
    if source != STDIN and Path(source).is_dir():
        directory = DirectoryFiles(source)
        if not is_layout(directory):
            raise BrokenArchiveError(
                source, "it is a directory, but no OCI layout (for a root filesystem: tar -C DIRECTORY -c . | …)"
            )
        return read_layout(directory, maker, name, wanted)
    given = Given(source, workspace)
    files = given.files()
    if files is not None and is_layout(files):
        return read_layout(files, maker, name, wanted)
    if files is not None and is_docker_archive(files):
        return read_docker_archive(files, maker, name, platform)
    return read_rootfs(given, maker, wanted)
