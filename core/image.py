"""Images: a name for a manifest, and the parts of it that agents need."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from argosy.core.meta import Meta
from argosy.core.node import Platform
from argosy.core.service import Healthcheck


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer blob: `digest` of the blob as stored, `diff_id` of the tar inside it."""

    digest: str = ""
    diff_id: str = ""
    size: int = 0
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an OCI image configuration says of the container to run."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """A named image. `digest` is the manifest's; layers are base first; `size` counts all blobs, in bytes."""

    meta: Meta = Meta()
    name: str = ""
    digest: str = ""
    platform: Platform = Platform()
    layers: tuple[Layer, ...] = ()
    config: ImageConfig = ImageConfig()
    size: int = 0
    config_digest: str = ""
    schema: int = 1
