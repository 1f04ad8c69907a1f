"""The Content service: uploads of blobs from the CLI and other controllers, downloads by agents, names for images."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from argosy.controller.changes.refs import project_of
from argosy.controller.content.blobs import BlobStore
from argosy.controller.content.manifest import build_image, config_digest_of
from argosy.core.codec import encode
from argosy.core.errors import InvalidError, PreconditionError
from argosy.core.image import Image
from argosy.core.oci.digests import check_digest, is_digest
from argosy.core.oci.media import MAX_DOCUMENT_BYTES
from argosy.core.oci.names import normalise
from argosy.proto.argosy.v1 import content_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2
from argosy.proto.argosy.v1.content_pb2_grpc import ContentServicer as Base

Context = grpc.aio.ServicerContext[Any, Any]
MAX_DIGESTS: Final = 10_000
MAX_RECORD_BYTES: Final = 512 * 1024
"""Of an image's record in etcd, which takes 1.5 MiB a request."""


class ContentServicer(Base):
    """Serves a BlobStore. Errors are raised as those of core.errors; the interceptor of the server maps them.

    `store_image` stores the image under its name and returns it as stored. `replicate` passes a blob that was just
    uploaded here on to the other controllers and returns when enough have it; raising fails the upload. `fetch` gets
    a blob that is not here from another controller, or raises NotFoundError.
    """

    def __init__(
        self,
        blobs: BlobStore,
        store_image: Callable[[Image], Awaitable[Image]],
        replicate: Callable[[str, int], Awaitable[None]] | None = None,
        fetch: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._blobs = blobs
        self._store_image = store_image
        self._replicate = replicate
        self._fetch = fetch

    async def FindMissing(self, request: pb.FindMissingRequest, context: Context) -> pb.FindMissingResponse:
        """Return which of some blobs are not here."""
        if len(request.digests) > MAX_DIGESTS:
            raise InvalidError(f"at most {MAX_DIGESTS} digests may be asked for at once")
        return pb.FindMissingResponse(missing=await self._missing(list(dict.fromkeys(request.digests))))

    async def PutBlob(self, request_iterator: AsyncIterator[pb.PutBlobRequest], context: Context) -> pb.PutBlobResponse:
        """Store one blob, verified, and pass it on unless it was passed on to us."""
        messages = aiter(request_iterator)
        first = await anext(messages, None)
        if first is None:
            raise InvalidError("an upload without any message")
        check_digest(first.digest)

        async def chunks() -> AsyncIterator[bytes]:
            yield first.data
            async for message in messages:
                yield message.data

        size = await self._blobs.put(first.digest, first.size, chunks())
        if self._replicate is not None and not first.replica:
            await self._replicate(first.digest, size)
        return pb.PutBlobResponse(size=size)

    async def GetBlob(self, request: pb.GetBlobRequest, context: Context) -> AsyncIterator[pb.GetBlobResponse]:
        """Send one blob from an offset on."""
        check_digest(request.digest)
        if self._fetch is not None and not request.local_only and not await self._blobs.has(request.digest):
            await self._fetch(request.digest)
        size = await self._blobs.size(request.digest)
        async for data in self._blobs.get(request.digest, request.offset):
            yield pb.GetBlobResponse(data=data, size=size)
            size = 0

    async def TagImage(self, request: pb.TagImageRequest, context: Context) -> types_pb2.Image:
        """Give a name to a manifest, all blobs of which must be here."""
        name = normalise(request.name)
        if is_digest(name):
            raise InvalidError("an image cannot be named by a digest: give it a name such as web:1")
        image = await self._image(project_of(request.project), name, check_digest(request.manifest_digest))
        if (size := encode(image, types_pb2.Image).ByteSize()) > MAX_RECORD_BYTES:
            raise InvalidError(
                f"the image's configuration (environment, labels, layers) takes {size} bytes; at most "
                f"{MAX_RECORD_BYTES} can be kept"
            )
        return encode(await self._store_image(image), types_pb2.Image)

    async def _image(self, project: str, name: str, digest: str) -> Image:
        await self._require([digest])
        manifest = await self._blobs.read(digest, MAX_DOCUMENT_BYTES)
        config_digest = config_digest_of(manifest)
        await self._require([config_digest])
        image = build_image(project, name, manifest, await self._blobs.read(config_digest, MAX_DOCUMENT_BYTES))
        await self._require([layer.digest for layer in image.layers])
        for layer in image.layers:
            if (found := await self._blobs.size(layer.digest)) != layer.size:
                raise InvalidError(f"layer {layer.digest} has {found} bytes, the manifest says {layer.size}")
        return image

    async def _require(self, digests: list[str]) -> None:
        if missing := await self._missing(digests):
            raise PreconditionError(f"not uploaded yet: {', '.join(missing)}")

    async def _missing(self, digests: list[str]) -> list[str]:
        there = await asyncio.gather(*map(self._blobs.touch, digests))
        return [digest for digest, here in zip(digests, there, strict=True) if not here]
