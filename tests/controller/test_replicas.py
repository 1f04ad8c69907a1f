"""Content on several controllers: what peers that are away, hang or lie do to an import and to a fetch."""

import asyncio
import contextlib
import hashlib

import grpc
import pytest

from argosy.controller.api.content import ContentServicer
from argosy.controller.api.errors import ErrorInterceptor
from argosy.controller.content import replicas
from argosy.controller.content.blobs import BlobStore
from argosy.controller.content.replicas import Replicas
from argosy.core.errors import NotFoundError, TransientError
from argosy.proto.argosy.v1 import content_pb2 as pb
from argosy.proto.argosy.v1 import content_pb2_grpc as rpc
from tests.controller.harness import until
from tests.store.etcd_server import free_port

DATA = b"layer" * 100_000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class Hanging(rpc.ContentServicer):
    """Says what it lacks, and then nothing more, until `released`."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def FindMissing(self, request, context):
        return pb.FindMissingResponse(missing=request.digests)

    async def PutBlob(self, request_iterator, context):
        await self.released.wait()
        return pb.PutBlobResponse()

    async def GetBlob(self, request, context):
        await self.released.wait()
        yield pb.GetBlobResponse()


class Lying(rpc.ContentServicer):
    """Gives other bytes than were asked for."""

    async def GetBlob(self, request, context):
        yield pb.GetBlobResponse(data=b"x" * len(DATA), size=len(DATA))


@pytest.fixture
async def peers(tmp_path):
    """A function that makes controllers' content: with a servicer, or real; returns (address, blobs)."""
    async with contextlib.AsyncExitStack() as stack:
        numbers = iter(range(100))

        async def make(servicer=None):
            blobs = BlobStore(tmp_path / str(next(numbers)), min_free_bytes=0)
            await blobs.open()
            server = grpc.aio.server(interceptors=[ErrorInterceptor()])
            rpc.add_ContentServicer_to_server(servicer or ContentServicer(blobs, None), server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            return f"127.0.0.1:{port}", blobs

        yield make


async def put(blobs: BlobStore, data: bytes = DATA) -> str:
    async def chunks():
        yield data

    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await blobs.put(digest, len(data), chunks())
    return digest


async def test_an_import_waits_for_a_majority_and_for_no_more(peers):
    (_, own), (good, there) = await peers(), await peers()
    slow = Hanging()
    hanging, _ = await peers(slow)
    mine = Replicas(own, (hanging, good))
    await put(own)
    async with asyncio.timeout(10):
        await mine.replicate(DIGEST, len(DATA))
    assert await there.has(DIGEST)
    assert len(mine._sending) == 1  # the other goes on receiving
    slow.released.set()
    await until(lambda: not mine._sending)


async def test_too_few_controllers_refuse_an_import(peers):
    _, own = await peers()
    await put(own)
    dead = f"127.0.0.1:{free_port()}"
    with pytest.raises(TransientError, match="only 1 of 3"):
        await Replicas(own, (dead, f"127.0.0.1:{free_port()}")).replicate(DIGEST, len(DATA))


async def test_a_peer_that_hangs_does_not_hold_an_import_for_ever(peers, monkeypatch):
    monkeypatch.setattr(replicas, "PATIENCE_S", 0.3)
    _, own = await peers()
    hanging, _ = await peers(Hanging())
    await put(own)
    with pytest.raises(TransientError):
        async with asyncio.timeout(5):
            await Replicas(own, (hanging,)).replicate(DIGEST, len(DATA))


async def test_what_is_missing_comes_from_a_peer_that_has_it_whatever_the_others_do(peers, monkeypatch):
    monkeypatch.setattr(replicas, "PATIENCE_S", 0.3)
    _, own = await peers()
    (hanging, _), (lying, _) = await peers(Hanging()), await peers(Lying())
    (lacking, _), (good, there) = await peers(), await peers()
    await put(there)
    mine = Replicas(own, (f"127.0.0.1:{free_port()}", hanging, lying, lacking, good))
    async with asyncio.timeout(10):
        await asyncio.gather(*(mine.fetch(DIGEST) for _ in range(5)))
    assert await own.read(DIGEST, len(DATA)) == DATA
    assert not mine._fetching


async def test_an_empty_blob_can_be_fetched(peers):
    _, own = await peers()
    good, there = await peers()
    empty = await put(there, b"")
    await Replicas(own, (good,)).fetch(empty)
    assert await own.size(empty) == 0


async def test_what_nobody_has_is_not_found(peers):
    _, own = await peers()
    lacking, _ = await peers()
    with pytest.raises(NotFoundError):
        await Replicas(own, (lacking,)).fetch(DIGEST)
