"""An image on the user's machine: its documents and layers, not yet uploaded."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

from argosy.core.oci import media
from argosy.core.oci.digests import digest_of

Progress: TypeAlias = Callable[[str, int, int], None]
"""(what is being done, bytes done, bytes in all); called often."""


@dataclass(frozen=True, slots=True)
class LocalLayer:
    """A layer blob as it will be stored. `open` returns a new reader of its bytes."""

    digest: str
    diff_id: str
    size: int
    media_type: str
    open: Callable[[], BinaryIO]

    def descriptor(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class LocalImage:
    """A whole image."""

    manifest: bytes
    config: bytes
    layers: tuple[LocalLayer, ...]

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return digest_of(self.manifest)


def assemble(config: bytes, layers: Sequence[LocalLayer]) -> LocalImage:
    """Return an image of a configuration and its layers. The same input gives the same bytes, thus the same image."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [layer.descriptor() for layer in layers],
    }
    return LocalImage(document(manifest), config, tuple(layers))


def document(content: Mapping[str, Any]) -> bytes:
    """Return a JSON document, in one form."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
