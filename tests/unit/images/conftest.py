"""A controller's content service on a loopback socket, with the server's real error mapping and a dict for etcd."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest_asyncio

from argosy.controller.api.content import ContentServicer
from argosy.controller.api.errors import ErrorInterceptor
from argosy.controller.content.blobs import BlobStore
from argosy.core.image import Image
from argosy.proto.argosy.v1.content_pb2_grpc import add_ContentServicer_to_server


@dataclass
class ContentServer:
    """What runs, what it stored, what it was told to pass on."""

    address: str
    blobs: BlobStore
    images: dict[str, Image] = field(default_factory=dict)
    replicated: list[str] = field(default_factory=list)


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ContentServer]:
    blobs = BlobStore(tmp_path / "blobs", min_free_bytes=0)
    await blobs.open()
    running = ContentServer(f"unix://{tmp_path}/content.sock", blobs)

    async def store_image(image: Image) -> Image:
        running.images[image.name] = image
        return image

    async def replicate(digest: str, size: int) -> None:
        running.replicated.append(digest)

    served = grpc.aio.server(interceptors=[ErrorInterceptor()])
    add_ContentServicer_to_server(ContentServicer(blobs, store_image, replicate), served)
    served.add_insecure_port(running.address)
    await served.start()
    yield running
    await served.stop(None)
