"""The other controllers' copies of content: passes uploads on to them, and fetches from them what is missing here.

An upload has happened when a majority of the controllers hold and have verified the blob, so that losing a minority of
them loses no image. A controller that was away fetches what it lacks when it is first asked for.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc
import structlog

from argosy.controller.content.blobs import BlobStore
from argosy.core.errors import InvalidError, NotFoundError, TransientError
from argosy.proto.argosy.v1 import content_pb2 as pb
from argosy.proto.argosy.v1 import content_pb2_grpc as rpc

log = structlog.get_logger(__name__)

PATIENCE_S = 15.0
"""How long a peer may take to answer, and for the next piece of content."""
LEAST_RATE = 2**20
"""Bytes a second that a peer has to take, at least: one that hangs must not hold an import for ever."""


class Replicas:
    """`peers`: addresses of all other controllers, "host:port"."""

    def __init__(self, blobs: BlobStore, peers: tuple[str, ...]) -> None:
        self._blobs = blobs
        self._peers = peers
        self._sending: set[asyncio.Task[bool]] = set()
        self._fetching: dict[str, asyncio.Task[None]] = {}

    async def replicate(self, digest: str, size: int) -> None:
        """Pass a blob on to all peers; return when a majority of the controllers have it, this one included.

        TransientError when too few can be reached. Slower peers go on receiving it after that.
        """
        needed = (len(self._peers) + 1) // 2  # a majority of all, less this one
        waiting = {asyncio.create_task(self._sent(peer, digest, size)) for peer in self._peers}
        self._sending |= waiting
        for sending in waiting:
            sending.add_done_callback(self._sending.discard)
        done = 0
        while waiting and done < needed:
            finished, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done += sum(sending.result() for sending in finished)
        if done < needed:
            raise TransientError(
                f"only {done + 1} of {len(self._peers) + 1} controllers took the content: a majority must; try again "
                "when more of them are up"
            )

    async def _sent(self, peer: str, digest: str, size: int) -> bool:
        """Send a blob to a peer; return whether it has it now."""
        try:
            async with grpc.aio.insecure_channel(peer) as channel:
                stub = rpc.ContentStub(channel)
                missing = await stub.FindMissing(pb.FindMissingRequest(digests=[digest]), timeout=PATIENCE_S)
                if missing.missing:
                    await stub.PutBlob(self._messages(digest, size), timeout=PATIENCE_S + size / LEAST_RATE)
        except grpc.aio.AioRpcError as e:
            log.warning("content not passed on", peer=peer, digest=digest, code=e.code().name, details=e.details())
            return False
        return True

    async def _messages(self, digest: str, size: int) -> AsyncIterator[pb.PutBlobRequest]:
        yield pb.PutBlobRequest(digest=digest, size=size, replica=True)
        async for data in self._blobs.get(digest):
            yield pb.PutBlobRequest(data=data)

    async def fetch(self, digest: str) -> None:
        """Get a blob that is not here from any peer that has it; NotFoundError when none has, or none answers.

        Whoever asks for one that is being fetched waits for that.
        """
        fetching = self._fetching.get(digest)
        if fetching is None:
            fetching = self._fetching[digest] = asyncio.create_task(self._fetch(digest), name=f"fetch {digest}")
            fetching.add_done_callback(lambda _: self._fetching.pop(digest))
        await asyncio.shield(fetching)

    async def _fetch(self, digest: str) -> None:
        for peer in self._peers:
            try:
                async with grpc.aio.insecure_channel(peer) as channel:
                    request = pb.GetBlobRequest(digest=digest, local_only=True)
                    await self._receive(digest, aiter(rpc.ContentStub(channel).GetBlob(request)))
                return
            except grpc.aio.AioRpcError as e:
                log.info("peer lacks content", peer=peer, digest=digest, code=e.code().name)
            except (InvalidError, TimeoutError) as e:
                log.warning("peer does not give content", peer=peer, digest=digest, why=str(e) or "it hangs")
        raise NotFoundError(f"no controller that can be reached has the content {digest}")

    async def _receive(self, digest: str, responses: AsyncIterator[pb.GetBlobResponse]) -> None:
        first = await _next(responses) or pb.GetBlobResponse()  # nothing at all: an empty blob
        await self._blobs.put(digest, first.size, _data(first.data, responses))


async def _data(first: bytes, rest: AsyncIterator[pb.GetBlobResponse]) -> AsyncIterator[bytes]:
    yield first
    while (response := await _next(rest)) is not None:
        yield response.data


async def _next(responses: AsyncIterator[pb.GetBlobResponse]) -> pb.GetBlobResponse | None:
    """Return the next response, None after the last; TimeoutError when the peer hangs."""
    async with asyncio.timeout(PATIENCE_S):
        return await anext(responses, None)
