"""Makes an image of one layer of a root filesystem's tar."""

from argosy.cli.images.archive import Given
from argosy.cli.images.layer import LayerMaker
from argosy.cli.images.local import LocalImage, assemble, document
from argosy.cli.images.platforms import Platform

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def read_rootfs(given: Given, maker: LayerMaker, platform: Platform) -> LocalImage:
    """Return the image. Its configuration has nothing but a PATH, and no date: the same tar is the same image."""
    layer = maker.make("the root filesystem", given.reader, given.size)
    config = {
        "os": platform.os,
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": {"Env": [DEFAULT_PATH]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }
    return assemble(document(config), [layer])
