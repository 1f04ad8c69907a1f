"""The other controllers' copies of content: passes uploads on to them, and fetches from them what is missing here.

An upload has happened when a majority of the controllers hold and have verified the blob, so that losing a minority of
them loses no image. A controller that was away fetches what it lacks when it is first asked for.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc
import structlog

from argosy.controller.content.blobs import BlobStore
from argosy.core.errors import NotFoundError, TransientError
from argosy.proto.argosy.v1 import content_pb2 as pb
from argosy.proto.argosy.v1 import content_pb2_grpc as rpc

log = structlog.get_logger(__name__)

CHUNK_BYTES = 256 * 1024


class Replicas:
    """`peers`: addresses of all other controllers, "host:port"."""

    def __init__(self, blobs: BlobStore, peers: tuple[str, ...]) -> None:
        self._blobs = blobs
        self._peers = peers

    async def replicate(self, digest: str, size: int) -> None:
        """Pass a blob on to all peers; return when a majority of the controllers have it, this one included.

        TransientError when too few can be reached. Slower peers go on receiving it after that.
        """
        needed = (len(self._peers) + 1) // 2  # a majority of all, less this one
        sends = [asyncio.create_task(self._send(peer, digest, size)) for peer in self._peers]
        done = 0
        for finished in asyncio.as_completed(sends):
            if done >= needed:
                break
            try:
                await finished
            except grpc.aio.AioRpcError as e:
                log.warning("content not passed on", digest=digest, code=e.code().name, details=e.details())
            else:
                done += 1
        if done < needed:
            raise TransientError(
                f"only {done + 1} of {len(self._peers) + 1} controllers took the content: a majority must; try again "
                "when more of them are up"
            )

    async def _send(self, peer: str, digest: str, size: int) -> None:
        async with grpc.aio.insecure_channel(peer) as channel:
            stub = rpc.ContentStub(channel)
            missing = await stub.FindMissing(pb.FindMissingRequest(digests=[digest]), timeout=5)
            if missing.missing:
                await stub.PutBlob(self._messages(digest, size))

    async def _messages(self, digest: str, size: int) -> AsyncIterator[pb.PutBlobRequest]:
        yield pb.PutBlobRequest(digest=digest, size=size, replica=True)
        async for data in self._blobs.get(digest):
            yield pb.PutBlobRequest(data=data)

    async def fetch(self, digest: str) -> None:
        """Get a blob that is not here from any peer that has it; NotFoundError when none has, or none answers."""
        for peer in self._peers:
            try:
                async with grpc.aio.insecure_channel(peer) as channel:
                    request = pb.GetBlobRequest(digest=digest, local_only=True)
                    await self._receive(digest, aiter(rpc.ContentStub(channel).GetBlob(request)))
                return
            except grpc.aio.AioRpcError as e:
                log.info("peer lacks content", peer=peer, digest=digest, code=e.code().name)
        raise NotFoundError(f"no controller that can be reached has the content {digest}")

    async def _receive(self, digest: str, responses: AsyncIterator[pb.GetBlobResponse]) -> None:
        first = await anext(responses)
        await self._blobs.put(digest, first.size, _data(first.data, responses))


async def _data(first: bytes, rest: AsyncIterator[pb.GetBlobResponse]) -> AsyncIterator[bytes]:
    yield first
    async for response in rest:
        yield response.data
