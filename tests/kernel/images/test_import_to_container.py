"""From a tar on a user's machine to a root that programs run in: import, fetch over gRPC, unpack, mount, chroot."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from argosy.agent.images.store import ImageStore, Limits
from argosy.cli.channel import FailoverChannel
from argosy.cli.images.importer import import_image
from argosy.controller.api.content import ContentServicer
from argosy.controller.api.errors import ErrorInterceptor
from argosy.controller.content.blobs import BlobStore
from argosy.core.image import Image
from argosy.proto.argosy.v1 import content_pb2 as pb
from argosy.proto.argosy.v1.content_pb2_grpc import ContentStub, add_ContentServicer_to_server
from tests.kernel.images.conftest import overlay
from tests.rootfs import busybox_rootfs_tar


async def test_an_imported_root_filesystem_runs(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    await blobs.open()

    async def store_image(image: Image) -> Image:
        return image

    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    add_ContentServicer_to_server(ContentServicer(blobs, store_image), server)
    address = f"unix://{tmp_path}/s.sock"
    server.add_insecure_port(address)
    await server.start()
    try:
        rootfs = busybox_rootfs_tar(tmp_path / "r.tar.gz", {"srv/hello": (b"#!/bin/sh\necho hello from $0\n", 0o755)})
        content = ContentStub(FailoverChannel((address,)))
        image = await asyncio.to_thread(import_image, "web:1", str(rootfs), content, "default")
        async with grpc.aio.insecure_channel(address) as channel:

            async def fetch(digest: str, offset: int) -> AsyncIterator[bytes]:
                async for message in ContentStub(channel).GetBlob(pb.GetBlobRequest(digest=digest, offset=offset)):
                    yield message.data

            images = ImageStore(tmp_path / "images", fetch, Limits(min_free_bytes=0))
            await images.open()
            unpacked = await images.ensure(image)
            await images.close()
        with overlay(unpacked, tmp_path / "root") as root:
            assert _output(root, "/srv/hello") == "hello from /srv/hello\n"
            assert _output(root, "/bin/stat", "-c", "%a %u", "/tmp") == "1777 0\n"
    finally:
        await server.stop(None)


def _output(root: Path, *command: str) -> str:
    ran = subprocess.run(["chroot", str(root), *command], capture_output=True, text=True, check=True)
    return ran.stdout
