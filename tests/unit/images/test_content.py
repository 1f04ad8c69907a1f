"""The blob store and the Content service over real gRPC."""

import asyncio
import os
import random
from pathlib import Path

import grpc
import pytest

from argosy.controller.content.blobs import BlobStore
from argosy.core.errors import ExhaustedError, InvalidError, NotFoundError
from argosy.core.oci.digests import digest_of
from argosy.proto.argosy.v1 import content_pb2 as pb
from argosy.proto.argosy.v1.content_pb2_grpc import ContentStub

DATA = random.Random(1).randbytes(600_000)
DIGEST = digest_of(DATA)


async def pieces(data, size=100_000):
    for at in range(0, len(data), size):
        yield data[at : at + size]


def files(store: BlobStore):
    return [p for p in store._blobs.parent.rglob("*") if p.is_file()]


@pytest.fixture
async def store(tmp_path: Path):
    made = BlobStore(tmp_path / "b", min_free_bytes=0)
    await made.open()
    return made


async def test_a_blob_comes_back_from_any_offset(store):
    assert await store.put(DIGEST, len(DATA), pieces(DATA)) == len(DATA)
    assert await store.has(DIGEST)
    for offset in (0, 1, 300_000, len(DATA)):
        assert b"".join([c async for c in store.get(DIGEST, offset)]) == DATA[offset:]
    assert await store.du() == len(DATA)
    with pytest.raises(InvalidError, match="no byte"):
        await anext(store.get(DIGEST, len(DATA) + 1))
    with pytest.raises(NotFoundError):
        await anext(store.get(digest_of(b"other")))


@pytest.mark.parametrize(
    ("digest", "size", "says"),
    [
        (digest_of(b"other"), len(DATA), "has the digest"),
        (DIGEST, len(DATA) - 1, "longer than"),
        (DIGEST, len(DATA) + 1, "cut off"),
        ("sha256:../../etc/passwd", len(DATA), "not a digest"),
        ("sha512:" + "0" * 64, len(DATA), "not a digest"),
    ],
)
async def test_what_is_not_what_it_says_is_not_kept(store, digest, size, says):
    with pytest.raises(InvalidError, match=says):
        await store.put(digest, size, pieces(DATA))
    assert files(store) == []


async def test_an_upload_that_stops_leaves_nothing(store):
    async def stuck():
        yield DATA[:100]
        await asyncio.Event().wait()

    upload = asyncio.create_task(store.put(DIGEST, len(DATA), stuck()))
    async with asyncio.timeout(5):
        while not files(store):  # noqa: ASYNC110
            await asyncio.sleep(0)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert files(store) == []


async def test_a_crash_leaves_nothing_that_counts(store, tmp_path):
    (tmp_path / "b" / "new" / "half").write_bytes(b"half")
    assert not await store.has(digest_of(b"half"))
    await store.open()
    assert files(store) == []


async def test_the_same_blob_at_once_is_one_blob(store):
    await asyncio.gather(*(store.put(DIGEST, len(DATA), pieces(DATA)) for _ in range(8)))
    assert len(files(store)) == 1


async def test_gc_keeps_what_is_needed_or_young(store):
    other = digest_of(b"other")
    await store.put(DIGEST, len(DATA), pieces(DATA))
    await store.put(other, 5, pieces(b"other"))
    assert await store.gc(set()) == ()
    assert await store.gc({DIGEST}, min_age_s=-1) == (other,)
    assert await store.has(DIGEST)
    os.utime(store._path(DIGEST), (0, 0))
    assert await store.touch(DIGEST)
    assert await store.gc(set()) == ()


async def test_a_full_disk_is_said(tmp_path):
    full = BlobStore(tmp_path / "b", min_free_bytes=2**60)
    await full.open()
    with pytest.raises(ExhaustedError, match=r"disk is full.*argosy image rm"):
        await full.put(DIGEST, len(DATA), pieces(DATA))


async def test_a_disk_that_fills_while_writing_is_said(store, monkeypatch):
    import errno

    def write(fd, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("argosy.controller.content.blobs.os.write", write)
    with pytest.raises(ExhaustedError, match="disk is full"):
        await store.put(DIGEST, len(DATA), pieces(DATA))
    monkeypatch.undo()
    assert files(store) == []


def messages(data, digest=DIGEST, replica=False):
    yield pb.PutBlobRequest(digest=digest, size=len(data), replica=replica)
    for at in range(0, len(data), 100_000):
        yield pb.PutBlobRequest(data=data[at : at + 100_000])


async def test_the_service_stores_sends_and_passes_on(server):
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = ContentStub(channel)
        asked = pb.FindMissingRequest(digests=[DIGEST, digest_of(b"")])
        assert list((await stub.FindMissing(asked)).missing) == [DIGEST, digest_of(b"")]
        assert (await stub.PutBlob(messages(DATA))).size == len(DATA)
        assert (await stub.PutBlob(messages(b"", digest_of(b""), replica=True))).size == 0
        assert list((await stub.FindMissing(asked)).missing) == []
        assert server.replicated == [DIGEST]
        got = [m.data async for m in stub.GetBlob(pb.GetBlobRequest(digest=DIGEST, offset=1000))]
        assert b"".join(got) == DATA[1000:]
        assert (await stub.PutBlob(messages(DATA))).size == len(DATA)  # again: not stored twice, no error


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        (lambda s: s.PutBlob(messages(DATA, digest_of(b"x"))), grpc.StatusCode.INVALID_ARGUMENT, "has the digest"),
        (lambda s: s.PutBlob(iter(())), grpc.StatusCode.INVALID_ARGUMENT, "without any message"),
        (lambda s: s.FindMissing(pb.FindMissingRequest(digests=["x"])),
         grpc.StatusCode.INVALID_ARGUMENT, "not a digest"),
        (lambda s: s.TagImage(pb.TagImageRequest(name="Web", manifest_digest=DIGEST)),
         grpc.StatusCode.INVALID_ARGUMENT, "did you mean web"),
        (lambda s: s.TagImage(pb.TagImageRequest(name=DIGEST, manifest_digest=DIGEST)),
         grpc.StatusCode.INVALID_ARGUMENT, "cannot be named by a digest"),
        (lambda s: s.TagImage(pb.TagImageRequest(name="web", manifest_digest=DIGEST)),
         grpc.StatusCode.FAILED_PRECONDITION, "not uploaded yet: sha256:"),
    ],
)  # fmt: skip
async def test_what_the_service_refuses(server, call, code, says):
    async with grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=says) as caught:
            await call(ContentStub(channel))
    assert caught.value.code() is code
    assert server.images == {}


async def test_a_name_needs_all_blobs(server):
    import json

    layer = b"layer"
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest_of(layer)]}}).encode()
    described = {"digest": digest_of(layer), "size": 5, "mediaType": "application/vnd.oci.image.layer.v1.tar"}
    manifest = json.dumps({
        "schemaVersion": 2,
        "config": {"digest": digest_of(config), "size": len(config)},
        "layers": [described],
    }).encode()  # fmt: skip
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = ContentStub(channel)
        tag = pb.TagImageRequest(project="p", name="web", manifest_digest=digest_of(manifest))
        for blob in (manifest, config, layer):
            with pytest.raises(grpc.aio.AioRpcError, match=f"not uploaded yet: {digest_of(blob)}"):
                await stub.TagImage(tag)
            await stub.PutBlob(messages(blob, digest_of(blob)))
        image = await stub.TagImage(tag)
    assert (image.name, image.meta.project, image.digest) == ("web:latest", "p", digest_of(manifest))
    assert server.images["web:latest"].layers[0].diff_id == digest_of(layer)
